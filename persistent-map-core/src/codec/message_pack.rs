use rmp_serde::Deserializer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, shape};

/// Binary with field names ([MessagePack](https://msgpack.org), by [rmp-serde](https://docs.rs/rmp-serde)): for types
/// that will grow. Feature `message_pack`.
///
/// A field added with `#[serde(default)]` reads old entries; a field taken away is skipped. All serde attributes work.
/// One flaw to know: in an `Option<Option<T>>`, `Some(None)` comes back as `None`.
///
/// ```
/// use persistent_map_core::{Codec, MessagePack};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize)]
/// struct Before { name: String, nick: String }
///
/// #[derive(Debug, PartialEq, Deserialize)]
/// struct Now { name: String, #[serde(default)] age: u8 }
///
/// let bytes = MessagePack.encode(&Before { name: "Ann".into(), nick: "a".into() })?;
/// assert_eq!(MessagePack.decode::<Now>(&bytes)?, Now { name: "Ann".into(), age: 0 });
/// # Ok::<(), persistent_map_core::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessagePack;

impl Codec for MessagePack {
    fn id(&self) -> &'static str {
        "messagepack-named"
    }

    fn encode_into<T: Serialize + ?Sized>(
        &self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        rmp_serde::encode::write_named(bytes, value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let mut rest = bytes;
        let value = T::deserialize(&mut Deserializer::new(&mut rest)).map_err(CodecError::new)?;
        if rest.is_empty() {
            Ok(value)
        } else {
            Err(CodecError::new(format!(
                "{} bytes are left over after the value",
                rest.len()
            )))
        }
    }

    fn fingerprint<T: DeserializeOwned>(&self) -> String {
        shape::broad::<T>()
    }
}
