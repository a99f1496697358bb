//! Reading a table: its header, then its rows a piece at a time, with the faults that a text file can have.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use csv_async::ByteRecord;
use persistent_map_core::{PersistentError, Result};
use persistent_map_file::refused;
use serde::{Deserialize, Serialize};

use crate::disk::DiskFile;
use crate::shape::{Shape, legible, listed};
use crate::text::{BOM, Dialect, Scan, Scanner, unguarded};

/// The longest row that is read; what is written is at most half of it (see `MAX_ENTRY_BYTES`). A quotation mark that is
/// never closed makes one row of all the rest, and shall not fill the memory.
pub(crate) const MAX_ROW_BYTES: usize = 40 << 20;

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// Which table it is, to tell it from an edited one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Print {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// What the header says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) dialect: Dialect,
    pub(crate) shape: Shape,
    /// The line as it stands, with a byte order mark if there is one.
    pub(crate) text: Vec<u8>,
}

/// One row.
pub(crate) struct Row {
    /// The line that it begins on.
    pub(crate) line: u64,
    /// Where its text is in the file.
    pub(crate) offset: u64,
    /// Where its text is in its piece.
    pub(crate) place: Range<usize>,
    pub(crate) cells: ByteRecord,
}

impl Row {
    /// The text of the key. Rows with fewer cells than that have an empty one.
    pub(crate) fn key(&self, shape: &Shape) -> &[u8] {
        unguarded(self.cells.get(shape.key).unwrap_or_default())
    }
}

/// Some rows and their text.
pub(crate) struct Piece {
    pub(crate) text: Vec<u8>,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct TableReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(crate) head: Head,
    scanner: Scanner,
    /// Read, and not yet given out.
    buffer: Vec<u8>,
    /// Where the buffer is in the file.
    offset: u64,
    /// How much of the buffer the scanner has seen.
    scanned: usize,
    at_end: bool,
    hasher: Hasher,
}

impl TableReader {
    /// Reads the header. The table has a column `key_column`.
    pub(crate) fn open(path: &Path, file: Box<dyn DiskFile>, key_column: &str) -> Result<Self> {
        let mut reader = TableReader {
            path: path.to_path_buf(),
            file,
            head: Head::default(),
            scanner: Scanner::new(b','),
            buffer: Vec::new(),
            offset: 0,
            scanned: 0,
            at_end: false,
            hasher: Hasher::new(),
        };
        reader.fill()?;
        reader.check_encoding()?;
        let bom = reader.buffer.starts_with(BOM.as_bytes());
        let skip = if bom { BOM.len() } else { 0 };

        let mut comma = None;
        for delimiter in [b',', b';', b'\t'] {
            let Some((end, scanner)) = reader.header_end(delimiter, skip)? else {
                continue;
            };
            let line = reader.buffer[..end].to_vec();
            let dialect = Dialect {
                delimiter,
                crlf: line.ends_with(b"\r\n"),
                bom,
            };
            let columns = reader.columns(dialect, &line[skip..])?;
            match columns.iter().position(|column| column == key_column) {
                Some(key) => {
                    reader.check_columns(&columns)?;
                    reader.head = Head {
                        dialect,
                        shape: Shape { columns, key },
                        text: line,
                    };
                    reader.scanner = scanner;
                    reader.take(end);
                    return Ok(reader);
                }
                None if comma.is_none() => comma = Some(columns),
                None => {}
            }
        }
        if reader.buffer.starts_with(b"SQLite format 3\0") {
            return Err(refused(
                path,
                "it is a SQLite database",
                "Open it with `SqliteBackend`, or give another file. It was not changed",
                None,
            ));
        }
        let found = listed(&comma.unwrap_or_default());
        Err(refused(
            path,
            format!(
                "line 1: there is no column `{key_column}` for the keys; the columns are {found}"
            ),
            "Name the column that identifies a row with `CsvBackend::new(..).key_column(\"..\")`, or give another file. \
             A table without a header, as persistent-map 0.1 wrote it, is read by `import_0_1`. The file was not changed",
            None,
        ))
    }

