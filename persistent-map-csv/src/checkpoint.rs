//! A new table from the old one and the changes since, row by row: neither is ever in memory as a whole.
//!
//! Rows that have not changed are copied as they stand, so that the difference to the old file is what has changed, in
//! whatever way somebody else's file is written.

use std::collections::HashSet;
use std::collections::btree_map::IntoIter;
use std::io;
use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;

use crc32fast::Hasher;
use csv_async::ByteRecord;
use persistent_map_core::{PersistentError, Result};
use persistent_map_file::refused;

use crate::disk::DiskFile;
use crate::journal::{Change, Changes, Packed, unpack};
use crate::settings::Settings;
use crate::shape::Shape;
use crate::store::Table;
use crate::table::{Head, Print, TableReader, fault};
use crate::text::{BOM, Dialect, Rows, guarded, is_formula, unguarded};

/// Bytes that are collected before they are written.
const PIECE: usize = 1 << 20;

/// Bytes of changed rows that are made into text together.
const RUN: usize = 64 << 10;

/// The table as it is.
pub(crate) struct Source<'a> {
    pub(crate) reader: TableReader,
    pub(crate) table: &'a Table,
}

/// What is to become of it.
pub(crate) struct Plan<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) changes: Changes,
    /// Where the cells of the changes are.
    pub(crate) cells: Option<&'a mut dyn Packed>,
    pub(crate) rest: Rest<'a>,
}

/// What becomes of rows that are not among the changes.
#[derive(Clone, Copy)]
pub(crate) enum Rest<'a> {
    /// They stay, but those at these places.
    Stays { except: &'a HashSet<u64> },
    /// They go.
    Goes,
}

/// Writes the new table to `file`, and syncs it. Fails if the old one is not what it was when it was opened.
pub(crate) fn write(
    file: Box<dyn DiskFile>,
    path: &Path,
    source: Option<Source<'_>>,
    plan: Plan<'_>,
    settings: &Settings,
) -> Result<Table> {
    let Plan {
        shape,
        changes,
        cells,
        rest,
    } = plan;
    let head = source.as_ref().map(|source| &source.table.head);
    let dialect = head.map_or_else(|| settings.new_dialect(), |head| head.dialect);
    let head_again = header(head, shape, dialect).map_err(|error| failed(path, error))?;
    let cleared = changes.cleared;
    let mut merge = Merge {
        out: Output {
            file,
            buffer: Vec::new(),
            written: 0,
            hasher: Hasher::new(),
        },
        changes: changes.rows.into_iter().peekable(),
        cells,
        shape,
        old_columns: head.map_or_else(Vec::new, |head| shape.places_in(&head.shape)),
        rest,
        dialect,
        again: Arc::clone(&head_again.again),
        guard: settings.guard_formulas,
        run: None,
    };
    let mut tail = Vec::new();
    merge
        .out
        .write(&head_again.text)
        .map_err(|error| failed(path, error))?;
    if let Some(mut source) = source {
        let is_wanted = |offset: u64| match rest {
            Rest::Stays { except } => !cleared && !except.contains(&offset),
            Rest::Goes => true,
        };
        let old_shape = &source.table.head.shape;
        if source.table.is_sorted {
            while let Some(piece) = source.reader.next_piece()? {
                for row in piece.rows.iter().filter(|row| is_wanted(row.offset)) {
                    merge
                        .row(
                            row.key(old_shape),
                            &piece.text[row.place.clone()],
                            &row.cells,
                        )
                        .map_err(|error| failed(path, error))?;
                }
            }
            check_unedited(&mut source, path)?;
        } else {
            let index = Index::of(&mut source.reader, path, is_wanted)?;
            check_unedited(&mut source, path)?;
            for place in &index.rows {
                let text = source.reader.text_at(place.offset, place.bytes)?;
                let records = dialect
                    .records(&text[dialect.comments_before(&text)..])
                    .map_err(|error| failed(path, error))?;
                for cells in &records {
                    merge
                        .row(&place.key, &text, cells)
                        .map_err(|error| failed(path, error))?;
                }
            }
        }
        tail = source.reader.tail;
    }
    let (mut file, print) = merge.finish(&tail).map_err(|error| failed(path, error))?;
    file.sync().map_err(|error| failed(path, error))?;
    Ok(Table {
        print,
        head: head_again,
        is_sorted: true,
    })
}

