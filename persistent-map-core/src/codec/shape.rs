//! What a type looks like to serde, as a text: `{iata:str,lat:f64,tz:?str}`.
//!
//! The type is deserialized from nothing: each time it asks for a piece, the question is written down and a sample is
//! handed over. A type that refuses a sample (a date, say, that is not `""`) is asked again with the next one. One that
//! refuses them all is left out if an option or a collection is around it; otherwise the text ends there, with the names of
//! the fields that follow. It is still the same text every time. A type that panics on a sample is contained like one that
//! refuses it (unless the program aborts on panics). The idea is that of
//! [serde-reflection](https://docs.rs/serde-reflection), cut down to what a fingerprint needs.
//!
//! The names of structs are left out, so that a type may be moved and renamed; the names of fields and variants are in,
//! because codecs that store fields by position would otherwise read swapped fields without an error. Each walk takes one
//! variant of each enum; the others are goals of further walks, so that variants inside of variants are seen.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// How many pieces one walk may ask for, and how deep it follows a type into itself.
const MAX_PIECES: usize = 4096;
const MAX_DEPTH: usize = 12;
/// After so many pieces options are none and collections are empty, so that a type that branches into itself ends.
const SPARSE_AFTER: usize = 1024;
/// How many walks all variants and samples together may take.
const MAX_WALKS: usize = 1024;
/// Longer texts are cut and end with a hash of the whole.
const MAX_TEXT: usize = 600;

/// The version of these texts. They are kept with the data, so whatever changes the text of any type (the samples and
/// limits as well) needs a new number.
pub const VERSION: u32 = 1;

/// Every field and variant, by name and in order, for codecs whose bytes do not say what they are.
///
/// ```
/// use persistent_map_core::codec::shape;
///
/// assert_eq!(shape::exact::<(u32, Option<String>)>(), "(u32,?str)");
/// ```
pub fn exact<T: DeserializeOwned>() -> String {
    let mut explorer = Explorer::default();
    let mut texts = vec![explorer.walk::<T>(&[])];
    // Each walk sees one variant of each enum on its way, and leaves the others as goals of further walks.
    while let Some(variants) = explorer.goals.pop_front() {
        texts.push(explorer.walk::<T>(&variants));
    }
    shorten(texts.join("|"))
}

/// Only what kind of thing it is, for codecs whose bytes name their fields.
///
/// ```
/// use persistent_map_core::codec::shape;
///
/// assert_eq!(shape::broad::<std::collections::HashMap<String, u8>>(), "object");
/// ```
pub fn broad<T: DeserializeOwned>() -> String {
    let text = Explorer::default().walk::<T>(&[]);
    match text.trim_start_matches('?') {
        t if t.starts_with('{') || t.starts_with("map") => "object",
        t if t.starts_with('[') || t.starts_with('(') => "list",
        t if t.starts_with("unit") => "unit",
        t if t.starts_with(['u', 'i', 'f']) => "number",
        t if t.starts_with("str") || t.starts_with("char") => "text",
        t if t.starts_with("bool") => "bool",
        t if t.starts_with("bytes") => "bytes",
        t if t.starts_with('<') => "enum",
        _ => "any",
    }
    .to_string()
}

