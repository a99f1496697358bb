//! Telling others what has changed, in the order in which it was accepted.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::sync::{broadcast, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, WatchStream};

use crate::backend::{Key, Value};
use crate::error::{PersistentError, Result};
use crate::panics::contain;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// One entry that has changed. Part of an [`Event`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<K, V> {
    /// Its key.
    pub key: K,
    /// Its value before, or `None` if it is new.
    pub old: Option<V>,
    /// Its value now, or `None` if it was removed.
    pub new: Option<V>,
}

impl<K, V> Change<K, V> {
    pub(crate) fn new(key: K, old: Option<V>, new: Option<V>) -> Self {
        Change { key, old, new }
    }
}

/// What became of it, without key and values: they may be secret.
impl<K, V> fmt::Debug for Change<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.old, &self.new) {
            (None, Some(_)) => "Change(inserted)",
            (Some(_), Some(_)) => "Change(replaced)",
            (_, None) => "Change(removed)",
        })
    }
}

/// What a [`Subscription`] hears.
///
/// ```
/// use persistent_map_core::{Change, Event};
///
/// fn log(event: &Event<String, u64>) {
///     match event {
///         Event::Changed(changes) => {
///             for Change { key, old, new, .. } in changes.iter() {
///                 println!("{key}: {old:?} becomes {new:?}");
///             }
///         }
///         Event::Failed(error) => eprintln!("{error}"),
///         Event::Missed(count) => eprintln!("{count} events were missed"),
///         _ => {}
///     }
/// }
/// # log(&Event::Missed(1));
/// ```
#[non_exhaustive]
pub enum Event<K, V> {
    /// One call has changed these entries: one for an insert, all of them together for a transaction, a batch or a clear.
    /// Readers see it already.
    ///
    /// With [`WriteMode::Through`](crate::WriteMode::Through) it is stored; with
    /// [`WriteMode::Behind`](crate::WriteMode::Behind) it is accepted and will be.
    Changed(Arc<[Change<K, V>]>),
    /// The store has failed. With `WriteMode::Behind` the entries are kept and the store is tried again.
    Failed(PersistentError),
    /// The subscriber was too slow, and so many events were dropped before this one. To go on, take a
    /// [`snapshot`](crate::PersistentMap::snapshot) and apply later changes to it.
    Missed(u64),
}

impl<K, V> Clone for Event<K, V> {
    fn clone(&self) -> Self {
        match self {
            Event::Changed(changes) => Event::Changed(Arc::clone(changes)),
            Event::Failed(error) => Event::Failed(error.clone()),
            Event::Missed(count) => Event::Missed(*count),
        }
    }
}

/// Without keys and values: they may be secret.
impl<K, V> fmt::Debug for Event<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Changed(changes) => f.debug_tuple("Changed").field(changes).finish(),
            Event::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Event::Missed(count) => f.debug_tuple("Missed").field(count).finish(),
        }
    }
}

/// All who want to hear of changes.
pub(crate) struct Events<K, V> {
    capacity: usize,
    /// Whether anybody has ever subscribed: most maps have no subscribers, and they shall not pay for the lock.
    is_heard: AtomicBool,
    subscribers: Mutex<Option<broadcast::Sender<Event<K, V>>>>,
    ended: AtomicBool,
    watched: Mutex<HashMap<K, watch::Sender<()>>>,
    watched_keys: AtomicUsize,
}

