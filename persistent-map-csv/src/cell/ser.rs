//! From a serde type to the text of a cell.

use serde::Serialize;
use serde::ser::{Impossible, Serializer};

use super::{CellError, Style};

pub(super) enum Cell {
    /// `None` and `()`.
    Missing,
    Text(String),
}

/// Plain text where there is one for the type, JSON where not.
pub(super) fn plain<T: Serialize + ?Sized>(item: &T, style: &Style) -> Result<Cell, CellError> {
    match item.serialize(Plain(style)) {
        Err(CellError::Nested) => json(item).map(Cell::Text),
        done => done,
    }
}

pub(super) fn json<T: Serialize + ?Sized>(item: &T) -> Result<String, CellError> {
    Ok(serde_json::to_string(item)?)
}

struct Plain<'a>(&'a Style);

macro_rules! as_displayed {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, v: $type) -> Result<Cell, CellError> {
            Ok(Cell::Text(v.to_string()))
        }
    )*};
}

macro_rules! float {
    ($($method:ident($type:ty))*) => {$(
        /// The shortest text that reads back as the same number: plain decimals in the range that people use, else with
        /// an exponent. A NaN has a sign, and so has its text.
        fn $method(self, v: $type) -> Result<Cell, CellError> {
            let size = v.abs();
            Ok(Cell::Text(if v.is_nan() && v.is_sign_negative() {
                "-NaN".to_string()
            } else if v.is_finite() && size != 0.0 && !(1e-5..1e17).contains(&size) {
                self.0.number(format!("{v:e}"))
            } else {
                self.0.number(v.to_string())
            }))
        }
    )*};
}

impl Serializer for Plain<'_> {
    type Ok = Cell;
    type Error = CellError;
    type SerializeSeq = Impossible<Cell, CellError>;
    type SerializeTuple = Impossible<Cell, CellError>;
    type SerializeTupleStruct = Impossible<Cell, CellError>;
    type SerializeTupleVariant = Impossible<Cell, CellError>;
    type SerializeMap = Impossible<Cell, CellError>;
    type SerializeStruct = Impossible<Cell, CellError>;
    type SerializeStructVariant = Impossible<Cell, CellError>;

    as_displayed! {
        serialize_char(char) serialize_str(&str)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
    }

    float! { serialize_f32(f32) serialize_f64(f64) }

    fn serialize_bool(self, v: bool) -> Result<Cell, CellError> {
        Ok(Cell::Text(self.0.bool_text(v).to_string()))
    }

    fn serialize_none(self) -> Result<Cell, CellError> {
        Ok(Cell::Missing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Cell, CellError> {
        match plain(value, self.0)? {
            Cell::Missing => Err(CellError::Message(
                "`Some` of nothing would read back as `None`".to_string(),
            )),
            Cell::Text(text) => Ok(Cell::Text(self.0.something(text))),
        }
    }

    fn serialize_unit(self) -> Result<Cell, CellError> {
        Ok(Cell::Missing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Cell, CellError> {
        Ok(Cell::Missing)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Cell, CellError> {
        Ok(Cell::Text(variant.to_string()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Cell, CellError> {
        plain(value, self.0)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Cell, CellError> {
        Err(CellError::Nested)
    }

    nested! {
        serialize_bytes(&[u8]) -> Ok;
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct(&'static str, usize) -> SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }
}
