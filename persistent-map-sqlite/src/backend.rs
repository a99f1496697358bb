//! What users hold: one named map's part of a database.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use persistent_map_core::{
    Bincode, ByteStore, ByteWrite, Capabilities, Codec, Format, Key, Location, PersistentError,
    Result, RowSink, StorageBackend, Value, collect,
};

use crate::database::Database;
use crate::schema::Table;
use crate::settings::{Settings, Synchronous};
use crate::{read, schema, write};

/// The table of a backend that was not given a name.
const DEFAULT_TABLE: &str = "entries";

/// Rows are read many at a time, each with its key, so keys are kept to a size at which that is no burden.
const MAX_KEY_BYTES: usize = 64 << 10;

/// SQLite refuses rows above 1,000,000,000 bytes (`SQLITE_MAX_LENGTH`); the rest is for the row's own header.
const MAX_ENTRY_BYTES: usize = 1_000_000_000 - 1_000;

/// Entries in a SQLite file.
///
/// Opening it takes the file: a second backend for it, here or in another process, is refused. One file can hold
/// several maps: see [`table`](Self::table).
///
/// ```
/// use persistent_map_core::PersistentMap;
/// use persistent_map_sqlite::SqliteBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let map = PersistentMap::new(SqliteBackend::new(&path).await?).await?;
/// map.insert("visits".to_string(), 1u64).await?; // on disk when this returns
/// map.close().await?;
///
/// let map = PersistentMap::<String, u64, _>::new(SqliteBackend::new(&path).await?).await?;
/// assert_eq!(map.get("visits"), Some(1));
/// # map.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct SqliteBackend<C = Bincode> {
    /// Gone after `close`.
    hold: Mutex<Option<Hold>>,
    table: Table,
    codec: C,
    location: Location,
    capabilities: Capabilities,
}

impl SqliteBackend {
    /// Opens the database at `path`, or makes a new one if there is no such file.
    ///
    /// A relative path is taken from the current directory, now. The directory must exist and be writable. `:memory:` is
    /// what it is everywhere in SQLite: a database of its own, gone with the backend.
    ///
    /// # Errors
    /// - [`InUse`](PersistentError::InUse): another backend has it; the error says who. Waits up to half a second for
    ///   it to be released.
    /// - [`Refused`](PersistentError::Refused): not a file of ours (another program's database, a text file, an empty
    ///   file, a directory), from a newer version, or not accessible; or the path or the name is too long for SQLite or the
    ///   file system. The file is not changed.
    /// - [`Storage`](PersistentError::Storage): SQLite could not open it.
    /// - [`NoRuntime`](PersistentError::NoRuntime): not inside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future releases the file. A new file may have been made; it is empty and valid.
    pub async fn new(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(path).open().await
    }

    /// Options for opening a database. For an example see [`SqliteBuilder`].
    pub fn builder(path: impl Into<PathBuf>) -> SqliteBuilder {
        SqliteBuilder {
            settings: Settings::new(path.into()),
            table: DEFAULT_TABLE.to_string(),
            codec: Bincode,
        }
    }
}

impl<C: Codec + Clone> SqliteBackend<C> {
    /// Another named map in the same file, on the same connection, with the same codec.
    ///
    /// Names are 1 to 64 ASCII letters, digits, `_` and `-`; upper and lower case are the same. The table is made when a
    /// map is first opened on it. Each map is closed for itself; the file
    /// is released when all backends of it are closed or dropped, this one too. While a map is opened or verified, writes of
    /// the others go on: they wait for at most 1,000 of its rows, or one value above 16 KiB, and at its beginning while its
    /// structure is checked and its rows are counted (see [`quick_check`](SqliteBuilder::quick_check)).
    ///
    /// To make a table takes longer with each that there is: SQLite looks through the list of them.
    ///
    /// ```
    /// use persistent_map_core::PersistentMap;
    /// use persistent_map_sqlite::SqliteBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistent_map_core::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("app.db");
    /// let db = SqliteBackend::new(path).await?;
    /// let users = PersistentMap::<u64, String, _>::new(db.table("users").await?).await?;
    /// let sessions = PersistentMap::<String, u64, _>::new(db.table("sessions").await?).await?;
    /// users.insert(1, "Ada".to_string()).await?;
    /// sessions.insert("token".to_string(), 1).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`Refused`](PersistentError::Refused): not a valid name.
    /// - [`Closed`](PersistentError::Closed): this backend is closed.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn table(&self, name: &str) -> Result<Self> {
        self.table_with_codec(name, self.codec.clone()).await
    }
}

