//! CSV text: how a file writes it, one row from cells, many rows from bytes.
//!
//! csv-async does the reading and writing, over buffers in memory: its futures are finished at the first poll.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use csv_async::{AsyncReaderBuilder, AsyncWriter, AsyncWriterBuilder, ByteRecord, Terminator};

/// How a file writes its rows. A file that somebody else made keeps its ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) crlf: bool,
    /// It begins with a byte order mark.
    pub(crate) bom: bool,
    /// Lines that begin with it are no rows.
    pub(crate) comment: Option<u8>,
}

pub(crate) const BOM: &str = "\u{feff}";

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            delimiter: b',',
            crlf: false,
            bom: false,
            comment: None,
        }
    }
}

impl Dialect {
    /// The text of one row, with the end of its line.
    pub(crate) fn row<C: AsRef<[u8]>>(
        self,
        cells: impl IntoIterator<Item = C>,
    ) -> io::Result<Vec<u8>> {
        let mut rows = Rows::new(self, Arc::from([]));
        rows.push(cells)?;
        rows.finish()
    }

    /// The text of one row with each cell in quotation marks.
    fn quoted_row<C: AsRef<[u8]>>(self, cells: &[C]) -> Vec<u8> {
        let mut text = Vec::new();
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                text.push(self.delimiter);
            }
            text.push(b'"');
            for byte in cell.as_ref() {
                text.push(*byte);
                if *byte == b'"' {
                    text.push(b'"');
                }
            }
            text.push(b'"');
        }
        text.extend_from_slice(self.line_end());
        text
    }

    /// Whether a line is a comment.
    pub(crate) fn is_comment(self, line: &[u8]) -> bool {
        self.comment.is_some() && line.first() == self.comment.as_ref()
    }

    /// Whether a row has separators and nothing else.
    pub(crate) fn is_empty_row(self, row: &[u8]) -> bool {
        let cells = without_end(row);
        !cells.is_empty() && cells.iter().all(|byte| *byte == self.delimiter)
    }

    /// How much of the text of a row is comments before it.
    pub(crate) fn comments_before(self, text: &[u8]) -> usize {
        let mut at = 0;
        while self.is_no_row(&text[at..]) {
            let line = text[at..]
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r'));
            let Some(end) = line else { return text.len() };
            at += end + 1;
        }
        at
    }

    /// Whether the first line of a text is none of a row.
    fn is_no_row(self, text: &[u8]) -> bool {
        let may_be = |first: u8| {
            matches!(first, b'\n' | b'\r' | b'\x1a')
                || first == self.delimiter
                || Some(first) == self.comment
        };
        if !text.first().copied().is_some_and(may_be) {
            return false;
        }
        let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = &text[..end.unwrap_or(text.len())];
        line.is_empty() || self.is_comment(line) || is_end_mark(line) || self.is_empty_row(line)
    }

    /// The text of a header by which a row that repeats it is known; empty if a row of ours could have the same text.
    pub(crate) fn header_line(self, line: &[u8]) -> io::Result<Arc<[u8]>> {
        let line = without_end(line);
        let is_ambiguous = match self.records(line)?.first() {
            Some(cells) => {
                let cells: Vec<&[u8]> = cells.iter().collect();
                self.quoted_row(&cells) == self.row(&cells)?
            }
            None => true,
        };
        Ok(Arc::from(if is_ambiguous { &[][..] } else { line }))
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
            .comment(self.comment)
            .create_reader(text);
        let mut records = Vec::new();
        let mut record = ByteRecord::new();
        while ready(reader.read_byte_record(&mut record)).map_err(io::Error::other)? {
            records.push(record.clone());
        }
        Ok(records)
    }
}

/// What ends a text for old programs of DOS.
pub(crate) fn is_end_mark(row: &[u8]) -> bool {
    without_end(row) == b"\x1a"
}

pub(crate) fn without_end(row: &[u8]) -> &[u8] {
    let end = row.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    &row[..end.map_or(0, |at| at + 1)]
}

/// Rows on their way to text. Making a writer costs more than to write a row, so many should share one.
///
/// Rows that would be read as something else are told apart by quotation marks: one of empty cells, one that begins like
/// a comment, and one that repeats the header.
pub(crate) struct Rows {
    dialect: Dialect,
    header: Arc<[u8]>,
    done: Vec<u8>,
    writer: AsyncWriter<Vec<u8>>,
}

