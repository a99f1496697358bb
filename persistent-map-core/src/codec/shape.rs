//! What a type looks like to serde, as a text: `{iata:str,lat:f64,tz:?str}`.
//!
//! The type is deserialized from nothing: each time it asks for a piece, the question is written down and a sample is
//! handed over. A type that refuses a sample (a date, say, that is not `""`) is asked again with the next one; one that
//! refuses them all ends the text there, which is still the same text every time. The idea is that of
//! [serde-reflection](https://docs.rs/serde-reflection), cut down to what a fingerprint needs.
//!
//! The names of structs are left out, so that a type may be moved and renamed; the names of fields and variants are in,
//! because codecs that store fields by position would otherwise read swapped fields without an error.

use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// How many pieces one walk may ask for, and how deep it follows a type into itself.
const MAX_PIECES: usize = 4096;
const MAX_DEPTH: usize = 12;
/// How many walks all variants and samples together may take.
const MAX_WALKS: usize = 512;
/// Longer texts are cut and end with a hash of the whole.
const MAX_TEXT: usize = 600;

/// Every field and variant, by name and in order, for codecs whose bytes do not say what they are.
///
/// ```
/// use persistent_map_core::codec::shape;
///
/// assert_eq!(shape::exact::<(u32, Option<String>)>(), "(u32,?str)");
/// ```
pub fn exact<T: DeserializeOwned>() -> String {
    let mut walks = MAX_WALKS;
    let (mut text, variants) = walk_all_samples::<T>(0, &mut walks);
    for variant in 1..variants {
        let (more, _) = walk_all_samples::<T>(variant, &mut walks);
        text.push('|');
        text.push_str(&more);
    }
    shorten(text)
}

/// Only what kind of thing it is, for codecs whose bytes name their fields.
///
/// ```
/// use persistent_map_core::codec::shape;
///
/// assert_eq!(shape::broad::<std::collections::HashMap<String, u8>>(), "object");
/// ```
pub fn broad<T: DeserializeOwned>() -> String {
    let (text, _) = walk_all_samples::<T>(0, &mut MAX_WALKS.clone());
    match text.trim_start_matches('?') {
        t if t.starts_with('{') || t.starts_with("map") => "object",
        t if t.starts_with('[') || t.starts_with('(') => "list",
        t if t.starts_with(['u', 'i', 'f']) && !t.starts_with("unit") => "number",
        t if t.starts_with("str") || t.starts_with("char") => "text",
        t if t.starts_with("bool") => "bool",
        t if t.starts_with("bytes") => "bytes",
        t if t.starts_with("unit") => "unit",
        t if t.starts_with('<') => "enum",
        _ => "any",
    }
    .to_string()
}

/// Walks until every sample has been tried on the piece that was refused last. Also says how many variants the widest
/// enum on the way has.
fn walk_all_samples<T: DeserializeOwned>(variant: usize, walks: &mut usize) -> (String, usize) {
    let mut samples = Vec::new();
    loop {
        let mut walk = Walk {
            text: String::new(),
            samples: &mut samples,
            pieces: 0,
            depth: 0,
            variant,
            widest: 1,
            last_choice: None,
        };
        let read = catch_unwind(AssertUnwindSafe(|| {
            T::deserialize(Piece(&mut walk)).is_ok()
        }));
        let (text, widest, last_choice) = (walk.text, walk.widest, walk.last_choice);
        *walks = walks.saturating_sub(1);
        if matches!(read, Ok(true)) {
            return (text, widest);
        }
        match last_choice {
            Some(Choice { at, of }) if samples[at] + 1 < of && *walks > 0 => {
                samples[at] += 1;
                samples.truncate(at + 1);
            }
            _ => return (text + "!", widest),
        }
    }
}

fn shorten(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    // FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/): short, and the same on every machine and version.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let cut = text.floor_char_boundary(MAX_TEXT - 20);
    format!("{}…{hash:016x}", &text[..cut])
}

struct Walk<'a> {
    text: String,
    /// Which sample each piece gets, in the order in which pieces are asked for.
    samples: &'a mut Vec<usize>,
    pieces: usize,
    depth: usize,
    /// Which variant every enum on the way takes (or its last one).
    variant: usize,
    widest: usize,
    last_choice: Option<Choice>,
}

