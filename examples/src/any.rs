//! A backend that is chosen while the program runs.

use std::path::Path;
use std::sync::Arc;

use persistent_map::csv::CsvBackend;
use persistent_map::in_memory::InMemoryBackend;
use persistent_map::sqlite::SqliteBackend;
use persistent_map::{DynBackend, Key, Value};

use crate::Result;

/// The backends there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SQLite file.
    Sqlite,
    /// A CSV file.
    Csv,
    /// None.
    Memory,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Sqlite, Kind::Csv, Kind::Memory];

    /// By its name on a command line.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| format!("{kind:?}").eq_ignore_ascii_case(name))
    }

    /// By the ending of a file's name.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?;
        Self::ALL.into_iter().find(|kind| kind.ending() == ending)
    }

    /// How its files end.
    pub fn ending(self) -> &'static str {
        match self {
            Kind::Sqlite => "db",
            Kind::Csv => "csv",
            Kind::Memory => "memory",
        }
    }
}

/// A backend of this kind on the file `path`. Airports have their key in the column `iata`; other tables in `key`.
///
/// # Errors
/// The file cannot be used.
pub async fn backend<K: Key, V: Value>(kind: Kind, path: &Path) -> Result<DynBackend<K, V>> {
    Ok(match kind {
        Kind::Sqlite => Arc::new(SqliteBackend::new(path).await?),
        Kind::Csv => {
            let is_airports = path.to_string_lossy().contains("airports");
            let column = if is_airports { "iata" } else { "key" };
            Arc::new(CsvBackend::new(path).key_column(column))
        }
        Kind::Memory => Arc::new(InMemoryBackend::new()),
    })
}