/// A share in the open database.
struct Hold {
    database: Arc<Database>,
    /// The table is taken, by this backend and no other.
    claimed: bool,
}

impl<C> SqliteBackend<C> {
    fn hold(&self) -> MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> Result<Arc<Database>> {
        match &*self.hold() {
            Some(hold) => Ok(Arc::clone(&hold.database)),
            None => Err(PersistentError::Closed),
        }
    }

    /// Takes the table for one map. A backend that is shared between two maps is refused by it as well.
    async fn claim(&self) -> Result<Arc<Database>> {
        let database = self.database()?;
        database.claim(self.table.name()).await?;
        if let Some(hold) = &mut *self.hold() {
            hold.claimed = true;
            return Ok(database);
        }
        // Closed meanwhile.
        database.release(self.table.name());
        Err(PersistentError::Closed)
    }

    fn unclaim(&self) {
        if let Some(hold) = &mut *self.hold()
            && std::mem::take(&mut hold.claimed)
        {
            hold.database.release(self.table.name());
        }
    }

    /// Gives everything back but the file, which goes with its last user.
    fn let_go(&self) -> Option<Arc<Database>> {
        self.unclaim();
        self.hold().take().map(|hold| hold.database)
    }
}

/// Gives the claim back when a load has failed, or was dropped half way.
struct Unclaim<'a, C>(Option<&'a SqliteBackend<C>>);

impl<C> Drop for Unclaim<'_, C> {
    fn drop(&mut self) {
        if let Some(backend) = self.0 {
            backend.unclaim();
        }
    }
}

