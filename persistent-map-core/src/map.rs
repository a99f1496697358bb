//! The map that applications hold.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use crate::backend::{Key, StorageBackend, Value};
use crate::capabilities::Capabilities;
use crate::engine::Engine;
use crate::error::{PersistentError, Result};
use crate::events::{Subscription, Watch};
use crate::iter::{Iter, Keys, Values};
use crate::panics::contain;
use crate::shared::Shared;
use crate::status::Stats;
use crate::write::Write;

/// A map from `K` to `V` whose entries are kept by the backend `B` and read from memory.
///
/// - **Reads** (`get`, `with`, `contains_key`, iteration) are plain function calls: no `await`, no I/O, no guard to hold.
/// - **Writes** are `async` and return when the store has committed; memory changes after that and before the call
///   returns. Many writers share one commit, so write from many tasks where speed counts. With
///   [`WriteMode::Behind`](crate::WriteMode::Behind) memory changes at once and the store follows.
/// - **Several things in one step**: [`update`](Self::update) and others for one entry, [`transaction`](Self::transaction)
///   and others for many.
/// - **Clone** it to share it: a clone is a handle to the same map and costs two or three reference counts.
///
/// What `Ok` of a write survives depends on the backend: see [`capabilities`](Self::capabilities).
///
/// # Look-ups
/// Reads take what those of a `HashMap` take: `&K`, or what `K` can be [borrowed](Borrow) as, such as `&str` for `String` and
/// `&[u8]` for `Vec<u8>`. [`remove`](Self::remove), [`update`](Self::update) and [`remove_if`](Self::remove_if) make a key of it,
/// because the call may outlive it: they take what [`ToOwned`] turns into a `K`. That is `&str` and `&[u8]` for these two, and
/// `&K` for all types, so give `&K` for `Arc<str>` or a newtype. A tuple has no borrowed form: `(String, u32)` is looked up
/// with a tuple that holds a `String`.
///
/// # Timeouts and cancelling
/// Dropping any future of a map is safe at any time, so `tokio::time::timeout` may be put around any call. What a timeout
/// means:
/// - A call that changes entries: before it has its place in the queue, nothing happens; after that it completes on its own
///   and only the answer is lost. So the outcome is not known yet: read the key, or `flush`, to find out. With
///   `WriteMode::Behind` only the wait for room can be cut short, and then nothing happens.
/// - [`get_or_insert_with`](Self::get_or_insert_with): the initialiser is dropped, and the next caller runs its own.
/// - [`flush`](Self::flush), [`snapshot`](Self::snapshot), [`verify`](Self::verify): nothing changes. What nobody waits for
///   any more is not done when its turn comes, and a `verify` that is under way stops at its next row.
/// - [`close`](Self::close): the map closes on its own; call it again to wait for that.
/// - [`copy`](crate::copy()): a part is copied; do it again.
/// - Opening: nothing is opened.
///
/// # Calls inside of code that the map runs
/// The map waits for the closures that it is given. A call that would wait for the map from inside of one, by a `block_on`
/// of another kind, is refused with [`WouldDeadlock`](PersistentError::WouldDeadlock): in `with`, and in closures of
/// [`update`](Self::update), [`transaction`](Self::transaction) and the like, if it is first polled on the thread that runs
/// the closure. That a closure waits for another thread or task which calls the map cannot be known, and hangs.
///
/// # Tasks that never wait
/// Calls that are ready at once (without a store, with `WriteMode::Behind`, on a closed map) count against the budget of
/// the task, as reading from a channel of tokio does: from time to time they let other tasks go on. Reads are plain calls,
/// and do not.
///
/// # Dropping
/// Dropping the last handle never blocks or panics. Writes that were queued, or accepted and not stored, are still done as
/// long as the runtime runs; call [`close`](Self::close) to wait for that and to see errors. If the runtime ends first, what
/// `WriteMode::Behind` has not stored is lost: an error is logged, or printed if nobody listens to `tracing`. The runtime of
/// `#[tokio::main]` ends when `main` returns.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(InMemoryBackend::new()).await?;
/// map.insert("LHR".to_string(), "London Heathrow".to_string()).await?;
///
/// assert_eq!(map.get("LHR").as_deref(), Some("London Heathrow"));
/// assert_eq!(map.with("LHR", |name| name.len()), Some(15));
/// assert_eq!(map.remove("LHR").await?.as_deref(), Some("London Heathrow"));
/// map.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct PersistentMap<K, V, B, S = RandomState> {
    pub(crate) shared: Arc<Shared<K, V, B, S>>,
    pub(crate) engine: Engine<K, V, S>,
    capabilities: Capabilities,
}

