//! For those who come from version 0.1: what changed, call by call, and how files come along.
//!
//! # Files
//!
//! Version 0.1 kept keys and values as text without a note of what they are, so its files are not opened but imported: by one
//! call, which reads the old file, leaves it as it is, and gives every entry, or an error that names the rows that are none.
//!
//! | File of 0.1 | Call |
//! |---|---|
//! | SQLite | `persistent_map::sqlite::import_0_1` |
//! | CSV | `persistent_map::csv::import_0_1` |
//!
#![cfg_attr(
    all(feature = "sqlite", feature = "csv_backend"),
    doc = r#"
```
use persistent_map::{PersistentMap, Result, csv, sqlite, sqlite::SqliteBackend};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<()> {
# let dir = tempfile::tempdir().unwrap();
# std::env::set_current_dir(&dir).unwrap();
# std::fs::write("old.csv", "ann,1\nbob,2\n").unwrap();
# let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../persistent-map-sqlite/tests/golden/published_0_1_3_texts.db");
# std::fs::copy(golden, "old.db").unwrap();
let map = PersistentMap::<String, String, _>::new(SqliteBackend::new("new.db").await?).await?;
if map.is_empty() {
    map.insert_many(sqlite::import_0_1("old.db").await?).await?; // one commit: all or nothing
}
assert_eq!(map.get("text 100").as_deref(), Some("text 100"));

// Between kinds of stores too: a CSV table of 0.1 into a table of the same database.
let numbers = map.backend().table("numbers").await?;
let numbers = PersistentMap::<String, u64, _>::new(numbers).await?;
numbers.insert_many(csv::import_0_1("old.csv").await?).await?;
assert_eq!(numbers.get("bob"), Some(2));
# Ok(())
# }
```
"#
)]
//!
//! The types are those that the file was written for, and keys are parsed by [`FromStr`](std::str::FromStr), as 0.1 did it. A
//! program that opens a SQLite file of 0.1 as its own is told so; a CSV table of 0.1 has no header, so it is taken for one of
//! somebody else, and refused. (Unless its first row reads `key,value`: that is a header.)
//!
//! # Calls
//!
//! | 0.1 | Now | |
//! |---|---|---|
//! | `SqliteBackend::new("a.db").await?` | the same | refuses what is not its own, and a second owner; `path` may be any path |
//! | `CsvBackend::new("a.csv")` | the same | the file has a header; it is a whole table after `flush` and `close` |
//! | `InMemoryBackend::new()` | the same | |
//! | `PersistentMap::new(backend).await?` | the same | types that do not fit the file are an error; nothing is skipped |
//! | `map.insert(key, value).await?` | the same | is on the disk, then in memory; before, it was the other way round |
//! | `map.get(&key)`, `contains_key(&key)`, `remove(&key)` | the same | take borrowed keys too: `map.get("a")` |
//! | `map.len()`, `map.is_empty()`, `map.flush().await?` | the same | |
//! | `map.clear()` | **`map.clear().await?`** | **removes the entries from the store as well.** Without `await` it does nothing, and the compiler warns |
//! | `map.load().await?` | gone | memory and store do not differ. [`verify`](crate::PersistentMap::verify) compares them |
//! | `map.backend()` | the same | |
//! | `backend.db_path().await?` | gone | keep the path that you gave |
//! | one process, several maps of one file | [`clone`](crate::PersistentMap) the map | a clone is a handle to the same map |
//! | nothing | `map.close().await?` | writes what is left and says if that fails. At the end of `main` |
//!
//! # Types and features
//!
//! - Keys need no `Display` and no `FromStr` any more: any serde type will do.
//! - [`PersistentError`](crate::PersistentError) has other variants, by what the caller can do about it; `?` works as before.
//!   [`outcome`](crate::PersistentError::outcome) tells whether a failed call has changed anything.
//! - The features `runtime` and `sled_backend` are gone. `sqlite`, `in_memory` (both default) and `csv_backend` are as they were.
//! - [`StorageBackend`](crate::StorageBackend): `load_all`, `save` and `delete` are as they were. `flush` must be written
//!   (`Ok(())` will do), and a backend must be `'static`. `contains_key`, `len` and `is_empty` are gone: the map never asked.
//!   An error now [means](crate::StorageBackend#contract) "not applied".
