//! A struct as a row of cells, one a field.

use persistent_map_core::codec::depth::{Decode, Encode};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, Visitor,
};
use serde::ser::{Impossible, SerializeStruct, Serializer};
use serde::{Deserialize as _, Serialize};

use super::{CellError, Form, Style, de, encode};

/// The fields of a struct with their texts, in the order in which the struct gives them; `None` for what is no struct.
pub(crate) fn fields_of<T: Serialize + ?Sized>(
    item: &T,
    form: Form,
    style: &Style,
) -> Result<Option<Vec<(&'static str, String)>>, CellError> {
    let item = Encode::new(item);
    match item.serialize(Fields {
        form,
        style,
        cells: Vec::new(),
    }) {
        Ok(cells) => Ok(Some(cells)),
        Err(CellError::Nested) => Ok(None),
        Err(error) => Err(error.or_too_deep(&item)),
    }
}

/// A value from a row: from the columns that are called like its fields if it is a struct and not `bare`, else from the
/// column `value`.
pub(crate) fn decode_row<T: DeserializeOwned>(
    columns: &[String],
    cells: &[&str],
    bare: bool,
    style: &Style,
) -> Result<T, CellError> {
    let row = Row {
        columns,
        cells,
        bare,
        style,
    };
    Decode::deserialize(row).map(|Decode(item)| item)
}

struct Fields<'a> {
    form: Form,
    style: &'a Style,
    cells: Vec<(&'static str, String)>,
}

impl Serializer for Fields<'_> {
    type Ok = Vec<(&'static str, String)>;
    type Error = CellError;
    type SerializeSeq = Impossible<Self::Ok, CellError>;
    type SerializeTuple = Impossible<Self::Ok, CellError>;
    type SerializeTupleStruct = Impossible<Self::Ok, CellError>;
    type SerializeTupleVariant = Impossible<Self::Ok, CellError>;
    type SerializeMap = Impossible<Self::Ok, CellError>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<Self::Ok, CellError>;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CellError> {
        Ok(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Self::Ok, CellError> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, CellError> {
        Err(CellError::Nested)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Self::Ok, CellError> {
        Err(CellError::Nested)
    }

    nested! {
        serialize_bool(bool) -> Ok;
        serialize_i8(i8) -> Ok;
        serialize_i16(i16) -> Ok;
        serialize_i32(i32) -> Ok;
        serialize_i64(i64) -> Ok;
        serialize_u8(u8) -> Ok;
        serialize_u16(u16) -> Ok;
        serialize_u32(u32) -> Ok;
        serialize_u64(u64) -> Ok;
        serialize_i128(i128) -> Ok;
        serialize_u128(u128) -> Ok;
        serialize_f32(f32) -> Ok;
        serialize_f64(f64) -> Ok;
        serialize_char(char) -> Ok;
        serialize_str(&str) -> Ok;
        serialize_bytes(&[u8]) -> Ok;
        serialize_none() -> Ok;
        serialize_unit() -> Ok;
        serialize_unit_struct(&'static str) -> Ok;
        serialize_unit_variant(&'static str, u32, &'static str) -> Ok;
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> SerializeTupleVariant;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> SerializeStructVariant;
    }
}

impl SerializeStruct for Fields<'_> {
    type Ok = Vec<(&'static str, String)>;
    type Error = CellError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), CellError> {
        let text = encode(value, self.form, self.style).map_err(|error| error.in_column(key))?;
        self.cells.push((key, text));
        Ok(())
    }

    /// A field that is left out keeps its column.
    fn skip_field(&mut self, key: &'static str) -> Result<(), CellError> {
        self.cells.push((key, String::new()));
        Ok(())
    }

    fn end(self) -> Result<Self::Ok, CellError> {
        Ok(self.cells)
    }
}

struct Row<'a> {
    columns: &'a [String],
    cells: &'a [&'a str],
    bare: bool,
    style: &'a Style,
}

impl<'a> Row<'a> {
    fn value(&self) -> Result<de::Cell<'a>, CellError> {
        let mut values = (0..)
            .zip(self.columns)
            .filter(|(_, column)| *column == "value");
        let at: Option<(usize, _)> = values.next();
        if values.next().is_some() {
            return Err(CellError::TwoColumns("value".to_string()));
        }
        at.and_then(|(at, _)| self.cells.get(at))
            .map(|text| self.cell(text))
            .ok_or(CellError::NoValueColumn)
    }

    fn cell(&self, text: &'a str) -> de::Cell<'a> {
        de::Cell {
            text,
            style: self.style,
        }
    }
}

macro_rules! from_value {
    ($($method:ident($($name:ident: $argument:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($name: $argument,)*
            visitor: V,
        ) -> Result<V::Value, CellError> {
            self.value()?
                .$method($($name,)* visitor)
                .map_err(|error| error.in_column("value"))
        }
    )*};
}

impl<'de> Deserializer<'de> for Row<'de> {
    type Error = CellError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CellError> {
        if self.bare {
            return self
                .value()?
                .deserialize_struct(name, fields, visitor)
                .map_err(|error| error.in_column("value"));
        }
        visitor.visit_map(Columns {
            row: self,
            fields,
            at: 0,
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CellError> {
        visitor.visit_newtype_struct(self)
    }

    from_value! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

/// The columns that the struct knows. Others are not its business, not even to refuse them.
struct Columns<'a> {
    row: Row<'a>,
    fields: &'static [&'static str],
    at: usize,
}

impl<'de> MapAccess<'de> for Columns<'de> {
    type Error = CellError;

    fn next_key_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CellError> {
        while let Some(column) = self.row.columns.get(self.at) {
            if self.fields.contains(&column.as_str()) {
                return seed
                    .deserialize(column.as_str().into_deserializer())
                    .map(Some);
            }
            self.at += 1;
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CellError> {
        let (column, text) = (&self.row.columns[self.at], self.row.cells[self.at]);
        self.at += 1;
        seed.deserialize(self.row.cell(text))
            .map_err(|error| error.in_column(column))
    }
}
