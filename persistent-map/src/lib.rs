//! An async, typed, persistent key-value map: a `HashMap` whose entries survive a restart.
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
#![cfg_attr(
    feature = "sqlite",
    doc = r#"
```standalone_crate
use persistent_map::{PersistentMap, sqlite::SqliteBackend, Result};

#[tokio::main]
async fn main() -> Result<()> {
    # let dir = tempfile::tempdir().unwrap();
    # std::env::set_current_dir(&dir).unwrap();
    let map = PersistentMap::new(SqliteBackend::new("my_app_data.db").await?).await?;
    map.insert("greeting".to_string(), "Hello, Persistent World!".to_string()).await?;
    assert_eq!(map.get("greeting").as_deref(), Some("Hello, Persistent World!"));
    Ok(())
}
```
"#
)]

pub use persistent_map_core::*;

pub mod from_0_1;

#[cfg(feature = "in_memory")]
pub mod in_memory {
    //! No store: for tests and temporary data.
    pub use persistent_map_memory::*;
}

#[cfg(feature = "sqlite")]
pub mod sqlite {
    //! Entries in a SQLite file: durable writes, several maps in one file.
    pub use persistent_map_sqlite::*;
}

#[cfg(feature = "csv_backend")]
pub mod csv {
    //! Entries in a CSV file: a table that people read and edit, with durable writes.
    //!
    //! ```
    //! use persistent_map::{PersistentMap, csv::CsvBackend, Result};
    //!
    //! #[tokio::main]
    //! async fn main() -> Result<()> {
    //!     # let dir = tempfile::tempdir().unwrap();
    //!     # std::env::set_current_dir(&dir).unwrap();
    //!     let backend = CsvBackend::new("my_data.csv");
    //!     let map = PersistentMap::new(backend).await?;
    //!     map.insert("greeting".to_string(), "Hello!".to_string()).await?;
    //!     map.close().await?;
    //!     assert_eq!(std::fs::read_to_string("my_data.csv").unwrap(), "key,value\ngreeting,Hello!\n");
    //!     Ok(())
    //! }
    //! ```
    pub use persistent_map_csv::*;
}

/// The examples of the README are compiled.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../README.md")]
struct Readme;
