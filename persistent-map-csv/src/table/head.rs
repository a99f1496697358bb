//! Finding the header: what stands before it, how the cells are separated, and which column has the keys.

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::refused;

use super::{Head, TableReader, foreign, save_as_utf8};
use crate::settings::Settings;
use crate::shape::{Shape, legible, listed, meant_by};
use crate::text::{BOM, Dialect, Scan, Scanner, unguarded};

/// Separators that are looked for.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Others, which must be named because they stand in names, too.
const RARE_SEPARATORS: [u8; 9] = *b":^~!\x1f\x1e/# ";

/// How many lines of titles may stand before a header.
const TITLE_LINES: usize = 20;

/// A line that may be the header, its cells separated in one way.
struct Candidate {
    line: u64,
    end: usize,
    scanner: Scanner,
    dialect: Dialect,
    columns: Vec<String>,
    key: Option<usize>,
}

/// What was found where the header should be.
#[derive(Default)]
struct Missing {
    line: u64,
    columns: Vec<String>,
}

impl TableReader {
    pub(super) fn find_header(&mut self, settings: &Settings) -> Result<()> {
        self.check_encoding()?;
        let bom = self.buffer.starts_with(BOM.as_bytes());
        let mut start = if bom { BOM.len() } else { 0 };
        let mut dialect = Dialect {
            bom,
            comment: settings.comments(),
            ..Dialect::default()
        };
        let mut separators: Vec<u8> = settings.separator().into_iter().chain(SEPARATORS).collect();
        if let Some((separator, end)) = named_separator(&self.buffer[start..]) {
            separators = vec![separator];
            start += end;
        }
        // Else a row with an empty first cell would be a comment.
        separators.retain(|separator| Some(*separator) != dialect.comment);
        let mut missing = None;
        for _ in 0..=if settings.format.title_lines {
            TITLE_LINES
        } else {
            0
        } {
            start = self.skip(start, dialect)?;
            for separator in &separators {
                dialect.delimiter = *separator;
                let Some(found) = self.candidate(start, dialect, settings)? else {
                    continue;
                };
                if let Some(key) = found.key {
                    return self.begin_rows(found, key, start, settings);
                }
                let missing: &mut Missing = missing.get_or_insert_with(Missing::default);
                if missing.line == 0 || missing.columns.len() < found.columns.len() {
                    missing.line = found.line;
                    missing.columns = found.columns;
                }
            }
            start = self.next_line(start)?;
        }
        Err(self.no_key_column(settings, &missing.unwrap_or_default(), dialect))
    }

    fn begin_rows(
        &mut self,
        found: Candidate,
        key: usize,
        start: usize,
        settings: &Settings,
    ) -> Result<()> {
        self.check_columns(&found.columns, found.line, settings)?;
        let shape = Shape {
            columns: found.columns,
            key,
        };
        let text = self.buffer[..found.end].to_vec();
        self.head =
            Head::new(found.dialect, shape, text, start).map_err(|error| self.storage(error))?;
        self.scanner = found.scanner;
        self.begun = found.scanner;
        self.take(found.end);
        Ok(())
    }

    /// Where the first line begins that may be a header.
    fn skip(&mut self, mut start: usize, dialect: Dialect) -> Result<usize> {
        loop {
            let rest = &self.buffer[start..];
            match rest.first() {
                Some(b'\r' | b'\n') => start += 1,
                Some(_) if dialect.is_comment(rest) => start = self.next_line(start)?,
                _ => return Ok(start),
            }
        }
    }

    fn next_line(&mut self, start: usize) -> Result<usize> {
        let mut seen = start;
        loop {
            let end = self.buffer[seen..]
                .iter()
                .position(|byte| matches!(byte, b'\r' | b'\n'));
            if let Some(end) = end {
                let end = seen + end + 1;
                let is_pair =
                    self.buffer[..end].ends_with(b"\r") && self.buffer.get(end) == Some(&b'\n');
                return Ok(end + usize::from(is_pair));
            }
            seen = self.buffer.len();
            if self.at_end {
                return Ok(seen);
            }
            self.check_size()?;
            self.fill()?;
        }
    }

