//! The same map for code that cannot await.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::panic::resume_unwind;

use crate::backend::{Key, StorageBackend, Value};
use crate::error::{PersistentError, Result};
use crate::map::PersistentMap;
use crate::panics::{caught, contain};
use crate::reentry::check_not_reading;
use crate::transaction::Transaction;

/// A handle for synchronous code: each call waits for the async call of the same name. From
/// [`PersistentMap::blocking`].
///
/// For plain threads and for `tokio::task::spawn_blocking`. The runtime that the map was opened in must be running
/// meanwhile: a current-thread runtime runs while another thread is in its `block_on`, and otherwise each call waits for
/// ever. Inside of async code, inside of [`with`](PersistentMap::with), and inside of a closure of the same map, each call is
/// refused with [`WouldDeadlock`](PersistentError::WouldDeadlock); await the map itself there. For where that cannot be known
/// see [the map](PersistentMap#calls-inside-of-code-that-the-map-runs).
///
/// Reads need no such handle; [`map`](Self::map) has them.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_testkit::Disk;
/// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
/// # let run = || -> Result<()> {
/// let map = runtime.block_on(PersistentMap::new(Disk::new().backend()))?;
/// let blocking = map.blocking();
/// blocking.insert("a".to_string(), 1)?;
/// blocking.update("a", |n| *n += 1)?;
/// assert_eq!(map.get("a"), Some(2));
/// blocking.close()?;
/// # Ok(())
/// # };
/// # run().unwrap();
/// ```
pub struct Blocking<K, V, B, S = RandomState>(PersistentMap<K, V, B, S>);

impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// A handle for code that cannot await. For an example see [`Blocking`].
    pub fn blocking(&self) -> Blocking<K, V, B, S> {
        Blocking(self.clone())
    }
}

/// **Errors** are those of the async calls; and [`WouldDeadlock`](PersistentError::WouldDeadlock) inside of async code, of
/// [`with`](PersistentMap::with) and of closures of the same map.
#[allow(
    clippy::missing_errors_doc,
    reason = "said once for all, and at the async call of the same name"
)]
impl<K, V, B, S> Blocking<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// The map itself.
    pub fn map(&self) -> &PersistentMap<K, V, B, S> {
        &self.0
    }

    /// Waits for any call on the map that has no method here.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::Disk;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    /// # let map = runtime.block_on(PersistentMap::new(Disk::new().backend())).unwrap();
    /// let blocking = map.blocking();
    /// let value = blocking.wait(map.get_or_insert_with(7, || async { 49 })).unwrap();
    /// assert_eq!(value, 49);
    /// ```
    pub fn wait<T, E: From<PersistentError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        check_not_reading().map_err(E::from)?;
        let runtime = &self.0.shared.runtime;
        match contain("tokio", || runtime.block_on(caught(call))) {
            Ok(Ok(result)) => result,
            // Not ours: the caller's own code, in a call that they gave to `wait`.
            Ok(Err(panic)) => resume_unwind(panic),
            // It panics there, and only there.
            Err(_) => Err(E::from(PersistentError::WouldDeadlock {
                place: "inside of async code",
                advice: "Await the map itself there, or make the call in `spawn_blocking`",
            })),
        }
    }

    /// [`PersistentMap::insert`].
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        self.wait(self.0.insert(key, value))
    }

    /// [`PersistentMap::remove`].
    pub fn remove<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.wait(self.0.remove(key))
    }

    /// [`PersistentMap::clear`].
    pub fn clear(&self) -> Result<()> {
        self.wait(self.0.clear())
    }

    /// [`PersistentMap::update`].
    pub fn update<Q, R>(
        &self,
        key: &Q,
        change: impl FnMut(&mut V) -> R + Send + 'static,
    ) -> Result<Option<R>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        R: Send + 'static,
    {
        self.wait(self.0.update(key, change))
    }

    /// [`PersistentMap::update_or_insert`].
    pub fn update_or_insert<R>(
        &self,
        key: K,
        default: V,
        change: impl FnMut(&mut V) -> R + Send + 'static,
    ) -> Result<R>
    where
        R: Send + 'static,
    {
        self.wait(self.0.update_or_insert(key, default, change))
    }

    /// [`PersistentMap::compute`].
    pub fn compute(
        &self,
        key: K,
        change: impl FnMut(Option<V>) -> Option<V> + Send + 'static,
    ) -> Result<Option<V>> {
        self.wait(self.0.compute(key, change))
    }

    /// [`PersistentMap::insert_if_absent`].
    pub fn insert_if_absent(&self, key: K, value: V) -> Result<Option<V>> {
        self.wait(self.0.insert_if_absent(key, value))
    }

    /// [`PersistentMap::compare_and_swap`].
    pub fn compare_and_swap(
        &self,
        key: K,
        expected: Option<V>,
        new: Option<V>,
    ) -> Result<Result<(), Option<V>>>
    where
        V: PartialEq,
    {
        self.wait(self.0.compare_and_swap(key, expected, new))
    }

    /// [`PersistentMap::remove_if`].
    pub fn remove_if<Q>(
        &self,
        key: &Q,
        test: impl FnMut(&V) -> bool + Send + 'static,
    ) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.wait(self.0.remove_if(key, test))
    }

    /// [`PersistentMap::insert_many`].
    pub fn insert_many(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<usize> {
        self.wait(self.0.insert_many(entries))
    }

    /// [`PersistentMap::remove_many`].
    pub fn remove_many(&self, keys: impl IntoIterator<Item = K>) -> Result<usize> {
        self.wait(self.0.remove_many(keys))
    }

    /// [`PersistentMap::retain`].
    pub fn retain(&self, keep: impl FnMut(&K, &V) -> bool + Send + 'static) -> Result<usize> {
        self.wait(self.0.retain(keep))
    }

    /// [`PersistentMap::transaction`].
    pub fn transaction<R, E>(
        &self,
        run: impl FnMut(&mut Transaction<'_, K, V, S>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<PersistentError> + Send + 'static,
    {
        self.wait(self.0.transaction(run))
    }

    /// [`PersistentMap::snapshot`].
    pub fn snapshot(&self) -> Result<HashMap<K, V, S>> {
        self.wait(self.0.snapshot())
    }

    /// [`PersistentMap::flush`].
    pub fn flush(&self) -> Result<()> {
        self.wait(self.0.flush())
    }

    /// [`PersistentMap::close`].
    pub fn close(&self) -> Result<()> {
        self.wait(self.0.close())
    }
}

impl<K, V, B, S> Clone for Blocking<K, V, B, S> {
    fn clone(&self) -> Self {
        Blocking(self.0.clone())
    }
}

impl<K, V, B, S> fmt::Debug for Blocking<K, V, B, S>
where
    PersistentMap<K, V, B, S>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blocking").field(&self.0).finish()
    }
}
