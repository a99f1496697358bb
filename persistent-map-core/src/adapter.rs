//! Where codec meets store, and the only place where they do: every [`ByteStore`] is a [`StorageBackend`].

use std::any::type_name;
use std::cell::Cell;
use std::collections::HashMap;

use async_trait::async_trait;

use crate::backend::{Key, LoadSink, StorageBackend, Value};
use crate::byte_store::{ByteStore, ByteWrite, Format, RowSink, RowVerdict};
use crate::capabilities::Capabilities;
use crate::codec::depth::{self, Decode};
use crate::codec::{ADVICE, Codec, CodecError, shape};
use crate::error::{PersistentError, Result};
use crate::load::collect;
use crate::panics::contain;
use crate::row::{CorruptRow, Location};
use crate::write::{Encoded, Write};

#[async_trait]
impl<K, V, S> StorageBackend<K, V> for S
where
    K: Key,
    V: Value,
    S: ByteStore,
{
    fn capabilities(&self) -> Capabilities {
        ByteStore::capabilities(self)
    }

    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        encode(self, key, value).map(Some)
    }

    async fn load(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        ByteStore::load(
            self,
            &format_of::<K, V>(self),
            &mut Decoder::new(self, sink),
        )
        .await
    }

    async fn load_all(&self) -> Result<HashMap<K, V>> {
        collect(self).await
    }

    async fn save(&self, key: K, value: V) -> Result<()> {
        let write = Write::insert(key, value).prepared_by(self)?;
        StorageBackend::apply(self, std::slice::from_ref(&write)).await
    }

    async fn delete(&self, key: &K) -> Result<()> {
        let write = Write::<K, V>::remove(key.clone()).prepared_by(self)?;
        StorageBackend::apply(self, std::slice::from_ref(&write)).await
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        // The map prepares each write in its caller's task; a batch made by hand is prepared here.
        let late = batch
            .iter()
            .filter(|write| write.encoded().is_none())
            .map(|write| encode(self, write.key(), write.value()))
            .collect::<Result<Vec<Encoded>>>()?;
        let mut late = late.iter();
        let bytes: Vec<ByteWrite<'_>> = batch
            .iter()
            .filter_map(|write| write.encoded().or_else(|| late.next()))
            .map(byte_write)
            .collect();
        if bytes.is_empty() {
            return Ok(());
        }
        ByteStore::apply(self, &bytes).await
    }

    async fn clear(&self) -> Result<()> {
        ByteStore::clear(self).await
    }

    async fn read_back(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        ByteStore::read_back(self, &mut Decoder::new(self, sink)).await
    }

    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        let encoded = entries
            .iter()
            .map(|(key, value)| encode(self, key, Some(value)))
            .collect::<Result<Vec<Encoded>>>()?;
        drop(entries);
        let rows: Vec<ByteWrite<'_>> = encoded.iter().map(byte_write).collect();
        ByteStore::replace(self, &format_of::<K, V>(self), &rows).await
    }

    async fn flush(&self) -> Result<()> {
        ByteStore::flush(self).await
    }

    async fn close(&self) -> Result<()> {
        ByteStore::close(self).await
    }
}

fn format_of<K: Key, V: Value>(store: &impl ByteStore) -> Format {
    let codec = store.codec();
    Format {
        description: shape::VERSION,
        codec: codec.id().to_string(),
        key: codec.fingerprint::<K>(),
        value: codec.fingerprint::<V>(),
    }
}

fn byte_write(encoded: &Encoded) -> ByteWrite<'_> {
    ByteWrite {
        key: encoded.key(),
        value: encoded.value(),
    }
}

