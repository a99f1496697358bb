//! Keys and values, the same for all.

use std::borrow::Cow;
use std::sync::LazyLock;

use bincode::config::standard;
use bincode::serde::{decode_from_slice, encode_to_vec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Outcome;

/// What an entry holds.
pub trait Payload: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// A value like any other.
    fn any() -> Self;

    /// For contenders that store bytes.
    ///
    /// # Errors
    /// What the codec says.
    fn to_bytes(&self) -> Outcome<Cow<'_, [u8]>>;

    /// The way back.
    ///
    /// # Errors
    /// What the codec says.
    fn from_bytes(bytes: &[u8]) -> Outcome<Self>;
}

/// 100 characters.
pub type Text = String;

const WIDTH: usize = 10;

/// The record of YCSB: ten fields of 100 characters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    fields: [Text; WIDTH],
}

impl Record {
    /// An update as YCSB does it: one field gets a new value.
    pub(crate) fn rewrite_a_field(&mut self) {
        self.fields[fastrand::usize(..WIDTH)] = Text::any();
    }
}

impl Payload for Text {
    fn any() -> Self {
        const LENGTH: usize = 100;
        /// Where values are cut from: cheaper than making each, and nothing that compresses well.
        static NOISE: LazyLock<String> = LazyLock::new(|| {
            let mut random = fastrand::Rng::with_seed(1);
            (0..1 << 16).map(|_| random.alphanumeric()).collect()
        });
        let start = fastrand::usize(..NOISE.len() - LENGTH);
        NOISE[start..start + LENGTH].to_owned()
    }

    fn to_bytes(&self) -> Outcome<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.as_bytes()))
    }

    fn from_bytes(bytes: &[u8]) -> Outcome<Self> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

impl Payload for Record {
    fn any() -> Self {
        Record {
            fields: std::array::from_fn(|_| Text::any()),
        }
    }

    fn to_bytes(&self) -> Outcome<Cow<'_, [u8]>> {
        Ok(Cow::Owned(encode_to_vec(self, standard())?))
    }

    fn from_bytes(bytes: &[u8]) -> Outcome<Self> {
        Ok(decode_from_slice(bytes, standard())?.0)
    }
}

/// The key of the entry with this number: 16 characters, spread over all keys, so that neighbours in time are none in the
/// store.
pub(crate) fn key(number: u64) -> String {
    // The finaliser of SplitMix64, which is a bijection: no two numbers share a key.
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", mixed ^ (mixed >> 31))
}

pub(crate) fn entry<V: Payload>(number: u64) -> (String, V) {
    (key(number), V::any())
}
