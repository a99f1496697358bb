//! From the store into memory at open: progress, bad rows, and what there is to say afterwards.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::backend::{Key, LoadSink, StorageBackend, Value, two_equal_keys};
use crate::cache::Cache;
use crate::error::{PersistentError, Result};
use crate::row::CorruptRow;

/// What to do with stored rows that cannot be read. For an example see [`Builder`](crate::Builder).
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

/// How far an open or a copy has come. From [`Builder::on_progress`](crate::Builder::on_progress) and
/// [`Copying::on_progress`](crate::Copying::on_progress).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Entries loaded so far.
    pub loaded: u64,
    /// Entries there will be, if the store knows.
    pub total: Option<u64>,
}

/// What an open has found. From [`Builder::open_with_report`](crate::Builder::open_with_report).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Entries in the map.
    pub entries: u64,
    /// Rows that could not be read and were set aside. Always empty with [`OnCorrupt::Fail`].
    pub quarantined: Vec<CorruptRow>,
    /// Rows that hold nothing, not even a key, as spreadsheets leave them at the end of a table. They are no entries, and
    /// the store may leave them out when it writes the table.
    pub empty_rows: u64,
    /// Whether the store is known to be another than what was closed last: somebody has edited, replaced or deleted it. Only
    /// CSV knows, and not always: not after a crash, nor without the `.lock` file that stays beside the table.
    pub edited: bool,
    /// How long loading took. Opening the file itself comes before that, in the backend.
    pub elapsed: Duration,
}

/// Called after every so many entries, and once at the end.
const PROGRESS_EVERY: u64 = 4096;

pub(crate) type OnProgress = Box<dyn FnMut(Progress) + Send>;

/// The sink that a map loads into.
pub(crate) struct Loader<K, V, S> {
    cache: Cache<K, V, S>,
    on_corrupt: OnCorrupt,
    /// There may be another type that intact rows are of, so they are not set aside.
    other_types: bool,
    on_progress: Option<OnProgress>,
    progress: Progress,
    quarantined: Vec<CorruptRow>,
    empty_rows: u64,
    edited: bool,
}

impl<K, V, S> Loader<K, V, S>
where
    K: Eq + Hash,
    S: BuildHasher + Clone,
{
    pub(crate) fn new(hasher: S, on_corrupt: OnCorrupt, on_progress: Option<OnProgress>) -> Self {
        Loader {
            cache: Cache::with_hasher(hasher),
            on_corrupt,
            other_types: false,
            on_progress,
            progress: Progress {
                loaded: 0,
                total: None,
            },
            quarantined: Vec::new(),
            empty_rows: 0,
            edited: false,
        }
    }

    /// What has been loaded, and what there is to say of it.
    pub(crate) fn finish(mut self, elapsed: Duration) -> (Cache<K, V, S>, OpenReport) {
        self.tell();
        let report = OpenReport {
            entries: self.progress.loaded,
            quarantined: self.quarantined,
            empty_rows: self.empty_rows,
            edited: self.edited,
            elapsed,
        };
        (self.cache, report)
    }

    /// Forgets what was loaded. Rows of `other_types` are an error from now on, or what the user wants.
    pub(crate) fn start_again(&mut self, other_types: bool) {
        self.other_types = other_types;
        self.cache.clear();
        self.quarantined.clear();
        self.empty_rows = 0;
        self.edited = false;
        self.progress.loaded = 0;
        self.progress.total = None;
    }

    /// Takes entries that come from elsewhere than the store.
    pub(crate) fn take_all(&mut self, entries: Vec<(K, V)>) -> Result<()>
    where
        Self: LoadSink<K, V>,
    {
        self.expect(entries.len() as u64);
        for (key, value) in entries {
            self.entry(key, value)?;
        }
        Ok(())
    }

    fn tell(&mut self) {
        if let Some(on_progress) = &mut self.on_progress {
            on_progress(self.progress);
        }
    }
}

