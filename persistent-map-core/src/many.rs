//! Many entries in one step.

use std::collections::HashMap;
use std::hash::BuildHasher;

use crate::backend::{Key, StorageBackend, Value};
use crate::engine::Scope;
use crate::error::{PersistentError, Result};
use crate::map::PersistentMap;
use crate::panics::contain;
use crate::transaction::{Decision, Transaction};
use crate::verify::equal;
use crate::write::Write;

/// Many entries, in one step: all or nothing, in memory and in the store, also after a crash.
///
/// They need a backend with [atomic batches](crate::Capabilities::atomic_batches), which those of this project have.
/// Elsewhere a call that would change more than one entry answers [`Unsupported`](PersistentError::Unsupported), and
/// nothing is written.
///
/// [`get`](Self::get) and iteration look at one entry at a time: beside a commit they may see some of its entries changed
/// and others not yet. [`snapshot`](Self::snapshot) and other transactions see all or nothing of it.
///
/// A batch may be as large as memory allows: the entries and their prepared bytes are held until it is committed. It is not
/// cut into pieces, because then a crash could leave half of it; and the map holds all entries in memory in any case.
impl<K, V, B, S> PersistentMap<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// Stores all entries with one commit, and returns how many keys were new. If a key comes twice, the last one counts.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and [`Unsupported`](PersistentError::Unsupported). None of the entries is stored
    /// then.
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert): nothing, or all of it.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// assert_eq!(map.insert_many((0..1000).map(|n| (n, n * n))).await?, 1000);
    /// assert_eq!(map.remove_many(500..2000).await?, 500);
    /// assert_eq!(map.retain(|key, _| key % 2 == 0).await?, 250);
    /// assert_eq!(map.len(), 250);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn insert_many(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<usize> {
        let writes = contain("an iterator", || {
            let entries = entries.into_iter();
            entries
                .map(|(key, value)| Write::insert(key, value))
                .collect::<Vec<_>>()
        })?;
        let count = writes.len();
        Ok(count - self.write_all(writes).await?)
    }

    /// Removes all these keys with one commit, and returns how many of them had an entry.
    ///
    /// # Errors
    /// As for [`insert_many`](Self::insert_many).
    ///
    /// # Cancel safety
    /// As for [`insert_many`](Self::insert_many).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert_many([(1, 'a'), (2, 'b')]).await?;
    /// assert_eq!(map.remove_many([2, 3]).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_many(&self, keys: impl IntoIterator<Item = K>) -> Result<usize> {
        let writes = contain("an iterator", || {
            keys.into_iter().map(Write::remove).collect::<Vec<_>>()
        })?;
        self.write_all(writes).await
    }

    /// Removes the entries that `keep` says no to, and returns how many they were. Unlike that of a `HashMap`, `keep` cannot
    /// change values.
    ///
    /// One step where the backend has [atomic batches](crate::Capabilities::atomic_batches): nothing else changes meanwhile,
    /// so other writers wait. Elsewhere entries are removed one by one, each if `keep` says no at that moment. Costs a copy
    /// of all keys.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and [`PartlyCleared`](PersistentError::PartlyCleared) from a backend without atomic
    /// batches.
    ///
    /// # Cancel safety
    /// As for [`insert`](Self::insert). Without atomic batches, what was removed until then stays removed.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert_many([("old", 1), ("new", 9)].map(|(key, time)| (key.to_string(), time))).await?;
    /// assert_eq!(map.retain(|_, time| *time > 5).await?, 1);
    /// assert!(map.contains_key("new") && !map.contains_key("old"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn retain(&self, keep: impl FnMut(&K, &V) -> bool + Send + 'static) -> Result<usize> {
        let atomic_batches = self.capabilities().atomic_batches;
        self.engine.retain(&self.shared, atomic_batches, keep).await
    }

    /// Runs `run` on the map, and stores all that it has changed with one commit. Returns what `run` has returned.
    ///
    /// Serializable: nothing else changes the map while `run` runs, so it is as if transactions came one after the other.
    /// `run` reads its own changes. If it returns `Err` or panics, nothing of it is stored.
    ///
    /// `run` is called where all changes are made: other writers wait, so it should be short; it cannot await. It may be
    /// called more than once, so it should have no effects but those on the map. Transactions that come together share a
    /// commit. A transaction is within one map; not even two maps in one file can change in one step, because each has its
    /// own order of writes.
    ///
    /// # Errors
    /// What `run` says, and as for [`insert_many`](Self::insert_many). The error type is yours; with
    /// [`PersistentError`] as such, end with `Ok::<_, PersistentError>(..)`.
    ///
    /// # Cancel safety
    /// As for [`insert_many`](Self::insert_many).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// #[derive(Debug)]
    /// enum Refused { TooPoor, Store(PersistentError) }
    /// impl From<PersistentError> for Refused {
    ///     fn from(error: PersistentError) -> Self { Refused::Store(error) }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Refused> {
    /// let accounts = PersistentMap::new(InMemoryBackend::new()).await?;
    /// accounts.insert_many([("ann".to_string(), 100), ("bob".to_string(), 0)]).await?;
    ///
    /// let pay = |amount: i64| accounts.transaction(move |tx| {
    ///     let ann = tx.get("ann").unwrap_or(0);
    ///     if ann < amount {
    ///         return Err(Refused::TooPoor);
    ///     }
    ///     let bob = tx.get("bob").unwrap_or(0);
    ///     tx.insert("ann".to_string(), ann - amount);
    ///     tx.insert("bob".to_string(), bob + amount);
    ///     Ok(ann - amount)
    /// });
    /// assert_eq!(pay(70).await?, 30);
    /// assert!(matches!(pay(70).await, Err(Refused::TooPoor)));
    /// assert_eq!((accounts.get("ann"), accounts.get("bob")), (Some(30), Some(70)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction<R, E>(
        &self,
        mut run: impl FnMut(&mut Transaction<'_, K, V, S>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<PersistentError> + Send + 'static,
    {
        self.engine
            .call(&self.shared, Scope::All, move |transaction| {
                match run(transaction) {
                    Ok(value) => Decision::Commit(Ok(value)),
                    Err(error) => Decision::Rollback(Err(error)),
                }
            })
            .await?
    }

    /// A copy of all entries at one moment: between two calls that change the map, never in the middle of one.
    ///
    /// Costs time and memory by the size of the map, and writers wait while it is copied. It comes after all calls that were
    /// made before it, and works on a closed map too. On a map that was [poisoned](PersistentError::Poisoned) by a panic in
    /// `Hash` or `Eq` of a key, the change of that key is missing.
    ///
    /// # Errors
    /// [`Panicked`](PersistentError::Panicked): `Clone` of a key or value has panicked.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_memory::InMemoryBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let map = PersistentMap::new(InMemoryBackend::new()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// let before = map.snapshot().await?;
    /// map.insert("a".to_string(), 2).await?;
    /// assert_eq!(before["a"], 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn snapshot(&self) -> Result<HashMap<K, V, S>> {
        let entries = self.engine.snapshot(&self.shared).await?;
        contain("`Hash` or `Eq` of a key", || {
            let hasher = self.shared.cache.hasher().clone();
            let mut snapshot = HashMap::with_capacity_and_hasher(entries.len(), hasher);
            snapshot.extend(entries);
            snapshot
        })
    }

    /// Reads the whole store again and compares it with memory. Returns the number of entries that were compared. A map
    /// without a store has nothing to compare, and says how many entries it has.
    ///
    /// Writers wait while it reads, and all keys are in memory twice meanwhile. A close does not wait: it ends the call. With
    /// [`WriteMode::Behind`](crate::WriteMode::Behind) what is unsaved is stored first, and memory is copied.
    ///
    /// # Errors
    /// - [`NotAsWritten`](PersistentError::NotAsWritten): they differ.
    /// - [`Corrupt`](PersistentError::Corrupt), [`Damaged`](PersistentError::Damaged),
    ///   [`Storage`](PersistentError::Storage): the store cannot be read.
    /// - [`Unsaved`](PersistentError::Unsaved), [`Poisoned`](PersistentError::Poisoned): it cannot be equal.
    /// - [`Closed`](PersistentError::Closed), [`WriterGone`](PersistentError::WriterGone): as for
    ///   [`insert`](Self::insert).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing, and ends the reading.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::Disk;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let (disk, other_program) = { let disk = Disk::new(); (disk.clone(), disk) };
    /// let map = PersistentMap::new(disk.backend()).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// assert_eq!(map.verify().await?, 1);
    ///
    /// # let other_program = other_program.backend();
    /// other_program.save("a".to_string(), 2).await?;
    /// assert!(matches!(map.verify().await, Err(PersistentError::NotAsWritten { other: 1, .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn verify(&self) -> Result<u64>
    where
        V: PartialEq,
    {
        self.engine.verify(&self.shared, equal::<V>).await
    }

    async fn write_all(&self, writes: Vec<Write<K, V>>) -> Result<usize> {
        let atomic_batches = self.capabilities().atomic_batches;
        self.engine
            .write_all(&self.shared, atomic_batches, writes)
            .await
    }
}