impl Rows {
    /// `header` is what [`Dialect::header_line`] says.
    pub(crate) fn new(dialect: Dialect, header: Arc<[u8]>) -> Self {
        Rows {
            dialect,
            header,
            done: Vec::new(),
            writer: writer(dialect),
        }
    }

    pub(crate) fn push<C: AsRef<[u8]>>(
        &mut self,
        cells: impl IntoIterator<Item = C>,
    ) -> io::Result<()> {
        let mut cells = cells.into_iter().peekable();
        if cells
            .peek()
            .is_some_and(|first| self.is_suspect(first.as_ref()))
        {
            return self.push_apart(&cells.collect::<Vec<C>>());
        }
        ready(self.writer.write_record(cells)).map_err(io::Error::other)
    }

    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        let mut text = self.done;
        text.extend(finished(self.writer)?);
        Ok(text)
    }

    /// Whether a row that begins with this cell may be one that is read as something else.
    fn is_suspect(&self, first: &[u8]) -> bool {
        let header = &self.header[..];
        first.is_empty()
            || self.dialect.is_comment(first)
            || header.starts_with(first)
            || header
                .get(1..)
                .is_some_and(|header| header.starts_with(first))
            || first.contains(&b'"')
            || first.starts_with(BOM.as_bytes())
    }

    fn push_apart<C: AsRef<[u8]>>(&mut self, cells: &[C]) -> io::Result<()> {
        let mut one = writer(self.dialect);
        ready(one.write_record(cells)).map_err(io::Error::other)?;
        let plain = finished(one)?;
        let is_something_else = self.dialect.is_empty_row(&plain)
            || self.dialect.is_comment(&plain)
            || *without_end(plain.strip_prefix(BOM.as_bytes()).unwrap_or(&plain)) == *self.header;
        self.end_writer()?;
        self.done.extend(if is_something_else {
            self.dialect.quoted_row(cells)
        } else {
            plain
        });
        Ok(())
    }

    fn end_writer(&mut self) -> io::Result<()> {
        let writer = std::mem::replace(&mut self.writer, writer(self.dialect));
        self.done.extend(finished(writer)?);
        Ok(())
    }
}

fn writer(dialect: Dialect) -> AsyncWriter<Vec<u8>> {
    let terminator = if dialect.crlf {
        Terminator::CRLF
    } else {
        Terminator::Any(b'\n')
    };
    AsyncWriterBuilder::new()
        .delimiter(dialect.delimiter)
        .terminator(terminator)
        .buffer_capacity(1024)
        .create_writer(Vec::new())
}

fn finished(writer: AsyncWriter<Vec<u8>>) -> io::Result<Vec<u8>> {
    ready(writer.into_inner()).map_err(|error| io::Error::other(error.to_string()))
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
    comment: Option<u8>,
    state: State,
    /// The line that is being read; the first is 1.
    pub(crate) line: u64,
    /// The line on which the last quotation mark opened.
    pub(crate) quote_line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RowStart,
    Comment,
    CellStart,
    /// Nothing but spaces in the cell so far.
    Spaces,
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
    /// Something stands after the closing quotation mark of a cell, and whether a backslash stands before that.
    AfterQuote { backslash: bool },
    /// Spaces stand before the opening quotation mark of a cell.
    BeforeQuote,
}

impl Scanner {
    pub(crate) fn new(delimiter: u8, comment: Option<u8>) -> Self {
        Scanner {
            delimiter,
            comment,
            state: State::RowStart,
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
                (State::RowStart, byte) if Some(byte) == self.comment => State::Comment,
                (State::RowStart | State::CellStart, b'"') => {
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
                (State::Comment, _) => State::Comment,
                (_, byte) if byte == self.delimiter => State::CellStart,
                (State::Quote, _) => {
                    let backslash = at >= 2 && text[at - 2] == b'\\';
                    return Scan::AfterQuote { backslash };
                }
                (State::RowStart | State::CellStart | State::Spaces, b' ') => State::Spaces,
                (State::Spaces, b'"') => return Scan::BeforeQuote,
                (State::RowStart | State::CellStart | State::Spaces | State::Cell, _) => {
                    State::Cell
                }
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
        self.state = State::RowStart;
        Scan::Row(at)
    }
}

/// Whether a spreadsheet would run the text of a cell as a formula. A plain number with a sign is none.
pub(crate) fn is_formula(text: &[u8]) -> bool {
    match text {
        [b'+' | b'-', ..] => !is_number(text),
        // The last are full-width ＝, ＠, ＋ and －, which East Asian spreadsheets take for the others.
        [b'=' | b'@' | b'\t' | b'\r' | b'\n', ..] | [0xef, 0xbc, 0x9d | 0xa0 | 0x8b | 0x8d, ..] => {
            true
        }
        _ => false,
    }
}

/// Whether a text is a number, whichever sign stands before its fraction.
fn is_number(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.replacen(',', ".", 1).parse::<f64>().is_ok())
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
        let mut scanner = Scanner::new(b',', None);
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
        let mut scanner = Scanner::new(b';', None);
        assert_eq!(
            scanner.next_row(b"a;\"b\"c;d\n", 0),
            Scan::AfterQuote { backslash: false }
        );
        let mut scanner = Scanner::new(b';', None);
        assert_eq!(
            scanner.next_row(b"a;\"b \\\"c\\\"\";d\n", 0),
            Scan::AfterQuote { backslash: true }
        );
        let mut scanner = Scanner::new(b';', None);
        assert_eq!(scanner.next_row(b"a;  \"b\";d\n", 0), Scan::BeforeQuote);
    }

