//! Stores whose processes are killed: one that keeps its promise, and those with a bug that must be found.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use persistent_map_core::{Capabilities, PersistentError, Result, StorageBackend, Write};
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
#[should_panic(expected = "a part of a batch is there")]
fn a_batch_in_pieces_is_found() {
    survives_kills(
        "kills::a_batch_in_pieces_is_found",
        &open_with::<u64, String, _, _>(|dir| async move {
            Folder::open(dir.join("rows"), Bug::WritesBatchesInPieces)
        }),
    );
}
