//! Code of the caller that reads and changes entries in one step, and what becomes of its changes.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::oneshot;

use crate::backend::{Key, Value};
use crate::cache::Cache;
use crate::error::{PersistentError, Result};
use crate::pending::Pending;
use crate::write::Write;

/// The map as one transaction sees it: what is in memory, and on top of it the transaction's own changes. From
/// [`PersistentMap::transaction`](crate::PersistentMap::transaction).
///
/// Nothing else changes the map while the transaction runs.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(InMemoryBackend::new()).await?;
/// map.insert("old".to_string(), 7).await?;
/// let renamed = map
///     .transaction(|tx| {
///         let Some(value) = tx.remove("old") else {
///             return Ok(false);
///         };
///         tx.insert("new".to_string(), value);
///         assert!(!tx.contains_key("old"));
///         Ok::<_, PersistentError>(true)
///     })
///     .await?;
/// assert!(renamed);
/// assert_eq!((map.get("old"), map.get("new")), (None, Some(7)));
/// # Ok(())
/// # }
/// ```
pub struct Transaction<'a, K, V, S = RandomState> {
    cache: &'a Cache<K, V, S>,
    /// Accepted before, on the way to the store, not yet in the cache.
    ahead: Option<&'a Pending<K, V>>,
    staged: Pending<K, V>,
}

impl<'a, K, V, S> Transaction<'a, K, V, S>
where
    K: Key,
    V: Value,
    S: BuildHasher + Clone,
{
    pub(crate) fn new(cache: &'a Cache<K, V, S>, ahead: Option<&'a Pending<K, V>>) -> Self {
        Transaction {
            cache,
            ahead,
            staged: Pending::new(),
        }
    }

    /// A clone of the value of `key`.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.with(key, V::clone)
    }

    /// What `read` makes of the value of `key`, without a clone. `None` if there is no such key.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("basket".to_string(), vec!["apple", "pear"].join(" ")).await?;
    /// let words = map.transaction(|tx| Ok::<_, PersistentError>(tx.with("basket", |text| text.split(' ').count())));
    /// assert_eq!(words.await?, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.changed(key) {
            Some(write) => write.value().map(read),
            None => self.cache.with(key, read),
        }
    }

    /// Whether there is an entry for `key`.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        match self.changed(key) {
            Some(write) => write.value().is_some(),
            None => self.cache.contains(key),
        }
    }

    /// All entries, as clones, in no particular order: with the changes that this transaction has made so far. Nothing else
    /// changes the map meanwhile, so what was found holds until the transaction ends.
    ///
    /// Copies all keys at once; values are cloned one at a time. So it costs time and memory by the number of entries, and
    /// all who write to the map wait meanwhile: for a look at many entries that changes nothing of them,
    /// [`snapshot`](crate::PersistentMap::snapshot) or [`iter`](crate::PersistentMap::iter) of the map is the better choice.
    ///
    /// It borrows the transaction. To change entries while going through them, go through the [`keys`](Self::keys).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// // Seats by number, and who has them. Each guest gets one at most.
    /// let seats = PersistentMap::new(InMemoryBackend::new()).await?;
    /// seats.insert_many((1..=3u32).map(|seat| (seat, None::<String>))).await?;
    /// let book = |guest: &'static str| seats.transaction(move |tx| {
    ///     if tx.iter().any(|(_, by)| by.as_deref() == Some(guest)) {
    ///         return Ok(None);
    ///     }
    ///     let free = tx.iter().filter(|(_, by)| by.is_none()).map(|(seat, _)| seat).min();
    ///     if let Some(seat) = free {
    ///         tx.insert(seat, Some(guest.to_string()));
    ///     }
    ///     Ok::<_, PersistentError>(free)
    /// });
    /// assert_eq!((book("Ann").await?, book("Bob").await?, book("Ann").await?), (Some(1), Some(2), None));
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        let keys = self.keys().into_iter();
        keys.filter_map(|key| self.get(&key).map(|value| (key, value)))
    }

    /// All keys, as clones, in no particular order: with the changes that this transaction has made so far. Costs time and
    /// memory by the number of entries.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let prices = PersistentMap::new(InMemoryBackend::new()).await?;
    /// prices.insert_many([("tea".to_string(), 200), ("cake".to_string(), 300)]).await?;
    /// prices
    ///     .transaction(|tx| {
    ///         for name in tx.keys() {
    ///             if let Some(price) = tx.get(&name) {
    ///                 tx.insert(name, price + 10); // all of them, or none
    ///             }
    ///         }
    ///         Ok::<_, PersistentError>(())
    ///     })
    ///     .await?;
    /// assert_eq!((prices.get("tea"), prices.get("cake")), (Some(210), Some(310)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> Vec<K> {
        let mut keys = self.cache.keys();
        keys.retain(|key| self.changed(key).is_none());
        if let Some(ahead) = self.ahead {
            let is_latest = |write: &&Write<K, V>| {
                let latest = ahead.latest(write.key());
                latest.is_some_and(|latest| std::ptr::eq(latest, *write))
            };
            let not_staged = |write: &&Write<K, V>| self.staged.latest(write.key()).is_none();
            let writes = ahead.as_slice().iter().filter(is_latest).filter(not_staged);
            keys.extend(writes.filter(is_insert).map(key_of));
        }
        let staged = self.staged.as_slice().iter();
        keys.extend(staged.filter(is_insert).map(key_of));
        keys
    }

    /// Stores `value` under `key` and returns the value that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = self.get(&key);
        self.set(key, value);
        old
    }

    /// Removes `key` and returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (owned, old) = match self.changed(key) {
            Some(write) => (write.key().clone(), write.value()?.clone()),
            None => self.cache.entry(key)?,
        };
        self.staged.replace(Write::remove(owned));
        Some(old)
    }

    pub(crate) fn set(&mut self, key: K, value: V) {
        self.staged.replace(Write::insert(key, value));
    }

    fn changed<Q>(&self, key: &Q) -> Option<&Write<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.staged
            .latest(key)
            .or_else(|| self.ahead.and_then(|ahead| ahead.latest(key)))
    }

    /// The changes, each speaking of its entry by the key that memory has for it.
    pub(crate) fn into_writes(self) -> Vec<Write<K, V>> {
        let mut writes = self.staged.into_writes();
        for write in &mut writes {
            let (resident, removals) = self.cache.resident_key(write.key());
            write.resolve_key(resident, removals);
        }
        writes
    }
}

