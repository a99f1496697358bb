//! The contract between the map and a store.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{PersistentError, Result};

/// What a key must be able to do. Implemented for every type that qualifies.
///
/// Beyond the bounds: keys that are equal must serialize to the same bytes, or the store has two rows where memory has
/// one entry. Derived and standard types do; a `HashSet` inside a key does not (its order varies) and is refused.
pub trait Key: Eq + Hash + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T> Key for T where T: Eq + Hash + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

/// What a value must be able to do. Implemented for every type that qualifies.
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
/// *What the store may rely on.* One map at a time uses it. [`load`](Self::load) is called once, before anything else.
/// After that all write methods are called from one task, one after the other: no call begins before the last one has
/// returned. A future is never dropped half way, unless the whole runtime ends. Nothing is called after
/// [`close`](Self::close).
///
/// *What the map relies on.*
/// - **`Ok` of a write means stored**: the change survives what [`capabilities`](Self::capabilities) says, from that
///   moment on. Return `Ok` after the commit, never before.
/// - **`Err` of a write means not applied**: not now and not after a restart. Where the store cannot know (a failed
///   `fsync`, a lost connection), mark the error with [`PersistentError::unknown`]; the map then refuses writes until it
///   is opened again.
/// - **Later wins**: the last change of a key is the one that `load` gives back.
/// - **`load` tells everything or fails**: a row that cannot be read is reported, never skipped.
/// - Errors name the file and what to do, and contain no values.
///
/// The conformance kit in `persistent-map-testkit` has one test for each line of this contract.
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
    /// Default: nothing to prepare.
    ///
    /// # Errors
    /// The entry cannot be stored: no form in this store's format, too large.
    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        let _ = (key, value);
        Ok(None)
    }

    /// Gives all entries to `sink`, without collecting them first, and makes them durable: what was recovered from a
    /// crash must not be lost by the next one after somebody has read it.
    ///
    /// - An empty or new store: no entries, `Ok`.
    /// - A row that cannot be read: [`LoadSink::corrupt`]; its error is passed on at once. If it answers `Ok`, set the
    ///   row aside so that it is neither loaded again nor lost, and go on.
    /// - An error of the sink: stop and return it.
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
        Ok(())
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
    /// Nothing of the batch was applied, unless the error is marked [`unknown`](PersistentError::unknown).
    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        match batch {
            [] => Ok(()),
            [write] => match write.value() {
                Some(value) => self.save(write.key().clone(), value.clone()).await,
                None => self.delete(write.key()).await,
            },
            _ => Err(PersistentError::unsupported("atomic batches")),
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

/// What a store can do: the part of the contract that differs between stores.
///
/// ```
/// use persistent_map_core::{Capabilities, Survives};
///
/// let sql = Capabilities::one_at_a_time().with_atomic_batches().surviving(Survives::PowerLoss);
/// assert!(sql.atomic_batches && sql.survives >= Survives::ProcessKill);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`apply`](StorageBackend::apply) takes batches, all or nothing, and [`clear`](StorageBackend::clear) is one step.
    pub atomic_batches: bool,
    /// What an acknowledged write survives.
    pub survives: Survives,
    /// There is no store: the map's memory is all there is, and the map never calls a write method.
    pub resident: bool,
}

impl Capabilities {
    /// No batches; an acknowledged write survives the end of the process. The least that a store can promise.
    pub const fn one_at_a_time() -> Self {
        Capabilities {
            atomic_batches: false,
            survives: Survives::ProcessKill,
            resident: false,
        }
    }

    /// No store at all.
    pub const fn resident() -> Self {
        Capabilities {
            atomic_batches: true,
            survives: Survives::Nothing,
            resident: true,
        }
    }

    /// Batches are applied all or nothing.
    #[must_use]
    pub const fn with_atomic_batches(mut self) -> Self {
        self.atomic_batches = true;
        self
    }

    /// What an acknowledged write survives.
    #[must_use]
    pub const fn surviving(mut self, survives: Survives) -> Self {
        self.survives = survives;
        self
    }
}

/// What an acknowledged write survives; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Survives {
    /// It lives as long as the map, or its process.
    Nothing,
    /// It survives the end of the process at any instant (`kill -9`), as long as the machine keeps running.
    ProcessKill,
    /// It survives a power cut, on a disk that honours flush.
    PowerLoss,
}

