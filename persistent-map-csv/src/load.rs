//! From a table and its journal to entries, each checked, each fault with its line.

use std::any::type_name;
use std::collections::{HashMap, HashSet};

use persistent_map_core::{CorruptRow, Key, LoadSink, Location, PersistentError, Result, Value};
use persistent_map_file::{Hold, refused};

use crate::cell::{CellError, Style};
use crate::checkpoint::EDITED_ADVICE;
use crate::disk::DiskFile;
use crate::duplicates::{Duplicates, Position, Suspects};
use crate::journal::{Change, Changes, Packed as _, unpack};
use crate::settings::Settings;
use crate::shape::{Shape, decode_key, encode_key, legible, listed, meant_by};
use crate::store::{Found, FoundJournal, RESTORE, Store, Table};
use crate::table::{Head, Piece, Print, Row, TableReader, fault, save_as_utf8};
use crate::text::{unguarded, without_end};

/// How many rows of a journal are fetched at once.
const FETCH: usize = 256;

/// What a table and its journal came to.
pub(crate) struct Loaded {
    pub(crate) shape: Option<Shape>,
    pub(crate) has_rows: bool,
    /// Columns that the values do not fill.
    pub(crate) extra: Vec<usize>,
}

/// Reads everything into `sink`, and then brings the files to rest.
pub(crate) async fn load<K: Key, V: Value>(
    hold: &Hold<Store>,
    found: Found,
    settings: &Settings,
    sink: &mut dyn LoadSink<K, V>,
) -> Result<Loaded> {
    let mut loader = Loader::new(hold, &found, settings, sink, Purpose::Load);
    let (table, shape) = loader.everything(found).await?;
    let Loader {
        has_rows,
        extra,
        set_aside,
        texts,
        ..
    } = loader;
    hold.with("recovering a table", move |store| {
        store.recover(table, &set_aside, &texts)
    })
    .await?;
    Ok(Loaded {
        shape,
        has_rows,
        extra: extra.unwrap_or_default(),
    })
}

/// Reads everything into `sink`, and leaves the files as they are.
pub(crate) async fn read_back<K: Key, V: Value>(
    hold: &Hold<Store>,
    found: Found,
    settings: &Settings,
    sink: &mut dyn LoadSink<K, V>,
) -> Result<()> {
    let mut loader = Loader::new(hold, &found, settings, sink, Purpose::ReadBack);
    loader.everything(found).await.map(drop)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Load,
    ReadBack,
}

const EDITED_MEANWHILE: &str = "the file was changed by somebody else while the map was open, and the journal beside it does \
    not belong to it any more. All writes of this map are safe in that journal";

struct Loader<'a, K, V> {
    path: std::path::PathBuf,
    location: Location,
    settings: &'a Settings,
    hold: &'a Hold<Store>,
    sink: &'a mut dyn LoadSink<K, V>,
    purpose: Purpose,
    has_entries: bool,
    /// The line of the header.
    header_line: u64,
    /// Columns that the first value does not fill.
    extra: Option<Vec<usize>>,
    /// The first row that was set aside.
    first_misfit: Option<CorruptRow>,
    last_key: Option<Box<[u8]>>,
    is_sorted: bool,
    /// Which rows of one key go, once that was looked for.
    duplicates: Option<Duplicates>,
    has_rows: bool,
    /// Rows that cannot be read: where they are, and their text.
    set_aside: HashSet<u64>,
    texts: Vec<Vec<u8>>,
}

impl<'a, K: Key, V: Value> Loader<'a, K, V> {
    fn new(
        hold: &'a Hold<Store>,
        found: &Found,
        settings: &'a Settings,
        sink: &'a mut dyn LoadSink<K, V>,
        purpose: Purpose,
    ) -> Self {
        Loader {
            location: Location {
                file: Some(found.path.clone()),
                table: None,
            },
            path: found.path.clone(),
            settings,
            hold,
            sink,
            purpose,
            has_entries: false,
            header_line: 1,
            extra: None,
            first_misfit: None,
            last_key: None,
            is_sorted: true,
            duplicates: None,
            has_rows: false,
            set_aside: HashSet::new(),
            texts: Vec::new(),
        }
    }

