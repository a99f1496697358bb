//! Where stored rows are, and how to speak of one that is damaged.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// Where a store keeps its entries, for messages.
///
/// ```
/// use persistent_map_core::Location;
///
/// let table = Location { file: Some("app.db".into()), table: Some("users".into()) };
/// assert_eq!(table.to_string(), "table `users` of app.db");
/// assert_eq!(Location::of_file("app.csv").to_string(), "app.csv");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// The file, if it is one.
    pub file: Option<PathBuf>,
    /// The table in it, if it has tables.
    pub table: Option<String>,
}

impl Location {
    /// A store that is a file without tables.
    pub fn of_file(file: impl Into<PathBuf>) -> Self {
        Location {
            file: Some(file.into()),
            table: None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.table) {
            (Some(file), Some(table)) => write!(f, "table `{table}` of {}", file.display()),
            (Some(file), None) => write!(f, "{}", file.display()),
            (None, Some(table)) => write!(f, "table `{table}`"),
            (None, None) => f.write_str("the store"),
        }
    }
}

/// A stored row that cannot be read, with all that is needed to find it. It does not contain the value.
///
/// ```
/// use persistent_map_core::{CorruptRow, Location};
///
/// let location = Location { file: Some("app.db".into()), table: Some("users".into()) };
/// let row = CorruptRow::new(location, 12, b"ann", "the checksum is wrong");
/// assert_eq!(row.to_string(), "row 12 of table `users` of app.db, key \"ann\": the checksum is wrong");
/// assert!(!row.intact && row.intact().intact); // not damaged, but of another type
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorruptRow {
    /// The row is as it was written, but it is not of the types that the map was opened with.
    pub intact: bool,
    /// File and table.
    pub location: Location,
    /// The row's number in the order in which the store reads (1 is the first); in a text file, the line.
    pub row: u64,
    /// The key as text if it is printable, else in hexadecimal; cut after 64 bytes.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do about it, if the store knows better than to restore a backup.
    pub advice: Option<String>,
    /// `row` is the line of a text.
    is_line: bool,
}

impl CorruptRow {
    /// A report for row `row` of `location`, whose key has the bytes `key`.
    pub fn new(location: Location, row: u64, key: &[u8], reason: impl Into<String>) -> Self {
        CorruptRow {
            intact: false,
            location,
            row,
            key: printable(key),
            reason: reason.into(),
            advice: None,
            is_line: false,
        }
    }

    /// A report for the row that begins on line `line` of a text file, and whose key is the text `key`.
    ///
    /// ```
    /// use persistent_map_core::{CorruptRow, Location};
    ///
    /// let row = CorruptRow::of_line(Location::of_file("app.csv"), 4, "Köln", "it has two cells");
    /// assert_eq!(row.to_string(), "line 4 of app.csv, key \"Köln\": it has two cells");
    /// ```
    pub fn of_line(location: Location, line: u64, key: &str, reason: impl Into<String>) -> Self {
        CorruptRow {
            key: quoted(key),
            is_line: true,
            ..CorruptRow::new(location, line, &[], reason)
        }
    }
}

impl CorruptRow {
    /// The same report for a row that is as it was written, but does not decode.
    #[must_use]
    pub fn intact(mut self) -> Self {
        self.intact = true;
        self
    }

    /// The same report with the one thing to do about it, in place of what helps with rows of any store.
    ///
    /// ```
    /// use persistent_map_core::{CorruptRow, Location, PersistentError};
    ///
    /// let row = CorruptRow::of_line(Location::of_file("app.csv"), 4, "a", "it has two cells").with_advice("Add the third");
    /// let error = PersistentError::Corrupt(Box::new(row));
    /// assert!(error.to_string().ends_with("it has two cells. Add the third"));
    /// ```
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub(crate) fn advice(&self) -> &str {
        if let Some(advice) = &self.advice {
            advice
        } else if self.intact {
            "Open the map with the types that it was written for, or upgrade the values with `Builder::migrate`. A field that is \
             new may have `#[serde(default)]`, a renamed one `#[serde(alias = \"..\")]`. If the type was narrowed on purpose, \
             `.on_corrupt(OnCorrupt::Quarantine)` sets aside the rows that no longer fit, as long as others do"
        } else {
            "Restore the file from a backup (and move a `-wal` or `.journal` file away that is not from the same backup), or \
             open it with `.on_corrupt(OnCorrupt::Quarantine)` to set such rows aside"
        }
    }
}

impl fmt::Display for CorruptRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} of {}, key {}: {}",
            if self.is_line { "line" } else { "row" },
            self.row,
            self.location,
            self.key,
            self.reason
        )
    }
}

/// A key that is a text, without what a terminal would obey or nobody could see.
fn quoted(key: &str) -> String {
    const SHOWN: usize = 64;
    let end = key.floor_char_boundary(SHOWN);
    let more = if end < key.len() { "…" } else { "" };
    format!("{:?}{more}", &key[..end])
}

fn printable(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let shown = &key[..key.len().min(SHOWN)];
    let more = if key.len() > SHOWN { "…" } else { "" };
    // Codecs put a length or a tag before a text, so one leading byte may be anything.
    let text = match shown {
        [first, rest @ ..] if !first.is_ascii_graphic() || rest.len() == usize::from(*first) => {
            rest
        }
        all => all,
    };
    if !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
    {
        format!("{:?}{more}", String::from_utf8_lossy(text))
    } else {
        let mut hex = String::from("0x");
        for byte in shown {
            let _ = write!(hex, "{byte:02x}");
        }
        hex + more
    }
}

#[cfg(test)]
mod tests {
    use super::{printable, quoted};

    #[test]
    fn keys_are_shown_as_text_where_they_are_text() {
        assert_eq!(printable(b"\x03LHR"), "\"LHR\"");
        assert_eq!(printable(b"LHR"), "\"LHR\"");
        assert_eq!(printable(&[1, 0, 255]), "0x0100ff");
        assert_eq!(printable(&[]), "0x");
        assert!(printable(&[b'a'; 100]).ends_with("\"…"));
    }

    #[test]
    fn keys_that_are_texts_are_shown_whole() {
        assert_eq!(quoted("Köln"), "\"Köln\"");
        assert_eq!(quoted(" a"), "\" a\"");
        // The first letter is no length, although there are so many after it.
        let like_a_length = format!("0{}", "x".repeat(48));
        assert_eq!(quoted(&like_a_length), format!("\"{like_a_length}\""));
        assert_eq!(quoted("a\u{1b}\u{feff}"), "\"a\\u{1b}\\u{feff}\"");
        assert_eq!(quoted(&"ä".repeat(100)), format!("\"{}\"…", "ä".repeat(32)));
    }
}