/// Reads of one entry: from memory, without waiting for anybody but a writer of the same part of it ([how
/// long](PersistentMap::with)).
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    S: BuildHasher + Clone,
{
    /// A clone of the value of `key`.
    ///
    /// Costs a hash, a look-up and the clone. Use [`with`](Self::with) to save the clone. Where large values are passed on, let
    /// the values of the map be `Arc<V>`, which is cheap to clone and needs serde's feature `rc`.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// assert_eq!(map.get("a"), Some(1)); // by `&str`, though keys are `String`s
    /// assert_eq!(map.get("b"), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.cache.get(key)
    }

    /// What `read` makes of the value of `key`, without a clone. `None` if there is no such key.
    ///
    /// Writers of keys nearby wait while `read` runs: keep it short. It may read this map as well (also in a nested
    /// `with`). It cannot write, to this map or another: a [blocking](Self::blocking) call, or an async one that is polled
    /// in `read`, is refused with [`WouldDeadlock`](PersistentError::WouldDeadlock).
    ///
    /// # Who waits for whom
    /// A writer waits for the reads of its part of the map that are under way when it comes. Reads that come later wait
    /// until it has been in, so readers who never pause cannot keep it out. That holds for all reads: those that walk over
    /// all entries are under way until they have copied their keys.
    ///
    /// A read waits behind such a writer for one second at most, or as long again as the writer has waited by then: so
    /// `read` may wait for another thread that reads this map, and only loses time. It must not wait for one that writes.
    /// Reads that take longer than that second, and overlap without end, can keep a writer out for a while.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("numbers".to_string(), vec![1, 2, 3]).await?;
    /// assert_eq!(map.with("numbers", |list| list.iter().sum()), Some(6));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.cache.with(key, read)
    }

    /// Whether there is an entry for `key`.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// assert!(map.contains_key("a") && !map.contains_key("b"));
    /// assert!(map.len() == 1 && !map.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.cache.contains(key)
    }

    /// The number of entries. While others write it is an estimate: parts of the map are counted one after the other. For an
    /// example see [`contains_key`](Self::contains_key).
    pub fn len(&self) -> usize {
        self.shared.cache.len()
    }

    /// Whether there are no entries. An estimate while others write, as [`len`](Self::len). For an example see
    /// [`contains_key`](Self::contains_key).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads of all entries: from memory, too.
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// All entries, as clones, in no particular order. See [`Iter`] for what it sees while others write.
    ///
    /// Copies all keys at once; values are cloned one at a time.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert(1u8, 10u32).await?;
    /// map.insert(2u8, 20u32).await?;
    /// for (key, value) in map.iter() {
    ///     map.insert(key, value + 1).await?; // no lock is held here
    /// }
    /// let mut values: Vec<u32> = map.values().collect();
    /// values.sort();
    /// assert_eq!(values, [11, 21]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Iter<K, V> {
        Iter::new(Arc::clone(&self.shared) as _)
    }

    /// All keys, as clones, in no particular order. Copies all keys at once.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert_many([(3, 'c'), (1, 'a'), (2, 'b')]).await?;
    /// let mut keys: Vec<i32> = map.keys().collect();
    /// keys.sort();
    /// assert_eq!(keys, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> Keys<K> {
        Keys::new(&*self.shared)
    }

    /// All values, as clones, in no particular order. Costs and sees what [`iter`](Self::iter) does.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let votes = PersistentMap::new(InMemoryBackend::new()).await?;
    /// votes.insert_many([("Ann".to_string(), 3), ("Bob".to_string(), 4)]).await?;
    /// assert_eq!(votes.values().sum::<i32>(), 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn values(&self) -> Values<K, V> {
        Values(self.iter())
    }
}

