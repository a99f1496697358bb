//! How deep a key or value may be nested.
//!
//! Whatever goes through a nested value calls itself once a level, and needs stack for each: the codecs, `Clone` and `Drop`. A
//! chain of boxes that a `main` with 8 MiB of stack has written would end a worker thread with 2 MiB that opens the store. So
//! maps over stores of bytes refuse what is deeper than [`MAX_DEPTH`], with any codec, where it is written and where it is read.
//!
//! A level is a struct, a variant with contents, a tuple, a sequence, a map, or a `Some`. (`Box` and references are none.)
//!
//! ```
//! use persistent_map_core::codec::depth::{Encode, MAX_DEPTH};
//! use persistent_map_core::{Bincode, Codec};
//! use serde::Serialize;
//!
//! #[derive(Serialize)]
//! struct Chain(Option<Box<Chain>>); // two levels each
//!
//! let chain_of = |links| (0..links).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))));
//! assert!(Bincode.encode(&Encode::new(&chain_of(MAX_DEPTH / 2 - 1))).is_ok());
//!
//! let chain = chain_of(MAX_DEPTH / 2);
//! let value = Encode::new(&chain);
//! let error = Bincode.encode(&value).unwrap_err();
//! assert_eq!(error.to_string(), "it is nested more than 128 levels deep");
//! assert!(value.is_too_deep());
//! ```

mod de;
mod ser;

use std::cell::Cell;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// The deepest that a key or value may be: as deep as JSON is read by serde.
pub const MAX_DEPTH: usize = 128;

/// Serializes what it refers to, and fails where that is nested more than [`MAX_DEPTH`] levels deep. Maps over stores of bytes do
/// this by themselves. For an example see the [module](self).
#[derive(Debug)]
pub struct Encode<'a, T: ?Sized> {
    item: &'a T,
    too_deep: Cell<bool>,
}

impl<'a, T: ?Sized> Encode<'a, T> {
    /// Refers to `item`.
    pub fn new(item: &'a T) -> Self {
        Encode {
            item,
            too_deep: Cell::new(false),
        }
    }

    /// Whether it was that deep when it was serialized last.
    pub fn is_too_deep(&self) -> bool {
        self.too_deep.get()
    }
}

impl<T: Serialize + ?Sized> Serialize for Encode<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.too_deep.set(false);
        let levels = ser::Levels {
            left: MAX_DEPTH,
            too_deep: &self.too_deep,
        };
        self.item.serialize(ser::Counting::new(serializer, levels))
    }
}

/// Deserializes to what it holds, and fails where the input is nested more than [`MAX_DEPTH`] levels deep.
///
/// ```
/// use persistent_map_core::codec::depth::Decode;
/// use persistent_map_core::{Bincode, Codec};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Chain(Option<Box<Chain>>);
///
/// let endless = [1; 100_000]; // each byte says that there is one more link
/// let error = Bincode.decode::<Decode<Chain>>(&endless).map(|Decode(chain)| chain).err().unwrap();
/// assert_eq!(error.to_string(), "it is nested more than 128 levels deep");
/// ```
#[derive(Debug)]
pub struct Decode<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Decode<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(de::Counting::new(deserializer, MAX_DEPTH)).map(Decode)
    }
}

/// What to do about it: for the [`advice`](crate::PersistentError::Unstorable) of stores that have no codec. For an example see
/// [`reason`].
pub const ADVICE: &str = "Whatever reads it back needs stack for each level, and some threads have little. Store what is nested \
    as entries of their own that name each other, or as a list";

/// What an error says of it. For stores that have no codec, as [`ADVICE`].
///
/// ```
/// use persistent_map_core::codec::depth::{ADVICE, reason};
///
/// let text = format!("{}. {ADVICE}", reason());
/// assert!(text.starts_with("it is nested more than 128 levels deep. Whatever reads it back"));
/// ```
pub fn reason() -> String {
    format!("it is nested more than {MAX_DEPTH} levels deep")
}