    /// The table, and the columns of table and journal.
    async fn everything(&mut self, found: Found) -> Result<(Option<Table>, Option<Shape>)> {
        let (file, tables, mut shape, changes) = match found.journal {
            Some(FoundJournal { file, replay }) => (
                Some(file),
                Some(replay.tables),
                replay.shape,
                replay.changes,
            ),
            None => (None, None, None, Changes::default()),
        };
        let table = match found.reader {
            Some(reader) => Some(self.table(reader, &changes).await?),
            None => None,
        };
        let print = table.as_ref().map(|table| table.print);
        if found
            .closed
            .is_some_and(|closed| print != Some(closed.print))
        {
            self.sink.edited();
        }
        if let Some(tables) = tables {
            self.check_unedited(&tables, print)?;
        }
        if let Some(shape) = &shape {
            self.check_key_column(shape)?;
        }
        if let (Some(shape), Some(table)) = (&shape, &table)
            && self.has_rows
            && !changes.cleared
        {
            self.check_same_columns(shape, &table.head.shape)?;
        }
        if let (Some(shape), Some(file)) = (&shape, file) {
            self.journal(shape, changes, file).await?;
        }
        shape = shape.or_else(|| table.as_ref().map(|table| table.head.shape.clone()));
        Ok((table, shape))
    }

    /// Reads the rows that the journal does not replace.
    async fn table(&mut self, mut reader: TableReader, changes: &Changes) -> Result<Table> {
        let head = reader.head.clone();
        self.header_line = head.line;
        if self.settings.keep_last_duplicate && !changes.cleared {
            self.duplicates = Some(self.find_duplicates(changes).await?);
        }
        // Keys of rows that the journal replaces.
        let mut replaced = HashSet::new();
        loop {
            let (back, piece) = next_piece(self.hold, reader).await?;
            reader = back;
            let Some(piece) = piece else { break };
            self.has_rows |= !piece.rows.is_empty();
            for row in &piece.rows {
                let key = row.key(&head.shape);
                self.is_sorted &= self.last_key.as_deref().is_none_or(|last| last < key);
                self.last_key = Some(key.into());
                if changes.cleared {
                    continue;
                }
                let text = &piece.text[row.place.clone()];
                let stays = self.duplicates.as_ref();
                if let Some(line) = stays.and_then(|found| found.instead_of(row.offset)) {
                    self.duplicate(&head, row, text, line)?;
                } else if !changes.rows.contains_key(key) {
                    self.row(&head, row, text, changes).await?;
                } else if !replaced.insert(Box::<[u8]>::from(key)) {
                    self.equal_key(&head, row, text, changes).await?;
                }
            }
        }
        let is_load = self.purpose == Purpose::Load;
        if let Some(row) = self.first_misfit.take_if(|_| is_load && !self.has_entries) {
            // A map of other types, as a rule, and not a table of damaged rows.
            return Err(PersistentError::Corrupt(Box::new(row)));
        }
        let (mut reader, print) = self
            .hold
            .with("reading a table", move |_| {
                let print = reader.finish()?;
                Ok((reader, print))
            })
            .await?;
        if reader.empty_rows > 0 {
            self.sink.empty_rows(reader.empty_rows);
        }
        let head = std::mem::take(&mut reader.head);
        Ok(Table {
            print,
            head,
            is_sorted: self.is_sorted,
        })
    }

    async fn row(&mut self, head: &Head, row: &Row, text: &[u8], changes: &Changes) -> Result<()> {
        let shape = &head.shape;
        match self.decode(head, row, text) {
            Ok((key, value)) => {
                if !self.has_entries {
                    self.check_columns(shape, &value)?;
                    self.has_entries = true;
                }
                if self.sink.entry_if_new(key, value)? {
                    return Ok(());
                }
                self.equal_key(head, row, text, changes).await
            }
            Err(CellError::MissingField(column)) => Err(self.missing_column(shape, column)),
            Err(CellError::TwoColumns(column)) => Err(self.two_columns(&column)),
            Err(CellError::NoValueColumn) => Err(self.mismatch(
                shape,
                "values that are one cell: there is no column `value`",
                "Call the column with the values `value`, or use a struct with a field for each column",
            )),
            Err(error) => self.corrupt(shape, row, text, &error),
        }
    }

