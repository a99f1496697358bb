//! Opening a map: load, then start the writer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::backend::{Key, StorageBackend, Value};
use crate::cache::Cache;
use crate::error::{PersistentError, Result};
use crate::load::{Loader, OnCorrupt, OnProgress, OpenReport, Progress};
use crate::map::{Engine, PersistentMap};
use crate::panics::{contain, contain_async};
use crate::status::Status;
use crate::writer::{Shared, Writer};

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
    pub async fn new(backend: B) -> Result<Self> {
        Self::builder(backend).open().await
    }

    /// Options for opening a map.
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
    on_corrupt: OnCorrupt,
    on_progress: Option<OnProgress>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, B> Builder<K, V, B> {
    pub(crate) fn new(backend: B) -> Self {
        Builder {
            backend,
            hasher: RandomState::new(),
            queue_capacity: 1024,
            on_corrupt: OnCorrupt::default(),
            on_progress: None,
            types: PhantomData,
        }
    }
}

impl<K, V, B, S> Builder<K, V, B, S> {
    /// Hashes keys in memory with `hasher`. It has no part in what is stored.
    ///
    /// The default, [`RandomState`], withstands keys that an attacker has chosen to collide; faster hashers may not.
    pub fn hasher<H>(self, hasher: H) -> Builder<K, V, B, H> {
        Builder {
            backend: self.backend,
            hasher,
            queue_capacity: self.queue_capacity,
            on_corrupt: self.on_corrupt,
            on_progress: self.on_progress,
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
    /// Loads all entries and opens the map. Time and memory grow with the number and size of the entries.
    ///
    /// If it fails, the backend is closed; make a new one to try again.
    ///
    /// # Errors
    /// - [`NoRuntime`](PersistentError::NoRuntime): not inside a tokio runtime.
    /// - [`Corrupt`](PersistentError::Corrupt), [`Mismatch`](PersistentError::Mismatch): the store has a row that cannot
    ///   be read, or was written with another codec or for other types.
    /// - [`InUse`](PersistentError::InUse): another map has this store.
    /// - [`Damaged`](PersistentError::Damaged), [`Storage`](PersistentError::Storage): the store cannot be read.
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
        let started = Instant::now();
        let runtime = Handle::try_current().map_err(|_| PersistentError::NoRuntime)?;
        let capabilities = contain("the backend", || self.backend.capabilities())?;
        let shared = Arc::new(Shared {
            cache: Cache::with_hasher(self.hasher),
            backend: self.backend,
            status: Status::new(),
        });

        let mut loader = Loader::new(&shared.cache, self.on_corrupt, self.on_progress);
        if !capabilities.resident
            && let Err(error) = contain_async("loading the store", async {
                shared.backend.load(&mut loader).await
            })
            .await
        {
            tracing::error!(target: "persistent_map", %error, "cannot open the map");
            // The reason to give is the first one; the store is released as well as it can be, unless it is another
            // map's.
            if !matches!(error, PersistentError::InUse { .. }) {
                let _ = contain_async("the backend", async { shared.backend.close().await }).await;
            }
            return Err(error);
        }
        let report = loader.report(started.elapsed());

        let engine = if capabilities.resident {
            Engine::Resident
        } else {
            let (queue, writer) = Writer::pair(Arc::clone(&shared), self.queue_capacity);
            runtime.spawn(writer.run());
            Engine::Stored(queue)
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

impl<K, V, B, S> fmt::Debug for Builder<K, V, B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("queue_capacity", &self.queue_capacity)
            .field("on_corrupt", &self.on_corrupt)
            .finish_non_exhaustive()
    }
}
