//! The stores that are tortured. The ending of a file's name says which backend it belongs to.

use std::path::Path;
use std::sync::Arc;

use persistent_map_core::{PersistentMap, StorageBackend};
use persistent_map_csv::CsvBackend;
use persistent_map_sqlite::SqliteBackend;

use crate::failure::Failure;
use crate::record::Record;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    Sqlite,
    Csv,
}

impl Backend {
    /// What a store of this kind is called.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Backend::Sqlite => "app.db",
            Backend::Csv => "app.csv",
        }
    }

    /// What the command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Sqlite => "sqlite",
            Backend::Csv => "csv",
        }
    }
}

pub(crate) type Map = PersistentMap<String, Record, Arc<dyn StorageBackend<String, Record>>>;

/// Opens a store as most people do: with the default settings.
pub(crate) async fn open(path: &Path) -> Result<Map, Failure> {
    let is_csv = path.extension().is_some_and(|ending| ending == "csv");
    let backend: Arc<dyn StorageBackend<String, Record>> = if is_csv {
        Arc::new(CsvBackend::new(path))
    } else {
        Arc::new(SqliteBackend::new(path).await?)
    };
    Ok(PersistentMap::new(backend).await?)
}
