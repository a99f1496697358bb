//! What users hold: a path and options, and the open table once it is loaded.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use persistent_map_core::{
    Capabilities, Encoded, Key, LoadSink, PersistentError, Result, StorageBackend, Survives, Value,
    Write, collect,
};
use persistent_map_file::{Hold, blocking};

use crate::cell::CellError;
use crate::disk::{Claim, Disk, OsDisk};
use crate::journal::{Change, Changes, Kind, length_of, pack, push_change};
use crate::load;
use crate::shape::{Shape, SharedShape, encode_key, unstorable};
use crate::store::{Settings, Store};

/// The largest entry. Quotation marks may double it in the table, where a row is read as a whole.
const MAX_ENTRY_BYTES: usize = 16 << 20;

/// Entries in a CSV file: a table that people read and edit.
///
/// Making one does nothing yet. The file is opened, locked and read when a map is opened on it; a second map for the
/// same file, here or in another process, is then refused. A file that does not exist is made with the first write.
///
/// ```
/// use persistent_map_core::PersistentMap;
/// use persistent_map_csv::CsvBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("my_data.csv");
/// let map = PersistentMap::new(CsvBackend::new(&path)).await?;
/// map.insert("greeting".to_string(), "Hello, World!".to_string()).await?; // on disk when this returns
/// map.flush().await?;
///
/// let text = std::fs::read_to_string(&path).unwrap();
/// assert_eq!(text, "key,value\ngreeting,\"Hello, World!\"\n");
/// # map.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct CsvBackend {
    path: PathBuf,
    settings: Settings,
    disk: Arc<dyn Disk>,
    shape: Arc<SharedShape>,
    /// The open table and its thread, from `load` to `close`.
    hold: Hold<Store>,
    /// The path, between a load that failed and the next one: nobody comes in between, as long as this backend lives and
    /// is not closed.
    kept: Mutex<Option<Arc<Claim>>>,
}