    /// The line at `start` as a header; `None` if it makes no sense with cells separated like this.
    fn candidate(
        &mut self,
        start: usize,
        dialect: Dialect,
        settings: &Settings,
    ) -> Result<Option<Candidate>> {
        let mut scanner = Scanner::new(dialect.delimiter, dialect.comment);
        scanner.line += lines(&self.buffer[..start]);
        let line = scanner.line;
        let mut from = start;
        let end = loop {
            match scanner.next_row(&self.buffer, from) {
                Scan::Row(end) => break end,
                Scan::More if self.at_end => {
                    scanner.line += 1;
                    break self.buffer.len();
                }
                Scan::More => {
                    from = self.buffer.len();
                    self.check_size()?;
                    self.fill()?;
                }
                Scan::AfterQuote { .. } | Scan::BeforeQuote => return Ok(None),
            }
        };
        let text = &self.buffer[start..end];
        let dialect = Dialect {
            crlf: text.ends_with(b"\r\n"),
            ..dialect
        };
        let columns = self.columns(dialect, text, line)?;
        let key = columns
            .iter()
            .position(|column| *column == settings.key_column);
        Ok(Some(Candidate {
            line,
            end,
            scanner,
            dialect,
            columns,
            key,
        }))
    }

    fn columns(&self, dialect: Dialect, text: &[u8], line: u64) -> Result<Vec<String>> {
        let records = dialect.records(text).map_err(|error| self.storage(error))?;
        let cells = records.first().into_iter().flatten();
        cells
            .map(|cell| match std::str::from_utf8(unguarded(cell)) {
                Ok(name) => Ok(name.trim().to_string()),
                Err(_) => Err(self.fault(
                    line,
                    "the header is not UTF-8",
                    &save_as_utf8(&self.path, "WINDOWS-1252"),
                )),
            })
            .collect()
    }

    fn check_encoding(&self) -> Result<()> {
        let head = &self.buffer[..];
        if head.is_empty() {
            return Err(refused(
                &self.path,
                "it is an empty file, and a table has a header at least",
                "If nothing of value was there, delete it and a new table is made; otherwise restore it from a backup",
                None,
            ));
        }
        if let Some(found) = foreign::binary(head) {
            return Err(self.foreign(found));
        }
        let encoding = match head {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
            [a, 0, b, 0, ..] if *a > 0 && *b > 0 => "UTF-16LE",
            [0, a, 0, b, ..] if *a > 0 && *b > 0 => "UTF-16BE",
            [0, ..] | [_, 0, ..] | [_, _, 0, ..] | [_, _, _, 0, ..] => {
                return Err(self.foreign((
                    "it is not text",
                    "Name a table, or restore it from a backup if it was one",
                )));
            }
            _ => return Ok(()),
        };
        Err(self.fault(
            1,
            format!("the text is {encoding}"),
            &save_as_utf8(&self.path, encoding),
        ))
    }

    fn check_columns(&self, columns: &[String], line: u64, settings: &Settings) -> Result<()> {
        let key = &settings.key_column;
        if columns.iter().filter(|column| *column == key).count() > 1 {
            return Err(self.fault(
                line,
                format!("there are two columns `{key}`"),
                "Give one of them another name",
            ));
        }
        if columns.len() < 2 {
            return Err(self.fault(
                line,
                "there is no column beside the key's",
                "Add a column for each field of the value, or one called `value`",
            ));
        }
        Ok(())
    }

    fn foreign(&self, (what, advice): (&str, &str)) -> PersistentError {
        refused(
            &self.path,
            what,
            &format!("{advice}. The file was not changed"),
            None,
        )
    }