struct Choice {
    at: usize,
    of: usize,
}

impl Walk<'_> {
    /// Writes the name of a piece down and says which of its samples is due.
    fn leaf(&mut self, name: &str, of: usize) -> Result<usize, Refused> {
        if self.pieces >= MAX_PIECES {
            self.last_choice = None;
            return Err(Refused);
        }
        self.text.push_str(name);
        let at = self.pieces;
        self.pieces += 1;
        if self.samples.len() <= at {
            self.samples.push(0);
        }
        self.last_choice = Some(Choice { at, of });
        Ok(self.samples[at])
    }
}

/// The one error there is: a sample was refused, or the walk is too long.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Refused
    }
}

/// Stands for one piece of the type.
struct Piece<'a, 'w>(&'a mut Walk<'w>);

/// Fits every kind of number, signed or not.
const SMALL: &[bool] = &[false, true];
const TEXTS: &[&str] = &[
    "",
    "a",
    "0",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00",
    "1970-01-01",
    "00:00:00",
    "127.0.0.1",
    "127.0.0.1:80",
    "00000000-0000-0000-0000-000000000000",
    "http://a/",
    "UTC",
    "a@a.a",
    "0.0.0",
];
const BYTES: &[&[u8]] = &[&[], &[0], &[0; 4], &[0; 8], &[0; 12], &[0; 16], &[0; 32]];

macro_rules! numbers {
    ($($method:ident $visit:ident $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let sample = self.0.leaf($name, SMALL.len())?;
            visitor.$visit(SMALL[sample].into())
        }
    )*};
}

impl<'de> Deserializer<'de> for Piece<'_, '_> {
    type Error = Refused;