/// Figures only: keys and values may be secret.
impl<K, V, S> fmt::Debug for Transaction<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("changes", &self.staged.len())
            .finish_non_exhaustive()
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape that `filter` asks for"
)]
fn is_insert<K, V>(write: &&Write<K, V>) -> bool {
    write.value().is_some()
}

fn key_of<K: Clone, V>(write: &Write<K, V>) -> K {
    write.key().clone()
}

/// What a call has made of what it read.
pub(crate) enum Decision<R> {
    /// Its changes are to be stored.
    Commit(R),
    /// Its changes are to be forgotten.
    Rollback(R),
}

/// A call whose changes depend on what it reads. It is evaluated where nothing else can change the map.
pub(crate) trait Operation<K, V, S>: Send {
    /// Runs the caller's code. Returns whether its changes are wanted.
    fn evaluate(&mut self, transaction: &mut Transaction<'_, K, V, S>) -> bool;

    /// Answers the caller: with what was decided, or with the error that has kept it from being true.
    fn answer(self: Box<Self>, stored: Result<()>);
}

/// The only kind of operation there is: a closure and where its result goes.
pub(crate) struct Call<F, R> {
    run: F,
    decided: Option<R>,
    answer: Option<oneshot::Sender<Result<R>>>,
}

impl<F, R> Call<F, R> {
    /// A call that is evaluated on the spot.
    pub(crate) fn here(run: F) -> Self {
        Call {
            run,
            decided: None,
            answer: None,
        }
    }

    /// A call that is evaluated by the writer.
    pub(crate) fn answering(run: F, answer: oneshot::Sender<Result<R>>) -> Self {
        Call {
            run,
            decided: None,
            answer: Some(answer),
        }
    }

    pub(crate) fn into_result(self) -> Result<R> {
        // Without a decision the closure has panicked, and the caller of `evaluate` has that error already.
        self.decided.ok_or(PersistentError::WriterGone)
    }
}

impl<K, V, S, F, R> Operation<K, V, S> for Call<F, R>
where
    F: FnMut(&mut Transaction<'_, K, V, S>) -> Decision<R> + Send,
    R: Send,
{
    fn evaluate(&mut self, transaction: &mut Transaction<'_, K, V, S>) -> bool {
        let (decided, commit) = match (self.run)(transaction) {
            Decision::Commit(decided) => (decided, true),
            Decision::Rollback(decided) => (decided, false),
        };
        self.decided = Some(decided);
        commit
    }

    fn answer(self: Box<Self>, stored: Result<()>) {
        let Call {
            run,
            decided,
            answer,
        } = *self;
        if let Some(answer) = answer {
            let decided = decided.ok_or(PersistentError::WriterGone);
            let _ = answer.send(stored.and(decided));
        }
        // After the answer: what a closure owns may panic when it is dropped.
        drop(run);
    }
}
