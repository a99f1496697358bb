//! The contract between the map and a store.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::capabilities::Capabilities;
use crate::error::{PersistentError, Result};
use crate::row::CorruptRow;
use crate::write::{Encoded, Write};

/// What a key must be able to do. Implemented for every type that qualifies.
///
/// Beyond the bounds: the same key must serialize to the same bytes each time, because that is how a store finds its row.
/// A `HashSet` or `HashMap` inside a key does not (its order varies); `insert` refuses it when it notices. Keys that are
/// equal but are written differently (the paths `a/b` and `a/b/`) are one entry, stored as it was first inserted.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # use serde::{Deserialize, Serialize};
/// #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
/// struct Seat { row: u8, number: u16 }
///
/// let guests = PersistentMap::new(InMemoryBackend::new()).await?;
/// guests.insert(Seat { row: 1, number: 7 }, "Ann".to_string()).await?;
/// assert_eq!(guests.get(&Seat { row: 1, number: 7 }).as_deref(), Some("Ann"));
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a map",
    note = "a key is `Eq + Hash + Clone + Send + Sync + 'static`, and derives serde's `Serialize` and `Deserialize`"
)]
pub trait Key: Eq + Hash + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T> Key for T where T: Eq + Hash + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

/// What a value must be able to do. Implemented for every type that qualifies. A value that is dear to clone can be an
/// `Arc<..>`, with serde's feature `rc`.
///
/// ```
/// use persistent_map_core::Value;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Person { name: String, born: Option<u16> }
///
/// fn can_be_a_value<V: Value>() {}
/// can_be_a_value::<Person>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the value of a map",
    note = "a value is `Clone + Send + Sync + 'static`, and derives serde's `Serialize` and `Deserialize`"
)]
pub trait Value: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T> Value for T where T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

