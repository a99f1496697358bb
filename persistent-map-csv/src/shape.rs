//! The columns of a table, and how entries fit into them.
//!
//! A table has one shape, and its header says which:
//!
//! - **bare**, exactly two columns, the key's and `value`: each value is one cell;
//! - **fields**, anything else: each value is a struct with a column a field. (A value that is not a struct may live in a
//!   table with more columns, too, if one of them is `value`.)
//!
//! A new table takes the shape of the first value that is written: fields for a struct that reads back from its fields,
//! bare for everything else and for structs that would look bare (one field, called `value`). From then on the shape is
//! the table's. So the header alone decides how a file is read, and the type how a cell is.

use std::any::type_name;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use persistent_map_core::codec::depth;
use persistent_map_core::{Bincode, Codec as _, Key, PersistentError, Result, Value};

use crate::cell::{CellError, Form, PLAIN, Style, decode, decode_row, encode, fields_of, is_like};

/// The column of a bare value.
pub(crate) const VALUE: &str = "value";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) columns: Vec<String>,
    /// Which column is the key.
    pub(crate) key: usize,
}

impl Shape {
    fn bare(key_column: &str) -> Self {
        Shape {
            columns: vec![key_column.to_string(), VALUE.to_string()],
            key: 0,
        }
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.columns.len() == 2 && self.columns[1 - self.key] == VALUE
    }

    /// The value in a row of as many cells as there are columns.
    pub(crate) fn decode<V: Value>(&self, cells: &[&str], style: &Style) -> Result<V, CellError> {
        let mut texts = cells.to_vec();
        loop {
            match decode_row(&self.columns, &texts, self.is_bare(), style) {
                // Spaces alone are nothing to whoever expects a number there, and a text to others.
                Err(CellError::Blank(column, expected)) => {
                    let at = self.columns.iter().position(|name| *name == column);
                    match at.and_then(|at| texts.get_mut(at)) {
                        Some(text) if !text.is_empty() => *text = "",
                        _ => return Err(CellError::Blank(column, expected)),
                    }
                }
                done => return done,
            }
        }
    }

