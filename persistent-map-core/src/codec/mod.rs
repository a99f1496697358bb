//! How a key or value becomes bytes, and how it comes back.
//!
//! | Codec | Bytes for | Reads a type that changed | serde attributes it cannot read back |
//! |---|---|---|---|
//! | [`Bincode`] (default) | the smallest files | no: any change of the fields is refused at open | `skip_serializing_if`, `untagged`, `tag = ".."`, `flatten` |
#![cfg_attr(
    feature = "message_pack",
    doc = "| [`MessagePack`] (feature `message_pack`) | types that grow | yes: added fields with `#[serde(default)]`, removed fields | none; `Some(None)` comes back as `None` |"
)]
#![cfg_attr(
    feature = "json",
    doc = "| [`Json`] (feature `json`) | people who look into the file | yes, as MessagePack | none; map keys must be strings or numbers, no NaN |"
)]
//!
//! What is nested more than [`MAX_DEPTH`](depth::MAX_DEPTH) levels deep is refused where it is written and where it is read, so
//! that what one thread has stored every thread can open.
//!
//! A value is decoded again before it is written, so a type that its codec cannot read back is refused by `insert` and
//! never found out at the next start.

mod bincode;
pub mod depth;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "message_pack")]
mod message_pack;
pub mod shape;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::bincode::Bincode;
#[cfg(feature = "json")]
pub use self::json::Json;
#[cfg(feature = "message_pack")]
pub use self::message_pack::MessagePack;

/// Turns any serde type into bytes and back.
///
/// # Contract
///
/// The author of a codec promises:
/// - `decode(encode(x))` gives `x` back, or one of the two fails;
/// - the same value always gives the same bytes (stores find keys by their bytes);
/// - `decode` of bytes from anywhere fails cleanly: no panic, no abort, and no allocation that is not in proportion to
///   the input; bytes left over after the value are an error;
/// - [`id`](Codec::id) changes whenever bytes written before can no longer be read.
///
/// Errors must not contain the value. [`CodecError::new`] takes care of the messages that serde makes.
///
/// ```
/// use persistent_map_core::codec::CodecError;
/// use persistent_map_core::{Bincode, Codec};
/// use serde::{Serialize, de::DeserializeOwned};
///
/// /// Bincode behind a byte that nothing else begins with.
/// struct Marked;
///
/// impl Codec for Marked {
///     fn id(&self) -> &'static str {
///         "marked bincode"
///     }
///     fn encode_into<T: Serialize + ?Sized>(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
///         bytes.push(0xc5);
///         Bincode.encode_into(value, bytes)
///     }
///     fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
///         match bytes {
///             [0xc5, rest @ ..] => Bincode.decode(rest),
///             _ => Err(CodecError::new("the mark is missing")),
///         }
///     }
///     fn fingerprint<T: DeserializeOwned>(&self) -> String {
///         Bincode.fingerprint::<T>()
///     }
/// }
///
/// let bytes = Marked.encode(&("a", 1u64))?;
/// assert_eq!(Marked.decode::<(String, u64)>(&bytes)?, ("a".to_string(), 1));
/// assert!(Marked.decode::<(String, u64)>(&bytes[1..]).is_err());
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec: Send + Sync + 'static {
    /// A short name that is stored with the data and compared at open.
    fn id(&self) -> &'static str;

    /// Adds the bytes of `value` to `bytes`.
    ///
    /// # Errors
    /// The value has no form in this codec. Then `bytes` may have got a part of it.
    fn encode_into<T: Serialize + ?Sized>(
        &self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CodecError>;

    /// The bytes of `value`, in a buffer of their own.
    ///
    /// # Errors
    /// As for [`encode_into`](Self::encode_into).
    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Vec::new();
        self.encode_into(value, &mut bytes)?;
        Ok(bytes)
    }

    /// The value of `bytes`, all of them.
    ///
    /// # Errors
    /// The bytes are not exactly one value of this type.
    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError>;

    /// A text that is the same as long as bytes written for `T` can be read as `T`. It is stored with the data and
    /// compared at open, because the bytes of one type may well decode as another.
    ///
    /// The default is [`shape::exact`]: each field, its name and its place. A codec whose bytes describe themselves should
    /// answer with [`shape::broad`], so that fields can be added.
    fn fingerprint<T: DeserializeOwned>(&self) -> String {
        shape::exact::<T>()
    }
}

/// Why a codec could not encode or decode. The message names types and positions, never the value.
///
/// ```
/// use persistent_map_core::codec::CodecError;
///
/// let cause = "x".parse::<u8>().unwrap_err();
/// let error = CodecError::new("invalid type: string \"hunter2\", expected u8").with_source(cause);
/// assert_eq!(error.to_string(), "invalid type: string …, expected u8");
///
/// use serde::de::{Error as _, Unexpected, value::Error as SerdeError};
///
/// let error = SerdeError::invalid_type(Unexpected::Str("hunter2"), &"u8");
/// assert_eq!(CodecError::new(error).to_string(), "invalid type: string …, expected u8");
/// ```
#[derive(Debug, Clone)]
pub struct CodecError {
    message: String,
    source: Option<Arc<dyn Error + Send + Sync + 'static>>,
}

impl CodecError {
    /// An error with serde's message, or of serde's error, less the value that serde quotes in it
    /// (``invalid value: string "..", expected ..``).
    pub fn new(message: impl fmt::Display) -> Self {
        CodecError {
            message: without_values(&message.to_string()),
            source: None,
        }
    }

    /// Adds the cause. Only for causes that do not print the value.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Cuts the value from a message in which serde quotes it: what stands between the first and the last quotation mark
/// before serde's own `, expected ..`. A missing or duplicate field is a name of the type.
fn without_values(message: &str) -> String {
    if message.starts_with("missing field") || message.starts_with("duplicate field") {
        return message.to_string();
    }
    let (head, tail) = message.split_at(message.rfind(", expected ").unwrap_or(message.len()));
    match (head.find(['"', '`']), head.rfind(['"', '`'])) {
        (Some(first), Some(last)) => format!("{}…{}{tail}", &head[..first], &head[last + 1..]),
        _ => message.to_string(),
    }
}

/// What to say about a value that was encoded and could not be decoded.
pub(crate) const ADVICE: &str = "Likely reasons: `#[serde(skip_serializing_if)]`, `untagged`, `tag = \"..\"` or `flatten` \
    on the type, or a type of any shape, such as `serde_json::Value`, which need a codec that writes field names \
    (`MessagePack` or `Json`); or a `Deserialize` that refuses what `Serialize` writes";

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn messages_keep_their_sense_and_lose_the_value() {
        for (given, kept) in [
            (
                r#"invalid type: string "hunter2", expected u8"#,
                "invalid type: string …, expected u8",
            ),
            (
                r#"invalid value: string "a", expected b", expected u8"#,
                "invalid value: string …, expected u8",
            ),
            (
                "invalid value: integer `4711`, expected a port",
                "invalid value: integer …, expected a port",
            ),
            ("missing field `iata`", "missing field `iata`"),
            (
                "unknown variant `secret`, expected `A` or `B`",
                "unknown variant …, expected `A` or `B`",
            ),
            ("unexpected end of input", "unexpected end of input"),
        ] {
            assert_eq!(without_values(given), kept);
        }
    }
}
