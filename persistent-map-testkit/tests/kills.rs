//! Stores whose processes are killed: one that keeps its promise, and those with a bug that must be found.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use persistent_map_core::{
    Bincode, Capabilities, Codec as _, PersistentError, Result, StorageBackend, Write,
};
use persistent_map_testkit::{kills, open_with, survives_kills};

#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// Writes are acknowledged, and stored when there are some of them, so that each kill meets a few.
    AcknowledgesEarly,
    /// A key that was removed is still there after a restart.
    ForgetsRemovals,
    /// Batches are declared, and written a piece at a time.
    WritesBatchesInPieces,
}

type Change = (u64, Option<String>);

/// A file a key.
struct Folder {
    path: PathBuf,
    bug: Bug,
    late: Mutex<Vec<Change>>,
}

impl Folder {
    fn open(path: PathBuf, bug: Bug) -> Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Folder {
            path,
            bug,
            late: Mutex::default(),
        })
    }

    fn change(&self, change: Change) -> Result<()> {
        if self.bug != Bug::AcknowledgesEarly {
            return self.store(change);
        }
        let mut late = self.late.lock().unwrap();
        late.push(change);
        if late.len() < 8 {
            return Ok(());
        }
        late.drain(..).try_for_each(|change| self.store(change))
    }

    fn store(&self, (key, value): Change) -> Result<()> {
        let file = self.path.join(key.to_string());
        match value {
            Some(value) => {
                let draft = self.path.join("draft");
                fs::write(&draft, value)?;
                fs::rename(draft, file)?;
            }
            None if file.exists() && self.bug != Bug::ForgetsRemovals => fs::remove_file(file)?,
            None => {}
        }
        Ok(())
    }
}

#[async_trait]
impl StorageBackend<u64, String> for Folder {
    fn capabilities(&self) -> Capabilities {
        match self.bug {
            Bug::WritesBatchesInPieces => Capabilities::one_at_a_time().with_atomic_batches(),
            _ => Capabilities::one_at_a_time(),
        }
    }

    async fn load_all(&self) -> Result<HashMap<u64, String>, PersistentError> {
        let mut entries = HashMap::new();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            if let Ok(key) = file.file_name().to_string_lossy().parse() {
                entries.insert(key, fs::read_to_string(file.path())?);
            }
        }
        Ok(entries)
    }

    async fn save(&self, key: u64, value: String) -> Result<(), PersistentError> {
        self.change((key, Some(value)))
    }

    async fn delete(&self, key: &u64) -> Result<(), PersistentError> {
        self.change((*key, None))
    }

    async fn apply(&self, batch: &[Write<u64, String>]) -> Result<()> {
        for write in batch {
            self.change((*write.key(), write.value().cloned()))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.load_all()
            .await?
            .into_keys()
            .try_for_each(|key| self.change((key, None)))
    }

    async fn flush(&self) -> Result<(), PersistentError> {
        Ok(())
    }
}

kills!(
    what_was_acknowledged_survives,
    open_with::<u64, String, _, _>(|dir| async move { Folder::open(dir.join("rows"), Bug::None) })
);

#[test]
#[should_panic(expected = "holds something else")]
fn an_early_acknowledgement_is_found() {
    survives_kills(
        "kills::an_early_acknowledgement_is_found",
        &open_with::<u64, String, _, _>(|dir| async move {
            Folder::open(dir.join("rows"), Bug::AcknowledgesEarly)
        }),
    );
}

#[test]
#[should_panic(expected = "holds something else")]
fn a_removal_that_is_forgotten_is_found() {
    survives_kills(
        "kills::a_removal_that_is_forgotten_is_found",
        &open_with::<u64, String, _, _>(|dir| async move {
            Folder::open(dir.join("rows"), Bug::ForgetsRemovals)
        }),
    );
}

#[test]
#[should_panic(expected = "a part of")]
fn a_batch_in_pieces_is_found() {
    survives_kills(
        "kills::a_batch_in_pieces_is_found",
        &open_with::<u64, String, _, _>(|dir| async move {
            Folder::open(dir.join("rows"), Bug::WritesBatchesInPieces)
        }),
    );
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// `clear` removes half of the entries first, and some time later the others.
    ClearsInPieces,
    /// `replace` removes everything first, and then writes.
    ReplacesInPieces,
}

type Entries = HashMap<u64, String>;

/// All entries in one file, which is written anew with each batch.
struct Table {
    path: PathBuf,
    flaw: Flaw,
    entries: Mutex<Entries>,
}

impl Table {
    fn open(path: PathBuf, flaw: Flaw) -> Self {
        let entries = fs::read(&path)
            .map_or_else(|_| Entries::new(), |bytes| Bincode.decode(&bytes).unwrap());
        let entries = Mutex::new(entries);
        Table {
            path,
            flaw,
            entries,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) -> Result<()> {
        let mut entries = self.entries.lock().unwrap();
        change(&mut entries);
        let draft = self.path.with_extension("draft");
        fs::write(&draft, Bincode.encode(&*entries).unwrap())?;
        thread::sleep(Duration::from_millis(1)); // what a sync takes
        fs::rename(&draft, &self.path)?;
        Ok(())
    }
}

#[async_trait]
impl StorageBackend<u64, String> for Table {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }

    async fn load_all(&self) -> Result<Entries> {
        Ok(self.entries.lock().unwrap().clone())
    }

    async fn save(&self, key: u64, value: String) -> Result<()> {
        self.apply(&[Write::insert(key, value)]).await
    }

    async fn delete(&self, key: &u64) -> Result<()> {
        self.apply(&[Write::remove(*key)]).await
    }

    async fn apply(&self, batch: &[Write<u64, String>]) -> Result<()> {
        self.change(|entries| {
            for write in batch {
                match write.value() {
                    Some(value) => entries.insert(*write.key(), value.clone()),
                    None => entries.remove(write.key()),
                };
            }
        })
    }

    async fn clear(&self) -> Result<()> {
        if self.flaw == Flaw::ClearsInPieces {
            let mut is_left = false;
            self.change(|entries| {
                entries.retain(|_, _| {
                    is_left = !is_left;
                    is_left
                });
            })?;
            thread::sleep(Duration::from_millis(20));
        }
        self.change(Entries::clear)
    }

    async fn replace(&self, new: Vec<(u64, String)>) -> Result<()> {
        if self.flaw == Flaw::ReplacesInPieces {
            self.change(Entries::clear)?;
        }
        self.change(|entries| *entries = new.into_iter().collect())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

kills!(
    what_changes_all_is_one_step,
    open_with::<u64, String, _, _>(
        |dir| async move { Ok(Table::open(dir.join("table"), Flaw::None)) }
    )
);

#[test]
#[should_panic(expected = "a part of what changed all entries")]
fn a_clear_in_pieces_is_found() {
    survives_kills(
        "kills::a_clear_in_pieces_is_found",
        &open_with::<u64, String, _, _>(|dir| async move {
            Ok(Table::open(dir.join("table"), Flaw::ClearsInPieces))
        }),
    );
}

#[test]
#[should_panic(expected = "holds something else")]
fn a_replace_in_pieces_is_found() {
    survives_kills(
        "kills::a_replace_in_pieces_is_found",
        &open_with::<u64, String, _, _>(|dir| async move {
            Ok(Table::open(dir.join("table"), Flaw::ReplacesInPieces))
        }),
    );
}
