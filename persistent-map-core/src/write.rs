//! A change on its way from the map to the store.

use std::fmt;

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

    pub(crate) fn set_encoded(&mut self, encoded: Option<Encoded>) {
        self.encoded = encoded;
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
