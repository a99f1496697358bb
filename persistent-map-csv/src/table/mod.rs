//! Reading a table: its header, then its rows a piece at a time, with the faults that a text file can have.

mod foreign;
mod head;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;
use csv_async::ByteRecord;
use persistent_map_core::{PersistentError, Result};
use persistent_map_file::refused;
use serde::{Deserialize, Serialize};

use crate::disk::DiskFile;
use crate::settings::Settings;
use crate::shape::{Shape, legible};
use crate::text::{BOM, Dialect, Scan, Scanner, is_end_mark, unguarded, without_end};

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
    /// All up to the end of the header as it stands: a byte order mark, `sep=`, comments, titles, and the header.
    pub(crate) text: Vec<u8>,
    /// Where in it the header begins.
    pub(crate) start: usize,
    /// The line that the header is on.
    pub(crate) line: u64,
    /// The text of a row that repeats the header.
    pub(crate) again: Arc<[u8]>,
}

impl Head {
    pub(crate) fn new(
        dialect: Dialect,
        shape: Shape,
        text: Vec<u8>,
        start: usize,
    ) -> std::io::Result<Self> {
        Ok(Head {
            again: dialect.header_line(&text[start..])?,
            line: 1 + head::lines(&text[..start]),
            dialect,
            shape,
            text,
            start,
        })
    }

    /// Whether a row is the header once more, as where one file was put behind another.
    pub(crate) fn repeats(&self, row: &[u8]) -> bool {
        let row = row.strip_prefix(BOM.as_bytes()).unwrap_or(row);
        !row.is_empty() && *without_end(row) == *self.again
    }
}

/// One row.
pub(crate) struct Row {
    /// The line that it begins on.
    pub(crate) line: u64,
    /// Where its text is in the file.
    pub(crate) offset: u64,
    /// Where its text is in its piece, from the comments before it.
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
    /// As the scanner was where the row that is being read begins.
    begun: Scanner,
    /// Read, and not yet given out.
    buffer: Vec<u8>,
    /// Where the buffer is in the file.
    offset: u64,
    /// How much of the buffer the scanner has seen.
    scanned: usize,
    at_end: bool,
    hasher: Hasher,
    /// Rows that hold nothing.
    pub(crate) empty_rows: u64,
    /// Comments after the last row.
    pub(crate) tail: Vec<u8>,
}

impl TableReader {
    /// Reads the header.
    pub(crate) fn open(path: &Path, file: Box<dyn DiskFile>, settings: &Settings) -> Result<Self> {
        let mut reader = TableReader {
            path: path.to_path_buf(),
            file,
            head: Head::default(),
            scanner: Scanner::new(b',', None),
            begun: Scanner::new(b',', None),
            buffer: Vec::new(),
            offset: 0,
            scanned: 0,
            at_end: false,
            hasher: Hasher::new(),
            empty_rows: 0,
            tail: Vec::new(),
        };
        reader.fill()?;
        reader.find_header(settings)?;
        Ok(reader)
    }

