//! Reading and changing one entry in one step.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use tokio::task::coop::consume_budget;

use crate::backend::{Key, StorageBackend, Value};
use crate::engine::Scope;
use crate::error::{PersistentError, Result};
use crate::map::{PersistentMap, owned};
use crate::panics::{contain, contain_async};
use crate::transaction::Decision;

/// One entry, read and changed in one step: nothing else changes the map in between.
///
/// A closure is called where all changes are made, one after the other: it should be short. It reads what is committed and
/// what is about to be, in the order of calls; if that cannot be stored, this call fails as well. So a hundred tasks that
/// count up one counter share commits, and no count is lost.
///
/// A closure may be called more than once, or not at all, so it should have no effects but its result. It may read this map.
/// One that panics fails its call with [`Panicked`](PersistentError::Panicked), and changes nothing.
///
/// **Errors and cancel safety** of all of them are those of [`insert`](Self::insert).
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Changes the value of `key` in place, and returns what `change` returned. `None` if there is no such key; then
    /// `change` is not called. Costs a clone of the value: readers see the old one until the new one is stored. For what `key`
    /// may be see [look-ups](PersistentMap#look-ups).
    ///
    /// `change` may be called more than once, so it is `FnMut` and clones what it gives away; it may outlive this call, so it
    /// is `'static` and owns what it uses.
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
    /// map.insert("hits".to_string(), 1).await?;
    /// let hits = map.update("hits", |hits| { *hits += 1; *hits }).await?;
    /// assert_eq!(hits, Some(2));
    /// assert_eq!(map.update("misses", |misses| *misses += 1).await?, None);
    ///
    /// let lists = PersistentMap::new(InMemoryBackend::new()).await?;
    /// lists.insert("fruit".to_string(), vec!["apple".to_string()]).await?;
    /// let item = "pear".to_string();
    /// lists.update("fruit", move |list| list.push(item.clone())).await?;
    /// assert_eq!(lists.with("fruit", |list| list.len()), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update<Q, R>(
        &self,
        key: &Q,
        mut change: impl FnMut(&mut V) -> R + Send + 'static,
    ) -> Result<Option<R>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        R: Send + 'static,
    {
        let key = owned(key)?;
        self.on_key(key, move |entry| match entry.get() {
            Some(mut value) => {
                let result = change(&mut value);
                entry.set(Some(value));
                Decision::Commit(Some(result))
            }
            None => Decision::Rollback(None),
        })
        .await
    }

    /// Changes the value of `key` in place, as [`update`](Self::update) does, and returns what `change` returned. If there is
    /// no such key, `default` is put first, and changed as well.
    ///
    /// This is what `*map.entry(key).or_insert(0) += 1` is for a `HashMap`: `change` is called on the value that is there or
    /// on `default`, so a counter starts with `0`. Where the first value is to stay as it is, or is dear to make, use
    /// [`compute`](Self::compute).
    ///
    /// `Ok` means what it means for [`insert`](Self::insert), for the changed value. Costs a clone of the value, or of
    /// `default`: readers see the old one until the new one is stored.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert). Then `default` is not put either.
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let hits = PersistentMap::new(InMemoryBackend::new()).await?;
    /// for page in ["home", "about", "home"] {
    ///     hits.update_or_insert(page.to_string(), 0, |hits| *hits += 1).await?;
    /// }
    /// assert_eq!((hits.get("home"), hits.get("about")), (Some(2), Some(1)));
    ///
    /// let third = hits.update_or_insert("home".to_string(), 0, |hits| { *hits += 1; *hits }).await?;
    /// assert_eq!(third, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update_or_insert<R>(
        &self,
        key: K,
        default: V,
        mut change: impl FnMut(&mut V) -> R + Send + 'static,
    ) -> Result<R>
    where
        R: Send + 'static,
    {
        self.on_key(key, move |entry| {
            let mut value = entry.get().unwrap_or_else(|| default.clone());
            let result = change(&mut value);
            entry.set(Some(value));
            Decision::Commit(result)
        })
        .await
    }

    /// Makes the value of `key` what `change` makes of it, and returns the new value. `None` stands for no entry, before
    /// and after.
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
    /// let tokens = PersistentMap::new(InMemoryBackend::new()).await?;
    /// tokens.insert("left".to_string(), 1u32).await?;
    /// // Take one; the entry goes with the last.
    /// let take = |left: Option<u32>| left.and_then(|n| n.checked_sub(1)).filter(|n| *n > 0);
    /// assert_eq!(tokens.compute("left".to_string(), take).await?, None);
    /// assert!(!tokens.contains_key("left"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compute(
        &self,
        key: K,
        mut change: impl FnMut(Option<V>) -> Option<V> + Send + 'static,
    ) -> Result<Option<V>> {
        self.on_key(key, move |entry| {
            let old = entry.get();
            let was_there = old.is_some();
            let new = change(old);
            if new.is_none() && !was_there {
                return Decision::Rollback(None);
            }
            entry.set(new.clone());
            Decision::Commit(new)
        })
        .await
    }

    /// Stores `value` if there is no entry for `key`. Otherwise changes nothing and returns the value that is there.
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
    /// let leader = PersistentMap::new(InMemoryBackend::new()).await?;
    /// assert_eq!(leader.insert_if_absent("eu".to_string(), 1).await?, None);
    /// assert_eq!(leader.insert_if_absent("eu".to_string(), 2).await?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn insert_if_absent(&self, key: K, value: V) -> Result<Option<V>> {
        self.on_key(key, move |entry| {
            let present = entry.get();
            if present.is_some() {
                return Decision::Rollback(present);
            }
            entry.set(Some(value.clone()));
            Decision::Commit(None)
        })
        .await
    }

    /// Makes the value of `key` `new` if it is `expected`. `None` stands for no entry, in both. Otherwise changes nothing,
    /// and returns the value that is there as `Ok(Err(..))`.
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
    /// let lock = || "lock".to_string();
    /// assert_eq!(map.compare_and_swap(lock(), None, Some(1)).await?, Ok(()));
    /// assert_eq!(map.compare_and_swap(lock(), None, Some(2)).await?, Err(Some(1)));
    /// assert_eq!(map.compare_and_swap(lock(), Some(1), None).await?, Ok(()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compare_and_swap(
        &self,
        key: K,
        expected: Option<V>,
        new: Option<V>,
    ) -> Result<Result<(), Option<V>>>
    where
        V: PartialEq,
    {
        self.on_key(key, move |entry| {
            let present = entry.get();
            if present != expected {
                return Decision::Rollback(Err(present));
            }
            if present.is_some() || new.is_some() {
                entry.set(new.clone());
            }
            Decision::Commit(Ok(()))
        })
        .await
    }

    /// Removes `key` if `test` says so of its value, and returns the value. `None` if there is no such key, or it stays. For
    /// what `key` may be see [look-ups](PersistentMap#look-ups).
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
    /// map.insert("session".to_string(), 10).await?;
    /// assert_eq!(map.remove_if("session", |expires| *expires < 5).await?, None);
    /// assert_eq!(map.remove_if("session", |expires| *expires < 15).await?, Some(10));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_if<Q>(
        &self,
        key: &Q,
        mut test: impl FnMut(&V) -> bool + Send + 'static,
    ) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let key = owned(key)?;
        self.on_key(key, move |entry| match entry.get() {
            Some(value) if test(&value) => {
                entry.set(None);
                Decision::Commit(Some(value))
            }
            _ => Decision::Rollback(None),
        })
        .await
    }

    /// The value of `key`; if there is none, the one that `init` makes, which is stored first.
    ///
    /// However many callers ask at once, one `init` runs at a time and all get its value. It runs in its caller's task, and
    /// nothing is locked meanwhile: reads and writes go on, also of this key; if somebody else stores a value, that one
    /// wins. `init` may ask for other keys in this way, also of other maps. If one of those waits for this key in turn, or it
    /// is this key, the last one to ask is refused. That `init` waits for another task which asks for this key cannot be
    /// known, and hangs.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); [`Panicked`](PersistentError::Panicked) if `init` panics: then the next caller
    /// tries; and [`WouldDeadlock`](PersistentError::WouldDeadlock) inside of an initialiser that this value waits for.
    ///
    /// # Cancel safety
    /// Dropping the future drops `init` if it is running, and the next caller tries.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let squares = PersistentMap::new(InMemoryBackend::new()).await?;
    /// let nine = squares.get_or_insert_with(3, || async { 3 * 3 }).await?;
    /// assert_eq!((nine, squares.get(&3)), (9, Some(9)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_insert_with<F>(&self, key: K, init: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = V>,
    {
        self.get_or_try_insert_with(key, || async { Ok::<_, PersistentError>(init().await) })
            .await
    }

    /// Like [`get_or_insert_with`](Self::get_or_insert_with), with an `init` that may fail: then its caller gets the error,
    /// nothing is stored, and the next caller tries. The error type is yours. [`PersistentError`] as such would make a source
    /// that fails look like a store that fails.
    ///
    /// # Errors
    /// What `init` says, and as for [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Cancel safety
    /// As for [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// #[derive(Debug)]
    /// enum Failed { Download(std::io::Error), Store(PersistentError) }
    /// impl From<PersistentError> for Failed {
    ///     fn from(error: PersistentError) -> Self { Failed::Store(error) }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Failed> {
    /// # async fn download(url: &str) -> std::io::Result<String> { Ok(url.to_uppercase()) }
    /// let pages = PersistentMap::new(InMemoryBackend::new()).await?;
    /// let url = "https://example.org".to_string();
    /// let get = || async { download(&url).await.map_err(Failed::Download) };
    /// let page = pages.get_or_try_insert_with(url.clone(), get).await?;
    /// assert_eq!(page, "HTTPS://EXAMPLE.ORG");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_try_insert_with<F, E>(
        &self,
        key: K,
        init: impl FnOnce() -> F,
    ) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
        E: From<PersistentError>,
    {
        consume_budget().await;
        if let Some(value) = contain("`Hash`, `Eq` or `Clone`", || self.get(&key))? {
            return Ok(value);
        }
        self.shared.check_may_wait()?;
        self.shared.status.check_writable()?;
        let turn = self.shared.flights.turn(&key).await?;
        if let Some(value) = contain("`Hash`, `Eq` or `Clone`", || self.get(&key))? {
            return Ok(value);
        }
        let init = contain_async("the initialiser", async { Ok(init().await) });
        let value = turn.make(init).await??;
        let stored = contain("`Clone` of a value", || value.clone())?;
        Ok(self.insert_if_absent(key, stored).await?.unwrap_or(value))
    }

    /// Runs `run` on one entry.
    async fn on_key<R: Send + 'static>(
        &self,
        key: K,
        mut run: impl FnMut(&mut Entry<'_, '_, K, V, S>) -> Decision<R> + Send + 'static,
    ) -> Result<R> {
        let scope = Scope::Key(contain("`Clone` of a key", || key.clone())?);
        self.engine
            .call(&self.shared, scope, move |transaction| {
                run(&mut Entry {
                    transaction,
                    key: &key,
                })
            })
            .await
    }
}

/// One entry, as a closure's wrapper sees it.
struct Entry<'e, 't, K, V, S> {
    transaction: &'e mut crate::transaction::Transaction<'t, K, V, S>,
    key: &'e K,
}

impl<K: Key, V: Value, S: BuildHasher + Clone> Entry<'_, '_, K, V, S> {
    fn get(&self) -> Option<V> {
        self.transaction.get(self.key)
    }

    fn set(&mut self, value: Option<V>) {
        match value {
            Some(value) => self.transaction.set(self.key.clone(), value),
            None => drop(self.transaction.remove(self.key)),
        }
    }
}