/// A store for entries: the trait to implement for a backend of your own.
///
/// [`load_all`](Self::load_all), [`save`](Self::save), [`delete`](Self::delete) and [`flush`](Self::flush) are enough.
/// The other methods have defaults that are right for a store that does one thing at a time; override them for strength
/// (atomic batches) or speed. A store that keeps bytes should implement [`ByteStore`](crate::ByteStore) instead and
/// gets this trait for all types.
///
/// # Contract
///
/// *What the store may rely on.* One map at a time uses a backend. [`load`](Self::load) is called before anything else. If
/// it fails, it may be called again, for the same types or for others. After that all write methods are called from one
/// task, one after the other: no call begins before the last one has returned. A future is never dropped half way, unless
/// the whole runtime ends. Nothing is called after [`close`](Self::close).
///
/// *What the map relies on.*
/// - **`Ok` of a write means stored**: the change survives what [`capabilities`](Self::capabilities) says, from that
///   moment on. Return `Ok` after the commit, never before.
/// - **`Err` of a write means not applied**: not now and not after a restart. Where the store cannot know (a failed
///   `fsync`, a lost connection), mark the error with [`PersistentError::unknown`]; the map then refuses writes until it
///   is opened again.
/// - **Later wins**: the last change of a key is the one that `load` gives back.
/// - **`load` tells everything or fails**: a row that cannot be read is reported, never skipped.
/// - **What is stored comes back**: what could not be read again as it was is refused by [`prepare`](Self::prepare).
/// - **One owner**: where two backends could have the same store, the second one is refused with
///   [`InUse`](PersistentError::InUse), when it is opened or when it loads, and the first one is left alone.
/// - Errors name the file and what to do, and contain no values.
///
/// The conformance kit in `persistent-map-testkit` holds a backend against this contract, as far as it can be seen from
/// outside of the store. Its module `guide` is a walk-through, and lists what the kit cannot see.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use persistent_map_core::{async_trait, PersistentError, PersistentMap, StorageBackend};
///
/// /// Keeps entries for as long as the value lives.
/// #[derive(Default)]
/// struct Shelf(Mutex<HashMap<String, u32>>);
///
/// #[async_trait]
/// impl StorageBackend<String, u32> for Shelf {
///     async fn load_all(&self) -> Result<HashMap<String, u32>, PersistentError> {
///         Ok(self.0.lock().unwrap().clone())
///     }
///     async fn save(&self, key: String, value: u32) -> Result<(), PersistentError> {
///         self.0.lock().unwrap().insert(key, value);
///         Ok(())
///     }
///     async fn delete(&self, key: &String) -> Result<(), PersistentError> {
///         self.0.lock().unwrap().remove(key);
///         Ok(())
///     }
///     async fn flush(&self) -> Result<(), PersistentError> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), PersistentError> {
/// let map = PersistentMap::new(Shelf::default()).await?;
/// map.insert("apples".to_string(), 3).await?;
/// assert_eq!(map.get("apples"), Some(3));
/// # Ok(())
/// # }
/// ```
///
/// # Example with everything
///
/// What a store overrides that takes many entries in one commit. With `atomic_batches` the map sends its groups to `apply`,
/// and transactions, [`insert_many`](crate::PersistentMap::insert_many) and others work.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use persistent_map_core::*;
///
/// #[derive(Default)]
/// struct Cupboard(Mutex<HashMap<String, u32>>);
///
/// #[async_trait]
/// impl StorageBackend<String, u32> for Cupboard {
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::one_at_a_time().with_atomic_batches()
///     }
///     fn prepare(&self, key: &String, _: Option<&u32>) -> Result<Option<Encoded>> {
///         match key.len() {
///             0..=255 => Ok(None), // nothing to keep for `apply`
///             bytes => Err(PersistentError::too_large("key", bytes, 255)),
///         }
///     }
///     async fn load(&self, sink: &mut dyn LoadSink<String, u32>) -> Result<()> {
///         self.read_back(sink).await?; // nothing to recover first
///         sink.finish()
///     }
///     async fn apply(&self, batch: &[Write<String, u32>]) -> Result<()> {
///         let mut entries = self.0.lock().unwrap();
///         for write in batch {
///             match write.value() {
///                 Some(value) => entries.insert(write.key().clone(), *value),
///                 None => entries.remove(write.key()),
///             };
///         }
///         Ok(())
///     }
///     async fn clear(&self) -> Result<()> {
///         self.0.lock().unwrap().clear();
///         Ok(())
///     }
///     async fn replace(&self, entries: Vec<(String, u32)>) -> Result<()> {
///         *self.0.lock().unwrap() = entries.into_iter().collect();
///         Ok(())
///     }
///     async fn read_back(&self, sink: &mut dyn LoadSink<String, u32>) -> Result<()> {
///         let entries = self.0.lock().unwrap();
///         sink.expect(entries.len() as u64);
///         entries.iter().try_for_each(|(key, value)| sink.entry(key.clone(), *value))
///     }
///     async fn close(&self) -> Result<()> {
///         Ok(()) // no files to release
///     }
///     // The rest is what the map has no need of now.
///     async fn load_all(&self) -> Result<HashMap<String, u32>> {
///         collect(self).await
///     }
///     async fn save(&self, key: String, value: u32) -> Result<()> {
///         self.apply(&[Write::insert(key, value)]).await
///     }
///     async fn delete(&self, key: &String) -> Result<()> {
///         self.apply(&[Write::remove(key.clone())]).await
///     }
///     async fn flush(&self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(Cupboard::default()).await?;
/// map.insert_many([("cups".to_string(), 6), ("plates".to_string(), 4)]).await?;
/// assert!(map.insert("x".repeat(256), 1).await.is_err());
/// assert_eq!(map.verify().await?, 2);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a backend for keys of type `{K}` and values of type `{V}`",
    label = "not a `StorageBackend<{K}, {V}>`",
    note = "a map needs a backend, such as `SqliteBackend`, and types that can be its keys and values"
)]
#[async_trait]
pub trait StorageBackend<K, V>: Send + Sync + 'static
where
    K: Key,
    V: Value,
{
    /// What the store can do. Constant for the life of the store.
    ///
    /// Default: [`Capabilities::one_at_a_time`].
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time()
    }

    /// Turns an entry (or, without a value, a key to remove) into what the store will write, and checks it.
    ///
    /// Called in the caller's task, in parallel with others, before the write is queued: the place for work on the
    /// processor, and the only place where one entry can be refused without failing the others of its batch. What it
    /// returns comes back in [`Write::encoded`]. It must not change the store.
    ///
    /// - An entry that the store could not read back as it is: [`Unstorable`](PersistentError::Unstorable). JSON has no NaN,
    ///   say, and many formats write `Some(None)` as they write `None`. (A [`ByteStore`](crate::ByteStore) need not care:
    ///   each entry is decoded before it is written.)
    ///
    /// Default: nothing to prepare.
    ///
    /// # Errors
    /// The entry cannot be stored: no form in this store's format, or one that does not come back; too large.
    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        let _ = (key, value);
        Ok(None)
    }

    /// Gives all entries to `sink`, without collecting them first, and makes them durable: what was recovered from a
    /// crash must not be lost by the next one after somebody has read it.
    ///
    /// - An empty or new store: no entries, `Ok`.
    /// - A row that cannot be read: [`LoadSink::corrupt`]; its error is passed on at once. If it answers `Ok`, go on: the
    ///   row is to be set aside.
    /// - After the last row: [`LoadSink::finish`]. If it fails, return its error and leave all rows where they are.
    /// - Rows to set aside: then moved to where they are neither loaded again nor lost, before `load` returns.
    /// - An error of the sink: stop and return it.
    ///
    /// A load that fails changes nothing.
    ///
    /// Default: passes on what [`load_all`](Self::load_all) returns.
    ///
    /// # Errors
    /// The store cannot be read, or the sink refused a row.
    async fn load(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        let entries = self.load_all().await?;
        sink.expect(entries.len() as u64);
        for (key, value) in entries {
            sink.entry(key, value)?;
        }
        sink.finish()
    }

    /// All entries.
    ///
    /// - An empty or new store: an empty map.
    /// - A row that cannot be read: an error. Never leave it out.
    ///
    /// # Errors
    /// The store, or one of its rows, cannot be read.
    async fn load_all(&self) -> Result<HashMap<K, V>, PersistentError>;

    /// Stores one entry.
    ///
    /// - An existing key: its value is replaced, completely or not at all.
    ///
    /// # Errors
    /// Nothing was stored, unless the error is marked [`unknown`](PersistentError::unknown).
    async fn save(&self, key: K, value: V) -> Result<(), PersistentError>;

    /// Removes one entry.
    ///
    /// - A missing key: nothing to do, `Ok`.
    ///
    /// # Errors
    /// Nothing was removed, unless the error is marked [`unknown`](PersistentError::unknown).
    async fn delete(&self, key: &K) -> Result<(), PersistentError>;

    /// Applies a batch in order, all of it or nothing, with one commit.
    ///
    /// - An empty batch: nothing to do, `Ok`.
    /// - The same key more than once: the last one wins.
    ///
    /// The map only sends more than one write at a time to a store that declares
    /// [`atomic_batches`](Capabilities::atomic_batches).
    ///
    /// Default: one write goes to [`save`](Self::save) or [`delete`](Self::delete), more than one is
    /// [`Unsupported`](PersistentError::Unsupported).
    ///
    /// # Errors
    /// Nothing of the batch was applied, unless the error is marked [`unknown`](PersistentError::unknown). An entry that the
    /// store does not take for what it is must be refused by [`prepare`](Self::prepare): here it would fail its whole batch,
    /// and with `WriteMode::Behind` keep all others from being stored.
    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        match batch {
            [] => Ok(()),
            [write] => match write.value() {
                Some(value) => self.save(write.key().clone(), value.clone()).await,
                None => self.delete(write.key()).await,
            },
            _ => Err(PersistentError::no_batches()),
        }
    }

    /// Removes all entries, or none.
    ///
    /// Must be overridden where [`atomic_batches`](Capabilities::atomic_batches) is declared. Elsewhere the map removes
    /// entries one by one.
    ///
    /// Default: [`Unsupported`](PersistentError::Unsupported).
    ///
    /// # Errors
    /// Nothing was removed, unless the error is marked [`unknown`](PersistentError::unknown).
    async fn clear(&self) -> Result<()> {
        Err(PersistentError::unsupported("clearing in one step"))
    }

    /// Gives all entries to `sink` as they are stored now. Called between two writes, to compare the store with memory; it
    /// changes nothing, and never sets a row aside.
    ///
    /// - A row that cannot be read: [`LoadSink::corrupt`].
    /// - An error of the sink: stop and return it. [`LoadSink::finish`] is not called.
    ///
    /// Default: passes on what [`load_all`](Self::load_all) returns, so override it where `load_all` opens the store.
    ///
    /// # Errors
    /// The store cannot be read, or the sink refused a row.
    async fn read_back(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        for (key, value) in self.load_all().await? {
            sink.entry(key, value)?;
        }
        Ok(())
    }

    /// Replaces everything in the store by `entries`, with one commit, and takes these types (and the store's codec) for
    /// the recorded ones: how a store moves to a new version of a type.
    ///
    /// Called while a map is opened, after [`load`](Self::load) of the older types has succeeded on the same store. No key
    /// comes twice. After `Ok` it takes writes as after a `load` of the new types.
    ///
    /// Default: [`Unsupported`](PersistentError::Unsupported).
    ///
    /// # Errors
    /// Nothing was changed, unless the error is marked [`unknown`](PersistentError::unknown).
    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        drop(entries);
        Err(PersistentError::unsupported("a change of types in place"))
    }

    /// Writes out what the store still buffers, so that the files are complete as they stand. A store that buffers
    /// nothing has nothing to do.
    ///
    /// # Errors
    /// Something that was accepted could not be written.
    async fn flush(&self) -> Result<(), PersistentError>;

    /// Releases files, locks and connections. Called last, also after failures.
    ///
    /// - Called twice: nothing to do, `Ok`.
    ///
    /// Default: nothing to release.
    ///
    /// # Errors
    /// Something could not be released in an orderly way. It is released all the same.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Where [`StorageBackend::load`] puts what it finds.