    #[test]
    fn quotation_marks_in_a_comment_mean_nothing() {
        let mut scanner = Scanner::new(b',', Some(b'#'));
        let text = b"#a,\"b\nc,#\"d\n";
        assert_eq!(scanner.next_row(text, 0), Scan::Row(6));
        assert_eq!(scanner.next_row(text, 6), Scan::Row(text.len()));
    }

    #[test]
    fn rows_that_would_be_read_as_something_else_are_quoted() {
        let dialect = Dialect {
            comment: Some(b'#'),
            ..Dialect::default()
        };
        for (header, cells, expected) in [
            ("a,b", ["", ""], "\"\",\"\"\n"),
            ("a,b", ["", "x"], ",x\n"),
            ("a,b", ["a", "b"], "\"a\",\"b\"\n"),
            ("a,b", ["a", "c"], "a,c\n"),
            ("\"a\",\"b\"", ["a", "b"], "a,b\n"),
            ("\"a\"\"\",b", ["a\"", "b"], "\"a\"\"\",\"b\"\n"),
            ("a,b", ["#a", "b"], "\"#a\",\"b\"\n"),
        ] {
            let header = dialect.header_line(header.as_bytes()).unwrap();
            let mut rows = Rows::new(dialect, header);
            rows.push(["x", "y"]).unwrap();
            rows.push(cells).unwrap();
            rows.push(["x", "y"]).unwrap();
            let text = String::from_utf8(rows.finish().unwrap()).unwrap();
            assert_eq!(text, format!("x,y\n{expected}x,y\n"));
            let records = dialect.records(text.as_bytes()).unwrap();
            assert!(records[1].iter().eq(cells.map(str::as_bytes)));
        }
        // Such a header cannot be told from a row.
        assert!(dialect.header_line(b"\"a,\",\"b,\"").unwrap().is_empty());
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
                    ..Dialect::default()
                };
                for first in cells {
                    let row = [&[first][..], &cells].concat();
                    let text = dialect.row(&row).unwrap();
                    let records = dialect.records(&text).unwrap();
                    assert_eq!(records.len(), 1);
                    assert!(records[0].iter().eq(row.iter().map(|cell| cell.as_bytes())));
                    let end =
                        Scanner::new(delimiter, None).next_row(&[&text[..], b"x"].concat(), 0);
                    assert_eq!(end, Scan::Row(text.len()));
                }
            }
        }
    }

    #[test]
    fn the_guard_loses_nothing_on_or_off() {
        for text in [
            "", "a", "=1+1", "'=1+1", "''=1", "-5", "-a", "'-5", "+1e3", "@x", "'", "''a", "\tx",
            "\nx", "＝1", "＋1", "－1", "＠x", "'＝1", "-9,5", "-1,2,3",
        ] {
            for guard in [false, true] {
                let cell = guarded(text.as_bytes(), guard);
                assert_eq!(unguarded(&cell), text.as_bytes(), "{text} as {cell:?}");
                assert!(!guard || !is_formula(&cell));
            }
        }
        assert_eq!(&*guarded(b"=1+1", false), b"=1+1");
        for number in ["-12.5", "-9,5", "+1e3"] {
            assert_eq!(&*guarded(number.as_bytes(), true), number.as_bytes());
        }
        for formula in ["\n=1+1", "＝1+1", "＋1", "－1", "＠SUM(1)", "-1+2"] {
            assert!(is_formula(formula.as_bytes()), "{formula}");
        }
    }
}