    fn decode(&self, head: &Head, row: &Row, text: &[u8]) -> Result<(K, V), CellError> {
        let own = &text[head.dialect.comments_before(text)..];
        if head.repeats(own) {
            return Err(CellError::advised(
                "it is the header once more",
                "Remove the line: two tables were put together, as it seems",
            ));
        }
        let cells = even(head, row, own, self.settings)?;
        let shape = &head.shape;
        let texts = cells
            .iter()
            .zip(&shape.columns)
            .map(|(cell, column)| {
                std::str::from_utf8(unguarded(cell)).map_err(|_| {
                    CellError::advised(
                        format!("column `{column}`: expected UTF-8"),
                        save_as_utf8(&self.path, "WINDOWS-1252"),
                    )
                })
            })
            .collect::<Result<Vec<&str>, CellError>>()?;
        decode_entry(shape, &texts, &self.settings.style)
    }

    fn corrupt(&mut self, shape: &Shape, row: &Row, text: &[u8], error: &CellError) -> Result<()> {
        let advice = error.advice().unwrap_or(
            "Correct the line if it was edited; if the type has changed, upgrade the values with `Builder::migrate`",
        );
        let mut report = self.report(shape, row, &error.to_string(), advice);
        if row.cells.len() == shape.columns.len() {
            report = report.intact();
        }
        self.sink.corrupt(report.clone())?;
        self.first_misfit.get_or_insert(report);
        self.set_aside(row, text);
        Ok(())
    }

    fn report(&self, shape: &Shape, row: &Row, reason: &str, advice: &str) -> CorruptRow {
        let key = String::from_utf8_lossy(row.key(shape));
        CorruptRow::of_line(self.location.clone(), row.line, &key, legible(reason))
            .with_advice(format!("{}. The file was not changed", legible(advice)))
    }

    fn set_aside(&mut self, row: &Row, text: &[u8]) {
        self.set_aside.insert(row.offset);
        self.texts.push(text.to_vec());
    }

    /// Reads the rows that are in the journal.
    async fn journal(
        &mut self,
        shape: &Shape,
        changes: Changes,
        mut file: Box<dyn DiskFile>,
    ) -> Result<()> {
        let mut writes = changes
            .rows
            .into_iter()
            .filter_map(|(key, change)| match change {
                Change::Write { offset, bytes, .. } => Some((key, (offset, bytes))),
                Change::Remove => None,
            });
        loop {
            let (keys, places): (Vec<_>, Vec<_>) = writes.by_ref().take(FETCH).unzip();
            if keys.is_empty() {
                return Ok(());
            }
            self.has_rows = true;
            let path = self.path.clone();
            let (back, rows) = self
                .hold
                .with("reading a journal", move |_| {
                    let cells = places
                        .iter()
                        .map(|(offset, bytes)| file.cells_at(*offset, *bytes));
                    let rows = cells.collect::<std::io::Result<Vec<_>>>();
                    let doing = || format!("reading the journal of {}", path.display());
                    let rows = rows.map_err(|error| PersistentError::storage(doing(), error))?;
                    Ok((file, rows))
                })
                .await?;
            file = back;
            for (key, packed) in keys.iter().zip(&rows) {
                let (key, value) =
                    decode_journaled::<K, V>(shape, key, packed, &self.settings.style)
                        .map_err(|error| self.journal_misfit(&error))?;
                if self.extra.is_none() {
                    // A field that is not there may read as `None`, and could not be written.
                    if let Some(missing) = shape.missing(&value) {
                        return Err(self.journal_misfit(&CellError::MissingField(missing)));
                    }
                    self.extra = Some(shape.extra(&value));
                }
                self.sink.entry(key, value)?;
            }
        }
    }