/// What is known after some walks.
struct Explorer {
    /// Enums that were met, by name and variants.
    enums: HashSet<(&'static str, &'static [&'static str])>,
    /// Which variants to take at the first enums of a walk, for those that no walk has taken yet.
    goals: VecDeque<Vec<usize>>,
    walks_left: usize,
}

impl Default for Explorer {
    fn default() -> Self {
        Explorer {
            enums: HashSet::new(),
            goals: VecDeque::new(),
            walks_left: MAX_WALKS,
        }
    }
}

impl Explorer {
    /// Walks through the type until all samples have been tried on what is refused.
    fn walk<T: DeserializeOwned>(&mut self, variants: &[usize]) -> String {
        let mut samples = Vec::new();
        loop {
            if self.walks_left == 0 {
                self.goals.clear();
                return "…".to_string();
            }
            self.walks_left -= 1;
            let mut walk = Walk {
                explorer: self,
                variants,
                taken: Vec::new(),
                text: String::new(),
                samples: &mut samples,
                choices: Vec::new(),
                open: Vec::new(),
            };
            let read = catch_unwind(AssertUnwindSafe(|| {
                T::deserialize(Piece(&mut walk)).is_ok()
            }));
            let Walk {
                text,
                choices,
                open,
                ..
            } = walk;
            if matches!(read, Ok(true)) {
                return text;
            }
            // The last piece gets its next sample. If it has refused them all, what encloses it is left out: an option is
            // none, a collection is empty.
            let next = choices
                .len()
                .checked_sub(1)
                .into_iter()
                .chain(open.into_iter().rev())
                .find(|&at| samples[at] + 1 < choices[at]);
            match next {
                Some(at) => {
                    samples[at] += 1;
                    samples.truncate(at + 1);
                }
                None => return text + "!",
            }
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
    explorer: &'a mut Explorer,
    /// Which variants to take at the first enums, and which were taken so far.
    variants: &'a [usize],
    taken: Vec<usize>,
    text: String,
    /// Which sample each piece gets, in the order in which pieces are asked for, and how many it has.
    samples: &'a mut Vec<usize>,
    choices: Vec<usize>,
    /// The pieces that enclose the present one and could do without it.
    open: Vec<usize>,
}

impl Walk<'_> {
    /// Writes the name of a piece down and says which of its samples is due.
    fn piece(&mut self, name: &str, samples: usize) -> Result<usize, Refused> {
        let at = self.choices.len();
        if at >= MAX_PIECES {
            // No sample mends that.
            self.choices.clear();
            self.open.clear();
            return Err(Refused);
        }
        self.text.push_str(name);
        self.choices.push(samples);
        if self.samples.len() <= at {
            self.samples.push(0);
        }
        Ok(self.samples[at])
    }

    /// A piece that may have something in it or not. Says whether it has.
    fn enclosure(&mut self, name: &str) -> Result<bool, Refused> {
        let at = self.choices.len();
        let left_out = self.piece(name, 2)? == 1;
        if left_out {
            self.text.push('~');
        }
        let filled = !left_out && self.open.len() < MAX_DEPTH && at < SPARSE_AFTER;
        // Entered also when it is empty, so that each is left once. After a refusal nobody leaves: `open` then tells what
        // encloses the piece that was refused.
        self.open.push(at);
        Ok(filled)
    }

    fn leave(&mut self, close: &str) {
        self.open.pop();
        self.text.push_str(close);
    }

    /// Which variant to take of an enum, and what other walks shall take.
    fn variant(&mut self, name: &'static str, variants: &'static [&'static str]) -> usize {
        let at = self.taken.len();
        let is_new = self.explorer.enums.insert((name, variants));
        if is_new {
            let goals = (1..variants.len()).map(|other| {
                let mut goal = self.taken.clone();
                goal.push(other);
                goal
            });
            self.explorer.goals.extend(goals);
        }
        // A type that contains itself must come to a variant that does not.
        let deep = at.saturating_sub(MAX_DEPTH);
        let variant = self.variants.get(at).copied().unwrap_or(deep);
        let variant = variant % variants.len().max(1);
        self.taken.push(variant);
        variant
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
            let sample = self.0.piece($name, SMALL.len())?;
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
        match self.0.piece("any", 5)? {
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
        let sample = self.0.piece("bool", 2)?;
        visitor.visit_bool(sample == 1)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.piece("char", 1)?;
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let sample = self.0.piece("str", TEXTS.len())?;
        visitor.visit_str(TEXTS[sample])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let sample = self.0.piece("bytes", BYTES.len())?;
        visitor.visit_bytes(BYTES[sample])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let value = if self.0.enclosure("?")? {
            visitor.visit_some(Piece(self.0))?
        } else {
            visitor.visit_none()?
        };
        self.0.leave("");
        Ok(value)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.piece("unit", 1)?;
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
        let left = usize::from(self.0.enclosure("[")?);
        let value = visitor.visit_seq(Items::unnamed(self.0, left))?;
        self.0.leave("]");
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let left = usize::from(self.0.enclosure("map(")?);
        let value = visitor.visit_map(Fields { walk: self.0, left })?;
        self.0.leave(")");
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.0.piece("(", 1)?;
        let value = visitor.visit_seq(Items::unnamed(self.0, len))?;
        self.0.text.push(')');
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.0.piece("{", 1)?;
        let value = visitor.visit_seq(Items {
            walk: self.0,
            left: fields.len(),
            names: Some(fields),
        })?;
        self.0.text.push('}');
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.0.piece("<", 1)?;
        for variant in variants {
            let _ = write!(self.0.text, "{variant}/");
        }
        if variants.is_empty() {
            return Err(Refused);
        }
        let index = self.0.variant(name, variants);
        let _ = write!(self.0.text, "{index}:");
        let value = visitor.visit_enum(Variant {
            walk: self.0,
            index,
        })?;
        self.0.text.push('>');
        Ok(value)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.0.piece("ignored", 1)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Items<'a, 'w> {
    walk: &'a mut Walk<'w>,
    left: usize,
    names: Option<&'static [&'static str]>,
}

impl<'a, 'w> Items<'a, 'w> {
    fn unnamed(walk: &'a mut Walk<'w>, left: usize) -> Self {
        Items {
            walk,
            left,
            names: None,
        }
    }
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
        let names = self.names.map(|names| &names[names.len() - self.left..]);
        if let Some([name, ..]) = names {
            let _ = write!(self.walk.text, "{name}:");
        }
        self.left -= 1;
        let item = seed.deserialize(Piece(self.walk)).inspect_err(|_| {
            // Fields behind one that cannot be shown are there at least by name.
            for name in names.unwrap_or_default().iter().skip(1) {
                let _ = write!(self.walk.text, ",{name}");
            }
        })?;
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
        assert!(exact::<(IpAddr, u8)>().ends_with("u8,u8)>,u8)"));
    }

    #[test]
    fn a_recursive_type_ends_and_names_all_its_variants() {
        let shape = exact::<Tree>();
        assert!(shape.starts_with("<Leaf/Node/Named/0:>|"), "{shape}");
        assert!(shape.len() <= super::MAX_TEXT, "{}", shape.len());
        assert_eq!(shape, exact::<Tree>());
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    enum Event<Amount> {
        Created(u32),
        Changed(Change<Amount>),
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    enum Change<Amount> {
        Nothing,
        Amount(Amount),
    }

    /// Refuses all samples.
    struct Picky;

    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            String::deserialize(deserializer)?;
            Err(serde::de::Error::custom("never"))
        }
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    struct Branching {
        children: [Option<Box<Branching>>; 4],
        after: u16,
    }

    #[test]
    fn variants_inside_of_variants_are_seen() {
        assert_eq!(
            exact::<Event<i64>>(),
            "<Created/Changed/0:u32>|<Created/Changed/1:<Nothing/Amount/0:>>|\
             <Created/Changed/1:<Nothing/Amount/1:i64>>"
        );
        assert_ne!(exact::<Event<i64>>(), exact::<Event<u64>>());
        assert_ne!(exact::<(u8, Event<i64>)>(), exact::<(u8, Event<u64>)>());
    }

    #[test]
    fn what_cannot_be_shown_hides_as_little_as_possible() {
        #[derive(Deserialize)]
        #[allow(dead_code, reason = "only its shape is looked at")]
        struct Account {
            country: Picky,
            balance: i64,
        }
        assert_eq!(exact::<Account>(), "{country:str,balance!");
        assert_eq!(exact::<(Option<Picky>, i64)>(), "(?~,i64)");
        assert_eq!(exact::<(Vec<Picky>, i64)>(), "([~],i64)");
    }

    #[test]
    fn a_type_that_branches_into_itself_is_described_to_its_end() {
        assert!(exact::<(Option<Box<Branching>>, u8)>().contains('…'));
        let other = exact::<(Option<Box<Branching>>, u16)>();
        assert_ne!(exact::<(Option<Box<Branching>>, u8)>(), other);
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