/// Where the rows of a table are, by key.
struct Index {
    rows: Vec<Place>,
}

struct Place {
    key: Box<[u8]>,
    offset: u64,
    bytes: usize,
}

impl Index {
    /// Reads the keys of the rows that are wanted, by their places. Two rows with the same one are an error.
    fn of(reader: &mut TableReader, path: &Path, is_wanted: impl Fn(u64) -> bool) -> Result<Self> {
        let mut rows = Vec::new();
        let mut lines = Vec::new();
        let shape = reader.head.shape.clone();
        while let Some(piece) = reader.next_piece()? {
            for row in piece.rows.iter().filter(|row| is_wanted(row.offset)) {
                lines.push((row.line, rows.len()));
                rows.push(Place {
                    key: row.key(&shape).into(),
                    offset: row.offset,
                    bytes: row.place.len(),
                });
            }
        }
        lines.sort_by(|(line, a), (other, b)| (&rows[*a].key, line).cmp(&(&rows[*b].key, other)));
        for pair in lines.windows(2) {
            let [(first, a), (second, b)] = *pair else {
                continue;
            };
            if rows[a].key == rows[b].key {
                return Err(fault(
                    path,
                    second,
                    format!(
                        "column `{}`: the key is that of line {first}, too",
                        shape.columns[shape.key]
                    ),
                    "Remove one of the two rows, or change its key",
                ));
            }
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Index { rows })
    }
}

struct Merge<'a> {
    out: Output,
    changes: Peekable<IntoIter<Box<[u8]>, Change>>,
    cells: Option<&'a mut dyn Packed>,
    shape: &'a Shape,
    /// Where the old table has each column.
    old_columns: Vec<Option<usize>>,
    rest: Rest<'a>,
    dialect: Dialect,
    /// What a row must not look like.
    again: Arc<[u8]>,
    guard: bool,
    /// Changed rows that follow each other, and how many bytes they are.
    run: Option<(Rows, usize)>,
}