/// Writes: each waits for its place in the queue, then for the commit that it shares with its neighbours.
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Stores `value` under `key` and returns the value that it replaced.
    ///
    /// `Ok` means: the store has committed it (what that survives: [`capabilities`](Self::capabilities)), and every
    /// reader sees it. With [`WriteMode::Behind`](crate::WriteMode::Behind): every reader sees it, and the store will have it.
    ///
    /// Costs encoding, decoding once as a check, and the wait for a commit, which it shares with the calls of other tasks.
    ///
    /// # Errors
    /// [`PersistentError::outcome`](crate::PersistentError::outcome) says what became of the entry.
    /// - [`Unstorable`](crate::PersistentError::Unstorable), [`TooLarge`](crate::PersistentError::TooLarge): this entry cannot be
    ///   stored. Others are not affected.
    /// - [`Storage`](crate::PersistentError::Storage): the store failed.
    /// - [`Unsaved`](crate::PersistentError::Unsaved): with `WriteMode::Behind`, the store does not take what was accepted
    ///   before. This call has changed nothing.
    /// - [`Poisoned`](crate::PersistentError::Poisoned), [`Closed`](crate::PersistentError::Closed): the map takes no writes.
    /// - [`WriterGone`](crate::PersistentError::WriterGone): the runtime of the map has ended meanwhile.
    /// - [`Panicked`](crate::PersistentError::Panicked): code of the key or value type, or of the backend, panicked.
    ///
    /// # Cancel safety
    /// Dropping the future before the call has its place in the queue does nothing; after that the entry is stored all
    /// the same. Never half.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// assert_eq!(map.insert("a".to_string(), 1).await?, None);
    /// assert_eq!(map.insert("a".to_string(), 2).await?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        self.write(Write::insert(key, value)).await
    }

    /// Removes `key` and returns its value. A missing key is not an error: `Ok(None)`. For what `key` may be see
    /// [look-ups](PersistentMap#look-ups).
    ///
    /// `Ok` means: the removal is committed, and no reader sees the entry any more.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// assert_eq!(map.remove("a").await?, Some(1));
    /// assert_eq!(map.remove("a").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.write(Write::remove(owned(key)?)).await
    }

    /// Removes all entries, from the store as well.
    ///
    /// One step where the backend has [atomic batches](Capabilities::atomic_batches); elsewhere entries are removed one
    /// by one.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and [`PartlyCleared`](crate::PersistentError::PartlyCleared) from a backend without
    /// atomic batches.
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert_many((0..10).map(|n| (n, n))).await?;
    /// map.clear().await?;
    /// assert!(map.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn clear(&self) -> Result<()> {
        let atomic_batches = self.capabilities.atomic_batches;
        self.engine.clear(&self.shared, atomic_batches).await
    }

    /// Returns when everything that was accepted before it is stored, and the backend has written out its buffers. What
    /// that costs is up to the backend.
    ///
    /// # Errors
    /// - [`Poisoned`](crate::PersistentError::Poisoned): an earlier write has an unknown outcome.
    /// - [`Storage`](crate::PersistentError::Storage): the backend could not write its buffers.
    /// - [`Unsaved`](crate::PersistentError::Unsaved): with `WriteMode::Behind`, not everything could be stored. It is kept
    ///   and tried again.
    /// - [`Closed`](crate::PersistentError::Closed), [`WriterGone`](crate::PersistentError::WriterGone): as for
    ///   [`insert`](Self::insert).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing but that nobody hears the answer.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::Disk;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let disk = Disk::new();
    /// let map = PersistentMap::builder(disk.backend()).write_mode(WriteMode::Behind(Behind::new())).open().await?;
    /// map.insert("a".to_string(), 1).await?; // in memory
    /// map.flush().await?; // stored
    /// assert_eq!((disk.entries()["a"], map.stats().unsaved), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<()> {
        self.engine.flush(&self.shared).await
    }

    /// Finishes what is queued, flushes, and releases the store: after `Ok` another map may open it at once.
    ///
    /// It does not wait for those who read the store: a [`verify`](Self::verify) that is under way or in line answers
    /// [`Closed`](crate::PersistentError::Closed).
    ///
    /// It closes the map for all handles. Reads go on, writes from now on answer [`Closed`](crate::PersistentError::Closed). Closing again
    /// answers what the first close did.
    ///
    /// # Errors
    /// - [`Poisoned`](crate::PersistentError::Poisoned): an earlier write has an unknown outcome. The store is released.
    /// - [`Storage`](crate::PersistentError::Storage): the store could not be flushed or closed in an orderly way.
    /// - [`Unsaved`](crate::PersistentError::Unsaved): with `WriteMode::Behind`, not everything could be stored, at a last
    ///   try. The store is released, and those entries are lost.
    /// - [`WriterGone`](crate::PersistentError::WriterGone): the runtime of the map has ended, and with it what was not stored
    ///   yet. The store is released.
    ///
    /// # Cancel safety
    /// Once the future was polled the map closes on its own, and another `close` waits for it.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// map.close().await?;
    /// assert_eq!(map.get("a"), Some(1));
    /// assert!(matches!(map.insert("b".to_string(), 2).await, Err(PersistentError::Closed)));
    /// map.close().await?; // again: no harm
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self) -> Result<()> {
        let end = self.engine.close(&self.shared).await;
        if matches!(end, Err(PersistentError::WriterGone)) {
            self.shared.release().await;
        }
        end
    }

    async fn write(&self, write: Write<K, V>) -> Result<Option<V>> {
        self.engine.write(&self.shared, write).await
    }
}