    /// Whether the journal was begun for the table that is there.
    fn check_unedited(&self, tables: &[Option<Print>], found: Option<Print>) -> Result<()> {
        if tables.contains(&found) {
            return Ok(());
        }
        if self.settings.replay_onto_edited_table && found.is_some() {
            tracing::warn!(
                target: "persistent_map", path = %self.path.display(),
                "the writes in the journal are made to a table that was changed since"
            );
            return Ok(());
        }
        let (reason, advice) = if self.purpose == Purpose::ReadBack {
            (EDITED_MEANWHILE, EDITED_ADVICE)
        } else if found.is_some() {
            (
                "the file was changed after a map had left writes in the journal beside it (it was not closed)",
                "Put the unchanged file back; or open it once with \
                 `CsvBackend::new(..).replay_onto_edited_table(true)`, which makes those writes to the file as it is now; \
                 or move the `.journal` file away to do without them",
            )
        } else {
            (
                "the file is gone, and there are writes to it in the journal beside it",
                RESTORE,
            )
        };
        Err(refused(&self.path, reason, advice, None))
    }

    /// The next open looks for the keys where this one has been told that they are.
    fn check_key_column(&self, journal: &Shape) -> Result<()> {
        let column = &journal.columns[journal.key];
        if *column == self.settings.key_column {
            return Ok(());
        }
        Err(refused(
            &self.path,
            format!("the writes in the journal beside it have their keys in the column `{column}`"),
            &format!(
                "Open it with `CsvBackend::new(..).key_column(\"{column}\")` and close it; then the journal is gone"
            ),
            None,
        ))
    }

    /// Rows that stay are copied as they are, below the columns of those that are written.
    fn check_same_columns(&self, journal: &Shape, table: &Shape) -> Result<()> {
        if journal == table {
            return Ok(());
        }
        Err(refused(
            &self.path,
            format!(
                "its columns are not those of the writes in the journal beside it, which are {}",
                listed(&journal.columns)
            ),
            "Give the table these columns, in this order; or move the `.journal` file away to do without the writes in it",
            None,
        ))
    }

    fn check_columns(&mut self, shape: &Shape, value: &V) -> Result<()> {
        if let Some(missing) = shape.missing(value) {
            return Err(self.missing_column(shape, missing));
        }
        if let Some(column) = shape.twice(value) {
            return Err(self.two_columns(column));
        }
        let extra = self.extra.insert(shape.extra(value));
        match extra.first() {
            Some(at) if !self.settings.keep_extra_columns => {
                let column = &shape.columns[*at];
                Err(self.mismatch(
                    shape,
                    &format!("values of which the column `{column}` is no field"),
                    "Remove the column, or keep it with `CsvBackend::new(..).keep_extra_columns(true)`",
                ))
            }
            _ => Ok(()),
        }
    }

    fn missing_column(&self, shape: &Shape, column: &str) -> PersistentError {
        let expected = format!("values with another one: the column `{column}` is missing");
        let Some(meant) = meant_by(column, &shape.columns) else {
            return self.mismatch(
                shape,
                &expected,
                "If the type has changed: upgrade the values with `Builder::migrate`, or give a renamed field its old name by \
                 `#[serde(rename = \"..\")]` (`#[serde(default)]` does not help here). If the table has: add the column, or \
                 correct its name in the header",
            );
        };
        let shown = legible(meant);
        let advice = if shown == meant {
            format!(
                "Did you mean `{shown}`? Give the field this name by `#[serde(rename = {meant:?})]`, or correct the header"
            )
        } else {
            format!(
                "Did you mean `{shown}`? Remove the letters that cannot be seen from its name in the header"
            )
        };
        self.mismatch(shape, &expected, &advice)
    }

    fn two_columns(&self, column: &str) -> PersistentError {
        fault(
            &self.path,
            self.header_line,
            format!("there are two columns `{column}`"),
            "Give one of them another name",
        )
    }

    fn mismatch(&self, shape: &Shape, expected: &str, advice: &str) -> PersistentError {
        PersistentError::Mismatch {
            place: self.path.display().to_string(),
            expected: legible(expected),
            found: format!(
                "the columns {} (line {})",
                listed(&shape.columns),
                self.header_line
            ),
            advice: format!("{advice}. The file was not changed"),
        }
    }

    fn journal_misfit(&self, error: &CellError) -> PersistentError {
        PersistentError::Mismatch {
            place: format!("the journal of {}", self.path.display()),
            expected: format!(
                "a map of `{}` and `{}`",
                type_name::<K>(),
                type_name::<V>()
            ),
            found: format!("a write that does not fit ({error})"),
            advice: "Open it with the types that it was written with, and close it; then the journal is gone"
                .to_string(),
        }
    }

