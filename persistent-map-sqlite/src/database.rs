//! One open database, from opening to closing: who uses it, and which map has which table.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use persistent_map_core::{Owner, PersistentError, Result, Survives};
use persistent_map_file::{PATIENCE, RETRY, blocking};
use tokio::sync::{MappedMutexGuard, Mutex as AsyncMutex, MutexGuard, oneshot};

use crate::connection::Connection;
use crate::failure::storage;
use crate::file::{self, Owned, Target};
use crate::names::Names;
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
    /// The file; none if it is in memory.
    owned: Option<Owned>,
    names: Option<Names>,
}

impl Database {
    pub(crate) async fn open(settings: Settings) -> Result<Self> {
        tokio::runtime::Handle::try_current().map_err(|_| PersistentError::NoRuntime)?;
        Self::open_with(settings, None).await
    }

    /// As with this version of SQLite; `None`: the one that the program has.
    async fn open_with(settings: Settings, version: Option<&str>) -> Result<Self> {
        if version::matters(&settings) {
            match version {
                Some(version) => version::check(version, &settings)?,
                None => version::check(&version::running().await?, &settings)?,
            }
        }
        let path = settings.path.clone();
        // Not tokio's pool: whoever waits for the database may fill it.
        let prepare = move || file::prepare(&path);
        let target = blocking("preparing to open the database", prepare).await?;
        match target {
            Target::Memory => Self::connect(settings, None, false).await,
            Target::New(lock) => {
                schema::create(&lock).await?;
                Self::connect(settings, Some(Owned::new(lock)?), false).await
            }
            Target::Existing { owned, has_wal } => {
                let in_use = has_wal || schema::was_left_open(owned.path()).await?;
                // Refused before SQLite opens it for writing, because that makes a log, and the next open would take it
                // for the one that is missing.
                if in_use && !has_wal && !settings.accept_missing_wal {
                    return Err(file::wal_is_missing(owned.path()));
                }
                Self::connect(settings, Some(owned), in_use).await
            }
        }
    }

    async fn connect(settings: Settings, owned: Option<Owned>, in_use: bool) -> Result<Self> {
        let path = owned
            .as_ref()
            .map_or_else(|| settings.path.clone(), |owned| owned.path().to_path_buf());
        let connection = Connection::open(&path, &settings, in_use).await?;
        let mut database = Database {
            survives: match owned {
                Some(_) => settings.synchronous.survives(),
                None => Survives::Nothing,
            },
            quick_check: settings.quick_check,
            accept_other_types: settings.accept_other_types,
            connection: AsyncMutex::new(Some(connection)),
            claims: Mutex::default(),
            scans: AtomicUsize::new(0),
            owned,
            names: None,
            path,
        };
        let mut connection = database.connection().await?;
        connection.set_up(&database.path, &settings).await?;
        if database.owned.is_none() {
            schema::create_on(&mut connection.sqlite)
                .await
                .map_err(|error| storage("opening a database in memory", error))?;
        }
        drop(connection);
        if database.owned.is_some() {
            let names = Names::of(&database.path, settings.shared_reads);
            let doing = || format!("opening {}", database.path.display());
            let names = names.map_err(|error| PersistentError::storage(doing(), error))?;
            database.names = Some(names);
        }
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
                let owner = Owner::ThisProcess(format!("another map of table `{table}`"));
                return Err(PersistentError::in_use(&self.path, owner));
            }
            // Not tokio's timer: a runtime need not have one.
            let rest = || {
                thread::sleep(RETRY);
                Ok(())
            };
            blocking("waiting for a table", rest).await?;
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
        self.check(&mut connection, doing)?;
        connection.sync(doing).await?;
        self.check(&mut connection, doing)
    }

    /// Fails if the file, its log or its lock are not what others find under these names any more. Asked before each commit,
    /// so that nothing is written into what is another's by now, and after it, so that only what the next owner finds is
    /// acknowledged. Nothing is written after it has failed once.
    pub(crate) fn check(
        &self,
        connection: &mut Connection,
        doing: impl Fn() -> String,
    ) -> Result<()> {
        self.check_names().map_err(|error| {
            let error = PersistentError::storage(doing(), error).unknown();
            connection.broken.get_or_insert(error).clone()
        })
    }

    fn check_names(&self) -> io::Result<()> {
        self.names.as_ref().map_or(Ok(()), Names::check)?;
        self.owned.as_ref().map_or(Ok(()), Owned::check)
    }

    /// Closes the database if this was its last user.
    pub(crate) async fn close(this: Arc<Self>) -> Result<()> {
        let Some(mut database) = Arc::into_inner(this) else {
            return Ok(());
        };
        let doing = format!("closing {}", database.path.display());
        let checked = database.check_names();
        if let Some(closed) = database.close_on_a_thread() {
            let closed = closed.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
            closed.map_err(|error| storage(&*doing, error))?;
        }
        checked.map_err(|error| PersistentError::storage(doing, error).unknown())
    }

    /// Closing takes time and must be complete before the lock is given up, whoever stops waiting for it. So it has a
    /// thread of its own, for `close` as for `drop`.
    fn close_on_a_thread(&mut self) -> Option<oneshot::Receiver<Result<(), sqlx::Error>>> {
        let connection = self.connection.get_mut().take()?;
        let owned = self.owned.take();
        if self.names.as_ref().is_some_and(Names::are_taken) {
            tracing::error!(
                target: "persistent_map", path = %self.path.display(),
                "another program has taken over the files, so they are left open until the process ends"
            );
            // With the lock: this process has the files open, and nobody may take them for free.
            mem::forget((connection, owned));
            return None;
        }
        let (done, closed) = oneshot::channel();
        // Without a thread to spare, connection and lock are dropped: SQLite then closes in its own time.
        let _ = thread::Builder::new()
            .name("persistent-map-close".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let result = match runtime {
                    Ok(runtime) => {
                        runtime.block_on(connection.shut_down(owned.as_ref().map(Owned::path)))
                    }
                    Err(error) => Err(sqlx::Error::Io(error)),
                };
                drop(owned);
                let _ = done.send(result);
            });
        Some(closed)
    }
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
        let refused = Database::open_with(shared.clone(), Some("3.51.2")).await;
        let error = refused.err().expect("an old version is refused");
        assert!(error.to_string().contains("SQLite 3.51.2"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let alone = Settings::new(shared.path.clone());
        let alone = Database::open_with(alone, Some("3.51.2")).await.unwrap();
        Database::close(Arc::new(alone)).await.unwrap();
        let shared = Database::open_with(shared, Some("3.51.3")).await.unwrap();
        Database::close(Arc::new(shared)).await.unwrap();
    }
}
