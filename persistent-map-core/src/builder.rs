//! Opening a map: load, then start the writer.

use std::any::type_name;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OnceCell, mpsc};
use tracing::Instrument as _;

use crate::backend::{Key, StorageBackend, Value};
use crate::backlog::Backlog;
use crate::capabilities::Capabilities;
use crate::engine::{Engine, Follower};
use crate::error::{PersistentError, Result};
use crate::events::Events;
use crate::flight::Flights;
use crate::load::{Loader, OnCorrupt, OnProgress, OpenReport, Progress};
use crate::local::Local;
use crate::map::PersistentMap;
use crate::migrate::{Migration, Upgrade};
use crate::panics::{contain, contain_async};
use crate::saver::Saver;
use crate::shared::{Shared, SharedMap};
use crate::status::Status;
use crate::write_mode::{Behind, WriteMode};
use crate::writer::Writer;

impl<K, V, B> PersistentMap<K, V, B>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
{
    /// Opens a map with the default options: loads all entries of `backend` and starts writing to it.
    ///
    /// The types of keys and values follow from how the map is used. If that does not say it all, name them:
    /// `PersistentMap::<String, u64, _>::new(backend)`.
    ///
    /// # Errors
    /// As for [`Builder::open`].
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let visits = PersistentMap::<String, u64, _>::new(InMemoryBackend::new()).await?;
    /// assert!(visits.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn new(backend: B) -> Result<Self> {
        Self::builder(backend).open().await
    }

    /// Options for opening a map.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let visits = PersistentMap::<String, u64, _>::builder(InMemoryBackend::new())
    ///     .write_mode(WriteMode::Behind(Behind::new()))
    ///     .open()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(backend: B) -> Builder<K, V, B> {
        Builder::new(backend)
    }
}

/// Options for opening a map. From [`PersistentMap::builder`].
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let (map, report) = PersistentMap::<String, u64, _>::builder(InMemoryBackend::new())
///     .write_mode(WriteMode::Through)
///     .queue_capacity(10_000) // calls that may wait before others must
///     .event_capacity(100) // events kept for a slow subscriber
///     .on_progress(|progress| println!("{} entries loaded", progress.loaded))
///     .on_corrupt(OnCorrupt::Quarantine)
///     .open_with_report()
///     .await?;
/// assert_eq!(report.entries as usize, map.len());
/// for row in &report.quarantined {
///     eprintln!("set aside: {row}");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `open` is awaited"]
pub struct Builder<K, V, B, S = RandomState> {
    backend: B,
    hasher: S,
    queue_capacity: usize,
    event_capacity: usize,
    write_mode: WriteMode,
    on_corrupt: OnCorrupt,
    on_progress: Option<OnProgress>,
    migrations: Vec<Box<dyn Migration<K, V, B>>>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, B> Builder<K, V, B> {
    pub(crate) fn new(backend: B) -> Self {
        Builder {
            backend,
            hasher: RandomState::new(),
            queue_capacity: 1024,
            event_capacity: 1024,
            write_mode: WriteMode::Through,
            on_corrupt: OnCorrupt::default(),
            on_progress: None,
            migrations: Vec::new(),
            types: PhantomData,
        }
    }
}

impl<K, V, B, S> Builder<K, V, B, S> {
    /// Hashes keys in memory with `hasher`. It has no part in what is stored.
    ///
    /// The default, [`RandomState`], withstands keys that an attacker has chosen to collide; faster hashers may not.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// use std::hash::{BuildHasherDefault, DefaultHasher};
    ///
    /// type Hasher = BuildHasherDefault<DefaultHasher>; // or that of a crate
    /// let map: PersistentMap<u64, u64, InMemoryBackend, Hasher> =
    ///     PersistentMap::builder(InMemoryBackend::new()).hasher(Hasher::default()).open().await?;
    /// map.insert(1, 1).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn hasher<H>(self, hasher: H) -> Builder<K, V, B, H> {
        Builder {
            backend: self.backend,
            hasher,
            queue_capacity: self.queue_capacity,
            event_capacity: self.event_capacity,
            write_mode: self.write_mode,
            on_corrupt: self.on_corrupt,
            on_progress: self.on_progress,
            migrations: self.migrations,
            types: PhantomData,
        }
    }

