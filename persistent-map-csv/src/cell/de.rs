//! From the text of a cell to a serde type. The type says how the text is to be read.

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, IgnoredAny, IntoDeserializer as _, Visitor};

use super::{CellError, Style, number};

#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) text: &'a str,
    pub(super) style: &'a Style,
}

macro_rules! whole_number {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
            const EXPECTED: &str = concat!("a whole number (", stringify!($type), ")");
            match number::whole(self.text, self.style, EXPECTED)?.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(number::unreadable(self.text, self.style, EXPECTED)),
            }
        }
    )*};
}

macro_rules! float {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
            const EXPECTED: &str = concat!("a number (", stringify!($type), ")");
            let text = number::float(self.text, self.style, EXPECTED)?;
            match text.parse::<$type>() {
                Ok(number) if number::is_in_range(&text, number.is_infinite(), number == 0.0) => {
                    visitor.$visit(number)
                }
                Ok(_) => Err(number::out_of_range(EXPECTED)),
                Err(_) => Err(number::unreadable(self.text, self.style, EXPECTED)),
            }
        }
    )*};
}

/// An empty cell is an empty list; all other lists are JSON.
macro_rules! json_or_empty {
    ($($method:ident($($name:ident: $argument:ty),*) $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($name: $argument,)*
            visitor: V,
        ) -> Result<V::Value, CellError> {
            if self.text.is_empty() {
                return visitor.$visit(Nothing);
            }
            json! { self.text, |json| json.$method($($name,)* visitor) }
        }
    )*};
}

macro_rules! json_always {
    ($($method:ident($($name:ident: $argument:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($name: $argument,)*
            visitor: V,
        ) -> Result<V::Value, CellError> {
            json! { self.text, |json| json.$method($($name,)* visitor) }
        }
    )*};
}

macro_rules! json {
    ($text:expr, |$json:ident| $read:expr) => {{
        let mut reader = serde_json::Deserializer::from_str($text);
        let $json = &mut reader;
        let item = $read?;
        reader.end()?;
        Ok(item)
    }};
}

impl<'de> Deserializer<'de> for Cell<'de> {
    type Error = CellError;

    /// For types that take what they find: JSON if it is that, else a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.text.is_empty() {
            visitor.visit_unit()
        } else if serde_json::from_str::<IgnoredAny>(self.text).is_ok() {
            json! { self.text, |json| json.deserialize_any(visitor) }
        } else {
            visitor.visit_str(self.text)
        }
    }

    /// Spreadsheets write `TRUE`, Python writes `True`.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        match self.style.bool_of(self.text) {
            Some(value) => visitor.visit_bool(value),
            None if !self.text.is_empty() && self.text.trim().is_empty() => {
                Err(CellError::Blank(String::new(), "true or false".to_string()))
            }
            None => Err(unreadable_bool(self.text, self.style)),
        }
    }

    whole_number! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
    }

    float! {
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        let mut chars = self.text.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(CellError::expected("one character")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        match self.style.inner(self.text) {
            None => visitor.visit_none(),
            Some(text) => visitor.visit_some(Cell { text, ..self }),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.style.is_nothing(self.text) {
            visitor.visit_unit()
        } else {
            Err(CellError::expected("an empty cell"))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CellError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CellError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CellError> {
        if self.text.starts_with(['{', '"']) {
            json! { self.text, |json| json.deserialize_enum(name, variants, visitor) }
        } else {
            let trimmed = self.text.trim();
            let is_trimmed = variants.contains(&trimmed) && !variants.contains(&self.text);
            let text = if is_trimmed { trimmed } else { self.text };
            let variant: StrDeserializer<'de, CellError> = text.into_deserializer();
            visitor.visit_enum(variant)
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_unit()
    }

    json_or_empty! {
        deserialize_seq() visit_seq;
        deserialize_map() visit_map;
    }

    json_always! {
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
    }
}

/// Words for true and false that other programs and languages write.
const BOOLS: [(&str, &str); 11] = [
    ("yes", "no"),
    ("1", "0"),
    ("y", "n"),
    ("t", "f"),
    ("on", "off"),
    ("wahr", "falsch"),
    ("ja", "nein"),
    ("vrai", "faux"),
    ("oui", "non"),
    ("verdadero", "falso"),
    ("vero", "falso"),
];

fn unreadable_bool(text: &str, style: &Style) -> CellError {
    let text = text.trim();
    let problem = match &style.bool_words {
        Some((yes, no)) => format!("expected {yes:?} or {no:?}"),
        None => "expected true or false".to_string(),
    };
    let is_upper = text.chars().all(|letter| !letter.is_lowercase());
    let known = BOOLS
        .iter()
        .find(|(yes, no)| text.eq_ignore_ascii_case(yes) || text.eq_ignore_ascii_case(no));
    match known {
        Some((yes, no)) if style.bool_words.is_none() => {
            let cased = |word: &str| {
                if is_upper {
                    word.to_uppercase()
                } else {
                    word.to_string()
                }
            };
            let (yes, no) = (cased(yes), cased(no));
            CellError::advised(
                problem,
                format!("Open the file with `CsvBackend::new(..).bool_words({yes:?}, {no:?})`"),
            )
        }
        _ if text.is_empty() => CellError::advised(
            format!("{problem}, and the cell is empty"),
            "Fill it, or make the field an `Option`",
        ),
        _ => CellError::advised(
            problem,
            "Correct the cell, or name the words with `CsvBackend::new(..).bool_words(\"..\", \"..\")`",
        ),
    }
}

struct Nothing;

impl<'de> de::SeqAccess<'de> for Nothing {
    type Error = CellError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        _: T,
    ) -> Result<Option<T::Value>, CellError> {
        Ok(None)
    }
}

impl<'de> de::MapAccess<'de> for Nothing {
    type Error = CellError;

    fn next_key_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        _: T,
    ) -> Result<Option<T::Value>, CellError> {
        Ok(None)
    }

    fn next_value_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        _: T,
    ) -> Result<T::Value, CellError> {
        Err(CellError::expected("nothing"))
    }
}