impl<C: Codec> SqliteBackend<C> {
    /// Another named map in the same file, with a codec of its own.
    ///
    /// # Errors
    /// As for [`table`](Self::table).
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// ```
    /// # use persistent_map_core::{Json, PersistentMap, Result};
    /// # use persistent_map_sqlite::SqliteBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let db = SqliteBackend::new(":memory:").await?; // `Bincode`
    /// let settings = db.table_with_codec("settings", Json).await?; // to be looked at with other tools
    /// let settings = PersistentMap::new(settings).await?;
    /// settings.insert("language".to_string(), "en".to_string()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[allow(
        clippy::unused_async,
        reason = "ordered as an async call, which leaves room for checks in the file"
    )]
    pub async fn table_with_codec<D: Codec>(
        &self,
        name: &str,
        codec: D,
    ) -> Result<SqliteBackend<D>> {
        SqliteBackend::on(self.database()?, name, codec)
    }

    /// Writes the map's table anew with another codec, with one commit: after a crash it is written with the old one or
    /// with the new one. Other maps of the file are not touched.
    ///
    /// `K` and `V` are the types that the table was written for. If it is written with `codec` already, or was not made
    /// yet, there is nothing to do: so a program may call this at each start. The backend that is returned is ready for a
    /// map.
    ///
    /// Costs as much as opening the map and writing all its entries again, and holds them in memory three times meanwhile.
    /// The log (`NAME-wal`) grows by the size of the table until it is merged.
    ///
    /// ```
    /// use persistent_map_core::{Json, PersistentMap};
    /// use persistent_map_sqlite::SqliteBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistent_map_core::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("app.db");
    /// let map = PersistentMap::new(SqliteBackend::new(&path).await?).await?;
    /// map.insert("visits".to_string(), 1u64).await?;
    /// map.close().await?;
    ///
    /// let backend = SqliteBackend::new(&path).await?;
    /// let backend = backend.change_codec::<String, u64, _>(Json).await?;
    /// let map = PersistentMap::<String, u64, _>::new(backend).await?;
    /// assert_eq!(map.get("visits"), Some(1));
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Nothing was changed, unless the error is marked unknown. This share in the file is given back; open it again.
    ///
    /// - [`InUse`](PersistentError::InUse): a map is open on the table.
    /// - [`Mismatch`](PersistentError::Mismatch): the table was written with neither this backend's codec nor `codec`, or
    ///   for other types.
    /// - [`Corrupt`](PersistentError::Corrupt), [`Damaged`](PersistentError::Damaged): a row, or the table, cannot be read.
    /// - [`Unstorable`](PersistentError::Unstorable), [`TooLarge`](PersistentError::TooLarge): `codec` has no form for an
    ///   entry, or one that is larger than a row may be.
    /// - [`Closed`](PersistentError::Closed): this backend is closed.
    /// - [`Storage`](PersistentError::Storage): SQLite could not read or write.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the table as it was, or completely changed.
    pub async fn change_codec<K: Key, V: Value, D: Codec>(
        self,
        codec: D,
    ) -> Result<SqliteBackend<D>> {
        let written_with = self.written_with().await?;
        if written_with.is_none_or(|id| id == codec.id()) {
            return self.with_codec(codec);
        }
        let entries = collect::<K, V, _>(&self).await?;
        let changed = self.with_codec(codec)?;
        StorageBackend::<K, V>::replace(&changed, entries.into_iter().collect()).await?;
        changed.unclaim();
        Ok(changed)
    }

    /// The codec of the table, if there is one.
    async fn written_with(&self) -> Result<Option<String>> {
        let database = self.claim().await?;
        let _claim = Unclaim(Some(self));
        let mut connection = database.connection().await?;
        let format = schema::recorded_format(&mut connection, &self.table, &self.location).await?;
        Ok(format.map(|format| format.codec))
    }

    /// The same share in the file, with the claim on the table if there is one.
    fn with_codec<D: Codec>(self, codec: D) -> Result<SqliteBackend<D>> {
        let other = SqliteBackend::on(self.database()?, self.table.name(), codec)?;
        *other.hold() = self.hold().take();
        Ok(other)
    }

    fn on(database: Arc<Database>, name: &str, codec: C) -> Result<Self> {
        Ok(SqliteBackend {
            table: Table::new(name, &database.path)?,
            location: Location {
                file: Some(database.path.clone()),
                table: Some(name.to_string()),
            },
            capabilities: Capabilities::one_at_a_time()
                .with_atomic_batches()
                .surviving(database.survives),
            hold: Mutex::new(Some(Hold {
                database,
                claimed: false,
            })),
            codec,
        })
    }
}

#[async_trait]
impl<C: Codec> ByteStore for SqliteBackend<C> {
    type Codec = C;

    fn codec(&self) -> &C {
        &self.codec
    }

