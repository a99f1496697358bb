use bincode::config;
use bincode::error::{DecodeError, EncodeError};
use bincode::serde::{decode_from_slice, encode_into_std_write};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError};

/// Compact binary, fields by position ([bincode 2](https://docs.rs/bincode/2), its `standard` configuration): the
/// default.
///
/// The crate is no longer developed ([RUSTSEC-2025-0141](https://rustsec.org/advisories/RUSTSEC-2025-0141)); it is
/// complete, its format is frozen, and it is pinned below 3. For types that will change, take
/// `MessagePack`.
///
/// Decoding never claims more memory than about 256 times the size of the input (bincode checks lengths against a
/// limit, which is chosen here by size; on machines of 32 bits only up to 16 MiB of input). One shape escapes that limit, so do
/// not use it for files from strangers: a collection of zero-sized items (`Vec<()>`, a long loop). A recursive type is bounded
/// by a map (see [`depth`](super::depth)); who calls `decode` for bytes from strangers asks it for a
/// [`Decode<T>`](super::depth::Decode), because deep nesting overflows the stack.
///
/// ```
/// use persistent_map_core::{Bincode, Codec};
///
/// let bytes = Bincode.encode(&("Ann", 10u64))?;
/// assert_eq!(bytes, b"\x03Ann\x0a"); // no names, small numbers in one byte
/// assert_eq!(Bincode.decode::<(String, u64)>(&bytes)?, ("Ann".to_string(), 10));
/// # Ok::<(), persistent_map_core::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bincode;

impl Codec for Bincode {
    fn id(&self) -> &'static str {
        "bincode2"
    }

    fn encode_into<T: Serialize + ?Sized>(
        &self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        encode_into_std_write(value, bytes, config::standard())
            .map(drop)
            .map_err(|error| CodecError::new(explain_encoding(&error)))
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let (value, consumed) =
            decode_with_limit(bytes).map_err(|error| CodecError::new(explain(&error)))?;
        if consumed == bytes.len() {
            Ok(value)
        } else {
            Err(CodecError::new(format!(
                "{} bytes are left over after the value",
                bytes.len() - consumed
            )))
        }
    }
}

/// The limit is a const generic, counted in decoded sizes. The most that one encoded byte can stand for is a `u128` of
/// 16 bytes, so the smallest class of at least 16 times the input never refuses what `encode` wrote.
fn decode_with_limit<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    const KIB: usize = 1 << 10;
    match bytes.len().saturating_mul(16) {
        0..=0x1000 => decode_from_slice(bytes, config::standard().with_limit::<{ 4 * KIB }>()),
        0x1001..=0x1_0000 => {
            decode_from_slice(bytes, config::standard().with_limit::<{ 64 * KIB }>())
        }
        0x1_0001..=0x10_0000 => {
            decode_from_slice(bytes, config::standard().with_limit::<{ 1024 * KIB }>())
        }
        0x10_0001..=0x100_0000 => decode_from_slice(
            bytes,
            config::standard().with_limit::<{ 16 * 1024 * KIB }>(),
        ),
        0x100_0001..=0x1000_0000 => decode_from_slice(
            bytes,
            config::standard().with_limit::<{ 256 * 1024 * KIB }>(),
        ),
        #[cfg(target_pointer_width = "64")] // These do not fit into a smaller word.
        0x1000_0001..=0x1_0000_0000 => decode_from_slice(
            bytes,
            config::standard().with_limit::<{ 4096 * 1024 * KIB }>(),
        ),
        #[cfg(target_pointer_width = "64")]
        0x1_0000_0001..=0x10_0000_0000 => decode_from_slice(
            bytes,
            config::standard().with_limit::<{ 64 * 1024 * 1024 * KIB }>(),
        ),
        _ => decode_from_slice(
            bytes,
            config::standard().with_limit::<{ isize::MAX as usize }>(),
        ),
    }
}

/// bincode prints its errors as Rust structs, some with parts of the value; these have words. (No quotation marks: what stands
/// in them is taken for a value.)
fn explain(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "the bytes end before the value does".into(),
        DecodeError::LimitExceeded => "a length in the bytes is larger than the bytes allow".into(),
        DecodeError::OtherString(message) => message.clone(),
        DecodeError::Serde(_) => {
            "the type asks which field or variant comes next, and the bytes do not say".into()
        }
        DecodeError::UnexpectedVariant { .. } => {
            "where the type has an enum or an Option, the bytes name none of its variants".into()
        }
        DecodeError::InvalidBooleanValue(_) => {
            "where the type has a bool, the bytes have neither 0 nor 1".into()
        }
        DecodeError::InvalidCharEncoding(_) | DecodeError::Utf8 { .. } => {
            "where the type has text, the bytes are not UTF-8".into()
        }
        DecodeError::InvalidIntegerType { .. } | DecodeError::OutsideUsizeRange(_) => {
            "where the type has a number, the bytes have a larger one".into()
        }
        _ => "the bytes are not a value of the type".into(),
    }
}

fn explain_encoding(error: &EncodeError) -> String {
    match error {
        EncodeError::OtherString(message) => message.clone(),
        EncodeError::Serde(_) => {
            "a sequence or map does not say its length before its items (serde's `flatten` does not, which `MessagePack` and `Json` take)"
                .into()
        }
        _ => "it could not be read while it was written".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_is_an_error_and_not_an_abort() {
        for claimed in [1u64 << 40, u64::MAX] {
            let mut bytes = Bincode.encode(&claimed).unwrap();
            bytes.resize(12, 0);
            assert!(Bincode.decode::<String>(&bytes).is_err());
            assert!(Bincode.decode::<Vec<u64>>(&bytes).is_err());
        }
    }

    #[test]
    fn what_does_not_decode_is_told_in_words_and_without_the_bytes() {
        for (bytes, words) in [
            (Bincode.decode::<Option<u8>>(&[77]).map(drop), "an Option"),
            (Bincode.decode::<bool>(&[77]).map(drop), "neither 0 nor 1"),
            (
                Bincode.decode::<String>(&[2, 255, 255]).map(drop),
                "not UTF-8",
            ),
            (Bincode.decode::<char>(&[255]).map(drop), "not UTF-8"),
            (
                Bincode.decode::<u16>(&[252, 1, 1, 1, 1]).map(drop),
                "a number",
            ),
            (Bincode.decode::<u64>(&[]).map(drop), "end before"),
        ] {
            let text = bytes.unwrap_err().to_string();
            assert!(text.contains(words), "`{words}` is missing: {text}");
            assert!(!text.contains("77") && !text.contains('{'), "{text}");
        }
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut bytes = Bincode.encode("abc").unwrap();
        bytes.push(0);
        let error = Bincode.decode::<String>(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "1 bytes are left over after the value");
    }

    #[test]
    fn the_limit_never_refuses_what_was_encoded() {
        for n in [
            0,
            1,
            10,
            16,
            17,
            255,
            256,
            257,
            4096,
            65_535,
            65_536,
            1 << 20,
        ] {
            let densest = vec![1u128; n];
            let bytes = Bincode.encode(&densest).unwrap();
            assert_eq!(
                Bincode.decode::<Vec<u128>>(&bytes).unwrap(),
                densest,
                "{n} items"
            );
        }
    }

    #[test]
    fn a_large_text_comes_back() {
        let text = "x".repeat(17 << 20);
        let bytes = Bincode.encode(&text).unwrap();
        assert!(Bincode.decode::<String>(&bytes).unwrap() == text);
    }
}