    fn no_key_column(
        &self,
        settings: &Settings,
        missing: &Missing,
        dialect: Dialect,
    ) -> PersistentError {
        if let Some(found) = foreign::text(&self.buffer) {
            return self.foreign(found);
        }
        let (key, columns) = (&settings.key_column, &missing.columns);
        let advice = if let Some(advice) = self.header_below(settings, dialect) {
            advice
        } else if let Some(column) = meant_by(key, columns) {
            let shown = legible(column);
            if *shown == *column {
                format!(
                    "Did you mean the column `{column}`? Name it with `CsvBackend::new(..).key_column({column:?})`"
                )
            } else {
                format!(
                    "Did you mean the column `{shown}`? Remove the letters that cannot be seen from its name in the header"
                )
            }
        } else if let Some(separator) = self.rare_separator(settings, dialect) {
            let separator = char::from(separator);
            format!(
                "Its cells seem to be separated by {separator:?}: open it with `CsvBackend::new(..).separator({separator:?})`"
            )
        } else if columns.first().is_some_and(String::is_empty) && columns.len() > 1 {
            "The first column has no name. If it has the keys, open it with `CsvBackend::new(..).key_column(\"\")`".to_string()
        } else {
            "Name the column that identifies a row with `CsvBackend::new(..).key_column(\"..\")`, or give another file. \
             A table without a header, as persistent-map 0.1 wrote it, is read by `import_0_1`"
                .to_string()
        };
        self.fault(
            missing.line.max(1),
            format!(
                "there is no column `{key}` for the keys; the columns are {}",
                listed(columns)
            ),
            &advice,
        )
    }

    /// What to do if the header is one of the next lines.
    fn header_below(&self, settings: &Settings, mut dialect: Dialect) -> Option<String> {
        let text = self
            .buffer
            .strip_prefix(BOM.as_bytes())
            .unwrap_or(&self.buffer);
        let mut before: Vec<&[u8]> = Vec::new();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n').take(1 + TITLE_LINES)) {
            for separator in SEPARATORS {
                if Some(separator) == dialect.comment {
                    continue;
                }
                dialect.delimiter = separator;
                let names_key = |cell: &[u8]| {
                    std::str::from_utf8(cell).is_ok_and(|cell| cell.trim() == settings.key_column)
                };
                let records = dialect.records(line).unwrap_or_default();
                if records
                    .first()
                    .is_none_or(|cells| cells.len() < 2 || !cells.iter().any(names_key))
                {
                    continue;
                }
                let mut signs = before.iter().filter_map(|line| line.first());
                let sign = signs
                    .next()
                    .copied()
                    .filter(|sign| b"#%;/!*-".contains(sign));
                return Some(match sign {
                    Some(sign) if signs.all(|other| *other == sign) => format!(
                        "Line {number} has it, after comments: open it with `CsvBackend::new(..).comments({:?})`",
                        char::from(sign)
                    ),
                    _ => format!(
                        "Line {number} has it, after other lines: open it with `CsvBackend::new(..).title_lines(true)`"
                    ),
                });
            }
            if !line.is_empty() && *line != b"\r"[..] {
                before.push(line);
            }
        }
        None
    }

    fn rare_separator(&self, settings: &Settings, mut dialect: Dialect) -> Option<u8> {
        let line = self.buffer.split(|byte| *byte == b'\n').next()?;
        let line = line.strip_prefix(BOM.as_bytes()).unwrap_or(line);
        RARE_SEPARATORS.into_iter().find(|separator| {
            dialect.delimiter = *separator;
            let records = dialect.records(line).unwrap_or_default();
            records.first().is_some_and(|cells| {
                cells.len() > 1
                    && cells
                        .iter()
                        .any(|cell| cell == settings.key_column.as_bytes())
            })
        })
    }
}

/// How many lines end in a text.
pub(super) fn lines(text: &[u8]) -> u64 {
    let ends = text.iter().enumerate().filter(|(at, byte)| match byte {
        b'\n' => true,
        b'\r' => text.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    ends.count() as u64
}

/// `sep=;` on the first line, which spreadsheets write and obey: the separator, and where the line ends.
fn named_separator(text: &[u8]) -> Option<(u8, usize)> {
    let [
        b's' | b'S',
        b'e' | b'E',
        b'p' | b'P',
        b'=',
        separator,
        rest @ ..,
    ] = text
    else {
        return None;
    };
    let end = match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => return None,
    };
    let is_separator = separator.is_ascii() && !matches!(separator, b'"' | b'\r' | b'\n');
    is_separator.then_some((*separator, 5 + end))
}