    fn location(&self) -> Location {
        self.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn check(&self, key_bytes: usize, value_bytes: usize) -> Result<()> {
        if key_bytes > MAX_KEY_BYTES {
            return Err(PersistentError::too_large("key", key_bytes, MAX_KEY_BYTES));
        }
        let bytes = key_bytes.saturating_add(value_bytes);
        if bytes <= MAX_ENTRY_BYTES {
            return Ok(());
        }
        Err(PersistentError::too_large("entry", bytes, MAX_ENTRY_BYTES))
    }

    async fn load(&self, format: &Format, rows: &mut dyn RowSink) -> Result<()> {
        let database = self.claim().await?;
        let mut claim = Unclaim(Some(self));
        let loaded = async {
            let mut connection = database.connection().await?;
            let record = schema::agree_on_format(
                &mut connection,
                &self.table,
                format,
                &self.location,
                database.accept_other_types,
            )
            .await?;
            connection.make_durable(&database.path).await?;
            drop(connection);
            read::load(&database, &self.table, &self.location, record, rows).await?;
            let mut connection = database.connection().await?;
            database.check(&mut connection, || format!("reading {}", self.location))
        }
        .await;
        if loaded.is_ok() {
            claim.0 = None;
        }
        loaded
    }

    async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()> {
        let database = self.database()?;
        let mut connection = database.connection().await?;
        let doing = || format!("writing to {}", self.location);
        database.check(&mut connection, doing)?;
        write::batch(&mut connection, &self.table, batch, &self.location).await?;
        database.check(&mut connection, doing)
    }

    async fn clear(&self) -> Result<()> {
        let database = self.database()?;
        let mut connection = database.connection().await?;
        let doing = || format!("clearing {}", self.location);
        database.check(&mut connection, doing)?;
        write::clear(&mut connection, &self.table, &self.location).await?;
        database.check(&mut connection, doing)
    }

    async fn read_back(&self, rows: &mut dyn RowSink) -> Result<()> {
        let database = self.database()?;
        read::back(&database, &self.table, &self.location, rows).await?;
        let mut connection = database.connection().await?;
        database.check(&mut connection, || format!("reading {}", self.location))
    }

    async fn replace(&self, format: &Format, rows: &[ByteWrite<'_>]) -> Result<()> {
        let database = self.database()?;
        let mut connection = database.connection().await?;
        let doing = || format!("replacing the entries of {}", self.location);
        database.check(&mut connection, doing)?;
        write::replace(&mut connection, &self.table, format, rows, &self.location).await?;
        database.check(&mut connection, doing)
    }

    async fn flush(&self) -> Result<()> {
        self.database()?.flush().await
    }

    async fn close(&self) -> Result<()> {
        match self.let_go() {
            Some(database) => Database::close(database).await,
            None => Ok(()),
        }
    }
}

impl<C> Drop for SqliteBackend<C> {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl<C> fmt::Debug for SqliteBackend<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBackend")
            .field("location", &self.location)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

/// Options for opening a database. From [`SqliteBackend::builder`].
///
/// ```
/// use persistent_map_sqlite::{SqliteBackend, Synchronous};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let backend = SqliteBackend::builder(dir.path().join("app.db"))
///     .table("sessions")
///     .synchronous(Synchronous::Normal) // faster; a power cut may take the latest writes
///     .page_cache(64 << 20)
///     .shared_reads(true) // `sqlite3 app.db` may look at it meanwhile
///     .quick_check(true)
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// To be set once, after what they are for has happened:
///
/// ```
/// # use persistent_map_sqlite::SqliteBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let backend = SqliteBackend::builder(path)
///     .accept_missing_wal(true) // another tool has merged the `-wal` file
///     .accept_other_types(true) // a field was renamed
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `open` is awaited"]
#[derive(Debug, Clone)]
pub struct SqliteBuilder<C = Bincode> {
    settings: Settings,
    table: String,
    codec: C,
}

impl<C: Codec> SqliteBuilder<C> {
    /// The name of the map in the file; `entries` unless set. See [`SqliteBackend::table`] for what is a name.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// How keys and values are written; [`Bincode`] unless set. It is kept with the data: a file that was written with
    /// another codec is refused.
    ///
    /// ```
    /// # use persistent_map_core::{Json, PersistentMap, Result};
    /// # use persistent_map_sqlite::SqliteBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let backend = SqliteBackend::builder(":memory:").codec(Json).open().await?;
    /// let map = PersistentMap::new(backend).await?;
    /// map.insert("a".to_string(), vec![1, 2]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn codec<D: Codec>(self, codec: D) -> SqliteBuilder<D> {
        SqliteBuilder {
            settings: self.settings,
            table: self.table,
            codec,
        }
    }

    /// What a power cut may take; [`Synchronous::Full`] unless set.
    pub fn synchronous(mut self, level: Synchronous) -> Self {
        self.settings.synchronous = level;
        self
    }

    /// Lets other processes read the file with SQLite while it is open here. Off unless set.
    ///
    /// They must only read. Commits are slower, because the file is locked and unlocked for each. Opening is
    /// [refused](PersistentError::Refused) if the program was built with SQLite before 3.51.3, because another crate holds it
    /// back: that version can lose committed transactions of a file that two connections have open.
    pub fn shared_reads(mut self, shared: bool) -> Self {
        self.settings.shared_reads = shared;
        self
    }

    /// Memory for SQLite's own cache of pages, in bytes; 8 MiB unless set. It speeds up writes to a large file (reads
    /// never go to SQLite).
    pub fn page_cache(mut self, bytes: u64) -> Self {
        self.settings.page_cache_bytes = bytes;
        self
    }

    /// Whether to check the structure of a map's table when it is opened (`PRAGMA quick_check`). On unless set: about a
    /// sixth of a second for a million entries, in which the other maps of the file wait. The checksum of each row is
    /// compared either way; this finds rows that are missing or out of place.
    pub fn quick_check(mut self, check: bool) -> Self {
        self.settings.quick_check = check;
        self
    }

    /// Opens a database that was not closed and whose `-wal` file is gone. Off unless set, because the latest writes
    /// were in that file; on is right if another SQLite tool has opened and closed the database since, which merges it.
    pub fn accept_missing_wal(mut self, accept: bool) -> Self {
        self.settings.accept_missing_wal = accept;
        self
    }

    /// Opens maps whose recorded types are described otherwise than those of the program, and records the new ones. Off
    /// unless set. For types that were changed in a way that does not change their bytes, such as a renamed field: every
    /// row is still decoded, but a codec that stores fields by position cannot notice all that does not fit.
    pub fn accept_other_types(mut self, accept: bool) -> Self {
        self.settings.accept_other_types = accept;
        self
    }

    /// Opens the database, or makes a new one if there is no such file.
    ///
    /// # Errors
    /// As for [`SqliteBackend::new`], and [`Refused`](PersistentError::Refused) for a name that is not valid.
    ///
    /// # Cancel safety
    /// As for [`SqliteBackend::new`].
    pub async fn open(self) -> Result<SqliteBackend<C>> {
        Table::new(&self.table, &self.settings.path)?;
        let database = Database::open(self.settings).await?;
        SqliteBackend::on(Arc::new(database), &self.table, self.codec)
    }
}

#[cfg(test)]
mod tests {
    use persistent_map_core::PersistentMap;
    use sqlx::query_scalar;

    use super::*;

    /// A load keeps few pages while it goes on.
    #[tokio::test]
    async fn the_page_cache_is_as_it_was_set_after_a_load_and_after_a_comparison() {
        let dir = tempfile::tempdir().unwrap();
        let backend = SqliteBackend::builder(dir.path().join("app.db")).page_cache(1 << 20);
        let map = PersistentMap::<u8, u8, _>::new(backend.open().await.unwrap());
        let map = map.await.unwrap();
        for _ in 0..2 {
            let database = map.backend().database().unwrap();
            let mut connection = database.connection().await.unwrap();
            let size: i64 = query_scalar("PRAGMA cache_size")
                .fetch_one(&mut connection.sqlite)
                .await
                .unwrap();
            assert_eq!(size, -1024, "KiB");
            drop(connection);
            map.verify().await.unwrap();
        }
        map.close().await.unwrap();
    }

    #[tokio::test]
    async fn an_entry_larger_than_a_row_may_be_is_refused_by_its_size() {
        let backend = SqliteBackend::new(":memory:").await.unwrap();
        assert!(backend.check(10, MAX_ENTRY_BYTES - 10).is_ok());
        let error = backend.check(11, MAX_ENTRY_BYTES - 10).unwrap_err();
        assert!(
            matches!(
                error,
                PersistentError::TooLarge {
                    part: "entry",
                    bytes: 999_999_001,
                    limit: 999_999_000
                }
            ),
            "{error}"
        );
    }
}
