//! CSV text: how a file writes it, one row from cells, many rows from bytes.
//!
//! csv-async does the reading and writing, over buffers in memory: its futures are finished at the first poll.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use csv_async::{AsyncReaderBuilder, AsyncWriter, AsyncWriterBuilder, ByteRecord, Terminator};

/// How a file writes its rows. A file that somebody else made keeps its ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) crlf: bool,
    /// It begins with a byte order mark.
    pub(crate) bom: bool,
}

pub(crate) const BOM: &str = "\u{feff}";

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            delimiter: b',',
            crlf: false,
            bom: false,
        }
    }
}

impl Dialect {
    /// The text of one row, with the end of its line.
    pub(crate) fn row<C: AsRef<[u8]>>(
        self,
        cells: impl IntoIterator<Item = C>,
    ) -> io::Result<Vec<u8>> {
        let mut rows = Rows::new(self);
        rows.push(cells)?;
        rows.finish()
    }

    pub(crate) fn line_end(self) -> &'static [u8] {
        if self.crlf { b"\r\n" } else { b"\n" }
    }

    /// The records in `text`, which is whole rows. Blank lines are none.
    pub(crate) fn records(self, text: &[u8]) -> io::Result<Vec<ByteRecord>> {
        // The reader takes a byte order mark at the start of what it is given for that of the file, and it may be the
        // first character of a key. A blank line before it says that it is not.
        let mut guarded;
        let text = if text.starts_with(BOM.as_bytes()) {
            guarded = vec![b'\n'];
            guarded.extend_from_slice(text);
            &guarded[..]
        } else {
            text
        };
        let mut reader = AsyncReaderBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(false)
            .flexible(true)
            .create_reader(text);
        let mut records = Vec::new();
        let mut record = ByteRecord::new();
        while ready(reader.read_byte_record(&mut record)).map_err(io::Error::other)? {
            records.push(record.clone());
        }
        Ok(records)
    }
}

/// Rows on their way to text. Making a writer costs more than to write a row, so many should share one.
pub(crate) struct Rows(AsyncWriter<Vec<u8>>);

impl Rows {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let terminator = if dialect.crlf {
            Terminator::CRLF
        } else {
            Terminator::Any(b'\n')
        };
        let writer = AsyncWriterBuilder::new()
            .delimiter(dialect.delimiter)
            .terminator(terminator)
            .buffer_capacity(1024)
            .create_writer(Vec::new());
        Rows(writer)
    }

    pub(crate) fn push<C: AsRef<[u8]>>(
        &mut self,
        cells: impl IntoIterator<Item = C>,
    ) -> io::Result<()> {
        ready(self.0.write_record(cells)).map_err(io::Error::other)
    }

    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        ready(self.0.into_inner()).map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Waits for a future that has nothing to wait for.
fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
    }
}

/// Finds the ends of rows in text that comes in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanner {
    delimiter: u8,
    state: State,
    /// The line that is being read; the first is 1.
    pub(crate) line: u64,
    /// The line on which the last quotation mark opened.
    pub(crate) quote_line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    CellStart,
    Cell,
    Quoted,
    /// After a quotation mark in a quoted cell: its end, or the first of two.
    Quote,
    /// After a carriage return: the row has ended, and a line feed still belongs to it.
    CarriageReturn,
}

/// What a scan came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A row ends before this position.
    Row(usize),
    /// The text ends first.
    More,
    /// Something stands after the closing quotation mark of a cell.
    AfterQuote,
}

impl Scanner {
    pub(crate) fn new(delimiter: u8) -> Self {
        Scanner {
            delimiter,
            state: State::CellStart,
            line: 1,
            quote_line: 1,
        }
    }

    /// Goes on at `from`, which is where the last scan ended.
    pub(crate) fn next_row(&mut self, text: &[u8], from: usize) -> Scan {
        for (at, &byte) in text.iter().enumerate().skip(from) {
            self.state = match (self.state, byte) {
                (State::CarriageReturn, b'\n') => return self.row_ends(at + 1),
                (State::CarriageReturn, _) => return self.row_ends(at),
                (State::CellStart, b'"') => {
                    self.quote_line = self.line;
                    State::Quoted
                }
                (State::Quoted, b'"') => State::Quote,
                (State::Quoted, _) => {
                    self.line += u64::from(byte == b'\n');
                    State::Quoted
                }
                (State::Quote, b'"') => State::Quoted,
                (_, b'\n') => return self.row_ends(at + 1),
                (_, b'\r') => State::CarriageReturn,
                (_, byte) if byte == self.delimiter => State::CellStart,
                (State::Quote, _) => return Scan::AfterQuote,
                (State::CellStart | State::Cell, _) => State::Cell,
            };
        }
        Scan::More
    }

