use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, shape};

/// JSON text ([serde_json](https://docs.rs/serde_json)): for files that people look into with other tools. Feature
/// `json`.
///
/// The largest and slowest of the codecs. Map keys inside a value must be strings or numbers; `NaN` and infinities
/// become `null`: refused by `insert` for plain floats, and read back as `None` in an `Option<f64>`.
///
/// ```
/// use persistent_map_core::{Codec, Json};
///
/// assert_eq!(Json.encode(&("a", Some(1)))?, br#"["a",1]"#);
/// assert!(Json.encode(&f64::NAN).and_then(|bytes| Json.decode::<f64>(&bytes)).is_err());
/// # Ok::<(), persistent_map_core::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl Codec for Json {
    fn id(&self) -> &'static str {
        "json"
    }

    fn encode_into<T: Serialize + ?Sized>(
        &self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        serde_json::to_writer(bytes, value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }

    fn fingerprint<T: DeserializeOwned>(&self) -> String {
        shape::broad::<T>()
    }
}
