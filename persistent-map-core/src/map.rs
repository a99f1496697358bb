//! The map that applications hold.

use std::borrow::Borrow;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash, RandomState};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Key, StorageBackend, Value};
use crate::capabilities::Capabilities;
use crate::error::{PersistentError, Result};
use crate::iter::{Iter, Keys, Values};
use crate::panics::contain;
use crate::status::Stats;
use crate::write::Write;
use crate::writer::{Answer, Request, Shared};

/// A map from `K` to `V` whose entries are kept by the backend `B` and read from memory.
///
/// - **Reads** (`get`, `with`, `contains_key`, iteration) are plain function calls: no `await`, no I/O, no guard to hold.
/// - **Writes** (`insert`, `remove`, `clear`) are `async` and return when the store has committed; memory changes after
///   that and before the call returns. Many writers share one commit, so write from many tasks where speed counts.
/// - **Clone** it to share it: a clone is a handle to the same map and costs two reference counts.
///
/// What `Ok` of a write survives depends on the backend: see [`capabilities`](Self::capabilities).
///
/// Dropping a write's future is safe at any time: before the call has its place in the queue, nothing happens; after
/// that, the write completes on its own and only the answer is lost. So `tokio::time::timeout` may be put around any
/// call, and a timeout means "the outcome is not known yet": read the key, or `flush`, to find out.
///
/// Dropping the last handle never blocks or panics. Writes that were queued are still done as long as the runtime runs;
/// call [`close`](Self::close) to wait for that and to see errors.
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
    shared: Arc<Shared<K, V, B, S>>,
    engine: Engine<K, V>,
    capabilities: Capabilities,
}

/// How a write gets done.
pub(crate) enum Engine<K, V> {
    /// There is no store: memory is changed at once, in the caller's task.
    Resident,
    /// By the writer at the other end of the queue.
    Stored(mpsc::Sender<Request<K, V>>),
}