    /// How many calls may be queued before further ones wait (1,024 unless set; at least 1). Each holds its key, its
    /// value and their bytes in memory.
    pub fn queue_capacity(mut self, calls: usize) -> Self {
        // tokio's channel counts its places in the upper bits of a word.
        self.queue_capacity = calls.clamp(1, 1 << 20);
        self
    }

    /// How many events are kept for a subscriber who is behind (1,024 unless set; at least 1, rounded up to a power of two).
    /// Each holds the changes of one call.
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.clamp(1, 1 << 20);
        self
    }

    /// Whether a write is stored before it is answered ([`WriteMode::Through`], unless set) or later. Without effect on a
    /// backend without a store.
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// What to do with stored rows that cannot be read; [`OnCorrupt::Fail`] unless set.
    pub fn on_corrupt(mut self, policy: OnCorrupt) -> Self {
        self.on_corrupt = policy;
        self
    }

    /// Calls `tell` now and then while entries are loaded, and once at the end. It runs in the task that opens the map.
    pub fn on_progress(mut self, tell: impl FnMut(Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(tell));
        self
    }
}

impl<K, V, B, S> Builder<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Opens a store that was written for values of type `Old` as well: `upgrade` makes a new value of each, and all are
    /// stored in their new form with one commit before the map opens. A store that has the new type already is left alone.
    ///
    /// Call it once for each older type, the oldest first, as they came. The newest is tried first, because codecs that name
    /// their fields read a newer value as an older one, without its new fields. All entries are in memory twice meanwhile. A crash
    /// leaves the old store or the new one. Damaged rows are never upgraded: open the store with its old type and
    /// [`OnCorrupt::Quarantine`] first.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct PlayerV1 { name: String }
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Player { name: String, score: u32 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let backend = InMemoryBackend::new();
    /// let players = PersistentMap::<u32, Player, _>::builder(backend)
    ///     .migrate::<PlayerV1>(|old| Player { name: old.name, score: 0 })
    ///     .open()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn migrate<Old>(mut self, upgrade: impl FnMut(Old) -> V + Send + 'static) -> Self
    where
        Old: Value,
        B: StorageBackend<K, Old>,
    {
        self.migrations.push(Box::new(Upgrade::new(upgrade)));
        self
    }

    /// Loads all entries and opens the map. Time and memory grow with the number and size of the entries.
    ///
    /// If it fails, the backend is closed; make a new one to try again.
    ///
    /// In a test with `start_paused = true`, a `timeout` around this or any call that waits for a store fires at once: tokio
    /// does not see the threads that stores work on. The guide has a cure, under "Test with a clock that stands still".
    ///
    /// # Errors
    /// - [`NoRuntime`](PersistentError::NoRuntime): not inside a tokio runtime.
    /// - [`Corrupt`](PersistentError::Corrupt), [`Mismatch`](PersistentError::Mismatch): the store has a row that cannot
    ///   be read, or was written with another codec or for other types.
    /// - [`InUse`](PersistentError::InUse): another map has this store.
    /// - [`Refused`](PersistentError::Refused): a file that cannot be used, from backends that open theirs here.
    /// - [`Damaged`](PersistentError::Damaged), [`Storage`](PersistentError::Storage): the store cannot be read.
    /// - [`Unsupported`](PersistentError::Unsupported): a [`migrate`](Self::migrate) is due, and the backend cannot replace
    ///   its entries.
    /// - [`Panicked`](PersistentError::Panicked): code of the backend, of the types or of an upgrade panicked.
    ///
    /// # Cancel safety
    /// Dropping the future opens nothing; the backend is dropped with it.
    pub async fn open(self) -> Result<PersistentMap<K, V, B, S>> {
        self.open_with_report().await.map(|(map, _)| map)
    }

    /// Like [`open`](Self::open), and says what was found.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As for [`open`](Self::open).
    pub async fn open_with_report(self) -> Result<(PersistentMap<K, V, B, S>, OpenReport)> {
        let span =
            tracing::info_span!(target: "persistent_map", "open", backend = type_name::<B>());
        self.open_in_span().instrument(span).await
    }

    async fn open_in_span(self) -> Result<(PersistentMap<K, V, B, S>, OpenReport)> {
        let started = Instant::now();
        let runtime = Handle::try_current().map_err(|_| PersistentError::NoRuntime)?;
        let capabilities = contain("the backend", || self.backend.capabilities())?;
        let mut loader = Loader::new(self.hasher, self.on_corrupt, self.on_progress);
        if !capabilities.resident {
            let found = match check_timers(&self.write_mode) {
                Ok(()) => load(&self.backend, &mut loader, self.migrations).await,
                missing => missing,
            };
            if let Err(error) = found {
                tracing::error!(target: "persistent_map", %error, "cannot open the map");
                // The reason to give is the first one; the store is released as well as it can be, unless it is another
                // map's.
                if !matches!(error, PersistentError::InUse { .. }) {
                    let close = async { self.backend.close().await };
                    let _ = contain_async("the backend", close).await;
                }
                return Err(error);
            }
        }
        let (cache, report) = loader.finish(started.elapsed());
        let shared = Arc::new(Shared {
            cache,
            backend: self.backend,
            status: Status::new(),
            events: Events::new(self.event_capacity),
            flights: Flights::new(),
            runtime: runtime.clone(),
            resident: capabilities.resident,
            released: OnceCell::new(),
        });

        let engine = match self.write_mode {
            _ if capabilities.resident => Engine::Resident(Arc::new(Local::resident())),
            WriteMode::Behind(limits) => behind(&runtime, &shared, capabilities, limits),
            WriteMode::Through => {
                let (queue, writer) = Writer::pair(Arc::clone(&shared), self.queue_capacity);
                runtime.spawn(writer.run());
                Engine::Through(queue)
            }
        };
        tracing::info!(
            target: "persistent_map",
            entries = report.entries,
            quarantined = report.quarantined.len(),
            elapsed_ms = u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX),
            survives = ?capabilities.survives,
            "map open"
        );
        Ok((
            PersistentMap::new_open(shared, engine, capabilities),
            report,
        ))
    }
}

