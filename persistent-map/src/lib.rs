//! An async, typed, persistent key-value map: a `HashMap` whose entries survive a restart.
//!
//! - **Reads** come from memory: plain function calls, no `await`, no I/O, no guard to hold.
//! - **Writes** are awaited, and on disk when they return. Many tasks share one commit.
//! - **One entry or many in one step**: [`update`](PersistentMap::update), [`transaction`](PersistentMap::transaction)
//!   and others, in memory and on disk.
//! - **The store is your choice**: a SQLite file, a CSV table that people edit, memory alone, or a
//!   [backend](StorageBackend) of your own.
//!
//! It is for data that fits into memory and must not be lost: settings, sessions, registries, caches that are dear to refill.
//! It is not a database: all entries are in memory, there are no queries, and one process owns a file.
//!
#![cfg_attr(
    feature = "sqlite",
    doc = r#"
```
use persistent_map::{PersistentMap, sqlite::SqliteBackend, Result};

#[tokio::main]
async fn main() -> Result<()> {
    # let dir = tempfile::tempdir().unwrap();
    # std::env::set_current_dir(&dir).unwrap();
    let map = PersistentMap::new(SqliteBackend::new("my_app_data.db").await?).await?;
    map.insert("greeting".to_string(), "Hello, Persistent World!".to_string()).await?;
    assert_eq!(map.get("greeting").as_deref(), Some("Hello, Persistent World!"));
    map.close().await
}
```
"#
)]
//! # Where to go next
//!
//! | Page | For |
//! |---|---|
//! | [`guide::tutorial`] | the first hour: from one insert to transactions, write-behind, a new version of a type, a backup |
//! | [`guide::cookbook`] | how to do one thing |
//! | [`guide::guarantees`] | what `Ok` survives, who sees what when, and what is not promised |
//! | [`guide::choosing`] | which backend, codec and write mode |
//! | [`from_0_1`] | those who come from 0.1: what has changed, and how its files open |
//! | [`PersistentMap`] | every call |
//! | [`PersistentError`] | what can go wrong, and what became of the change |
//! | [`StorageBackend`] | the contract for a backend of your own |
//!
//! # Features
//!
//! This crate is a doorway: it re-exports the map and the contract from `persistent-map-core`, and each backend from a
//! crate of its own, by feature.
//!
//! | Feature | Module | Crate |
//! |---|---|---|
//! | `sqlite` (default) | `sqlite` | `persistent-map-sqlite` |
//! | `in_memory` (default) | `in_memory` | `persistent-map-memory` |
//! | `csv_backend` | `csv` | `persistent-map-csv` |
//! | `message_pack`, `json` | codecs [`MessagePack`](codec), [`Json`](codec) | `persistent-map-core` |
//!
//! Examples on the pages of single items import from those crates: what is `persistent_map_core::PersistentMap` there is
//! `persistent_map::PersistentMap` here, and `persistent_map_sqlite::SqliteBackend` is `persistent_map::sqlite::SqliteBackend`.
#![cfg_attr(docsrs, feature(doc_cfg))]

// Its examples use everything, so they are tests only where everything is there.
#[cfg(any(
    not(doctest),
    all(
        feature = "sqlite",
        feature = "in_memory",
        feature = "csv_backend",
        feature = "message_pack",
        feature = "json"
    )
))]
pub mod guide;

pub use persistent_map_core::*;
// By name, so that the compiler says which feature is missing.
#[cfg(feature = "json")]
pub use persistent_map_core::Json;
#[cfg(feature = "message_pack")]
pub use persistent_map_core::MessagePack;

pub mod from_0_1;

/// No store: for tests and temporary data.
///
#[cfg(feature = "in_memory")]
#[doc(inline)]
pub use persistent_map_memory as in_memory;

/// Entries in a SQLite file: durable writes, several maps in one file.
///
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use persistent_map_sqlite as sqlite;

/// Entries in a CSV file: a table that people read and edit, with durable writes.
///
#[cfg(feature = "csv_backend")]
#[doc(inline)]
pub use persistent_map_csv as csv;

/// The examples of the README are compiled.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../README.md")]
struct Readme;
