//! From the text of a cell to a serde type. The type says how the text is to be read.

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserializer, IgnoredAny, IntoDeserializer as _, Visitor};

use super::{CellError, is_pairs_of_quotes};

#[derive(Clone, Copy)]
pub(super) struct Cell<'a>(pub(super) &'a str);

macro_rules! whole_number {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
            match without_zero_fraction(self.0).parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(CellError::expected(concat!(
                    "a whole number (", stringify!($type), ")"
                ))),
            }
        }
    )*};
}

macro_rules! float {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
            match self.0.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) if self.0.contains(',') => Err(CellError::expected(
                    "a number with a decimal point, and found a comma",
                )),
                Err(_) => Err(CellError::expected(concat!("a number (", stringify!($type), ")"))),
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
            if self.0.is_empty() {
                return visitor.$visit(Nothing);
            }
            json! { self.0, |json| json.$method($($name,)* visitor) }
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
            json! { self.0, |json| json.$method($($name,)* visitor) }
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
        if self.0.is_empty() {
            visitor.visit_unit()
        } else if serde_json::from_str::<IgnoredAny>(self.0).is_ok() {
            json! { self.0, |json| json.deserialize_any(visitor) }
        } else {
            visitor.visit_str(self.0)
        }
    }

    /// Spreadsheets write `TRUE`, Python writes `True`.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.0.eq_ignore_ascii_case("true") {
            visitor.visit_bool(true)
        } else if self.0.eq_ignore_ascii_case("false") {
            visitor.visit_bool(false)
        } else {
            Err(CellError::expected("true or false"))
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
        let mut chars = self.0.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(CellError::expected("one character")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_str(self.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_str(self.0)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.0.is_empty() {
            visitor.visit_none()
        } else if is_pairs_of_quotes(self.0) {
            visitor.visit_some(Cell(&self.0[2..]))
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.0.is_empty() {
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
        if self.0.starts_with(['{', '"']) {
            json! { self.0, |json| json.deserialize_enum(name, variants, visitor) }
        } else {
            let variant: StrDeserializer<'de, CellError> = self.0.into_deserializer();
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

/// Python writes a whole number as `12.0` when there are empty cells in its column.
fn without_zero_fraction(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => {
            whole
        }
        _ => text,
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