    /// Whether the text may end here.
    pub(crate) fn is_in_quotes(&self) -> bool {
        self.state == State::Quoted
    }

    fn row_ends(&mut self, at: usize) -> Scan {
        self.line += 1;
        self.state = State::CellStart;
        Scan::Row(at)
    }
}

/// Whether a spreadsheet would run the text of a cell as a formula. A plain number with a sign is none.
pub(crate) fn is_formula(text: &[u8]) -> bool {
    match text.first() {
        Some(b'=' | b'@' | b'\t' | b'\r') => true,
        Some(b'+' | b'-') => {
            std::str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_err())
        }
        _ => false,
    }
}

/// The text of a cell as it stands in the file.
///
/// A quotation mark (`'`) before a formula tells a spreadsheet that it is text. Whether the guard is on or not, a text
/// that looks guarded gets one mark more, so that what is read does not depend on the option.
pub(crate) fn guarded(text: &[u8], guard: bool) -> std::borrow::Cow<'_, [u8]> {
    if looks_guarded(text) || (guard && is_formula(text)) {
        let mut marked = vec![b'\''];
        marked.extend_from_slice(text);
        marked.into()
    } else {
        text.into()
    }
}

/// The text that a cell stands for.
pub(crate) fn unguarded(cell: &[u8]) -> &[u8] {
    if looks_guarded(cell) {
        &cell[1..]
    } else {
        cell
    }
}

fn looks_guarded(text: &[u8]) -> bool {
    let marks = text.iter().take_while(|byte| **byte == b'\'').count();
    marks > 0 && is_formula(&text[marks..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(u64, String)> {
        let mut scanner = Scanner::new(b',');
        let (mut from, mut rows) = (0, Vec::new());
        loop {
            let line = scanner.line;
            match scanner.next_row(text.as_bytes(), from) {
                Scan::Row(end) => {
                    rows.push((line, text[from..end].to_string()));
                    from = end;
                }
                other => {
                    assert_eq!(other, Scan::More);
                    return rows;
                }
            }
        }
    }

    #[test]
    fn rows_end_where_lines_do_unless_they_are_quoted() {
        let found = rows("a,b\r\n\"x\ny\",\"\"\"\"\r\"\",5\" tall\nrest");
        let expected = [
            (1, "a,b\r\n"),
            (2, "\"x\ny\",\"\"\"\"\r"),
            (4, "\"\",5\" tall\n"),
        ];
        assert_eq!(found, expected.map(|(line, row)| (line, row.to_string())));
    }

    #[test]
    fn text_after_a_closing_quote_is_noticed() {
        let mut scanner = Scanner::new(b';');
        assert_eq!(scanner.next_row(b"a;\"b\"c;d\n", 0), Scan::AfterQuote);
    }

    #[test]
    fn cells_come_back_whatever_is_in_them() {
        let cells = [
            "",
            "a",
            "\"",
            "\"\"",
            "a,b;c\td",
            "\r",
            "\n",
            "\u{feff}x",
            " ",
            "\0",
        ];
        for delimiter in [b',', b';', b'\t'] {
            for crlf in [false, true] {
                let dialect = Dialect {
                    delimiter,
                    crlf,
                    bom: false,
                };
                for first in cells {
                    let row = [&[first][..], &cells].concat();
                    let text = dialect.row(&row).unwrap();
                    let records = dialect.records(&text).unwrap();
                    assert_eq!(records.len(), 1);
                    assert!(records[0].iter().eq(row.iter().map(|cell| cell.as_bytes())));
                    let end = Scanner::new(delimiter).next_row(&[&text[..], b"x"].concat(), 0);
                    assert_eq!(end, Scan::Row(text.len()));
                }
            }
        }
    }

    #[test]
    fn the_guard_loses_nothing_on_or_off() {
        for text in [
            "", "a", "=1+1", "'=1+1", "''=1", "-5", "-a", "'-5", "+1e3", "@x", "'", "''a", "\tx",
        ] {
            for guard in [false, true] {
                let cell = guarded(text.as_bytes(), guard);
                assert_eq!(unguarded(&cell), text.as_bytes(), "{text} as {cell:?}");
                assert!(!guard || !is_formula(&cell));
            }
        }
        assert_eq!(&*guarded(b"=1+1", false), b"=1+1");
        assert_eq!(&*guarded(b"-12.5", true), b"-12.5");
    }
}