impl<K, V, S> LoadSink<K, V> for Loader<K, V, S>
where
    K: Eq + Hash + Send + Sync,
    V: Send + Sync,
    S: BuildHasher + Clone + Send + Sync,
{
    fn expect(&mut self, entries: u64) {
        self.progress.total = Some(entries);
        self.cache.reserve(entries);
    }

    fn entry_if_new(&mut self, key: K, value: V) -> Result<bool> {
        if !self.cache.fill(key, value) {
            return Ok(false);
        }
        self.progress.loaded += 1;
        if self.progress.loaded.is_multiple_of(PROGRESS_EVERY) {
            self.tell();
        }
        Ok(true)
    }

    fn entry(&mut self, key: K, value: V) -> Result<()> {
        if self.entry_if_new(key, value)? {
            return Ok(());
        }
        Err(twice(self.progress.loaded + 1))
    }

    fn corrupt(&mut self, row: CorruptRow) -> Result<()> {
        match self.on_corrupt {
            OnCorrupt::Quarantine if !(row.intact && self.other_types) => {
                tracing::warn!(target: "persistent_map", %row, "row set aside");
                self.quarantined.push(row);
                Ok(())
            }
            _ => Err(PersistentError::Corrupt(Box::new(row))),
        }
    }

    fn empty_rows(&mut self, rows: u64) {
        self.empty_rows += rows;
    }

    fn edited(&mut self) {
        self.edited = true;
    }

    /// A map of other types, as a rule, and not ten thousand damaged rows.
    fn finish(&mut self) -> Result<()> {
        match self.quarantined.iter().find(|row| row.intact) {
            Some(row) if self.progress.loaded == 0 => {
                Err(PersistentError::Corrupt(Box::new(row.clone())))
            }
            _ => Ok(()),
        }
    }
}

fn twice(number: u64) -> PersistentError {
    two_equal_keys(format!("loading entry {number}"))
}

/// All entries that [`StorageBackend::load`] gives, for backends whose `load_all` is nothing but that. A row that cannot be
/// read is an error.
///
/// # Errors
/// What `load` says, and [`Corrupt`](PersistentError::Corrupt).
///
/// # Cancel safety
/// That of the backend's `load`.
///
/// ```
/// use persistent_map_core::{StorageBackend, collect};
/// # use persistent_map_testkit::Disk;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let backend = Disk::<String, u32>::new().backend();
/// backend.save("a".to_string(), 1).await?;
/// assert_eq!(collect(&backend).await?["a"], 1);
/// # Ok(())
/// # }
/// ```
pub async fn collect<K, V, B>(backend: &B) -> Result<HashMap<K, V>>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V> + ?Sized,
{
    let mut entries = HashMap::new();
    backend.load(&mut Strict(&mut entries)).await?;
    Ok(entries)
}

/// Collects entries for a caller who has not said what to do with bad rows.
struct Strict<'a, K, V>(&'a mut HashMap<K, V>);

impl<K: Key, V: Value> LoadSink<K, V> for Strict<'_, K, V> {
    fn expect(&mut self, entries: u64) {
        self.0
            .reserve(usize::try_from(entries.min(1 << 20)).unwrap_or(0));
    }

    fn entry_if_new(&mut self, key: K, value: V) -> Result<bool> {
        match self.0.entry(key) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(true)
            }
        }
    }

    fn entry(&mut self, key: K, value: V) -> Result<()> {
        if self.entry_if_new(key, value)? {
            return Ok(());
        }
        Err(twice(self.0.len() as u64 + 1))
    }

    fn corrupt(&mut self, row: CorruptRow) -> Result<()> {
        Err(PersistentError::Corrupt(Box::new(row)))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;
    use crate::row::Location;

    fn quarantining() -> Loader<u8, u8, RandomState> {
        Loader::new(RandomState::new(), OnCorrupt::Quarantine, None)
    }

    fn row() -> CorruptRow {
        CorruptRow::new(Location::default(), 1, b"a", "it is something else")
    }

    #[test]
    fn a_store_of_other_types_is_not_set_aside_row_by_row() -> Result<()> {
        let mut loader = quarantining();
        LoadSink::finish(&mut loader)?;
        loader.corrupt(row())?;
        LoadSink::finish(&mut loader)?; // damaged, of whatever types
        loader.corrupt(row().intact())?;
        let refused = LoadSink::finish(&mut loader);
        assert!(matches!(refused, Err(PersistentError::Corrupt(row)) if row.intact));

        // One row that fits, and the others are at fault.
        loader.entry(1, 1)?;
        LoadSink::finish(&mut loader)?;

        loader.start_again(false);
        LoadSink::finish(&mut loader)
    }
}