///
/// ```
/// # use std::collections::HashMap;
/// # use persistent_map_core::*;
/// /// Text with a `name=number` in each line.
/// struct Lines(&'static str);
///
/// #[async_trait]
/// impl StorageBackend<String, u32> for Lines {
///     async fn load(&self, sink: &mut dyn LoadSink<String, u32>) -> Result<()> {
///         sink.expect(self.0.lines().count() as u64);
///         for (number, line) in (1..).zip(self.0.lines()) {
///             let entry = line.split_once('=').and_then(|(key, value)| Some((key, value.parse().ok()?)));
///             let wrong = |reason| CorruptRow::new(Location::default(), number, line.as_bytes(), reason);
///             match entry {
///                 Some((key, value)) if sink.entry_if_new(key.to_string(), value)? => {}
///                 Some(_) => sink.corrupt(wrong("an earlier line has the same name"))?,
///                 // It may be a line of another map, so it is not called damaged.
///                 None => sink.corrupt(wrong("it is not `name=number`").intact())?,
///             }
///         }
///         sink.finish() // and only then set aside what `corrupt` has answered with `Ok`
///     }
///     // and the other methods
/// #     async fn load_all(&self) -> Result<HashMap<String, u32>> { collect(self).await }
/// #     async fn save(&self, _: String, _: u32) -> Result<()> { Ok(()) }
/// #     async fn delete(&self, _: &String) -> Result<()> { Ok(()) }
/// #     async fn flush(&self) -> Result<()> { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(Lines("cups=6\nplates=4")).await?;
/// assert_eq!(map.get("plates"), Some(4));
/// let error = PersistentMap::new(Lines("cups=6\ncups=7")).await.unwrap_err();
/// assert!(error.to_string().contains("row 2"));
///
/// // No line is of this map: then it is the wrong text, rather than one bad line after the other.
/// let other = PersistentMap::builder(Lines("# cups\n# plates")).on_corrupt(OnCorrupt::Quarantine);
/// assert!(matches!(other.open().await, Err(PersistentError::Corrupt(row)) if row.intact));
/// # Ok(())
/// # }
/// ```
pub trait LoadSink<K, V>: Send {
    /// How many entries will come: for a progress bar, and to have room for them. May be an estimate, may be left out.
    fn expect(&mut self, entries: u64);