    /// The next rows; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>> {
        let mut ends = Vec::new();
        let mut rows_end = 0;
        loop {
            let line = self.scanner.line;
            match self.scanner.next_row(&self.buffer, self.scanned) {
                Scan::Row(end) => {
                    ends.push((line, rows_end..end));
                    (rows_end, self.scanned) = (end, end);
                }
                Scan::AfterQuote => {
                    return Err(self.fault(
                        self.scanner.line,
                        "there is text after the quotation mark that closes a cell",
                        "Put the whole cell in quotation marks, and write each one inside it twice",
                    ));
                }
                Scan::More => {
                    self.scanned = self.buffer.len();
                    if self.at_end {
                        self.last_row(line, rows_end, &mut ends)?;
                        break;
                    }
                    if rows_end > 0 {
                        break;
                    }
                    self.check_size()?;
                    self.fill()?;
                }
            }
        }
        let Some((_, last)) = ends.last() else {
            return Ok(None);
        };
        let text = self.take(last.end);
        let offset = self.offset - text.len() as u64;
        ends.retain(|(_, place)| !is_blank(&text[place.clone()]));
        let records = self
            .head
            .dialect
            .records(&text)
            .map_err(|error| self.storage(error))?;
        if records.len() != ends.len() {
            let error = std::io::Error::other("rows were counted in two ways, with two results");
            return Err(self.storage(error));
        }
        let rows = ends
            .into_iter()
            .zip(records)
            .map(|((line, place), cells)| Row {
                line,
                offset: offset + place.start as u64,
                place,
                cells,
            })
            .collect();
        Ok(Some(Piece { text, rows }))
    }

    /// Reads what is left, and says which table it was.
    pub(crate) fn finish(&mut self) -> Result<Print> {
        loop {
            let rest = self.buffer.len();
            self.take(rest);
            if self.at_end {
                return Ok(Print {
                    bytes: self.offset,
                    crc: self.hasher.clone().finalize(),
                });
            }
            self.fill()?;
        }
    }

    /// A part of the text, by its place in the file.
    pub(crate) fn text_at(&mut self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut text = vec![0; bytes];
        let read = self
            .file
            .read_at(offset, &mut text)
            .map_err(|error| self.storage(error))?;
        text.truncate(read);
        Ok(text)
    }

    fn fill(&mut self) -> Result<()> {
        let start = self.buffer.len();
        let at = self.offset + start as u64;
        let size = self.file.size().map_err(|error| self.storage(error))?;
        // One byte more than there is, to see the end.
        let wanted = usize::try_from(size.saturating_sub(at).saturating_add(1))
            .unwrap_or(PIECE)
            .clamp(4096, PIECE);
        self.buffer.resize(start + wanted, 0);
        let read = self
            .file
            .read_at(at, &mut self.buffer[start..])
            .map_err(|error| self.storage(error))?;
        self.buffer.truncate(start + read);
        self.hasher.update(&self.buffer[start..]);
        self.at_end = read < wanted;
        Ok(())
    }

    /// Gives out the beginning of the buffer.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(bytes);
        self.offset += bytes as u64;
        self.scanned = self.scanned.saturating_sub(bytes);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Where the header ends, if it makes sense with cells separated like this.
    fn header_end(&mut self, delimiter: u8, skip: usize) -> Result<Option<(usize, Scanner)>> {
        let mut scanner = Scanner::new(delimiter);
        let mut from = skip;
        loop {
            match scanner.next_row(&self.buffer, from) {
                Scan::Row(end) => return Ok(Some((end, scanner))),
                Scan::More if self.at_end => return Ok(Some((self.buffer.len(), scanner))),
                Scan::More => {
                    from = self.buffer.len();
                    self.check_size()?;
                    self.fill()?;
                }
                Scan::AfterQuote => return Ok(None),
            }
        }
    }

    fn columns(&self, dialect: Dialect, line: &[u8]) -> Result<Vec<String>> {
        let records = dialect.records(line).map_err(|error| self.storage(error))?;
        records
            .first()
            .into_iter()
            .flatten()
            .map(|cell| {
                String::from_utf8(unguarded(cell).to_vec())
                    .map_err(|_| self.fault(1, "the header is not UTF-8", SAVE_AS_UTF8))
            })
            .collect()
    }

    fn check_encoding(&self) -> Result<()> {
        if self.buffer.is_empty() {
            return Err(refused(
                &self.path,
                "it is an empty file, and a table has a header at least",
                "If nothing of value was there, delete it and a new table is made; otherwise restore it from a backup",
                None,
            ));
        }
        let head = &self.buffer[..self.buffer.len().min(4)];
        if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) || head.contains(&0) {
            return Err(self.fault(1, "the text is UTF-16 or not text at all", SAVE_AS_UTF8));
        }
        Ok(())
    }

    fn check_columns(&self, columns: &[String]) -> Result<()> {
        let mut seen = HashSet::new();
        for column in columns {
            if !column.is_empty() && !seen.insert(column) {
                return Err(self.fault(
                    1,
                    format!("there are two columns `{column}`"),
                    "Give one of them another name",
                ));
            }
        }
        if columns.len() < 2 {
            return Err(self.fault(
                1,
                "there is no column beside the key's",
                "Add a column for each field of the value, or one called `value`",
            ));
        }
        Ok(())
    }

    fn check_size(&self) -> Result<()> {
        if self.buffer.len() <= MAX_ROW_BYTES {
            return Ok(());
        }
        let line = if self.scanner.is_in_quotes() {
            self.scanner.quote_line
        } else {
            self.scanner.line
        };
        Err(self.fault(
            line,
            format!("the row is longer than {} MiB", MAX_ROW_BYTES >> 20),
            "Look for a quotation mark in it that is not closed",
        ))
    }

    /// The last line of a file need not have an end, but its quotation marks must.
    fn last_row(&self, line: u64, from: usize, ends: &mut Vec<(u64, Range<usize>)>) -> Result<()> {
        if self.scanner.is_in_quotes() {
            return Err(self.fault(
                self.scanner.quote_line,
                "a quotation mark opens a cell and none closes it before the end of the file",
                "The file was cut off, or a quotation mark is missing: complete the row",
            ));
        }
        if from < self.buffer.len() {
            ends.push((line, from..self.buffer.len()));
        }
        Ok(())
    }

    pub(crate) fn fault(
        &self,
        line: u64,
        reason: impl Into<String>,
        advice: &str,
    ) -> PersistentError {
        fault(&self.path, line, reason, advice)
    }

    fn storage(&self, error: std::io::Error) -> PersistentError {
        PersistentError::storage(format!("reading {}", self.path.display()), error)
    }
}

/// What is wrong with a line of a table.
pub(crate) fn fault(
    path: &Path,
    line: u64,
    reason: impl Into<String>,
    advice: &str,
) -> PersistentError {
    refused(
        path,
        format!("line {line}: {}", legible(&reason.into())),
        &format!("{advice}. The file was not changed"),
        None,
    )
}

const SAVE_AS_UTF8: &str = "Save it as \"CSV UTF-8\", which every spreadsheet offers";

fn is_blank(row: &[u8]) -> bool {
    row.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
