//! What a damaged store may come to, and whether it has.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use persistent_map_core::{OnCorrupt, PersistentError};

use super::damage::{Damaged, How};
use super::store::{Kind, Opened, Pristine, contents, open, without_lock};
use crate::failure::Failure;
use crate::oracle::Found;
use crate::record::Record;

/// What a store that opens must hold. To be refused is always right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// It does not open.
    Refused,
    /// All that was stored.
    Right,
    /// All that was stored up to some commit: what follows cannot be told from a write that a crash has cut short.
    Earlier,
    /// What is in the file: people may have written it. Of what they have not touched, nothing is read in another way.
    AsItStands,
}

fn promise(pristine: &Pristine, damaged: &Damaged) -> Promise {
    let is_main = damaged.what.file == pristine.main();
    match (pristine.kind, is_main, damaged.what.how) {
        (Kind::Database, _, How::Cut) => Promise::Refused,
        (Kind::Table, ..) => Promise::AsItStands,
        // A log ends where its checksums do not fit. A journal also tells bytes that were changed from those that a
        // crash has kept from being written.
        (Kind::Log, false, _)
        | (
            Kind::Journal,
            false,
            How::Cut | How::Zeroed | How::Repeated | How::Removed | How::Inserted,
        ) => Promise::Earlier,
        _ => Promise::Right,
    }
}

/// Opens a damaged store, strictly, and on demand another copy with its bad rows set aside; and each once more.
pub(super) async fn judge(
    pristine: &Pristine,
    damaged: &Damaged,
    room: &Path,
    leniently: bool,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let promise = promise(pristine, damaged);
    let case = Case {
        pristine,
        damaged,
        promise,
        room,
    };
    case.place()?;
    case.strictly(tally).await?;
    if leniently {
        case.place()?;
        case.leniently(tally).await?;
    }
    Ok(())
}

struct Case<'a> {
    pristine: &'a Pristine,
    damaged: &'a Damaged,
    promise: Promise,
    room: &'a Path,
}

impl Case<'_> {
    fn place(&self) -> Result<(), Failure> {
        for entry in fs::read_dir(self.room)? {
            fs::remove_file(entry?.path())?;
        }
        for (name, bytes) in &self.damaged.files {
            fs::write(self.room.join(name), bytes)?;
        }
        Ok(())
    }

    async fn open(&self, on_corrupt: OnCorrupt) -> Result<Opened, PersistentError> {
        let path = self.room.join(self.pristine.main());
        open(self.pristine.kind.backend(), &path, on_corrupt).await
    }

    async fn strictly(&self, tally: &mut Tally) -> Result<(), Failure> {
        match self.open(OnCorrupt::Fail).await {
            Err(error) => {
                tally.refused += 1;
                self.is_left_alone(&error)?;
            }
            Ok(opened) => {
                if self.holds(&opened.entries)? {
                    tally.right += 1;
                } else {
                    tally.earlier += 1;
                }
                if self.pristine.kind == Kind::Table && opened.closed.is_ok() {
                    self.is_unchanged("it was opened and closed")?;
                }
            }
        }
        // Whatever came of it, the next one who tries is told nothing else.
        if let Ok(again) = self.open(OnCorrupt::Fail).await {
            self.holds(&again.entries)?;
        }
        Ok(())
    }

    async fn leniently(&self, tally: &mut Tally) -> Result<(), Failure> {
        let opened = match self.open(OnCorrupt::Quarantine).await {
            Err(error) => return self.is_left_alone(&error),
            Ok(opened) => opened,
        };
        let aside = opened.report.quarantined.len();
        if aside == 0 {
            return self.holds(&opened.entries).map(drop);
        }
        tally.set_aside += 1;
        self.holds_a_part(&opened.entries, aside)?;
        if opened.closed.is_ok() {
            let again = self.open(OnCorrupt::Fail).await.map_err(|error| {
                violation(format!(
                    "refused after its bad rows were set aside: {error}"
                ))
            })?;
            if again.entries != opened.entries {
                return Err(violation("without its bad rows it has other entries"));
            }
        }
        Ok(())
    }

    /// Whether these entries are the latest. Anything that was not promised is a violation.
    fn holds(&self, entries: &BTreeMap<String, Record>) -> Result<bool, Failure> {
        if self.promise == Promise::AsItStands {
            return self.stands(entries, true);
        }
        let found = versions(entries)?;
        let is_last = found == *self.pristine.last();
        match self.promise {
            Promise::Refused => Err(violation("it was opened")),
            _ if is_last => Ok(true),
            Promise::Earlier if self.pristine.states.contains(&found) => Ok(false),
            _ => Err(violation(format!(
                "{} entries, not those that were stored",
                found.len()
            ))),
        }
    }

    /// Whether what is missing from these entries is in so many rows that were set aside.
    fn holds_a_part(
        &self,
        entries: &BTreeMap<String, Record>,
        aside: usize,
    ) -> Result<(), Failure> {
        if self.promise == Promise::AsItStands {
            return self.stands(entries, false).map(drop);
        }
        let found = versions(entries)?;
        let is_part_of = |state: &&Found| {
            let is_there = |(key, version)| state.get(key) == Some(version);
            found.iter().all(is_there) && state.len() - found.len() <= aside
        };
        let last = std::slice::from_ref(self.pristine.last());
        let states = match self.promise {
            Promise::Earlier => &self.pristine.states,
            _ => last,
        };
        match states.iter().find(is_part_of) {
            Some(_) => Ok(()),
            None => Err(violation(format!(
                "{} entries and {aside} set aside are not what was stored",
                found.len()
            ))),
        }
    }

    /// Whether each entry is a row of the text as another reader of CSV sees it, and if `all` of them, each row an entry.
    /// After a flipped byte at most one row is another one than before.
    fn stands(&self, entries: &BTreeMap<String, Record>, all: bool) -> Result<bool, Failure> {
        let text = &self.damaged.files[self.pristine.main()];
        let seen = b",;\t".iter().any(|delimiter| {
            let rows = rows(text, *delimiter);
            let is_row = |(key, record): (&String, &Record)| {
                let rows = rows.get(key).map(Vec::as_slice).unwrap_or_default();
                rows.iter().any(|row| record.is_written(row))
            };
            entries.iter().all(is_row)
                && (!all || rows.values().map(Vec::len).sum::<usize>() == entries.len())
        });
        if !seen {
            return Err(violation("its entries are not the rows of its text"));
        }
        let last = self.pristine.last();
        let is_old = |(key, record): &(&String, &Record)| {
            last.get(*key) == Some(&record.version()) && record.is_intact(key)
        };
        let new = entries.iter().filter(|entry| !is_old(entry)).count();
        if self.damaged.what.how == How::Flipped && new > 1 {
            return Err(violation(format!("{new} rows changed with one byte")));
        }
        Ok(new == 0 && entries.len() == last.len())
    }

    /// A store that is refused stays as it is. An open database also bears marks, which come and go; and the log of a
    /// killed process is merged.
    fn is_left_alone(&self, error: &PersistentError) -> Result<(), Failure> {
        /// The mark "in use", the counters of SQLite's header, and what is counted with the mark.
        const MARKS: usize = 64;
        let by_its_head = matches!(
            error,
            PersistentError::Refused { .. } | PersistentError::Mismatch { .. }
        );
        match self.pristine.kind {
            Kind::Log => Ok(()),
            Kind::Database if !by_its_head => {
                let name = self.pristine.main();
                let (before, after) = (&self.damaged.files[name], fs::read(self.room.join(name))?);
                let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
                if after.len() == before.len() && changed <= MARKS {
                    return Ok(());
                }
                Err(violation(format!(
                    "{changed} bytes were changed, though it was refused: {error}"
                )))
            }
            _ => self.is_unchanged(&format!("it was refused: {error}")),
        }
    }

    fn is_unchanged(&self, why: &str) -> Result<(), Failure> {
        if without_lock(contents(self.room)?) == self.damaged.files {
            return Ok(());
        }
        Err(violation(format!("its files were changed, though {why}")))
    }
}