    numbers! {
        deserialize_u8 visit_u8 "u8";
        deserialize_u16 visit_u16 "u16";
        deserialize_u32 visit_u32 "u32";
        deserialize_u64 visit_u64 "u64";
        deserialize_u128 visit_u128 "u128";
        deserialize_i8 visit_i8 "i8";
        deserialize_i16 visit_i16 "i16";
        deserialize_i32 visit_i32 "i32";
        deserialize_i64 visit_i64 "i64";
        deserialize_i128 visit_i128 "i128";
        deserialize_f32 visit_f32 "f32";
        deserialize_f64 visit_f64 "f64";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.0.leaf("any", 5)? {
            0 => visitor.visit_unit(),
            1 => visitor.visit_u64(0),
            2 => visitor.visit_bool(false),
            3 => visitor.visit_str(""),
            _ => visitor.visit_map(Fields {
                walk: self.0,
                left: 0,
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let sample = self.0.leaf("bool", 2)?;
        visitor.visit_bool(sample == 1)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.leaf("char", 1)?;
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let sample = self.0.leaf("str", TEXTS.len())?;
        visitor.visit_str(TEXTS[sample])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let sample = self.0.leaf("bytes", BYTES.len())?;
        visitor.visit_bytes(BYTES[sample])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.leaf("?", 1)?;
        if self.0.depth >= MAX_DEPTH {
            return visitor.visit_none();
        }
        self.0.depth += 1;
        let result = visitor.visit_some(Piece(self.0));
        self.0.depth -= 1;
        result
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.leaf("unit", 1)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        nested(self.0, "[", "]", |walk| {
            let left = usize::from(walk.depth <= MAX_DEPTH);
            visitor.visit_seq(Items {
                walk,
                left,
                names: None,
            })
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        nested(self.0, "(", ")", |walk| {
            visitor.visit_seq(Items {
                walk,
                left: len,
                names: None,
            })
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        nested(self.0, "map(", ")", |walk| {
            let left = usize::from(walk.depth <= MAX_DEPTH);
            visitor.visit_map(Fields { walk, left })
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        nested(self.0, "{", "}", |walk| {
            visitor.visit_seq(Items {
                walk,
                left: fields.len(),
                names: Some(fields),
            })
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.0.widest = self.0.widest.max(variants.len());
        let chosen = self.0.variant.min(variants.len().saturating_sub(1));
        nested(self.0, "<", ">", |walk| {
            for name in variants {
                let _ = write!(walk.text, "{name}/");
            }
            if variants.is_empty() || walk.depth > MAX_DEPTH {
                walk.last_choice = None;
                return Err(Refused);
            }
            let _ = write!(walk.text, "{chosen}:");
            visitor.visit_enum(Variant {
                walk,
                index: chosen,
            })
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.leaf("ignored", 1)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

fn nested<'w, T>(
    walk: &mut Walk<'w>,
    open: &str,
    close: &str,
    inside: impl FnOnce(&mut Walk<'w>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    walk.leaf(open, 1)?;
    walk.depth += 1;
    let result = inside(walk);
    walk.depth -= 1;
    if result.is_ok() {
        walk.text.push_str(close);
    }
    result
}

struct Items<'a, 'w> {
    walk: &'a mut Walk<'w>,
    left: usize,
    names: Option<&'static [&'static str]>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        if let Some(names) = self.names {
            let _ = write!(self.walk.text, "{}:", names[names.len() - self.left]);
        }
        self.left -= 1;
        let item = seed.deserialize(Piece(self.walk))?;
        if self.left > 0 {
            self.walk.text.push(',');
        }
        Ok(Some(item))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

struct Fields<'a, 'w> {
    walk: &'a mut Walk<'w>,
    left: usize,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Piece(self.walk)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        self.walk.text.push(',');
        seed.deserialize(Piece(self.walk))
    }
}

struct Variant<'a, 'w> {
    walk: &'a mut Walk<'w>,
    index: usize,
}

impl<'a, 'de, 'w> EnumAccess<'de> for Variant<'a, 'w> {
    type Error = Refused;
    type Variant = Piece<'a, 'w>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), Refused> {
        let index = u32::try_from(self.index).map_err(|_| Refused)?;
        let value = seed.deserialize(de::value::U32Deserializer::<Refused>::new(index))?;
        Ok((value, Piece(self.walk)))
    }
}

impl<'de> VariantAccess<'de> for Piece<'_, '_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::IpAddr;
    use std::num::NonZeroU32;

    use serde::Deserialize;

    use super::{broad, exact};

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    struct Airport {
        iata: String,
        lat: f64,
        tz: Option<String>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    enum Tree {
        Leaf,
        Node {
            left: Box<Tree>,
            right: Vec<Tree>,
            id: NonZeroU32,
        },
        Named(String),
    }

    #[test]
    fn a_type_reads_as_it_is_declared() {
        assert_eq!(exact::<String>(), "str");
        assert_eq!(exact::<(u32, String)>(), "(u32,str)");
        assert_eq!(exact::<Airport>(), "{iata:str,lat:f64,tz:?str}");
        assert_eq!(exact::<HashMap<String, Vec<u8>>>(), "map(str,[u8])");
        assert_eq!(exact::<BTreeMap<u8, char>>(), "map(u8,char)");
    }

    #[test]
    fn a_type_that_is_picky_about_samples_is_described_to_its_end() {
        assert_eq!(exact::<(NonZeroU32, bool)>(), "(u32,bool)");
        assert!(
            exact::<(IpAddr, u8)>()
                .ends_with(",u8)|(<V4/V6/1:(u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8)>,u8)")
        );
    }

    #[test]
    fn a_recursive_type_ends_and_names_all_its_variants() {
        let shape = exact::<Tree>();
        assert!(shape.starts_with("<Leaf/Node/Named/0:>|"), "{shape}");
        assert!(shape.len() <= super::MAX_TEXT, "{}", shape.len());
        assert_eq!(shape, exact::<Tree>());
    }

    #[test]
    fn types_whose_bytes_could_be_confused_differ() {
        assert_ne!(exact::<(u32, String)>(), exact::<(u16, u8)>());
        assert_ne!(exact::<Option<u8>>(), exact::<u8>());
        assert_ne!(exact::<Result<u8, u16>>(), exact::<Result<u16, u8>>());
    }

    #[test]
    fn the_broad_form_allows_for_growth() {
        assert_eq!(broad::<Airport>(), "object");
        assert_eq!(broad::<HashMap<String, u8>>(), "object");
        assert_eq!(broad::<Option<u64>>(), "number");
        assert_eq!(broad::<f32>(), "number");
        assert_eq!(broad::<()>(), "unit");
        assert_eq!(broad::<String>(), "text");
        assert_eq!(broad::<Vec<u8>>(), "list");
        assert_eq!(broad::<Tree>(), "enum");
    }
}