    /// Takes one entry, unless an equal key has been taken already. Then it returns false: two rows for one entry, of
    /// which one is to be reported as [`corrupt`](Self::corrupt).
    ///
    /// # Errors
    /// The entry cannot be taken, and the open fails. Pass the error on.
    fn entry_if_new(&mut self, key: K, value: V) -> Result<bool>;

    /// Takes one entry of a store that cannot have two of one key.
    ///
    /// # Errors
    /// As for [`entry_if_new`](Self::entry_if_new); and the key is there already.
    fn entry(&mut self, key: K, value: V) -> Result<()> {
        if self.entry_if_new(key, value)? {
            return Ok(());
        }
        Err(two_equal_keys("loading the store"))
    }

    /// Takes the report of a row that cannot be read.
    ///
    /// A row that is as it was written, and may be of other types, is reported as [`intact`](CorruptRow::intact()).
    ///
    /// # Errors
    /// The map was not opened with `OnCorrupt::Quarantine`, so the open fails. Pass the error on.
    fn corrupt(&mut self, row: CorruptRow) -> Result<()>;

    /// Takes the number of rows that hold nothing and were skipped. May be called more than once; a sink that stands before
    /// another one must pass it on.
    ///
    /// Default: nobody wants to know.
    ///
    /// ```
    /// # use persistent_map_core::LoadSink;
    /// fn tell_of_empty_lines<K, V>(text: &str, sink: &mut dyn LoadSink<K, V>) {
    ///     let empty = text.lines().filter(|line| line.is_empty());
    ///     sink.empty_rows(empty.count() as u64);
    /// }
    /// ```
    fn empty_rows(&mut self, rows: u64) {
        let _ = rows;
    }