/// Hearing of changes.
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// All changes from now on, with old and new values, in the order in which they were accepted.
    ///
    /// A slow subscriber never holds a writer up: it misses the oldest events and is told how many. How many are kept for it
    /// is set with [`Builder::event_capacity`](crate::Builder::event_capacity). Without subscribers events cost nothing;
    /// with them, each change clones its key and values.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// let mut events = map.subscribe();
    /// map.insert(7, 1).await?;
    /// map.close().await?;
    /// while let Some(event) = events.recv().await {
    ///     if let Event::Changed(changes) = event {
    ///         assert_eq!((changes[0].key, changes[0].old, changes[0].new), (7, None, Some(1)));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self) -> Subscription<K, V> {
        self.shared.events.subscribe()
    }

    /// The latest value of `key`, now and whenever it changes. Costs a look-up for each change of the map while anything is
    /// watched, whatever the number of watches.
    ///
    /// [`changed`](Watch::changed) tells of what comes after this call: make the watch before you spawn the task that waits.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let flags = PersistentMap::new(InMemoryBackend::new()).await?;
    /// let mut dark_mode = flags.watch("dark mode".to_string());
    /// assert_eq!(dark_mode.get(), None);
    /// flags.insert("dark mode".to_string(), true).await?;
    /// assert_eq!(dark_mode.changed().await?, Some(true));
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, key: K) -> Watch<K, V> {
        let map = Arc::downgrade(&self.shared);
        self.shared.events.watch(key, map)
    }
}

/// About the map itself.
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    pub(crate) fn new_open(
        shared: Arc<Shared<K, V, B, S>>,
        engine: Engine<K, V, S>,
        capabilities: Capabilities,
    ) -> Self {
        PersistentMap {
            shared,
            engine,
            capabilities,
        }
    }

    /// The backend, for its own methods. Calling its write methods would go past the map: memory would not know.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::Disk;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let disk = Disk::<String, u32>::new();
    /// let map = PersistentMap::new(disk.backend()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// assert_eq!(map.backend().load_all().await?["a"], 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backend(&self) -> &B {
        &self.shared.backend
    }

    /// What the backend can do, and what `Ok` of a write survives; with [`WriteMode::Behind`](crate::WriteMode::Behind), what
    /// `Ok` of a [`flush`](Self::flush) does.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::<String, u32, _>::new(InMemoryBackend::new()).await?;
    /// if map.capabilities().survives < Survives::PowerLoss {
    ///     eprintln!("a power cut may take what was written");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Figures: entries, queue, commits, failures. Costs as much as [`len`](Self::len).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::Disk;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let backend = Disk::new().backend();
    /// let map = PersistentMap::new(backend).await?;
    /// map.insert_many((0..100).map(|n| (n, n))).await?;
    /// let stats = map.stats();
    /// assert_eq!((stats.entries, stats.commits, stats.writes), (100, 1, 100));
    /// assert_eq!(stats.phase, Phase::Open);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        let (unsaved, unsaved_bytes) = self.engine.unsaved();
        Stats {
            entries: self.len(),
            pending: self.engine.queued(),
            unsaved,
            unsaved_bytes,
            ..self.shared.status.stats()
        }
    }
}

impl<K, V, B, S> Clone for PersistentMap<K, V, B, S> {
    fn clone(&self) -> Self {
        PersistentMap {
            shared: Arc::clone(&self.shared),
            engine: self.engine.clone(),
            capabilities: self.capabilities,
        }
    }
}

impl<K, V, B, S> IntoIterator for &PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    type Item = (K, V);
    type IntoIter = Iter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Figures only: keys and values may be secret.
impl<K, V, B, S> fmt::Debug for PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistentMap")
            .field("entries", &self.len())
            .field("capabilities", &self.capabilities)
            .field("phase", &self.stats().phase)
            .finish_non_exhaustive()
    }
}

/// The key that a borrowed one stands for.
pub(crate) fn owned<Q: ToOwned + ?Sized>(key: &Q) -> Result<Q::Owned> {
    contain("`ToOwned` of a key", || key.to_owned())
}