/// Key and version of whole records.
fn versions(entries: &BTreeMap<String, Record>) -> Result<Found, Failure> {
    match entries.iter().find(|(key, record)| !record.is_intact(key)) {
        Some(_) => Err(violation("a value that was never stored")),
        None => Ok(entries
            .iter()
            .map(|(key, record)| (key.clone(), record.version()))
            .collect()),
    }
}

/// The rows of a table by their keys, each as cells by their columns.
fn rows(text: &[u8], delimiter: u8) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(text);
    let Ok(columns) = reader.headers().cloned() else {
        return BTreeMap::new();
    };
    let mut rows: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for cells in reader.records().flatten() {
        let cells = columns.iter().zip(&cells);
        let row: BTreeMap<String, String> = cells
            .map(|(column, cell)| (unguarded(column), unguarded(cell)))
            .collect();
        let key = row.get("key").cloned().unwrap_or_default();
        rows.entry(key).or_default().push(row);
    }
    rows
}

/// Without the mark that keeps a spreadsheet from taking a text for a formula.
fn unguarded(cell: &str) -> String {
    match cell.trim_start_matches('\'').chars().next() {
        Some('=' | '+' | '-' | '@') => cell.strip_prefix('\'').unwrap_or(cell).to_string(),
        _ => cell.to_string(),
    }
}

fn violation(what: impl Into<String>) -> Failure {
    Failure::Violation(what.into())
}

/// What came of the stores so far.
#[derive(Default)]
pub(super) struct Tally {
    refused: u64,
    right: u64,
    /// Without the last commits, or as somebody has edited it.
    earlier: u64,
    set_aside: u64,
    pub(super) crafted: u64,
    slowest_ms: u64,
    memory_kib: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.refused += other.refused;
        self.right += other.right;
        self.earlier += other.earlier;
        self.set_aside += other.set_aside;
        self.crafted += other.crafted;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.see_memory(other.memory_kib);
    }

    pub(super) fn see_time(&mut self, elapsed: Duration) {
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.slowest_ms = self.slowest_ms.max(ms);
    }

    pub(super) fn see_memory(&mut self, kib: u64) {
        self.memory_kib = self.memory_kib.max(kib);
    }

    /// As a child tells them.
    pub(super) fn counts(&self) -> Vec<u64> {
        vec![
            self.refused,
            self.right,
            self.earlier,
            self.set_aside,
            self.crafted,
            self.slowest_ms,
            self.memory_kib,
        ]
    }

    pub(super) fn from_counts(counts: &[u64]) -> Self {
        let count = |at| counts.get(at).copied().unwrap_or_default();
        Tally {
            refused: count(0),
            right: count(1),
            earlier: count(2),
            set_aside: count(3),
            crafted: count(4),
            slowest_ms: count(5),
            memory_kib: count(6),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} corruptions: {} refused, {} with all that was stored, {} as an earlier commit or an edit leaves it; \
             {} with rows set aside; {} crafted files; at most {} ms and {} MiB",
            self.refused + self.right + self.earlier,
            self.refused,
            self.right,
            self.earlier,
            self.set_aside,
            self.crafted,
            self.slowest_ms,
            self.memory_kib.div_ceil(1 << 10)
        )
    }
}