thread_local! {
    /// Where entries are encoded, before their bytes are known to be good.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger one is kept by the write whose bytes are in it.
const SCRATCH_BYTES: usize = 64 * 1024;

fn encode<K: Key, V: Value>(store: &impl ByteStore, key: &K, value: Option<&V>) -> Result<Encoded> {
    // Taken out, because a `Serialize` may be a caller as well.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let encoded = encode_with(store, key, value, &mut scratch);
    let has_value = value.is_some();
    if scratch.capacity() > SCRATCH_BYTES {
        // As large as it is, it is not copied.
        return encoded.map(|key_bytes| Encoded::from_vec(scratch, key_bytes, has_value));
    }
    let encoded = encoded.map(|key_bytes| {
        let (key, value) = scratch.split_at(key_bytes);
        Encoded::new(key, has_value.then_some(value))
    });
    SCRATCH.set(scratch);
    encoded
}

/// Says how many of the bytes are those of the key.
fn encode_with<K: Key, V: Value>(
    store: &impl ByteStore,
    key: &K,
    value: Option<&V>,
    scratch: &mut Vec<u8>,
) -> Result<usize> {
    let codec = store.codec();
    encode_key(codec, key, scratch)?;
    let key_bytes = scratch.len();
    if let Some(value) = value {
        encode_checked(codec, value, "value", scratch)?;
    }
    store.check(key_bytes, scratch.len() - key_bytes)?;
    Ok(key_bytes)
}

/// A key must come back as the same key with the same bytes, or its row could not be found again.
fn encode_key<K: Key>(codec: &impl Codec, key: &K, bytes: &mut Vec<u8>) -> Result<()> {
    let back = encode_checked(codec, key, "key", bytes)?;
    let len = bytes.len();
    let problem = if back != *key {
        "the key that comes back is another one"
    } else if codec.encode_into(&back, bytes).is_err() || bytes[..len] != bytes[len..] {
        "the same key gives other bytes each time"
    } else {
        bytes.truncate(len);
        return Ok(());
    };
    Err(unstorable::<K>(
        codec,
        "key",
        "Equal keys must be written alike: use types with a fixed order (`BTreeSet`, `BTreeMap`) instead of `HashSet` \
         or `HashMap` in keys, and no `#[serde(skip)]` on what `Eq` compares",
        CodecError::new(problem),
    ))
}

/// Adds the bytes of `item`, and returns what they decode to.
fn encode_checked<T: Value>(
    codec: &impl Codec,
    item: &T,
    part: &'static str,
    bytes: &mut Vec<u8>,
) -> Result<T> {
    let start = bytes.len();
    let bounded = depth::Encode::new(item);
    codec.encode_into(&bounded, bytes).map_err(|cause| {
        let advice = if bounded.is_too_deep() {
            depth::ADVICE
        } else {
            "The codec has no form for this type or value"
        };
        unstorable::<T>(codec, part, advice, cause)
    })?;
    decode_bounded(codec, &bytes[start..])
        .map_err(|cause| unstorable::<T>(codec, part, ADVICE, cause))
}

/// The value of `bytes`, if it is no deeper than one may be that is written.
fn decode_bounded<T: Value>(codec: &impl Codec, bytes: &[u8]) -> Result<T, CodecError> {
    codec.decode(bytes).map(|Decode(item)| item)
}

fn unstorable<T>(
    codec: &impl Codec,
    part: &'static str,
    advice: &'static str,
    cause: CodecError,
) -> PersistentError {
    PersistentError::Unstorable {
        part,
        type_name: type_name::<T>(),
        codec: codec.id(),
        advice,
        cause,
    }
}

/// Decodes rows on their way into the map.
struct Decoder<'a, K, V, C> {
    codec: &'a C,
    location: Location,
    sink: &'a mut dyn LoadSink<K, V>,
    /// Where keys are encoded again.
    scratch: Vec<u8>,
}

impl<'a, K: Key, V: Value, C: Codec> Decoder<'a, K, V, C> {
    fn new(store: &'a impl ByteStore<Codec = C>, sink: &'a mut dyn LoadSink<K, V>) -> Self {
        Decoder {
            codec: store.codec(),
            location: store.location(),
            sink,
            scratch: Vec::new(),
        }
    }

    fn decode(&mut self, key: &[u8], value: &[u8]) -> Result<(K, V), String> {
        contain("decoding a stored row", || {
            let typed_key: K = decode_bounded(self.codec, key)
                .map_err(|error| format!("the key does not decode: {error}"))?;
            // A second encoding of the same key would be a row that no write ever finds again.
            self.scratch.clear();
            let encoded = self.codec.encode_into(&typed_key, &mut self.scratch);
            if encoded.is_err() || self.scratch != key {
                return Err("the key is not encoded as this map encodes it".to_string());
            }
            let typed_value = decode_bounded(self.codec, value)
                .map_err(|error| format!("the value does not decode: {error}"))?;
            Ok((typed_key, typed_value))
        })
        .unwrap_or_else(|panicked| Err(panicked.to_string()))
    }
}

impl<K: Key, V: Value, C: Codec> RowSink for Decoder<'_, K, V, C> {
    fn expect(&mut self, rows: u64) {
        self.sink.expect(rows);
    }

    fn row(&mut self, number: u64, key: &[u8], value: &[u8]) -> Result<RowVerdict> {
        match self.decode(key, value) {
            Ok((typed_key, typed_value)) => {
                let taken = contain("`Hash` or `Eq` of a key", || {
                    self.sink.entry_if_new(typed_key, typed_value)
                })??;
                if !taken {
                    self.damaged(number, key, "an earlier row has an equal key")?;
                    return Ok(RowVerdict::SetAside);
                }
                Ok(RowVerdict::Loaded)
            }
            Err(reason) => {
                let row = CorruptRow::new(self.location.clone(), number, key, reason);
                self.sink.corrupt(row.intact())?;
                Ok(RowVerdict::SetAside)
            }
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.sink.finish()
    }

    fn damaged(&mut self, number: u64, key: &[u8], reason: &str) -> Result<()> {
        self.sink
            .corrupt(CorruptRow::new(self.location.clone(), number, key, reason))
    }
}
