//! One open database, from opening to closing: who uses it, and which map has which table.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use persistent_map_core::{PersistentError, Result, Survives};
use persistent_map_file::{LockFile, PATIENCE, RETRY};
use tokio::sync::{MappedMutexGuard, Mutex as AsyncMutex, MutexGuard, oneshot};

use crate::connection::Connection;
use crate::failure::storage;
use crate::file::{self, Target};
use crate::schema;
use crate::settings::Settings;
use crate::version;

/// A database in the hands of its maps. The file is closed when the last one lets go.
pub(crate) struct Database {
    /// Absolute, or `:memory:`.
    pub(crate) path: PathBuf,
    pub(crate) survives: Survives,
    pub(crate) quick_check: bool,
    pub(crate) accept_other_types: bool,
    connection: AsyncMutex<Option<Connection>>,
    /// Tables that a map has open, in lower case.
    claims: Mutex<HashSet<String>>,
    /// How many tables are being read as a whole.
    scans: AtomicUsize,
    lock: Option<LockFile>,
    /// Of the file; none if it is in memory.
    identity: Option<(u64, u64)>,
}

impl Database {
    pub(crate) async fn open(settings: Settings) -> Result<Self> {
        tokio::runtime::Handle::try_current().map_err(|_| PersistentError::NoRuntime)?;
        let version = version::running().await?;
        Self::open_with(settings, &version).await
    }

    /// As with this version of SQLite.
    async fn open_with(settings: Settings, version: &str) -> Result<Self> {
        version::check(version, &settings)?;
        let path = settings.path.clone();
        let target = tokio::task::spawn_blocking(move || file::prepare(&path))
            .await
            .map_err(|error| PersistentError::storage("preparing to open the database", error))??;
        match target {
            Target::Memory => Self::connect(settings, None, false).await,
            Target::New(lock) => {
                schema::create(&lock).await?;
                Self::connect(settings, Some(lock), false).await
            }
            Target::Existing { lock, has_wal } => {
                let in_use = has_wal || schema::was_left_open(lock.target()).await?;
                // Refused before SQLite opens it for writing, because that makes a log, and the next open would take it
                // for the one that is missing.
                if in_use && !has_wal && !settings.accept_missing_wal {
                    return Err(file::wal_is_missing(lock.target()));
                }
                Self::connect(settings, Some(lock), in_use).await
            }
        }
    }

    async fn connect(settings: Settings, lock: Option<LockFile>, in_use: bool) -> Result<Self> {
        let path = lock
            .as_ref()
            .map_or_else(|| settings.path.clone(), |lock| lock.target().to_path_buf());
        let connection = Connection::open(&path, &settings, in_use).await?;
        let identity = lock.as_ref().and_then(|_| file::identity_of(&path).ok());
        let database = Database {
            survives: match lock {
                Some(_) => settings.synchronous.survives(),
                None => Survives::Nothing,
            },
            quick_check: settings.quick_check,
            accept_other_types: settings.accept_other_types,
            connection: AsyncMutex::new(Some(connection)),
            claims: Mutex::default(),
            scans: AtomicUsize::new(0),
            lock,
            identity,
            path,
        };
        let mut connection = database.connection().await?;
        connection.set_up(&database.path, &settings).await?;
        if database.lock.is_none() {
            schema::create_on(&mut connection.sqlite)
                .await
                .map_err(|error| storage("opening a database in memory", error))?;
        }
        drop(connection);
        tracing::debug!(target: "persistent_map", path = %database.path.display(), "database open");
        Ok(database)
    }