    /// A row whose key has come before. Which rows go is looked up once, for all of them.
    async fn equal_key(
        &mut self,
        head: &Head,
        row: &Row,
        text: &[u8],
        changes: &Changes,
    ) -> Result<()> {
        if self.duplicates.is_none() {
            self.duplicates = Some(self.find_duplicates(changes).await?);
        }
        let found = self.duplicates.as_ref();
        if let Some(line) = found.and_then(|found| found.instead_of(row.offset)) {
            return self.duplicate(head, row, text, line);
        }
        // It is equal to one that is written in another way.
        let error = CellError::advised("an earlier row has an equal key", ONE_ROW);
        self.corrupt(&head.shape, row, text, &error)
    }

    /// Reports a row whose key is that of the row on line `line`, which stays.
    fn duplicate(&mut self, head: &Head, row: &Row, text: &[u8], line: u64) -> Result<()> {
        let shape = &head.shape;
        let reason = format!(
            "column `{}`: the key is that of line {line}, too",
            shape.columns[shape.key]
        );
        let report = self.report(shape, row, &reason, ONE_ROW);
        self.sink.corrupt(report)?;
        self.set_aside(row, text);
        Ok(())
    }

    /// Looks for rows of one key, with another reader. Rows that cannot be read do not count.
    async fn find_duplicates(&mut self, changes: &Changes) -> Result<Duplicates> {
        let mut suspects = Suspects::default();
        let mut reader = self.second_reader().await?;
        let head = reader.head.clone();
        while let (back, Some(piece)) = next_piece(self.hold, reader).await? {
            reader = back;
            for row in &piece.rows {
                suspects.see(row.key(&head.shape));
            }
        }
        suspects.end();
        let mut rows: HashMap<Box<[u8]>, Vec<Position>> = HashMap::new();
        reader = self.second_reader().await?;
        while let (back, Some(piece)) = next_piece(self.hold, reader).await? {
            reader = back;
            for row in &piece.rows {
                let key = row.key(&head.shape);
                let text = &piece.text[row.place.clone()];
                if suspects.has(key)
                    && (changes.rows.contains_key(key) || self.decode(&head, row, text).is_ok())
                {
                    let Row { line, offset, .. } = *row;
                    let position = Position { line, offset };
                    rows.entry(key.into()).or_default().push(position);
                }
            }
        }
        let last_stays = self.settings.keep_last_duplicate;
        Ok(Duplicates::among(rows.into_values(), last_stays))
    }

    async fn second_reader(&mut self) -> Result<TableReader> {
        let open = |store: &mut Store| store.reader();
        self.hold.with("reading a table", open).await
    }
}

const ONE_ROW: &str = "Remove one of the two rows, or change its key; `.on_corrupt(OnCorrupt::Quarantine)` sets one aside";

async fn next_piece(
    hold: &Hold<Store>,
    mut reader: TableReader,
) -> Result<(TableReader, Option<Piece>)> {
    hold.with("reading a table", move |_| {
        let piece = reader.next_piece()?;
        Ok((reader, piece))
    })
    .await
}

/// The cells of a row, as many as there are columns.
fn even<'a>(
    head: &Head,
    row: &'a Row,
    text: &[u8],
    settings: &Settings,
) -> Result<Vec<&'a [u8]>, CellError> {
    let columns = head.shape.columns.len();
    let mut cells: Vec<&[u8]> = row.cells.iter().collect();
    let is_cut = cells.len() < columns && without_end(text).len() == text.len();
    let has_key = head.shape.key < cells.len();
    let is_rest_empty = cells.iter().skip(columns).all(|cell| cell.is_empty());
    if cells.len() != columns
        && !(settings.format.uneven_rows && !is_cut && has_key && is_rest_empty)
    {
        return Err(uneven(head, &cells, text, is_cut));
    }
    cells.resize(columns, &[]);
    Ok(cells)
}