impl Merge<'_> {
    /// Takes a row of the old table. They come in the order of their keys.
    fn row(&mut self, key: &[u8], text: &[u8], cells: &ByteRecord) -> io::Result<()> {
        while let Some((new, change)) = self.changes.next_if(|(new, _)| &**new < key) {
            self.change(&new, change, None)?;
        }
        let comments = &text[..self.dialect.comments_before(text)];
        if let Some((key, change)) = self.changes.next_if(|(new, _)| &**new == key) {
            if matches!(change, Change::Write { .. }) {
                self.comments(comments)?;
            }
            return self.change(&key, change, Some(cells));
        }
        if matches!(self.rest, Rest::Goes) {
            return Ok(());
        }
        if self.guard && cells.iter().any(is_formula) {
            self.comments(comments)?;
            let cells = cells.iter().map(|cell| guarded(unguarded(cell), true));
            return self.changed(text.len(), cells);
        }
        self.end_run()?;
        self.out.write(text)?;
        if text.ends_with(b"\n") || text.ends_with(b"\r") {
            Ok(())
        } else {
            self.out.write(self.dialect.line_end())
        }
    }

    fn comments(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.end_run()?;
        self.out.write(text)
    }

    /// Writes a changed row. Cells that the value does not fill are kept from the old one, unless that was removed before.
    fn change(&mut self, key: &[u8], change: Change, old: Option<&ByteRecord>) -> io::Result<()> {
        let Change::Write {
            offset,
            bytes,
            is_new,
        } = change
        else {
            return Ok(());
        };
        let Some(packed) = &mut self.cells else {
            return Ok(());
        };
        let old = old.filter(|_| !is_new);
        let cells = unpack(&packed.cells_at(offset, bytes)?)
            .filter(|cells| cells.len() == self.shape.columns.len())
            .ok_or_else(|| {
                io::Error::other("a row in the journal has changed since it was written")
            })?;
        let (shape, guard) = (self.shape, self.guard);
        let old_columns = std::mem::take(&mut self.old_columns);
        let old_cell = |at: usize| old?.get((*old_columns.get(at)?)?);
        let written = self.changed(
            bytes as usize,
            cells.iter().enumerate().map(|(at, cell)| {
                let text = match cell {
                    _ if at == shape.key => key,
                    Some(text) => text.as_bytes(),
                    None => unguarded(old_cell(at).unwrap_or_default()),
                };
                guarded(text, guard)
            }),
        );
        self.old_columns = old_columns;
        written
    }

    fn changed<C: AsRef<[u8]>>(
        &mut self,
        bytes: usize,
        cells: impl IntoIterator<Item = C>,
    ) -> io::Result<()> {
        let (rows, collected) = self
            .run
            .get_or_insert_with(|| (Rows::new(self.dialect, Arc::clone(&self.again)), 0));
        rows.push(cells)?;
        *collected += bytes;
        if *collected < RUN {
            Ok(())
        } else {
            self.end_run()
        }
    }

    fn end_run(&mut self) -> io::Result<()> {
        match self.run.take() {
            Some((rows, _)) => self.out.write(&rows.finish()?),
            None => Ok(()),
        }
    }

    /// Writes what comes after the last row of the old table: new ones, and comments.
    fn finish(mut self, tail: &[u8]) -> io::Result<(Box<dyn DiskFile>, Print)> {
        while let Some((key, change)) = self.changes.next() {
            self.change(&key, change, None)?;
        }
        self.end_run()?;
        self.out.write(tail)?;
        self.out.finish()
    }
}

struct Output {
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
    hasher: Hasher,
}

impl Output {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(text);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.buffer)?;
        self.hasher.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Box<dyn DiskFile>, Print)> {
        self.flush()?;
        let print = Print {
            bytes: self.written,
            crc: self.hasher.finalize(),
        };
        Ok((self.file, print))
    }
}

/// The old header as it stands if it says the same, and what stands before it.
fn header(head: Option<&Head>, shape: &Shape, dialect: Dialect) -> io::Result<Head> {
    let (mut text, start) = match head {
        Some(head) => (head.text.clone(), head.start),
        None if dialect.bom => (BOM.as_bytes().to_vec(), BOM.len()),
        None => (Vec::new(), 0),
    };
    if head.is_none_or(|head| head.shape != *shape) {
        text.truncate(start);
        let columns = shape
            .columns
            .iter()
            .map(|column| guarded(column.as_bytes(), false));
        text.extend(dialect.row(columns)?);
    } else if !text.ends_with(b"\n") && !text.ends_with(b"\r") {
        text.extend_from_slice(dialect.line_end());
    }
    Head::new(dialect, shape.clone(), text, start)
}

pub(crate) fn edited(path: &Path) -> PersistentError {
    refused(
        path,
        "the file was changed by somebody else while the map was open, and was not overwritten. All writes of this map are \
         safe in the journal beside it",
        EDITED_ADVICE,
        None,
    )
}

pub(crate) const EDITED_ADVICE: &str = "Move the changed file away, put the old one back and open the map again; or open it \
    with `CsvBackend::new(..).replay_onto_edited_table(true)`, which makes the writes of this map to the changed file";

fn check_unedited(source: &mut Source<'_>, path: &Path) -> Result<()> {
    if source.reader.finish()? == source.table.print {
        return Ok(());
    }
    Err(edited(path))
}

fn failed(path: &Path, error: io::Error) -> PersistentError {
    PersistentError::storage(format!("writing {}", path.display()), error)
}
