//! Random histories: writes, removals, batches, replaced tables, checkpoints, reopenings, and disks that are full or fail.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use persistent_map_core::{Outcome, Result, StorageBackend, Write};
use serde::{Deserialize, Serialize};

use super::disk::{Bug, Fail, Files, Op, Recorder, TABLE};
use crate::backend::CsvBackend;

pub(super) type Entries = BTreeMap<String, Item>;

/// What somebody else has written beside entries, in a column that is no field.
pub(super) type Notes = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    number: u32,
    text: Option<String>,
}

/// A version of it with one more column, which is kept where it is read as an `Item`.
#[derive(Clone, Serialize, Deserialize)]
struct WiderItem {
    level: u8,
    number: u32,
    text: Option<String>,
}

pub(super) struct History {
    pub(super) sync: bool,
    /// All states that the table had or was to have.
    pub(super) states: Vec<(Entries, Notes)>,
    pub(super) log: Vec<Op>,
    /// How much of the log is about what was there before.
    pub(super) begun: usize,
}

pub(super) struct Map(CsvBackend);

pub(super) fn backend(disk: &Recorder, sync: bool) -> Map {
    backend_with_floor(disk, sync, 600)
}

/// The floor is small, so that short histories have checkpoints of their own.
fn backend_with_floor(disk: &Recorder, sync: bool, floor: u64) -> Map {
    let backend = CsvBackend::on(Arc::new(disk.clone()), PathBuf::from(TABLE));
    Map(backend.sync(sync).merge_after(floor))
}

impl Map {
    pub(super) async fn load_entries(&self) -> Result<Entries> {
        let found = StorageBackend::<String, Item>::load_all(&self.0).await?;
        Ok(found.into_iter().collect())
    }

    async fn apply(&self, batch: &[Write<String, Item>]) -> Result<()> {
        self.0.apply(batch).await
    }

    /// Replaces all entries, by those of one version or the other.
    async fn replace(&self, entries: &Entries, wider: bool) -> Result<()> {
        let entries = entries.clone().into_iter();
        if !wider {
            return self.0.replace(entries.collect()).await;
        }
        let wider = entries.map(|(key, Item { number, text })| {
            let level = u8::try_from(number).unwrap_or_default();
            let item = WiderItem {
                level,
                number,
                text,
            };
            (key, item)
        });
        self.0.replace(wider.collect()).await
    }

    async fn clear(&self) -> Result<()> {
        StorageBackend::<String, Item>::clear(&self.0).await
    }

    async fn flush(&self) -> Result<()> {
        StorageBackend::<String, Item>::flush(&self.0).await
    }

    async fn close(&self) -> Result<()> {
        StorageBackend::<String, Item>::close(&self.0).await
    }
}

/// Plays the history of this number. An error is one that the history itself does not allow.
pub(super) async fn play(seed: u64, bug: Option<Bug>) -> Result<History, String> {
    let mut random = Random(seed);
    let sync = seed % 4 != 3;
    let (start, without_rows) = start(&mut random);
    let disk = Recorder::on(start, bug);
    let begun = disk.log().len();
    let floor = [150, 600][random.below(2)];
    let backend = || backend_with_floor(&disk, sync, floor);
    let mut map = backend();
    let loaded = map
        .load_entries()
        .await
        .map_err(|error| error.to_string())?;
    let mut states = vec![(loaded, notes(&disk))];
    let mut current = 0;
    // Without sync there is much more that a cut may leave.
    let steps = if sync { 14 } else { 7 };
    for number in 0..steps {
        let now = current;
        let failure = match random.below(6) {
            0 => Some(Fail::Write(random.below(120))),
            1 => Some(Fail::Sync),
            _ => None,
        };
        // A merge that was begun ends now, or has to wait until more is written.
        if random.below(3) == 0 {
            disk.fail_later(random.below(4), failure.filter(|_| random.below(3) == 0));
            disk.work();
            disk.fail_next(None);
        }
        // The first writes and syncs are the commit's, those after them of a merge that takes its place.
        let later = [0, 0, 1, 2, 3][random.below(5)];
        match random.below(13) {
            0 => {
                disk.fail_later(later, failure.filter(|fail| *fail != Fail::Sync));
                if map.flush().await.is_ok() {
                    disk.note(Op::Flushed);
                }
            }
            1 => {
                if map.close().await.is_ok() {
                    disk.note(Op::Flushed);
                    let names = disk.names();
                    if names.len() > 1 || names.iter().any(|name| !name.ends_with("t.csv")) {
                        return Err(format!("after a clean close there are {names:?}"));
                    }
                }
                map = reopened(backend(), &states[now].0).await?;
            }
            12 => {
                // Not closed, maybe in the middle of a merge.
                drop(map);
                map = reopened(backend(), &states[now].0).await?;
                // What was recovered is in the table.
                disk.note(Op::Flushed);
            }
            kind => {
                let kind = if number < without_rows { 2 } else { kind };
                let (batch, next) = write(&mut random, number, kind, &states[now]);
                states.push(next);
                let asked = states.len() - 1;
                disk.note(Op::Attempted(asked));
                disk.fail_later(later, failure);
                let done = match kind {
                    2 => map.clear().await,
                    3 => map.replace(&states[asked].0, number % 2 == 0).await,
                    _ => map.apply(&batch).await,
                };
                match done {
                    Ok(()) => {
                        disk.note(Op::Acknowledged);
                        if kind == 3 {
                            disk.note(Op::Flushed);
                        }
                        current = asked;
                    }
                    Err(error) if error.outcome() == Outcome::NotApplied => {
                        if matches!(failure, Some(Fail::Write(_))) && !error.is_storage_full() {
                            return Err(format!("not told as a full disk: {error}"));
                        }
                        disk.note(Op::Refused);
                    }
                    Err(_) => {
                        disk.fail_next(None);
                        break;
                    }
                }
            }
        }
        disk.fail_next(None);
    }
    let log = disk.log();
    Ok(History {
        sync,
        states,
        log,
        begun,
    })
}

