//! Entries of files that persistent-map 0.1 has written.

use std::any::type_name;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use persistent_map_core::{CorruptRow, Key, Location, PersistentError, Result};

use crate::path::refused;

/// How many bad rows an error names. The rest is counted.
const NAMED: usize = 10;

/// Collects entries whose keys are text, and the rows that are none. From all rows to all entries, or to an error that
/// names the bad rows.
///
/// ```
/// use std::path::Path;
///
/// use persistent_map_file::Import;
///
/// let mut import = Import::<u32, String>::new("line", true);
/// for (number, line) in (1..).zip(["1;one", "2", "three;3"]) {
///     match line.split_once(';') {
///         Some((key, value)) => import.row(number, key, Ok::<_, String>(value.to_string())),
///         None => import.bad_row(number, line, "the separator is missing"),
///     }
/// }
/// let error = import.finish(Path::new("old.txt")).unwrap_err().to_string();
/// assert!(error.contains("line 2, key \"2\": the separator is missing; line 3"), "{error}");
/// ```
pub struct Import<K, V> {
    entries: HashMap<K, V>,
    /// What a row is called: `row` or `line`.
    unit: &'static str,
    later_rows_win: bool,
    bad: Vec<String>,
}

impl<K: Key + FromStr, V> Import<K, V> {
    /// Nothing yet. `unit` is what a row is called. If `later_rows_win`, a row takes the place of an earlier one with its
    /// key; otherwise it is a bad row.
    pub fn new(unit: &'static str, later_rows_win: bool) -> Self {
        Import {
            entries: HashMap::new(),
            unit,
            later_rows_win,
            bad: Vec::new(),
        }
    }

    /// Takes a row, whose value is there or cannot be read for a reason.
    pub fn row(&mut self, number: u64, key: &str, value: Result<V, impl ToString>) {
        let value = match value {
            Ok(value) => value,
            Err(reason) => return self.bad_row(number, key, &reason.to_string()),
        };
        let Ok(typed) = key.parse::<K>() else {
            let reason = format!("the key is no `{}`", type_name::<K>());
            return self.bad_row(number, key, &reason);
        };
        match self.entries.entry(typed) {
            Entry::Vacant(entry) => drop(entry.insert(value)),
            Entry::Occupied(mut entry) if self.later_rows_win => drop(entry.insert(value)),
            Entry::Occupied(_) => self.bad_row(number, key, "an earlier row has an equal key"),
        }
    }

    /// Takes a row that cannot be read.
    pub fn bad_row(&mut self, number: u64, key: &str, reason: &str) {
        let key = CorruptRow::new(Location::default(), number, key.as_bytes(), reason).key;
        let unit = self.unit;
        self.bad
            .push(format!("{unit} {number}, key {key}: {reason}"));
    }

    /// All entries of the file at `path`.
    ///
    /// # Errors
    /// [`Refused`](PersistentError::Refused): there are bad rows. The first ten are named.
    pub fn finish(mut self, path: &Path) -> Result<HashMap<K, V>, PersistentError> {
        let count = self.bad.len();
        if count == 0 {
            return Ok(self.entries);
        }
        if count > NAMED {
            self.bad.truncate(NAMED);
            self.bad.push(format!("and {} more", count - NAMED));
        }
        let reason = self.bad.join("; ");
        Err(refused(
            path,
            format!("{count} of its {}s cannot be read: {reason}", self.unit),
            "Import it as the types that it was written for, or correct these rows in a copy. The file was not changed",
            None,
        ))
    }
}

/// Numbers only: keys and values may be secret.
impl<K, V> fmt::Debug for Import<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("entries", &self.entries.len())
            .field("bad", &self.bad.len())
            .finish_non_exhaustive()
    }
}
