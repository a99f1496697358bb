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
//! done in the text, not by quoting the cell: spreadsheets and other programs quote as they please and forget it. What
//! a table writes in another way than this is its [`Style`].

/// Methods of a serializer for what does not fit into the cells of a row.
macro_rules! nested {
    ($($method:ident($($argument:ty),*) -> $type:ident;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<Self::$type, CellError> {
            Err(CellError::Nested)
        }
    )*};
}

mod de;
mod number;
mod row;
mod ser;
mod style;

use std::fmt::{self, Display};

use persistent_map_core::codec::CodecError;
use persistent_map_core::codec::depth::{self, Decode, Encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};

pub(crate) use row::{decode_row, fields_of};
pub(crate) use style::{PLAIN, Style};

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

pub(crate) fn encode<T: Serialize + ?Sized>(
    item: &T,
    form: Form,
    style: &Style,
) -> Result<String, CellError> {
    let item = &Encode::new(item);
    let text = ser::plain(item, style).and_then(|cell| match (cell, form) {
        (ser::Cell::Missing, _) => Ok(style.nothing().to_string()),
        (ser::Cell::Text(text), Form::Plain) => Ok(text),
        (ser::Cell::Text(_), Form::Json) => ser::json(item),
    });
    text.map_err(|error| error.or_too_deep(item))
}

pub(crate) fn decode<T: DeserializeOwned>(text: &str, style: &Style) -> Result<T, CellError> {
    Decode::deserialize(de::Cell { text, style }).map(|Decode(item)| item)
}

/// Why a cell cannot be written or read. Its text names types, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CellError {
    /// Not a single text: to be written in another form. Never leaves this module.
    Nested,
    /// serde asked for a field that no column has.
    MissingField(&'static str),
    /// serde was given a field by two columns.
    TwoColumns(String),
    /// A value that is not a struct, in a table without a column `value`.
    NoValueColumn,
    /// More levels in each other than every thread has stack for.
    TooDeep,
    /// In this column, nothing but spaces where something was expected, which is as good as an empty cell.
    Blank(String, String),
    Message(String),
    /// A problem that has one cure.
    Advised {
        problem: String,
        advice: String,
    },
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

    pub(crate) fn advised(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        CellError::Advised {
            problem: problem.into(),
            advice: advice.into(),
        }
    }

    /// What to do about it, if that is known.
    pub(crate) fn advice(&self) -> Option<&str> {
        match self {
            CellError::Advised { advice, .. } => Some(advice),
            CellError::Blank(..) => Some("Fill the cell, or make the field an `Option`"),
            _ => None,
        }
    }

    fn expected(what: impl Display) -> Self {
        CellError::Message(format!("expected {what}"))
    }

    pub(crate) fn in_column(self, column: &str) -> Self {
        match self {
            CellError::Message(message) => {
                CellError::Message(format!("column `{column}`: {message}"))
            }
            CellError::Advised { problem, advice } => CellError::Advised {
                problem: format!("column `{column}`: {problem}"),
                advice,
            },
            CellError::Blank(_, expected) => CellError::Blank(column.to_string(), expected),
            other => other,
        }
    }
}

impl Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CellError::Nested => f.write_str("it is not a single text"),
            CellError::MissingField(field) => write!(f, "there is no column `{field}`"),
            CellError::TwoColumns(field) => write!(f, "there are two columns `{field}`"),
            CellError::NoValueColumn => f.write_str("there is no column `value`"),
            CellError::TooDeep => f.write_str(&depth::reason()),
            CellError::Blank(column, expected) => {
                write!(
                    f,
                    "column `{column}`: expected {expected}, and found spaces"
                )
            }
            CellError::Message(message) => f.write_str(message),
            CellError::Advised { problem, .. } => f.write_str(problem),
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

    fn duplicate_field(field: &'static str) -> Self {
        CellError::TwoColumns(field.to_string())
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        const SHOWN: usize = 12;
        let mut names: Vec<_> = expected
            .iter()
            .take(SHOWN)
            .map(|name| format!("`{name}`"))
            .collect();
        if expected.len() > SHOWN {
            names.push(format!("{} more", expected.len() - SHOWN));
        }
        let problem = format!("expected one of {}", names.join(", "));
        match expected.iter().find(|name| is_like(found, name)) {
            Some(name) => CellError::advised(
                problem,
                format!(
                    "Did you mean `{name}`? Correct the cell, or give \
                the variant this name by `#[serde(alias = \"..\")]`"
                ),
            ),
            None => CellError::advised(problem, "Correct the cell, or add the variant to the type"),
        }
    }
}

/// Whether somebody may have meant the one name by the other: no case, no signs between words, nothing that cannot be seen.
pub(crate) fn is_like(found: &str, name: &str) -> bool {
    let letters = |text: &str| -> String {
        let letters = text.chars().filter(|letter| letter.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let found = letters(found);
    !found.is_empty() && found == letters(name)
}

impl From<serde_json::Error> for CellError {
    fn from(error: serde_json::Error) -> Self {
        let message = CodecError::new(error.to_string());
        CellError::Message(format!("expected JSON of the right type: {message}"))
    }
}