async fn reopened(map: Map, expected: &Entries) -> Result<Map, String> {
    let found = map.load_entries().await;
    let found = found.map_err(|error| error.to_string())?;
    if found != *expected {
        return Err(format!("reopened with {found:?} instead of {expected:?}"));
    }
    Ok(map)
}

/// The notes in the table.
pub(super) fn notes(disk: &Recorder) -> Notes {
    let table = disk.table();
    let header = table
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if header.contains(&b';') { b';' } else { b',' })
        .from_reader(&table[..]);
    let columns = reader.headers().unwrap().clone();
    let place = |name| columns.iter().position(|column| column == name);
    let (Some(key), Some(note)) = (place("key"), place("note")) else {
        return Notes::new();
    };
    reader
        .records()
        .map(|row| row.unwrap())
        .map(|row| (row[key].to_string(), row[note].to_string()))
        .filter(|(_, note)| !note.is_empty())
        .collect()
}

/// No file, a table of ours, one that has no rows and lacks a column, one whose rows are not in order, or one with so many
/// columns that what is written about them is many sectors; and for how many steps nothing may be inserted, so that columns
/// are told late.
fn start(random: &mut Random) -> (Files, u32) {
    let mut without_rows = 0;
    let text = match random.below(5) {
        0 => return (Files::new(), 0),
        1 => {
            without_rows = 3;
            "key,number\n".to_string()
        }
        2 => "key,number,text\nk0,1,\nk1,2,\"\"\"\"\"\"\n".to_string(),
        3 => "text;key;number;note\r\n;k3;1;x\r\nq;k1;2;\"y;z\"\r\n".to_string(),
        _ => wide(),
    };
    let files = Files::from([(PathBuf::from(TABLE), text.into_bytes())]);
    (files, without_rows)
}

fn wide() -> String {
    let columns = (0..24).map(|number| format!(",column {number} is no field of the value"));
    let columns = columns.collect::<Vec<_>>().concat();
    let row = |key: &str| format!("{key},1,,note of {key}{}\n", ",".repeat(24));
    format!(
        "key,number,text,note{columns}\n{}{}{}",
        row("k0"),
        row("k2"),
        row("k4")
    )
}

fn write(
    random: &mut Random,
    number: u32,
    kind: usize,
    before: &(Entries, Notes),
) -> (Vec<Write<String, Item>>, (Entries, Notes)) {
    let (mut after, mut notes) = before.clone();
    if kind == 2 {
        return (Vec::new(), (Entries::new(), Notes::new()));
    }
    let batch = (0..[1, 1, 1, 4][random.below(4)]).map(|_| {
        let key = format!("k{}", random.below(6));
        if random.below(4) == 0 {
            after.remove(&key);
            notes.remove(&key);
            return Write::remove(key);
        }
        let text = match random.below(5) {
            0 => None,
            1 => Some(String::new()),
            2 => Some("long ".repeat(random.below(30))),
            3 => Some("over sectors ".repeat(random.below(80))),
            _ => Some("a,\"b\"\r\n".to_string()),
        };
        let item = Item { number, text };
        after.insert(key.clone(), item.clone());
        Write::insert(key, item)
    });
    let batch = batch.collect();
    if kind == 3 {
        // One row takes the place of another, whatever came between.
        notes.clone_from(&before.1);
        notes.retain(|key, _| after.contains_key(key));
    }
    (batch, (after, notes))
}

/// `SplitMix64` (<https://prng.di.unimi.it/splitmix64.c>): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}
