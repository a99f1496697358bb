//! The stores that are tortured. The ending of a file's name says which backend it belongs to.

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use persistent_map_core::{PersistentMap, StorageBackend, WriteMode};
use persistent_map_csv::CsvBackend;
use persistent_map_sqlite::{SqliteBackend, Synchronous};

use crate::failure::Failure;
use crate::planted::{Planted, Split};
use crate::record::Record;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

    /// What the store writes beside it.
    pub(crate) fn log_name(self) -> &'static str {
        match self {
            Backend::Sqlite => "app.db-wal",
            Backend::Csv => "app.csv.journal",
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

/// How a SQLite table can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    Bincode,
    Json,
    MessagePack,
}

impl CodecName {
    pub(crate) const ALL: [CodecName; 3] =
        [CodecName::Bincode, CodecName::Json, CodecName::MessagePack];

    /// What the command line and the protocol call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CodecName::Bincode => "bincode",
            CodecName::Json => "json",
            CodecName::MessagePack => "message-pack",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// What a worker writes in a part of its life, if its table is not larger.
pub(crate) const MERGE_SOON: u64 = 2 << 10;

/// What most people have.
pub(crate) const MERGE_LATER: u64 = 4 << 20;

pub(crate) type Map = PersistentMap<String, Record, Arc<dyn StorageBackend<String, Record>>>;

/// Opens a store as most people do: with the default settings, but for tables that are merged while they are tortured.
pub(crate) async fn open(path: &Path) -> Result<Map, Failure> {
    open_with(path, WriteMode::Through, None, MERGE_SOON).await
}

pub(crate) async fn open_with(
    path: &Path,
    mode: WriteMode,
    planted: Option<Planted>,
    merge_after: u64,
) -> Result<Map, Failure> {
    let is_csv = path.extension().is_some_and(|ending| ending == "csv");
    let syncs = planted != Some(Planted::Unsynced);
    let mut backend: Arc<dyn StorageBackend<String, Record>> = if is_csv {
        Arc::new(CsvBackend::new(path).sync(syncs).merge_after(merge_after))
    } else {
        let synchronous = if syncs {
            Synchronous::Full
        } else {
            Synchronous::Normal
        };
        let builder = SqliteBackend::builder(path).synchronous(synchronous);
        Arc::new(builder.open().await?)
    };
    if planted == Some(Planted::SplitCommit) {
        backend = Arc::new(Split(backend));
    }
    let builder = PersistentMap::builder(backend).write_mode(mode);
    Ok(builder.open().await?)
}