/// A timer panics in a runtime without them; better now than in the background.
fn check_timers(mode: &WriteMode) -> Result<()> {
    match mode {
        WriteMode::Through => Ok(()),
        WriteMode::Behind(_) => contain("a timer", || drop(tokio::time::sleep(Duration::ZERO)))
            .map_err(|_| PersistentError::NoRuntime),
    }
}

/// Reads the store, in the version that it is in.
async fn load<K, V, B, S>(
    backend: &B,
    loader: &mut Loader<K, V, S>,
    migrations: Vec<Box<dyn Migration<K, V, B>>>,
) -> Result<()>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    loader.start_again(!migrations.is_empty());
    let first = contain_async("loading the store", async { backend.load(loader).await }).await;
    let Err(error) = first else { return Ok(()) };
    if migrations.is_empty() || !error.is_about_types() {
        return Err(error);
    }
    for mut migration in migrations.into_iter().rev() {
        let entries = match migration.load(backend).await {
            Ok(entries) => entries,
            Err(error) if error.is_about_types() => continue,
            Err(error) => return Err(error),
        };
        tracing::info!(target: "persistent_map", entries = entries.len(), "moving to new types");
        let copy = contain("`Clone` of a key or value", || entries.clone())?;
        contain_async("the backend", async { backend.replace(copy).await }).await?;
        loader.start_again(false);
        return loader.take_all(entries);
    }
    if matches!(error, PersistentError::Corrupt(_)) {
        // Rows of no known type: what becomes of them, the user has said.
        loader.start_again(false);
        return contain_async("loading the store", async { backend.load(loader).await }).await;
    }
    Err(error)
}

fn behind<K, V, B, S>(
    runtime: &Handle,
    shared: &SharedMap<K, V, B, S>,
    capabilities: Capabilities,
    limits: Behind,
) -> Engine<K, V, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    let backlog = Arc::new(Backlog::new(limits.clone(), capabilities.atomic_batches));
    let local = Arc::new(Local::behind(Arc::clone(&backlog)));
    let (notes, inbox) = mpsc::unbounded_channel();
    let saver = Saver::new(
        Arc::clone(shared),
        Arc::clone(&local),
        Arc::clone(&backlog),
        limits,
        inbox,
    );
    runtime.spawn(saver.run());
    Engine::Behind(local, Follower::new(backlog, notes))
}

impl<K, V, B, S> fmt::Debug for Builder<K, V, B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("queue_capacity", &self.queue_capacity)
            .field("write_mode", &self.write_mode)
            .field("on_corrupt", &self.on_corrupt)
            .finish_non_exhaustive()
    }
}