/// Reads: from memory, without waiting for anybody but a writer who is just changing the same part of it.
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// A clone of the value of `key`.
    ///
    /// Costs a hash, a look-up and the clone. Use [`with`](Self::with) to save the clone.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.cache.with(key, V::clone)
    }

    /// What `read` makes of the value of `key`, without a clone. `None` if there is no such key.
    ///
    /// Writers of keys nearby wait while `read` runs: keep it short. It may read this map as well (also in a nested
    /// `with`); it cannot write, because writes must be awaited.
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
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shared.cache.contains(key)
    }

    /// The number of entries. While others write it is an estimate: parts of the map are counted one after the other.
    pub fn len(&self) -> usize {
        self.shared.cache.len()
    }

    /// Whether there are no entries. An estimate while others write, as [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

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
    pub fn keys(&self) -> Keys<K> {
        Keys::new(&*self.shared)
    }

    /// All values, as clones, in no particular order. Costs and sees what [`iter`](Self::iter) does.
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
    /// reader sees it.
    ///
    /// # Errors
    /// [`PersistentError::outcome`] says what became of the entry.
    /// - [`Unstorable`](PersistentError::Unstorable), [`TooLarge`](PersistentError::TooLarge): this entry cannot be
    ///   stored. Others are not affected.
    /// - [`Storage`](PersistentError::Storage): the store failed.
    /// - [`Poisoned`](PersistentError::Poisoned), [`Closed`](PersistentError::Closed): the map takes no writes.
    /// - [`WriterGone`](PersistentError::WriterGone): the runtime of the map has ended meanwhile.
    /// - [`Panicked`](PersistentError::Panicked): code of the key or value type panicked.
    ///
    /// # Cancel safety
    /// Dropping the future before the call has its place in the queue does nothing; after that the entry is stored all
    /// the same. Never half.
    pub async fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        self.write(Write::insert(key, value)).await
    }

    /// Removes `key` and returns its value. A missing key is not an error: `Ok(None)`.
    ///
    /// `Ok` means: the removal is committed, and no reader sees the entry any more.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert).
    pub async fn remove<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let key = contain("`ToOwned` of a key", || key.to_owned())?;
        self.write(Write::remove(key)).await
    }

    /// Removes all entries, from the store as well.
    ///
    /// One step where the backend has [atomic batches](Capabilities::atomic_batches); elsewhere entries are removed one
    /// by one.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and [`PartlyCleared`](PersistentError::PartlyCleared) from a backend without
    /// atomic batches.
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert).
    pub async fn clear(&self) -> Result<()> {
        match &self.engine {
            Engine::Resident => {
                self.shared.status.check_writable()?;
                self.shared.cache.clear();
                Ok(())
            }
            Engine::Stored(queue) => self.submit(queue, Request::Clear).await,
        }
    }

    /// Returns when everything that was accepted before it is stored, and the backend has written out its buffers.
    ///
    /// # Errors
    /// - [`Poisoned`](PersistentError::Poisoned): an earlier write has an unknown outcome.
    /// - [`Storage`](PersistentError::Storage): the backend could not write its buffers.
    /// - [`Closed`](PersistentError::Closed), [`WriterGone`](PersistentError::WriterGone): as for
    ///   [`insert`](Self::insert).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing but that nobody hears the answer.
    pub async fn flush(&self) -> Result<()> {
        match &self.engine {
            Engine::Resident => {
                self.shared.status.check_writable()?;
                self.shared.backend.flush().await
            }
            Engine::Stored(queue) => self.submit(queue, Request::Flush).await,
        }
    }

    /// Finishes what is queued, flushes, and releases the store: after `Ok` another map may open it at once.
    ///
    /// It closes the map for all handles. Reads go on, writes from now on answer [`Closed`](PersistentError::Closed). Closing again
    /// answers what the first close did.
    ///
    /// # Errors
    /// - [`Poisoned`](PersistentError::Poisoned): an earlier write has an unknown outcome. The store is released.
    /// - [`Storage`](PersistentError::Storage): the store could not be flushed or closed in an orderly way.
    /// - [`WriterGone`](PersistentError::WriterGone): the runtime of the map has ended.
    ///
    /// # Cancel safety
    /// Once the future was polled the map closes on its own, and another `close` waits for it.
    pub async fn close(&self) -> Result<()> {
        match &self.engine {
            Engine::Resident => {
                let closed = self.shared.backend.close().await;
                self.shared.status.end(closed);
            }
            Engine::Stored(_) => self.shared.status.request_close(),
        }
        self.shared.status.ended().await
    }

    async fn write(&self, mut write: Write<K, V>) -> Result<Option<V>> {
        self.shared.status.check_writable()?;
        match &self.engine {
            Engine::Resident => contain("`Hash` or `Eq` of a key", || {
                self.shared.cache.publish(write)
            }),
            Engine::Stored(queue) => {
                let write = contain(
                    "`Hash`, `Eq`, `Clone`, `Serialize` or `Deserialize`",
                    || {
                        // Whatever the key's own code does wrong, it does here, in the task of its caller.
                        write.resolve_key(self.shared.cache.resident_key(write.key()));
                        write.prepared_by(&self.shared.backend)
                    },
                )??;
                self.submit(queue, |answer| Request::Write(write, answer))
                    .await
            }
        }
    }

    /// Waits for a place in the queue, and then for the answer.
    async fn submit<T>(
        &self,
        queue: &mpsc::Sender<Request<K, V>>,
        request: impl FnOnce(Answer<T>) -> Request<K, V>,
    ) -> Result<T> {
        self.shared.status.check_writable()?;
        let place = queue.reserve().await.map_err(|_| PersistentError::Closed)?;
        self.hand_over(queue, place, request).await
    }

    /// From the moment that the place is ours there is no way back, and no `await` until the request is handed over.
    async fn hand_over<T>(
        &self,
        queue: &mpsc::Sender<Request<K, V>>,
        place: mpsc::Permit<'_, Request<K, V>>,
        request: impl FnOnce(Answer<T>) -> Request<K, V>,
    ) -> Result<T> {
        let (answer, result) = oneshot::channel();
        place.send(request(answer));
        // Whatever is handed over before the queue is closed will be answered. After that it may lie there for good.
        if queue.is_closed() {
            return self.answer_or_end(result).await;
        }
        result.await.unwrap_or(Err(PersistentError::WriterGone))
    }

    /// The writer answers all that it has taken before it ends. What has no answer by then was never taken.
    async fn answer_or_end<T>(&self, mut result: oneshot::Receiver<Result<T>>) -> Result<T> {
        let mut ended = pin!(self.shared.status.ended());
        poll_fn(|context| {
            if let Poll::Ready(answer) = Pin::new(&mut result).poll(context) {
                return Poll::Ready(answer.unwrap_or(Err(PersistentError::WriterGone)));
            }
            let end = ready!(ended.as_mut().poll(context));
            Poll::Ready(match (result.try_recv(), end) {
                (Ok(answer), _) => answer,
                (Err(_), Err(PersistentError::WriterGone)) => Err(PersistentError::WriterGone),
                (Err(_), _) => Err(PersistentError::Closed),
            })
        })
        .await
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
        engine: Engine<K, V>,
        capabilities: Capabilities,
    ) -> Self {
        PersistentMap {
            shared,
            engine,
            capabilities,
        }
    }

    /// The backend, for its own methods. Calling its write methods would go past the map: memory would not know.
    pub fn backend(&self) -> &B {
        &self.shared.backend
    }

    /// What the backend can do, and what `Ok` of a write survives.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Figures: entries, queue, commits, failures. Costs as much as [`len`](Self::len).
    pub fn stats(&self) -> Stats {
        let pending = match &self.engine {
            Engine::Resident => 0,
            Engine::Stored(queue) => queue.max_capacity() - queue.capacity(),
        };
        self.shared.status.snapshot(self.len(), pending)
    }
}

impl<K, V, B, S> Clone for PersistentMap<K, V, B, S> {
    fn clone(&self) -> Self {
        PersistentMap {
            shared: Arc::clone(&self.shared),
            engine: match &self.engine {
                Engine::Resident => Engine::Resident,
                Engine::Stored(queue) => Engine::Stored(queue.clone()),
            },
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::time::timeout;

    use super::*;

    struct Nowhere;

    #[async_trait]
    impl StorageBackend<u8, u8> for Nowhere {
        async fn load_all(&self) -> Result<HashMap<u8, u8>> {
            Ok(HashMap::new())
        }
        async fn save(&self, _: u8, _: u8) -> Result<()> {
            Ok(())
        }
        async fn delete(&self, _: &u8) -> Result<()> {
            Ok(())
        }
        async fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    /// On two threads this can happen between two instructions, which no test from outside can bring about.
    #[tokio::test]
    async fn a_call_that_has_its_place_when_the_map_ends_does_not_hold_it_up_and_is_answered() {
        let map = PersistentMap::new(Nowhere).await.unwrap();
        let Engine::Stored(queue) = &map.engine else {
            panic!("a backend without a store");
        };
        let place = queue.reserve().await.unwrap();
        let closed = timeout(Duration::from_secs(5), map.close()).await;
        closed.expect("the close waits for the place").unwrap();

        let call = map.hand_over(queue, place, |answer| {
            Request::Write(Write::insert(1, 1), answer)
        });
        let answer = timeout(Duration::from_secs(5), call)
            .await
            .expect("an answer");
        assert!(matches!(answer, Err(PersistentError::Closed)), "{answer:?}");
    }
}