    /// The connection, for one operation at a time, and with no transaction left open on it.
    pub(crate) async fn connection(&self) -> Result<ConnectionGuard<'_>> {
        let guard = self.connection.lock().await;
        let mut connection =
            MutexGuard::try_map(guard, Option::as_mut).map_err(|_| PersistentError::Closed)?;
        connection.end_abandoned_transaction(&self.path).await?;
        let few = self.scans.load(Ordering::Relaxed) > 0;
        let kept = connection.keep_few_pages(few).await;
        kept.map_err(|error| storage("setting the size of the page cache", error))?;
        Ok(connection)
    }

    /// From now until it is dropped, a table is read as a whole. The connection is free between its rows.
    pub(crate) fn scan(&self) -> Scan<'_> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        Scan(self)
    }

    /// Takes a table for one map. Waits a little for one that is just closing.
    pub(crate) async fn claim(&self, table: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.claims().insert(table.to_ascii_lowercase()) {
            if Instant::now() >= deadline {
                let owner = format!("another map of this process, as table `{table}`");
                return Err(PersistentError::in_use(&self.path, owner));
            }
            // Not tokio's timer: a runtime need not have one.
            let _ = tokio::task::spawn_blocking(|| thread::sleep(RETRY)).await;
        }
        Ok(())
    }

    pub(crate) fn release(&self, table: &str) {
        self.claims().remove(&table.to_ascii_lowercase());
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything durable that is not yet. With `Synchronous::Full` each commit was.
    pub(crate) async fn flush(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        let doing = || format!("flushing {}", self.path.display());
        connection.sync(doing).await?;
        self.check_name(doing)
    }

    /// Fails if the file has lost its name to another one, or to nothing: SQLite goes on with it, and nobody will ever find
    /// what it writes. One look at a name, which the system has in memory.
    pub(crate) fn check_name(&self, doing: impl Fn() -> String) -> Result<()> {
        check_name(&self.path, self.identity, doing)
    }

    /// Closes the database if this was its last user.
    pub(crate) async fn close(this: Arc<Self>) -> Result<()> {
        let Some(mut database) = Arc::into_inner(this) else {
            return Ok(());
        };
        let (path, identity) = (database.path.clone(), database.identity);
        let doing = || format!("closing {}", path.display());
        if let Some(closed) = database.close_on_a_thread() {
            let closed = closed.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
            closed.map_err(|error| storage(doing(), error))?;
        }
        check_name(&path, identity, doing)
    }

    /// Closing takes time and must be complete before the lock is given up, whoever stops waiting for it. So it has a
    /// thread of its own, for `close` as for `drop`.
    fn close_on_a_thread(&mut self) -> Option<oneshot::Receiver<Result<(), sqlx::Error>>> {
        let connection = self.connection.get_mut().take()?;
        let lock = self.lock.take();
        let (done, closed) = oneshot::channel();
        // Without a thread to spare, connection and lock are dropped: SQLite then closes in its own time.
        let _ = thread::Builder::new()
            .name("persistent-map-close".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let result = match runtime {
                    Ok(runtime) => {
                        runtime.block_on(connection.shut_down(lock.as_ref().map(LockFile::target)))
                    }
                    Err(error) => Err(sqlx::Error::Io(error)),
                };
                drop(lock);
                let _ = done.send(result);
            });
        Some(closed)
    }
}

fn check_name(path: &Path, identity: Option<(u64, u64)>, doing: impl Fn() -> String) -> Result<()> {
    let is_gone = |identity| match file::identity_of(path) {
        Ok(found) => found != identity,
        // Other errors do not tell.
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if !identity.is_some_and(is_gone) {
        return Ok(());
    }
    let gone = io::Error::new(
        ErrorKind::NotFound,
        "the file was deleted, moved or replaced while it was open, and what was written since is lost. All entries are in \
         memory: `copy` the map to a new store",
    );
    Err(PersistentError::storage(doing(), gone).unknown())
}

/// A table is being read as a whole.
pub(crate) struct Scan<'a>(&'a Database);

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        self.0.scans.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) type ConnectionGuard<'a> = MappedMutexGuard<'a, Connection>;

impl Drop for Database {
    fn drop(&mut self) {
        self.close_on_a_thread();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn few_pages_are_kept_as_long_as_a_table_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(dir.path().join("app.db"));
        let database = Database::open(settings).await.unwrap();
        let size = async || {
            let mut connection = database.connection().await.unwrap();
            let size = sqlx::query_scalar::<_, i64>("PRAGMA cache_size");
            size.fetch_one(&mut connection.sqlite).await.unwrap()
        };
        assert_eq!(size().await, -8192, "KiB");
        let (one, other) = (database.scan(), database.scan());
        assert_eq!(size().await, -256);
        drop(one);
        assert_eq!(size().await, -256);
        drop(other);
        assert_eq!(size().await, -8192);
    }

    #[tokio::test]
    async fn an_old_sqlite_is_refused_before_anything_is_made_or_changed() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Settings {
            shared_reads: true,
            ..Settings::new(dir.path().join("app.db"))
        };
        let refused = Database::open_with(shared.clone(), "3.51.2").await;
        let error = refused.err().expect("an old version is refused");
        assert!(error.to_string().contains("SQLite 3.51.2"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let alone = Settings::new(shared.path.clone());
        let alone = Database::open_with(alone, "3.51.2").await.unwrap();
        Database::close(Arc::new(alone)).await.unwrap();
        let shared = Database::open_with(shared, "3.51.3").await.unwrap();
        Database::close(Arc::new(shared)).await.unwrap();
    }
}