impl CsvBackend {
    /// A backend for the file at `path`. A relative path is taken from the directory that is current when a map is
    /// opened on it. The directory must exist and be writable.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::on(Arc::new(OsDisk), path.into())
    }

    pub(crate) fn on(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        CsvBackend {
            path,
            settings: Settings {
                key_column: "key".to_string(),
                sync: true,
                guard_formulas: false,
                keep_extra_columns: true,
                replay_onto_edited_table: false,
                merge_after: 4 << 20,
            },
            disk,
            shape: Arc::new(SharedShape::new("key".to_string())),
            hold: Hold::default(),
            kept: Mutex::default(),
        }
    }

    /// The column that holds the keys; `key` unless set. This is how an existing spreadsheet opens as a map: name the
    /// column that identifies a row.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "city,value\nOslo,709000\n")?;
    /// let inhabitants = PersistentMap::<String, u64, _>::new(CsvBackend::new(&path).key_column("city")).await?;
    /// assert_eq!(inhabitants.get("Oslo"), Some(709_000));
    /// # inhabitants.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn key_column(mut self, name: impl Into<String>) -> Self {
        self.settings.key_column = name.into();
        self.shape = Arc::new(SharedShape::new(self.settings.key_column.clone()));
        self
    }

    /// Whether each commit is synced to the disk before it is acknowledged; on unless set.
    ///
    /// Without, an acknowledged write survives the end of the process at any instant; a power cut may take the latest
    /// writes since the last `flush`, never the table. `flush` and checkpoints are synced either way.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).sync(false)).await?;
    /// map.insert("a".to_string(), 1).await?; // survives a kill
    /// map.flush().await?; // survives a power cut
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.settings.sync = sync;
        self
    }

    /// Whether text that a spreadsheet would run as a formula (it begins with `=`, `+`, `-`, `@`, a tab or a carriage
    /// return, and is no number) is written with a `'` before it. Off unless set.
    ///
    /// For files with text from strangers that people open in a spreadsheet. The map never sees the mark, and files may
    /// be opened with and without the option in turn. Rows that are in the file already are marked by the next
    /// checkpoint.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).guard_formulas(true)).await?;
    /// map.insert(1, "=1+1".to_string()).await?;
    /// map.close().await?;
    /// assert_eq!(map.get(&1).as_deref(), Some("=1+1"));
    /// assert_eq!(std::fs::read_to_string(&path)?, "key,value\n1,'=1+1\n");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn guard_formulas(mut self, guard: bool) -> Self {
        self.settings.guard_formulas = guard;
        self
    }

    /// Whether a table may have columns that are no field of the value; it may unless set. Their cells are kept as they
    /// are: also when the row's value changes, and lost only when the row is removed.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value,remark\nOslo,709000,since 2023\n")?;
    /// let table = CsvBackend::new(&path).keep_extra_columns(false);
    /// let refused = PersistentMap::<String, u64, _>::new(table).await.unwrap_err();
    /// assert!(refused.to_string().contains("remark"));
    ///
    /// let inhabitants = PersistentMap::<String, u64, _>::new(CsvBackend::new(&path)).await?;
    /// inhabitants.insert("Oslo".to_string(), 724_000).await?;
    /// inhabitants.close().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "key,value,remark\nOslo,724000,since 2023\n");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keep_extra_columns(mut self, keep: bool) -> Self {
        self.settings.keep_extra_columns = keep;
        self
    }

    /// Opens a table that was changed by somebody else after a crash had left writes in the journal, and makes those
    /// writes to it: where both have changed a row, the journal wins. Off unless set; then such a table is refused.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// # let backend = || CsvBackend::new(&path);
    /// # let map = PersistentMap::new(backend()).await?;
    /// # map.insert("a".to_string(), 1).await?;
    /// # map.close().await?;
    /// // After a crash, and after an editor has saved the table, once:
    /// let map = PersistentMap::<String, u64, _>::new(backend().replay_onto_edited_table(true)).await?;
    /// assert_eq!(map.get("a"), Some(1));
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn replay_onto_edited_table(mut self, replay: bool) -> Self {
        self.settings.replay_onto_edited_table = replay;
        self
    }

    /// How large the journal of a small table may grow before the two are merged, in bytes; 4 MiB unless set. Beside a
    /// larger table it may grow to the size of the table.
    ///
    /// A merge goes on beside the writes, and takes the disk from them. With less there are more merges, and a start after a
    /// crash has less to do.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).merge_after(64 << 10)).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn merge_after(mut self, bytes: u64) -> Self {
        self.settings.merge_after = bytes;
        self
    }

    fn encode<K: Key, V: Value>(&self, key: &K, value: Option<&V>) -> Result<Encoded> {
        let key = encode_key(key)?;
        let value = value
            .map(|value| self.shape.encode(&key, value))
            .transpose()?
            .map(|cells| pack(&cells));
        let encoded = Encoded::new(key.as_bytes(), value.as_deref());
        check_size(encoded.size())?;
        Ok(encoded)
    }

    /// Entries that take the place of all there are, in the first shape that all of them fit into.
    fn encode_anew<K: Key, V: Value>(&self, entries: &[(K, V)]) -> Result<Replacement> {
        let Some((_, first)) = entries.first() else {
            return Ok(Replacement::default());
        };
        let mut problem = None;
        for shape in self.shape.anew(first) {
            match encode_all(&shape, entries) {
                Ok((changes, cells)) => {
                    return Ok(Replacement {
                        extra: shape.extra(first),
                        shape: Some(shape),
                        changes,
                        cells,
                    });
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| unstorable::<V>(&CellError::Nested)))
    }

    /// The path, which may be ours since a load that failed.
    async fn claim(&self) -> Result<Arc<Claim>> {
        let (disk, path, kept) = (
            Arc::clone(&self.disk),
            self.path.clone(),
            self.kept().take(),
        );
        blocking("opening a table", move || {
            match kept.filter(|claim| claim.check().is_ok()) {
                Some(claim) => Ok(claim),
                None => disk.claim(&path).map(Arc::new),
            }
        })
        .await
    }

    async fn load_claimed<K: Key, V: Value>(
        &self,
        claim: Arc<Claim>,
        sink: &mut dyn LoadSink<K, V>,
    ) -> Result<()> {
        let (disk, settings) = (Arc::clone(&self.disk), self.settings.clone());
        let open = move || Store::at(disk, claim, settings);
        let found = self.hold.open("opening a table", open).await?;
        let loaded = load::load(&self.hold, found, &self.settings, sink).await?;
        self.shape
            .found(loaded.shape, loaded.has_rows, loaded.extra);
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Option<Arc<Claim>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, kind: Kind, contents: Vec<u8>) -> Result<()> {
        let shape = self.shape.get();
        self.hold
            .with("writing to a table", move |store| {
                store.append(kind, &contents, shape.as_deref())
            })
            .await
    }
}

