#![doc = include_str!("../README.md")]
//!
//! # What `Ok` is worth
//!
//! | Setting | An acknowledged write survives |
//! |---|---|
//! | [`Synchronous::Full`] (default) | `kill -9` at any instant, and a power cut on a disk that honours flush |
//! | [`Synchronous::Normal`] | `kill -9` at any instant; a power cut may take the latest writes, never the order |
//! | `:memory:` | nothing |
//!
//! # The file
//!
//! One SQLite database in WAL mode, with a table for each map: `key` and `value` as the codec wrote them, and a CRC-32 of
//! both. Beside it: `NAME-wal` while it is open (part of the database: never copy one without the other), and
//! `NAME.lock`, which says who has it open. The lock file stays, also beside a file that was refused.
//!
//! Rows that were set aside (`OnCorrupt::Quarantine`) are in the table `persistent_map_quarantine`, with the name of their
//! map. If they were good after all, bring them back while no map is open, with any SQLite tool:
//! `INSERT INTO entries SELECT key, value, checksum FROM persistent_map_quarantine WHERE map = 'entries'`.
//!
//! What a table was written with (codec and types) is recorded, and compared when a map is opened. Other types take its
//! place with one commit, the record with the rows; another codec does so with
//! [`change_codec`](SqliteBackend::change_codec).
//!
//! A database that version 0.1 has written is not opened but [imported](import_0_1).
//!
//! Keys may have 64 KiB, key and value together a little less than 1,000,000,000 bytes.
//!
//! Keep the file on a local disk. Neither SQLite's locks nor ours are to be trusted on network file systems.

mod backend;
mod connection;
mod database;
mod failure;
mod file;
mod import;
mod length;
mod log;
mod names;
mod read;
mod schema;
mod settings;
mod transaction;
mod version;
mod write;

use persistent_map_core::{Bincode, PersistentMap};

pub use backend::{SqliteBackend, SqliteBuilder};
pub use import::import_0_1;
pub use settings::Synchronous;

/// A map in a SQLite file: the type for fields and parameters.
///
/// ```
/// use persistent_map_core::Result;
/// use persistent_map_sqlite::{SqliteBackend, SqliteMap};
///
/// #[derive(Clone)]
/// struct App {
///     visits: SqliteMap<String, u64>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let app = App { visits: SqliteMap::new(SqliteBackend::new(path).await?).await? };
/// app.visits.insert("start".to_string(), 1).await?;
/// # app.visits.close().await
/// # }
/// ```
pub type SqliteMap<K, V, C = Bincode> = PersistentMap<K, V, SqliteBackend<C>>;
