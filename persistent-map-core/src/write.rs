//! A change on its way from the map to the store.

use std::fmt;

use crate::byte_store::ByteWrite;

/// One change of one key, on its way to the store: an insert if it has a value, a removal if it has none.
///
/// ```
/// use persistent_map_core::Write;
///
/// let batch = [Write::insert("a", 1), Write::remove("b")];
/// for write in &batch {
///     match write.value() {
///         Some(value) => println!("{} becomes {value}", write.key()),
///         None => println!("{} goes", write.key()),
///     }
/// }
/// ```
///
/// A store that prepares bytes finds them in `encoded`. Who calls a store without a map, in a test say, prepares writes by
/// `prepared_by`:
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let backend = InMemoryBackend::new();
/// let write = Write::insert("a".to_string(), 1u64).prepared_by(&backend)?;
/// let bytes = write.encoded().map_or(0, Encoded::size);
/// backend.apply(&[write]).await?;
/// # assert_eq!(bytes, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Write<K, V> {
    key: K,
    value: Option<V>,
    encoded: Option<Encoded>,
    /// Until how many removals its key is known to be that of its entry; `None` if memory had no equal key.
    resident_until: Option<u64>,
}

impl<K, V> Write<K, V> {
    /// Stores `value` under `key`.
    pub fn insert(key: K, value: V) -> Self {
        Write {
            key,
            value: Some(value),
            encoded: None,
            resident_until: None,
        }
    }

    /// Removes `key`.
    pub fn remove(key: K) -> Self {
        Write {
            key,
            value: None,
            encoded: None,
            resident_until: None,
        }
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The value, or `None` for a removal.
    pub fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// What the store's own [`prepare`](crate::StorageBackend::prepare) returned for this write.
    pub fn encoded(&self) -> Option<&Encoded> {
        self.encoded.as_ref()
    }

    /// The same change for readers, who need no bytes.
    pub(crate) fn shown(&self) -> Self
    where
        K: Clone,
        V: Clone,
    {
        Write {
            key: self.key.clone(),
            value: self.value.clone(),
            encoded: None,
            resident_until: self.resident_until,
        }
    }

    /// Speaks of the entry by the key that it has already, or remembers that it has none. `removals` is how many entries
    /// the cache had lost when it was asked: an entry that has gone may come back with its key written differently.
    pub(crate) fn resolve_key(&mut self, resident: Option<K>, removals: u64) {
        self.resident_until = resident.as_ref().map(|_| removals);
        if let Some(key) = resident {
            self.key = key;
        }
    }

    /// Whether memory must be asked again how the key is written.
    pub(crate) fn key_may_differ(&self, removals: u64) -> bool {
        self.resident_until != Some(removals)
    }

    pub(crate) fn set_encoded(&mut self, encoded: Option<Encoded>) {
        self.encoded = encoded;
    }

    pub(crate) fn into_parts(self) -> (K, Option<V>) {
        (self.key, self.value)
    }
}

/// The bytes of a write.
///
/// ```
/// use persistent_map_core::Encoded;
///
/// let insert = Encoded::new(b"key", Some(b"value"));
/// assert_eq!((insert.key(), insert.value(), insert.size()), (&b"key"[..], Some(&b"value"[..]), 8));
/// assert_eq!(Encoded::new(b"key", None).value(), None); // a removal
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The key, and the value behind it: in one piece, because there is one of these for each write.
    bytes: Box<[u8]>,
    key_bytes: usize,
    has_value: bool,
}

impl Encoded {
    /// The bytes of a key and of its value; without a value, those of a removal.
    pub fn new(key: &[u8], value: Option<&[u8]>) -> Self {
        Encoded {
            bytes: [key, value.unwrap_or_default()].concat().into(),
            key_bytes: key.len(),
            has_value: value.is_some(),
        }
    }

    /// The same of bytes that are in one piece already: those of the key, so many, and those of the value.
    pub(crate) fn from_vec(bytes: Vec<u8>, key_bytes: usize, has_value: bool) -> Self {
        Encoded {
            bytes: bytes.into(),
            key_bytes,
            has_value,
        }
    }

    /// The key's bytes.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes]
    }

    /// The value's bytes, or `None` for a removal.
    pub fn value(&self) -> Option<&[u8]> {
        self.has_value.then(|| &self.bytes[self.key_bytes..])
    }

    /// Bytes of key and value together.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The same bytes, owned. For an example see [`ByteWrite`].
impl From<&ByteWrite<'_>> for Encoded {
    fn from(write: &ByteWrite<'_>) -> Self {
        Encoded::new(write.key, write.value)
    }
}

/// Sizes only: the bytes may be secret.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("key_bytes", &self.key().len())
            .field("value_bytes", &self.value().map(<[u8]>::len))
            .finish()
    }
}