    /// The next rows; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>> {
        let mut found = FoundRows::default();
        loop {
            match self.scanner.next_row(&self.buffer, self.scanned) {
                Scan::Row(end) => {
                    found.add(self.head.dialect, &self.buffer, self.begun, end);
                    self.scanned = end;
                    self.begun = self.scanner;
                }
                Scan::More => {
                    self.scanned = self.buffer.len();
                    if self.at_end {
                        self.check_closed()?;
                        if found.end < self.buffer.len() {
                            let end = self.buffer.len();
                            found.add(self.head.dialect, &self.buffer, self.begun, end);
                        }
                        break;
                    }
                    if found.whole() > 0 {
                        break;
                    }
                    self.check_size()?;
                    self.fill()?;
                }
                scan => return Err(self.quoting_fault(&scan)),
            }
        }
        self.piece(found)
    }

    fn piece(&mut self, found: FoundRows) -> Result<Option<Piece>> {
        let whole = found.whole();
        let FoundRows {
            mut lines,
            comments,
            ..
        } = found;
        self.empty_rows += lines.iter().filter(|line| line.is_empty).count() as u64;
        if let Some((_, begun)) = comments.filter(|_| !self.at_end) {
            // The row that they belong to comes with the next piece, and so do they.
            self.empty_rows -= lines
                .extract_if(.., |line| line.place.start >= whole)
                .count() as u64;
            (self.scanner, self.begun, self.scanned) = (begun, begun, whole);
        }
        lines.retain(|line| line.place.start < whole);
        let text = self.take(whole);
        let offset = self.offset - text.len() as u64;
        if self.at_end {
            let rest = self.take(self.buffer.len());
            self.tail.extend(rest);
        }
        if text.is_empty() {
            return Ok(None);
        }
        let records = self
            .head
            .dialect
            .records(&text)
            .map_err(|error| self.storage(error))?;
        if records.len() != lines.len() {
            let error = std::io::Error::other("rows were counted in two ways, with two results");
            return Err(self.storage(error));
        }
        let rows = lines
            .into_iter()
            .zip(records)
            .filter(|(line, _)| !line.is_empty)
            .map(|(line, cells)| Row {
                line: line.number,
                offset: offset + line.place.start as u64,
                place: line.place,
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
    fn check_closed(&self) -> Result<()> {
        if !self.scanner.is_in_quotes() {
            return Ok(());
        }
        Err(self.fault(
            self.scanner.quote_line,
            "a quotation mark opens a cell and none closes it before the end of the file",
            "The file was cut off, or a quotation mark is missing: complete the row",
        ))
    }

    fn quoting_fault(&self, scan: &Scan) -> PersistentError {
        let (reason, advice) = match scan {
            Scan::BeforeQuote => (
                "there are spaces before the quotation mark that opens a cell",
                "Remove the spaces before the quotation mark",
            ),
            Scan::AfterQuote { backslash: true } => (
                "there is a backslash before a quotation mark inside of a cell",
                "Write each quotation mark inside of a cell twice (`\"\"`), and no backslash",
            ),
            _ => (
                "there is text after the quotation mark that closes a cell",
                "Put the whole cell in quotation marks, and write each one inside it twice",
            ),
        };
        self.fault(self.scanner.line, reason, advice)
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

/// What is between the line ends of a piece.
#[derive(Default)]
struct FoundRows {
    /// Rows, and those that hold nothing.
    lines: Vec<Line>,
    /// Where the last line ended.
    end: usize,
    /// Where the comments begin that belong to the next row, and how that is scanned.
    comments: Option<(usize, Scanner)>,
}

struct Line {
    number: u64,
    place: Range<usize>,
    is_empty: bool,
}

impl FoundRows {
    /// Takes the line up to `end`, of which the scan began like this.
    fn add(&mut self, dialect: Dialect, text: &[u8], begun: Scanner, end: usize) {
        let start = std::mem::replace(&mut self.end, end);
        let row = &text[start..end];
        if is_blank(row) {
            return;
        }
        if dialect.is_comment(row) || is_end_mark(row) {
            self.comments.get_or_insert((start, begun));
            return;
        }
        let is_empty = dialect.is_empty_row(row);
        let start = match self.comments {
            Some((comments, _)) if !is_empty => {
                self.comments = None;
                comments
            }
            _ => start,
        };
        self.lines.push(Line {
            number: begun.line,
            place: start..end,
            is_empty,
        });
    }

    /// Up to where nothing more belongs to a row that is found already.
    fn whole(&self) -> usize {
        self.comments.map_or(self.end, |(start, _)| start)
    }
}

/// The command that makes UTF-8 of a file, which must not be its own output.
pub(crate) fn save_as_utf8(path: &Path, encoding: &str) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
        {
            name.into_owned()
        } else {
            format!("'{}'", name.replace('\'', "'\\''"))
        }
    };
    let mut stem = path.file_stem().unwrap_or_default().to_os_string();
    stem.push("-utf8.csv");
    format!(
        "Save it as \"CSV UTF-8\", which every spreadsheet offers, or make a UTF-8 file of it: `iconv -f {encoding} -t UTF-8 {} > {}`",
        name(path),
        name(Path::new(&stem)),
    )
}

fn is_blank(row: &[u8]) -> bool {
    row.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