/// Entries as rows of one shape.
#[derive(Default)]
struct Replacement {
    /// None if there are no entries to take it from.
    shape: Option<Shape>,
    extra: Vec<usize>,
    changes: Changes,
    cells: Vec<u8>,
}

fn encode_all<K: Key, V: Value>(shape: &Shape, entries: &[(K, V)]) -> Result<(Changes, Vec<u8>)> {
    let (mut changes, mut all) = (Changes::default(), Vec::new());
    for (key, value) in entries {
        let key = encode_key(key)?;
        let cells = shape.encode(&key, value);
        let cells = pack(&cells.map_err(|error| unstorable::<V>(&error))?);
        check_size(key.len() + cells.len())?;
        let change = Change::Write {
            offset: all.len() as u64,
            bytes: length_of(&cells),
            is_new: false,
        };
        changes.rows.insert(key.into_bytes().into(), change);
        all.extend_from_slice(&cells);
    }
    Ok((changes, all))
}

fn check_size(bytes: usize) -> Result<()> {
    if bytes <= MAX_ENTRY_BYTES {
        return Ok(());
    }
    Err(PersistentError::too_large("entry", bytes, MAX_ENTRY_BYTES))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "what closes a store answers how that went"
)]
fn give_up(store: Store) -> Result<()> {
    drop(store);
    Ok(())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<K: Key, V: Value> StorageBackend<K, V> for CsvBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time()
            .with_atomic_batches()
            .surviving(if self.settings.sync {
                Survives::PowerLoss
            } else {
                Survives::ProcessKill
            })
    }

    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        self.encode(key, value).map(Some)
    }

    async fn load(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        let claim = self.claim().await?;
        // Also for a load that is given up half way.
        *self.kept() = Some(Arc::clone(&claim));
        let loaded = self.load_claimed(claim, sink).await;
        match &loaded {
            Ok(()) => drop(self.kept().take()),
            // What came before is what matters.
            Err(_) => drop(self.hold.close("giving up a table", give_up).await),
        }
        loaded
    }

    async fn load_all(&self) -> Result<HashMap<K, V>> {
        collect(self).await
    }

    async fn save(&self, key: K, value: V) -> Result<()> {
        self.apply(&[Write::insert(key, value)]).await
    }

    async fn delete(&self, key: &K) -> Result<()> {
        self.apply(&[Write::<K, V>::remove(key.clone())]).await
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        let mut contents = Vec::new();
        for write in batch {
            // The map prepares each write in its caller's task; a batch made by hand is prepared here.
            let late = match write.encoded() {
                Some(_) => None,
                None => Some(self.encode(write.key(), write.value())?),
            };
            if let Some(encoded) = write.encoded().or(late.as_ref()) {
                push_change(&mut contents, encoded.key(), encoded.value());
            }
        }
        if contents.is_empty() {
            return Ok(());
        }
        self.append(Kind::Writes, contents).await
    }

    async fn clear(&self) -> Result<()> {
        self.append(Kind::Clear, Vec::new()).await
    }

    async fn read_back(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        let found = self
            .hold
            .with("reading a table", |store| store.look_again())
            .await?;
        load::read_back(&self.hold, found, &self.settings, sink).await
    }

    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        let replacement = self.encode_anew(&entries)?;
        drop(entries);
        let shared = Arc::clone(&self.shape);
        self.hold
            .with("replacing a table", move |store| {
                let Replacement {
                    shape,
                    extra,
                    changes,
                    mut cells,
                } = replacement;
                store.replace(shape.as_ref(), changes, &mut cells)?;
                let has_rows = shape.is_some();
                shared.found(shape, has_rows, extra);
                Ok(())
            })
            .await
    }

    async fn flush(&self) -> Result<()> {
        self.hold.with("writing a table", Store::checkpoint).await
    }

    async fn close(&self) -> Result<()> {
        let kept = self.kept().take();
        let closed = self.hold.close("closing a table", Store::close).await;
        drop(kept);
        closed
    }
}

impl fmt::Debug for CsvBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvBackend")
            .field("path", &self.path)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