/// Why a row has another number of cells than the header, as far as it can be told.
fn uneven(head: &Head, cells: &[&[u8]], text: &[u8], is_cut: bool) -> CellError {
    const OPEN: &str = "open the file with `CsvBackend::new(..).uneven_rows(true)`";
    let columns = head.shape.columns.len();
    let first = cells.first().copied().unwrap_or_default();
    let is_of_psql = cells.len() == 1
        && first.starts_with(b"(")
        && (first.ends_with(b" rows)") || first.ends_with(b" row)"));
    let is_of_unix = head.text.ends_with(b"\n");
    let advice = if is_of_psql {
        "It is the footer of psql: remove the line".to_string()
    } else if first.starts_with(b"#") || first.starts_with(b"//") {
        let sign = char::from(first[0]);
        format!("If it is a comment, open the file with `CsvBackend::new(..).comments({sign:?})`")
    } else if cells.len() < columns && is_of_unix && text.ends_with(b"\r") {
        "A carriage return ends the row in the middle: put the cell that it is in into quotation marks, or remove it".to_string()
    } else if cells.len() > columns && cells.iter().skip(columns).all(|cell| cell.is_empty()) {
        format!("If each row has a separator at its end, add one to the header, too, or {OPEN}")
    } else if cells.len() > columns
        && cells
            .iter()
            .any(|cell| cell.trim_ascii_start().starts_with(b"'"))
    {
        "Put cells with a separator in them into `\"`, which CSV has for that, and not into `'`"
            .to_string()
    } else if cells.len() > columns {
        "Put the cell that has a separator in it into quotation marks".to_string()
    } else if is_cut {
        "The file was cut off here: complete the row, and end its line".to_string()
    } else {
        format!("Complete the row; or, if empty cells at the ends of rows were left out, {OPEN}")
    };
    let found = cells.len();
    CellError::advised(
        format!("expected {columns} cells, as in the header, and found {found}"),
        advice,
    )
}

fn decode_entry<K: Key, V: Value>(
    shape: &Shape,
    texts: &[&str],
    style: &Style,
) -> Result<(K, V), CellError> {
    let key = read_key(shape, texts[shape.key], style)?;
    Ok((key, shape.decode(texts, style)?))
}

fn decode_journaled<K: Key, V: Value>(
    shape: &Shape,
    key: &[u8],
    packed: &[u8],
    style: &Style,
) -> Result<(K, V), CellError> {
    let nonsense = || CellError::Message("it is not a row".to_string());
    let key = std::str::from_utf8(key).map_err(|_| nonsense())?;
    let mut cells = unpack(packed).ok_or_else(nonsense)?;
    if cells.len() != shape.columns.len() {
        return Err(nonsense());
    }
    cells[shape.key] = Some(key.to_string());
    let texts: Vec<&str> = cells
        .iter()
        .map(|cell| cell.as_deref().unwrap_or_default())
        .collect();
    decode_entry(shape, &texts, style)
}

/// A key that is written in another way would be a row that no write ever finds again.
fn read_key<K: Key>(shape: &Shape, text: &str, style: &Style) -> Result<K, CellError> {
    let column = &shape.columns[shape.key];
    let key = decode_key(text, style).map_err(|error| error.in_column(column))?;
    match encode_key(&key, style) {
        Ok(own) if own == text => Ok(key),
        Ok(_) => Err(CellError::advised(
            format!("column `{column}`: the key is not written as this map writes it"),
            "Write it without spaces around it, without zeros, signs or fractions of a number, and without spaces in JSON; \
             or use `String` for keys",
        )),
        Err(error) => Err(CellError::Message(error.to_string()).in_column(column)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::PLAIN;
    use crate::journal::pack;

    /// A journal may pass its checksums and make no sense.
    #[test]
    fn a_row_of_a_journal_has_a_cell_for_each_column() {
        let shape = Shape {
            columns: vec!["key".to_string(), "value".to_string()],
            key: 0,
        };
        for (cells, is_row) in [(1, false), (2, true), (3, false)] {
            let packed = pack(&vec![Some("7".to_string()); cells]);
            let read = decode_journaled::<String, u64>(&shape, b"a", &packed, &PLAIN);
            assert_eq!(read.is_ok(), is_row, "{cells} cells");
        }
    }
}
