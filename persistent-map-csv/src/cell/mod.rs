//! One key, one field or one value as the text of a cell.
//!
//! | serde type | Text |
//! |---|---|
//! | number, `bool`, `char`, string | as one would type it |
//! | unit variant of an enum | its name |
//! | `None`, `()` | nothing |
//! | `Some(x)` | the text of `x`; where that is empty, two quotation marks (`""`) |
//! | list, map, struct, other variants, bytes | JSON |
//!
//! Texts that consist of pairs of quotation marks get one pair more inside `Some`, so that all of them stay apart. It is
//! done in the text, not by quoting the cell: spreadsheets and other programs quote as they please and forget it.

/// Methods of a serializer for what does not fit into the cells of a row.
macro_rules! nested {
    ($($method:ident($($argument:ty),*) -> $type:ident;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<Self::$type, CellError> {
            Err(CellError::Nested)
        }
    )*};
}

mod de;
mod row;
mod ser;

use std::fmt::{self, Display};

use persistent_map_core::codec::CodecError;
use persistent_map_core::codec::depth::{self, Decode, Encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};

pub(crate) use row::{decode_row, fields_of};

/// The two ways to write a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As in the table above.
    Plain,
    /// All of it as JSON: for types that look at the text to find out what they are (`untagged`), where `5` and `"5"`
    /// would be one.
    Json,
}

impl Form {
    pub(crate) const BOTH: [Form; 2] = [Form::Plain, Form::Json];
}

pub(crate) fn encode<T: Serialize + ?Sized>(item: &T, form: Form) -> Result<String, CellError> {
    let item = &Encode::new(item);
    let text = match form {
        Form::Plain => ser::plain(item).map(ser::Cell::into_text),
        Form::Json => match ser::plain(item) {
            Ok(ser::Cell::Missing) => Ok(String::new()),
            Ok(ser::Cell::Text(_)) => ser::json(item),
            Err(error) => Err(error),
        },
    };
    text.map_err(|error| error.or_too_deep(item))
}

pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, CellError> {
    Decode::deserialize(de::Cell(text)).map(|Decode(item)| item)
}

/// Whether a text is empty but for pairs of quotation marks.
fn is_pairs_of_quotes(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte == b'"')
}

/// Why a cell cannot be written or read. Its text names types, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CellError {
    /// Not a single text: to be written in another form. Never leaves this module.
    Nested,
    /// serde asked for a field that no column has.
    MissingField(&'static str),
    /// A value that is not a struct, in a table without a column `value`.
    NoValueColumn,
    /// More levels in each other than every thread has stack for.
    TooDeep,
    Message(String),
}

impl CellError {
    /// For errors that only take this type, which cuts what stands in backticks for a value.
    pub(crate) fn to_codec_error(&self) -> CodecError {
        CodecError::new(self.to_string().replace('`', "'"))
    }

    /// The reason, if it is that `item` is nested too deep.
    fn or_too_deep<T: ?Sized>(self, item: &Encode<'_, T>) -> Self {
        if item.is_too_deep() {
            CellError::TooDeep
        } else {
            self
        }
    }

    fn expected(what: impl Display) -> Self {
        CellError::Message(format!("expected {what}"))
    }

    fn in_column(self, column: &str) -> Self {
        match self {
            CellError::Message(message) => {
                CellError::Message(format!("column `{column}`: {message}"))
            }
            other => other,
        }
    }
}

impl Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CellError::Nested => f.write_str("it is not a single text"),
            CellError::MissingField(field) => write!(f, "there is no column `{field}`"),
            CellError::NoValueColumn => f.write_str("there is no column `value`"),
            CellError::TooDeep => f.write_str(&depth::reason()),
            CellError::Message(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for CellError {}

impl serde::ser::Error for CellError {
    fn custom<T: Display>(message: T) -> Self {
        // `CodecError` knows how to take the value out of serde's messages.
        CellError::Message(CodecError::new(message.to_string()).to_string())
    }
}

impl serde::de::Error for CellError {
    fn custom<T: Display>(message: T) -> Self {
        <CellError as serde::ser::Error>::custom(message)
    }

    fn missing_field(field: &'static str) -> Self {
        CellError::MissingField(field)
    }
}

impl From<serde_json::Error> for CellError {
    fn from(error: serde_json::Error) -> Self {
        let message = CodecError::new(error.to_string());
        CellError::Message(format!("expected JSON of the right type: {message}"))
    }
}