impl<K, V> Events<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Events {
            capacity,
            is_heard: AtomicBool::new(false),
            subscribers: Mutex::new(None),
            ended: AtomicBool::new(false),
            watched: Mutex::new(HashMap::new()),
            watched_keys: AtomicUsize::new(0),
        }
    }

    fn subscribers(&self) -> MutexGuard<'_, Option<broadcast::Sender<Event<K, V>>>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Key, V: Value> Events<K, V> {
    pub(crate) fn has_subscribers(&self) -> bool {
        self.is_heard.load(Ordering::Acquire)
            && self
                .subscribers()
                .as_ref()
                .is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Tells all subscribers. Never waits: whoever is too slow misses the oldest.
    pub(crate) fn send(&self, event: Event<K, V>) {
        if self.is_heard.load(Ordering::Acquire)
            && let Some(sender) = &*self.subscribers()
        {
            // An old event may be dropped for it. Fails only without subscribers.
            let _ = contain("`Drop` of a key or value", || sender.send(event).is_ok());
        }
    }

    pub(crate) fn subscribe(&self) -> Subscription<K, V> {
        let mut subscribers = self.subscribers();
        let receiver = if self.ended.load(Ordering::SeqCst) {
            broadcast::Sender::new(1).subscribe()
        } else {
            self.is_heard.store(true, Ordering::Release);
            subscribers
                .get_or_insert_with(|| broadcast::Sender::new(self.capacity))
                .subscribe()
        };
        Subscription(BroadcastStream::new(receiver))
    }

    /// Wakes those who watch `key`. Called while its entry is locked: who is not seen here has not read it yet.
    pub(crate) fn signal(&self, key: &K) {
        if self.watched_keys.load(Ordering::Relaxed) > 0
            && let Some(watched) = self.watched().get(key)
        {
            watched.send_replace(());
        }
    }

    /// Wakes all who watch, after a clear.
    pub(crate) fn signal_all(&self) {
        for watched in self.watched().values() {
            watched.send_replace(());
        }
    }

    pub(crate) fn watch(&self, key: K, map: Weak<dyn Watched<K, V>>) -> Watch<K, V> {
        let mut watched = self.watched();
        let changes = if self.ended.load(Ordering::SeqCst) {
            watch::channel(()).1
        } else {
            let sender = watched.entry(key.clone()).or_default();
            sender.subscribe()
        };
        self.watched_keys.store(watched.len(), Ordering::Relaxed);
        Watch {
            changes: Some(WatchStream::from_changes(changes)),
            first: true,
            key,
            map,
        }
    }

    /// Forgets a key that nobody watches any more.
    pub(crate) fn unwatch(&self, key: &K) {
        let mut watched = self.watched();
        if watched
            .get(key)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            watched.remove(key);
        }
        self.watched_keys.store(watched.len(), Ordering::Relaxed);
    }

    /// The map is closed: there will be no more changes. Who is behind still gets those that there were.
    pub(crate) fn end(&self) {
        let sender = {
            let mut subscribers = self.subscribers();
            self.ended.store(true, Ordering::SeqCst);
            subscribers.take()
        };
        let watched = std::mem::take(&mut *self.watched());
        let _ = contain("`Drop` of a key or value", move || drop((sender, watched)));
    }
}

/// All changes of a map from a moment on, in the order in which they were accepted. From
/// [`PersistentMap::subscribe`](crate::PersistentMap::subscribe). Also a [`Stream`] of [`Event`]s.
///
/// It ends when the map is closed, or its last handle is gone.
#[must_use = "a subscription that is dropped hears nothing"]
pub struct Subscription<K, V>(BroadcastStream<Event<K, V>>);

impl<K: Key, V: Value> Subscription<K, V> {
    /// The next event, or `None` when the map is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::builder(InMemoryBackend::new()).event_capacity(1).open().await?;
    /// let mut events = map.subscribe();
    /// map.insert(1, 1).await?;
    /// map.insert(2, 2).await?; // the subscriber was too slow for the first
    /// assert!(matches!(events.recv().await, Some(Event::Missed(1))));
    /// assert!(matches!(events.recv().await, Some(Event::Changed(changes)) if changes[0].key == 2));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv(&mut self) -> Option<Event<K, V>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<K: Key, V: Value> Stream for Subscription<K, V> {
    type Item = Event<K, V>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event<K, V>>> {
        let next = Pin::new(&mut self.0).poll_next(context);
        next.map(|next| {
            next.map(|event| {
                event.unwrap_or_else(|BroadcastStreamRecvError::Lagged(count)| Event::Missed(count))
            })
        })
    }
}

