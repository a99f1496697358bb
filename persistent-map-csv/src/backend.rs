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

use crate::cell::{CellError, Style};
use crate::disk::{Claim, Disk, OsDisk};
use crate::journal::{Change, Changes, Kind, length_of, pack, push_change, unpack};
use crate::load;
use crate::settings::Settings;
use crate::shape::{Shape, SharedShape, encode_key, unstorable};
use crate::store::{Store, check_name};

/// The largest entry. Quotation marks may double it in the table, where a row is read as a whole.
const MAX_ENTRY_BYTES: usize = 16 << 20;

/// Entries in a CSV file: a table that people read and edit.
///
/// Making one does nothing yet. The file is opened, locked and read when a map is opened on it; a second map for the
/// same file, here or in another process, is then refused. A file that does not exist is made with the first write.
///
/// Opening needs the memory of the entries, and little more: tables are read in pieces. `verify` also collects the keys, and
/// the first checkpoint of a table that is not sorted by key collects keys and places. Measured on Linux with keys of ten
/// digits as `String` and numbers as values: a million rows (20 MB) open in a process of 108 MB, which `verify` makes 212 MB;
/// three million (60 MB) in 236 MB, and 447 MB. Sorted or not makes no difference there.
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
    pub(crate) settings: Settings,
    disk: Arc<dyn Disk>,
    pub(crate) shape: Arc<SharedShape>,
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
            settings: Settings::default(),
            disk,
            shape: Arc::new(SharedShape::new("key".to_string())),
            hold: Hold::default(),
            kept: Mutex::default(),
        }
    }

    fn encode<K: Key, V: Value>(&self, key: &K, value: Option<&V>) -> Result<Encoded> {
        let key = encode_key(key, &self.settings.style)?;
        let value = value
            .map(|value| self.shape.encode(&key, value, &self.settings.style))
            .transpose()?
            .map(|cells| pack(&cells));
        let encoded = Encoded::new(key.as_bytes(), value.as_deref());
        check_size(encoded.size(), value.as_deref().unwrap_or_default())?;
        Ok(encoded)
    }

    /// Entries that take the place of all there are, in the first shape that all of them fit into.
    fn encode_anew<K: Key, V: Value>(&self, entries: &[(K, V)]) -> Result<Replacement> {
        let Some((_, first)) = entries.first() else {
            return Ok(Replacement::default());
        };
        let mut problem = None;
        for shape in self.shape.anew(first) {
            match encode_all(&shape, entries, &self.settings.style) {
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
            if let Some(claim) = kept.filter(|claim| claim.check().is_ok()) {
                return Ok(claim);
            }
            check_name(&*disk, &path)?;
            disk.claim(&path).map(Arc::new)
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

fn encode_all<K: Key, V: Value>(
    shape: &Shape,
    entries: &[(K, V)],
    style: &Style,
) -> Result<(Changes, Vec<u8>)> {
    let (mut changes, mut all) = (Changes::default(), Vec::new());
    for (key, value) in entries {
        let key = encode_key(key, style)?;
        let cells = shape.encode(&key, value, style);
        let cells = pack(&cells.map_err(|error| unstorable::<V>(&error))?);
        check_size(key.len() + cells.len(), &cells)?;
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

fn check_size(bytes: usize, cells: &[u8]) -> Result<()> {
    if bytes <= MAX_ENTRY_BYTES {
        return Ok(());
    }
    let is_json = |text: &String| text.len() > MAX_ENTRY_BYTES / 2 && text.starts_with(['[', '{']);
    let part = if unpack(cells).is_some_and(|cells| cells.iter().flatten().any(is_json)) {
        "entry, in which bytes and other lists become JSON (four letters for most bytes),"
    } else {
        "entry"
    };
    Err(PersistentError::too_large(part, bytes, MAX_ENTRY_BYTES))
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
        self.settings.check(&self.path)?;
        // The thread of a load that was given up half way may still be at work on the path that is kept.
        let _ = self.hold.with("opening a table", |_| Ok(())).await;
        let claim = self.claim().await?;
        // Also for a load that is given up half way.
        *self.kept() = Some(Arc::clone(&claim));
        let loaded = self.load_claimed(claim, sink).await;
        match &loaded {
            Ok(()) => drop(self.kept().take()),
            // What came before is what matters.
            Err(_) => drop(self.hold.close("giving up a table", |_| Ok(())).await),
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc::channel;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Two stores on one path would write the same draft.
    #[tokio::test]
    async fn a_load_waits_for_what_one_that_was_given_up_still_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        std::fs::write(&path, "key,value\na,1\n").unwrap();
        let backend = CsvBackend::new(&path);

        let claim = backend.claim().await.unwrap();
        *backend.kept() = Some(Arc::clone(&claim));
        let (disk, settings) = (Arc::clone(&backend.disk), backend.settings.clone());
        let open = move || Store::at(disk, claim, settings);
        drop(backend.hold.open("opening", open).await.unwrap());
        let (go, gone) = channel::<()>();
        {
            let mut recovering = pin!(backend.hold.with("recovering", move |_| {
                let _ = gone.recv();
                Ok(())
            }));
            let context = &mut Context::from_waker(Waker::noop());
            assert!(recovering.as_mut().poll(context).is_pending());
        }

        let mut load = StorageBackend::<String, u64>::load_all(&backend);
        let early = timeout(Duration::from_millis(300), &mut load).await;
        assert!(early.is_err(), "it goes on beside the other");
        go.send(()).unwrap();
        assert_eq!(load.await.unwrap()["a"], 1);
    }
}
