//! From the store into memory at open: progress, bad rows, and what there is to say afterwards.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::backend::LoadSink;
use crate::cache::Cache;
use crate::error::{PersistentError, Result};
use crate::row::CorruptRow;

/// What to do with stored rows that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnCorrupt {
    /// Do not open; the error names file, row and key. Nothing in the store is changed.
    #[default]
    Fail,
    /// Open with the rows that can be read. The others are set aside in the store (they are kept, and not loaded again)
    /// and listed in the [`OpenReport`].
    Quarantine,
}

/// How far an open has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Entries loaded so far.
    pub loaded: u64,
    /// Entries there will be, if the store knows.
    pub total: Option<u64>,
}

/// What an open has found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Entries in the map.
    pub entries: u64,
    /// Rows that could not be read and were set aside. Always empty with [`OnCorrupt::Fail`].
    pub quarantined: Vec<CorruptRow>,
    /// How long loading took. Opening the file itself comes before that, in the backend.
    pub elapsed: Duration,
}

/// Called after every so many entries, and once at the end.
const PROGRESS_EVERY: u64 = 4096;

pub(crate) type OnProgress = Box<dyn FnMut(Progress) + Send>;

/// The sink that a map loads into.
pub(crate) struct Loader<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    on_corrupt: OnCorrupt,
    on_progress: Option<OnProgress>,
    progress: Progress,
    quarantined: Vec<CorruptRow>,
}

impl<'a, K, V, S> Loader<'a, K, V, S> {
    pub(crate) fn new(
        cache: &'a Cache<K, V, S>,
        on_corrupt: OnCorrupt,
        on_progress: Option<OnProgress>,
    ) -> Self {
        Loader {
            cache,
            on_corrupt,
            on_progress,
            progress: Progress {
                loaded: 0,
                total: None,
            },
            quarantined: Vec::new(),
        }
    }

    pub(crate) fn report(mut self, elapsed: Duration) -> OpenReport {
        self.tell();
        OpenReport {
            entries: self.progress.loaded,
            quarantined: self.quarantined,
            elapsed,
        }
    }

    fn tell(&mut self) {
        if let Some(on_progress) = &mut self.on_progress {
            on_progress(self.progress);
        }
    }
}

impl<K, V, S> LoadSink<K, V> for Loader<'_, K, V, S>
where
    K: Eq + Hash + Send + Sync,
    V: Send + Sync,
    S: BuildHasher + Clone + Send + Sync,
{
    fn expect(&mut self, entries: u64) {
        self.progress.total = Some(entries);
    }

    fn contains(&self, key: &K) -> bool {
        self.cache.contains(key)
    }

    fn entry(&mut self, key: K, value: V) -> Result<()> {
        if !self.cache.fill(key, value) {
            return Err(PersistentError::storage(
                format!("loading entry {}", self.progress.loaded + 1),
                "two stored entries have equal keys",
            ));
        }
        self.progress.loaded += 1;
        if self.progress.loaded.is_multiple_of(PROGRESS_EVERY) {
            self.tell();
        }
        Ok(())
    }

    fn corrupt(&mut self, row: CorruptRow) -> Result<()> {
        match self.on_corrupt {
            OnCorrupt::Fail => Err(PersistentError::Corrupt(Box::new(row))),
            OnCorrupt::Quarantine => {
                tracing::warn!(target: "persistent_map", %row, "row set aside");
                self.quarantined.push(row);
                Ok(())
            }
        }
    }
}