/// One change of one key, on its way to the store: an insert if it has a value, a removal if it has none.
#[derive(Debug, Clone)]
pub struct Write<K, V> {
    key: K,
    value: Option<V>,
    encoded: Option<Encoded>,
}

impl<K, V> Write<K, V> {
    /// Stores `value` under `key`.
    pub fn insert(key: K, value: V) -> Self {
        Write {
            key,
            value: Some(value),
            encoded: None,
        }
    }

    /// Removes `key`.
    pub fn remove(key: K) -> Self {
        Write {
            key,
            value: None,
            encoded: None,
        }
    }

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
        self.encoded = backend.prepare(&self.key, self.value.as_ref())?;
        Ok(self)
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The value, or `None` for a removal.
    pub fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// What the store's own [`prepare`](StorageBackend::prepare) returned for this write.
    pub fn encoded(&self) -> Option<&Encoded> {
        self.encoded.as_ref()
    }

    pub(crate) fn into_parts(self) -> (K, Option<V>) {
        (self.key, self.value)
    }
}

/// The bytes of a write.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The value's bytes, or `None` for a removal.
    pub value: Option<Vec<u8>>,
}

impl Encoded {
    /// Bytes of key and value together.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Sizes only: the bytes may be secret.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("key_bytes", &self.key.len())
            .field("value_bytes", &self.value.as_ref().map(Vec::len))
            .finish()
    }
}

/// Where [`StorageBackend::load`] puts what it finds.
pub trait LoadSink<K, V>: Send {
    /// How many entries will come, for a progress bar. May be an estimate, may be left out.
    fn expect(&mut self, entries: u64);

    /// Takes one entry.
    ///
    /// # Errors
    /// The key is there already: two rows for one entry. Pass the error on.
    fn entry(&mut self, key: K, value: V) -> Result<()>;

    /// Takes the report of a row that cannot be read.
    ///
    /// # Errors
    /// The map was not opened with `OnCorrupt::Quarantine`, so the open fails. Pass the error on.
    fn corrupt(&mut self, row: CorruptRow) -> Result<()>;
}

/// Where a store keeps its entries, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// The file, if it is one.
    pub file: Option<PathBuf>,
    /// The table in it, if it has tables.
    pub table: Option<String>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.table) {
            (Some(file), Some(table)) => write!(f, "table `{table}` of {}", file.display()),
            (Some(file), None) => write!(f, "{}", file.display()),
            (None, Some(table)) => write!(f, "table `{table}`"),
            (None, None) => f.write_str("the store"),
        }
    }
}

/// A stored row that cannot be read, with all that is needed to find it. It does not contain the value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorruptRow {
    /// File and table.
    pub location: Location,
    /// The row's number in the order in which the store reads (1 is the first); in a text file, the line.
    pub row: u64,
    /// The key as text if it is printable, else in hexadecimal; cut after 64 bytes.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl CorruptRow {
    /// A report for row `row` of `location`, whose key has the bytes `key`.
    pub fn new(location: Location, row: u64, key: &[u8], reason: impl Into<String>) -> Self {
        CorruptRow {
            location,
            row,
            key: printable(key),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for CorruptRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "row {} of {}, key {}: {}",
            self.row, self.location, self.key, self.reason
        )
    }
}

fn printable(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let shown = &key[..key.len().min(SHOWN)];
    let more = if key.len() > SHOWN { "…" } else { "" };
    // Codecs put a length or a tag before a text, so one leading byte may be anything.
    let text = match shown {
        [first, rest @ ..] if !first.is_ascii_graphic() || rest.len() == usize::from(*first) => {
            rest
        }
        all => all,
    };
    if !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    {
        format!("{:?}{more}", String::from_utf8_lossy(text))
    } else {
        let mut hex = String::from("0x");
        for byte in shown {
            let _ = write!(hex, "{byte:02x}");
        }
        hex + more
    }
}

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

    async fn flush(&self) -> Result<()> {
        (**self).flush().await
    }

    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn keys_are_shown_as_text_where_they_are_text() {
        assert_eq!(printable(b"\x03LHR"), "\"LHR\"");
        assert_eq!(printable(b"LHR"), "\"LHR\"");
        assert_eq!(printable(&[1, 0, 255]), "0x0100ff");
        assert_eq!(printable(&[]), "0x");
        assert!(printable(&[b'a'; 100]).ends_with("\"…"));
    }
}