    /// The names of the columns that a value fills.
    fn filled_by<V: Value>(&self, value: &V) -> Vec<&'static str> {
        match fields_of(value, Form::Plain, &PLAIN) {
            Ok(Some(fields)) if !self.is_bare() => {
                fields.into_iter().map(|(name, _)| name).collect()
            }
            _ => vec![VALUE],
        }
    }

    /// A column that the value fills and that is not there.
    pub(crate) fn missing<V: Value>(&self, value: &V) -> Option<&'static str> {
        let is_column = |name: &str| self.columns.iter().any(|column| column == name);
        let filled = self.filled_by(value);
        filled.into_iter().find(|name| !is_column(name))
    }

    /// A column that the value fills and that is there twice.
    pub(crate) fn twice<V: Value>(&self, value: &V) -> Option<&'static str> {
        let count = |name: &str| self.columns.iter().filter(|column| *column == name).count();
        let filled = self.filled_by(value);
        filled.into_iter().find(|name| count(name) > 1)
    }

    /// Which columns a value leaves alone.
    pub(crate) fn extra<V: Value>(&self, value: &V) -> Vec<usize> {
        let filled = self.filled_by(value);
        let is_extra = |at: usize, column: &str| at != self.key && !filled.contains(&column);
        (0..)
            .zip(&self.columns)
            .filter(|(at, column)| is_extra(*at, column))
            .map(|(at, _)| at)
            .collect()
    }

    /// Where another shape has each of these columns. (Those that are there more than once are no
    /// fields.)
    pub(crate) fn places_in(&self, other: &Shape) -> Vec<Option<usize>> {
        let mut places: HashMap<&str, VecDeque<usize>> = HashMap::new();
        for (place, column) in (0..).zip(&other.columns) {
            places.entry(column).or_default().push_back(place);
        }
        let mut take = |column: &str| places.get_mut(column)?.pop_front();
        self.columns.iter().map(|column| take(column)).collect()
    }

    /// This shape for a table that has another one: what both have stays in its place, and so do the extra columns (in
    /// their order).
    fn in_place_of(self, old: &Shape, extra: &[usize]) -> Shape {
        let mut columns: Vec<String> = (0..)
            .zip(&old.columns)
            .filter(|(at, column)| extra.binary_search(at).is_ok() || self.columns.contains(column))
            .map(|(_, column)| column.clone())
            .collect();
        let new = self
            .columns
            .iter()
            .filter(|column| !columns.contains(column));
        let new: Vec<String> = new.cloned().collect();
        columns.extend(new);
        let key = &self.columns[self.key];
        Shape {
            key: columns.iter().position(|column| column == key).unwrap_or(0),
            columns,
        }
    }

    /// A cell for each column that the value fills, but the key's, after the check that they give the value back.
    pub(crate) fn encode<V: Value>(
        &self,
        key: &str,
        value: &V,
        style: &Style,
    ) -> Result<Cells, CellError> {
        let mut problem = None;
        for form in Form::BOTH {
            match self.encode_as(form, key, value, style) {
                Ok(cells) => return Ok(cells),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        Err(problem.unwrap_or(CellError::Nested))
    }

    fn encode_as<V: Value>(
        &self,
        form: Form,
        key: &str,
        value: &V,
        style: &Style,
    ) -> Result<Cells, CellError> {
        let fields = if self.is_bare() {
            None
        } else {
            fields_of(value, form, style)?
        };
        let mut cells = vec![None; self.columns.len()];
        if let Some(fields) = fields {
            for (name, text) in fields {
                let at = self.columns.iter().position(|column| column == name);
                cells[at.ok_or(CellError::MissingField(name))?] = Some(text);
            }
        } else {
            let at = self.columns.iter().position(|column| column == VALUE);
            cells[at.ok_or(CellError::NoValueColumn)?] = Some(encode(value, form, style)?);
        }
        match cells[self.key].replace(key.to_string()) {
            Some(text) if text != key => {
                return Err(CellError::Message(format!(
                    "the field `{}` is the key's column, and differs from the key",
                    self.columns[self.key]
                )));
            }
            _ => {}
        }
        let texts: Vec<&str> = cells
            .iter()
            .map(|cell| cell.as_deref().unwrap_or_default())
            .collect();
        let back: V = self.decode(&texts, style)?;
        if is_same(value, &back) {
            cells[self.key] = None;
            Ok(cells)
        } else {
            Err(CellError::Message(
                "the value that comes back is another one".to_string(),
            ))
        }
    }
}

/// One for each column of a shape; `None` leaves what the table has.
pub(crate) type Cells = Vec<Option<String>>;

/// The shape of a table while it is open.
pub(crate) struct SharedShape {
    key_column: String,
    known: RwLock<Known>,
}

#[derive(Clone, Default)]
struct Known {
    shape: Option<Arc<Shape>>,
    /// There are rows, or there will be: nothing may change any more.
    settled: bool,
    /// Columns that the values which were found do not fill.
    extra: Vec<usize>,
}

impl SharedShape {
    pub(crate) fn new(key_column: String) -> Self {
        SharedShape {
            key_column,
            known: RwLock::default(),
        }
    }

    /// What a table was found to have. Without rows its columns may still be added to.
    pub(crate) fn found(&self, shape: Option<Shape>, has_rows: bool, extra: Vec<usize>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known {
            settled: shape.is_some() && has_rows,
            shape: shape.map(Arc::new),
            extra,
        };
    }

    pub(crate) fn get(&self) -> Option<Arc<Shape>> {
        self.known().shape
    }

    /// The cells of an entry. The first one of a table decides on its shape.
    pub(crate) fn encode<V: Value>(&self, key: &str, value: &V, style: &Style) -> Result<Cells> {
        let known = self.known();
        if let (Some(shape), true) = (&known.shape, known.settled) {
            return shape
                .encode(key, value, style)
                .map_err(|error| unstorable::<V>(&error));
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let candidates = match (&known.shape, known.settled) {
            (Some(shape), true) => vec![(**shape).clone()],
            (Some(shape), false) => vec![widened(shape, value)],
            (None, _) => self.candidates(value),
        };
        let mut problem = None;
        for shape in candidates {
            match shape.encode(key, value, style) {
                Ok(cells) => {
                    known.shape = Some(Arc::new(shape));
                    known.settled = true;
                    return Ok(cells);
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(unstorable::<V>(&problem.unwrap_or(CellError::Nested)))
    }

    /// The shapes to try for a table whose entries are all replaced, by the first of the new ones.
    pub(crate) fn anew<V: Value>(&self, first: &V) -> Vec<Shape> {
        let known = self.known();
        let fresh = self.candidates(first).into_iter();
        match &known.shape {
            Some(old) => fresh
                .map(|shape| shape.in_place_of(old, &known.extra))
                .collect(),
            None => fresh.collect(),
        }
    }

    fn known(&self) -> Known {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn candidates<V: Value>(&self, value: &V) -> Vec<Shape> {
        let bare = Shape::bare(&self.key_column);
        let fields = match fields_of(value, Form::Plain, &PLAIN) {
            Ok(Some(fields)) if !fields.is_empty() => fields,
            _ => return vec![bare],
        };
        let mut columns: Vec<String> = Vec::new();
        for (name, _) in fields {
            // The names of a header are read without the spaces around them.
            if name.is_empty() || name.trim() != name || columns.iter().any(|column| column == name)
            {
                return vec![bare];
            }
            columns.push(name.to_string());
        }
        let key = columns.iter().position(|column| *column == self.key_column);
        if key.is_none() {
            columns.insert(0, self.key_column.clone());
        }
        let key = key.unwrap_or(0);
        let fields = Shape { columns, key };
        if fields.columns.len() == 1 || fields.is_bare() {
            return vec![bare];
        }
        vec![fields, bare]
    }
}

/// The names of columns, for a message.
pub(crate) fn listed(columns: &[String]) -> String {
    const SHOWN: usize = 20;
    const NAME: usize = 40;
    let name = |column: &String| {
        let end = column.floor_char_boundary(NAME);
        let more = if end < column.len() { "…" } else { "" };
        format!("`{}{more}`", legible(&column[..end]))
    };
    let shown: Vec<_> = columns.iter().take(SHOWN).map(name).collect();
    match columns.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What other people have written, without what a terminal would obey or nobody could see.
pub(crate) fn legible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || is_invisible(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

fn is_invisible(letter: char) -> bool {
    letter != ' '
        && (letter.is_whitespace()
            || matches!(letter, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
                | '\u{e0000}'..='\u{e0fff}'))
}

/// The column that was probably meant by a name, for advice.
pub(crate) fn meant_by<'a>(name: &str, columns: &'a [String]) -> Option<&'a str> {
    let mut alike = columns.iter().filter(|column| is_like(column, name));
    alike.next().map(String::as_str)
}

/// A header without rows, and the columns that it lacks for a value.
fn widened<V: Value>(shape: &Shape, value: &V) -> Shape {
    let mut shape = shape.clone();
    if !shape.is_bare()
        && let Ok(Some(fields)) = fields_of(value, Form::Plain, &PLAIN)
    {
        for (name, _) in fields {
            if !shape.columns.iter().any(|column| column == name) {
                shape.columns.push(name.to_string());
            }
        }
    }
    shape
}

/// The text of a key, after the check that it gives the key back.
pub(crate) fn encode_key<K: Key>(key: &K, style: &Style) -> Result<String> {
    let mut problem = None;
    for form in Form::BOTH {
        match encode_key_as(form, key, style) {
            Ok(text) => return Ok(text),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    let problem = problem.unwrap_or(CellError::Nested);
    Err(PersistentError::Unstorable {
        part: "key",
        type_name: type_name::<K>(),
        codec: "csv",
        advice: match problem {
            CellError::TooDeep => depth::ADVICE,
            _ => {
                "Equal keys must be written alike and read back: use types with a fixed order (`BTreeSet`, `BTreeMap`) \
                 instead of `HashSet` or `HashMap` in keys, and no `#[serde(skip)]` on what `Eq` compares"
            }
        },
        cause: problem.to_codec_error(),
    })
}

pub(crate) fn decode_key<K: Key>(text: &str, style: &Style) -> Result<K, CellError> {
    decode(text, style)
}

fn encode_key_as<K: Key>(form: Form, key: &K, style: &Style) -> Result<String, CellError> {
    let text = encode(key, form, style)?;
    let back: K = decode(&text, style)?;
    if back != *key {
        return Err(CellError::Message(
            "the key that comes back is another one".to_string(),
        ));
    }
    if encode(&back, form, style)? != text {
        return Err(CellError::Message(
            "the same key gives another text each time".to_string(),
        ));
    }
    Ok(text)
}

pub(crate) fn unstorable<V>(problem: &CellError) -> PersistentError {
    PersistentError::Unstorable {
        part: "value",
        type_name: type_name::<V>(),
        codec: "csv",
        advice: match problem {
            CellError::TooDeep => depth::ADVICE,
            _ => {
                "Likely reasons: a field that `#[serde(skip_serializing_if)]` leaves out and that does not read back from \
                 an empty cell, an `Option` in an `Option`, a number that is not finite inside a list, or a struct whose \
                 fields are not the columns of this table"
            }
        },
        cause: problem.to_codec_error(),
    }
}

/// Values need not be comparable, so their bytes in another format are compared, which tells apart what texts do not
/// (`None` and `Some(None)`, `5` and `"5"`). How often each byte is there is enough: maps and sets have no order, and what
/// is looked for is a type that loses something, not damage.
fn is_same<V: Value>(value: &V, back: &V) -> bool {
    match (byte_counts(value), byte_counts(back)) {
        (Some(value), Some(back)) => value == back,
        // Some types have no form in that format (`flatten`); they did read back.
        _ => true,
    }
}

fn byte_counts<V: Value>(value: &V) -> Option<[u32; 256]> {
    let mut counts = [0; 256];
    for byte in Bincode.encode(value).ok()? {
        counts[usize::from(byte)] += 1;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_without_a_name_are_told_apart_by_their_order() {
        let shape = |columns: &[&str]| Shape {
            columns: columns.iter().map(ToString::to_string).collect(),
            key: 0,
        };
        let old = shape(&["key", "", "a", "", "b"]);
        let new = shape(&["", "b", "c", "key", "", "", "a"]);
        assert_eq!(
            new.places_in(&old),
            [Some(1), Some(4), None, Some(0), Some(3), None, Some(2)]
        );
    }
}