impl<K, V> fmt::Debug for Subscription<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// What a [`Watch`] needs of its map.
pub(crate) trait Watched<K, V>: Send + Sync {
    fn value(&self, key: &K) -> Option<V>;
    fn unwatch(&self, key: &K);
}

/// The latest value of one key. From [`PersistentMap::watch`](crate::PersistentMap::watch). Also a [`Stream`]: of the value
/// now, and then of the latest value after each change.
///
/// It sees that something has changed, not each change: values that come and go while nobody looks are left out.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(InMemoryBackend::new()).await?;
/// let flag = map.watch("flag".to_string());
/// map.insert("flag".to_string(), true).await?;
/// assert_eq!((flag.key().as_str(), flag.get()), ("flag", Some(true)));
/// # Ok(())
/// # }
/// ```
#[must_use = "a watch that is dropped sees nothing"]
pub struct Watch<K: Key, V: Value> {
    /// `None` only while it is being dropped.
    changes: Option<WatchStream<()>>,
    /// The stream begins with the value of now.
    first: bool,
    key: K,
    map: Weak<dyn Watched<K, V>>,
}

impl<K: Key, V: Value> Watch<K, V> {
    /// The value now; `None` if there is no such entry, or no such map any more.
    pub fn get(&self) -> Option<V> {
        self.map.upgrade()?.value(&self.key)
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Waits until the entry has changed since the watch was made or `changed` last returned, and returns its value.
    ///
    /// # Errors
    /// [`Closed`](PersistentError::Closed): the map was closed, or its last handle is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// let mut flag = map.watch("flag".to_string());
    /// map.insert("flag".to_string(), true).await?;
    /// assert_eq!(flag.changed().await?, Some(true));
    /// map.remove("flag").await?;
    /// assert_eq!(flag.changed().await?, None);
    /// map.close().await?;
    /// assert!(matches!(flag.changed().await, Err(PersistentError::Closed)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn changed(&mut self) -> Result<Option<V>> {
        poll_fn(|context| self.poll_change(context)).await
    }

    fn poll_change(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<V>>> {
        let Some(changes) = &mut self.changes else {
            return Poll::Ready(Err(PersistentError::Closed));
        };
        // A map that is gone has no values, which is not to say that they were removed.
        Pin::new(changes).poll_next(context).map(|change| {
            let map = change.and_then(|()| self.map.upgrade());
            let map = map.ok_or(PersistentError::Closed)?;
            Ok(map.value(&self.key))
        })
    }
}

impl<K: Key + Unpin, V: Value> Stream for Watch<K, V> {
    type Item = Option<V>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Option<V>>> {
        if std::mem::take(&mut self.first) {
            return Poll::Ready(Some(self.get()));
        }
        self.poll_change(context).map(Result::ok)
    }
}

impl<K: Key, V: Value> Drop for Watch<K, V> {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(map) = self.map.upgrade() {
            let _ = contain("`Hash` or `Eq` of a key", || map.unwatch(&self.key));
        }
    }
}

impl<K: Key, V: Value> fmt::Debug for Watch<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{PersistentMap, StorageBackend};

    struct Nothing;

    #[async_trait]
    impl StorageBackend<u8, u8> for Nothing {
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

    #[tokio::test]
    async fn a_key_is_forgotten_with_its_last_watch() {
        let map = PersistentMap::new(Nothing).await.unwrap();
        let watches = [map.watch(1), map.watch(1), map.watch(2)];
        let keys = || map.shared.events.watched().len();
        assert_eq!(keys(), 2);
        for (watch, left) in watches.into_iter().zip([2, 1, 0]) {
            drop(watch);
            assert_eq!(keys(), left);
        }
    }
}