    /// Takes the news that the store is not what it was when a map was last closed: somebody has edited it. A sink that stands
    /// before another one must pass it on.
    ///
    /// Default: nobody wants to know.
    ///
    /// ```
    /// # use persistent_map_core::LoadSink;
    /// fn compare<K, V>(closed_with: u32, checksum: u32, sink: &mut dyn LoadSink<K, V>) {
    ///     if checksum != closed_with {
    ///         sink.edited();
    ///     }
    /// }
    /// ```
    fn edited(&mut self) {}

    /// Called once by [`StorageBackend::load`], after the last row and before any is set aside. A sink that stands before
    /// another one must pass it on.
    ///
    /// Default: no objection.
    ///
    /// # Errors
    /// There are rows, and none of them is of the map's types, so it is not their fault: nothing may be set aside. Pass the
    /// error on.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn two_equal_keys(doing: impl Into<String>) -> PersistentError {
    PersistentError::storage(doing, "two stored entries have equal keys")
}

impl<K, V> Write<K, V> {
    /// The same write with what the store's [`prepare`](StorageBackend::prepare) makes of it.
    ///
    /// # Errors
    /// What `prepare` says.
    pub fn prepared_by<B>(mut self, backend: &B) -> Result<Self>
    where
        K: Key,
        V: Value,
        B: StorageBackend<K, V> + ?Sized,
    {
        let encoded = backend.prepare(self.key(), self.value())?;
        self.set_encoded(encoded);
        Ok(self)
    }

    /// Lets a write that is prepared speak of its entry by `key`, which is equal to its own. It is prepared once more if
    /// that is written differently.
    pub(crate) fn go_by<B>(&mut self, key: K, removals: u64, backend: &B) -> Result<()>
    where
        K: Key,
        V: Value,
        B: StorageBackend<K, V> + ?Sized,
    {
        self.resolve_key(Some(key), removals);
        let written = backend.prepare(self.key(), None)?;
        if let (Some(written), Some(encoded)) = (&written, self.encoded())
            && written.key() == encoded.key()
        {
            return Ok(());
        }
        let encoded = backend.prepare(self.key(), self.value())?;
        self.set_encoded(encoded);
        Ok(())
    }
}

/// A backend that is chosen while the program runs.
///
/// ```
/// use std::sync::Arc;
/// use persistent_map_core::{DynBackend, PersistentMap};
/// use persistent_map_memory::InMemoryBackend;
/// # use persistent_map_testkit::Disk;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let kind = "memory";
/// let backend: DynBackend<String, u64> = match kind {
///     "memory" => Arc::new(InMemoryBackend::new()),
///     _ => Arc::new(Disk::new().backend()),
/// };
/// let map = PersistentMap::new(backend).await?;
/// map.insert("visits".to_string(), 1).await?;
/// # Ok(())
/// # }
/// ```
pub type DynBackend<K, V> = Arc<dyn StorageBackend<K, V>>;

/// A shared store is a store. (For `Box` the compiler cannot rule out that somebody else does the same.)
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<K, V, B> StorageBackend<K, V> for Arc<B>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V> + ?Sized,
{
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        (**self).prepare(key, value)
    }

    async fn load(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        (**self).load(sink).await
    }

    async fn load_all(&self) -> Result<HashMap<K, V>> {
        (**self).load_all().await
    }

    async fn save(&self, key: K, value: V) -> Result<()> {
        (**self).save(key, value).await
    }

    async fn delete(&self, key: &K) -> Result<()> {
        (**self).delete(key).await
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        (**self).apply(batch).await
    }

    async fn clear(&self) -> Result<()> {
        (**self).clear().await
    }

    async fn read_back(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        (**self).read_back(sink).await
    }

    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        (**self).replace(entries).await
    }

    async fn flush(&self) -> Result<()> {
        (**self).flush().await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}
