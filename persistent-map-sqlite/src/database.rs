//! One open database: the connection that all its maps share, from opening to closing.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use persistent_map_core::{PersistentError, Result, Survives};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, query, query_scalar, raw_sql};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, oneshot};

use crate::backend::Synchronous;
use crate::failure::{is_busy, storage};
use crate::file::{self, Target};
use crate::lock::{LockFile, PATIENCE, RETRY};
use crate::schema;

/// How long SQLite waits for a lock that another process holds for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// The first version whose WAL does not lose committed transactions (<https://www.sqlite.org/releaselog/3_51_3.html>).
const SQLITE_FLOOR: (u32, u32, u32) = (3, 51, 3);

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) shared_reads: bool,
    pub(crate) page_cache_bytes: u64,
    pub(crate) quick_check: bool,
    pub(crate) accept_missing_wal: bool,
}

impl Settings {
    pub(crate) fn new(path: PathBuf) -> Self {
        Settings {
            path,
            synchronous: Synchronous::default(),
            shared_reads: false,
            page_cache_bytes: 8 << 20,
            quick_check: true,
            accept_missing_wal: false,
        }
    }
}

pub(crate) struct Database {
    /// Absolute, or `:memory:`.
    pub(crate) path: PathBuf,
    pub(crate) survives: Survives,
    pub(crate) quick_check: bool,
    synchronous: Synchronous,
    connection: AsyncMutex<Option<Connection>>,
    /// Tables that a map has open, in lower case.
    claims: Mutex<HashSet<String>>,
    lock: Option<LockFile>,
}

/// The connection, and what we must remember about it.
pub(crate) struct Connection {
    pub(crate) sqlite: SqliteConnection,
    /// Set from BEGIN to the end of its transaction. A task that was dropped in between (its runtime ended) leaves it
    /// set, and the next one clears up.
    pub(crate) in_transaction: bool,
    /// The outcome of a commit is unknown, so nothing more may be written through this connection.
    pub(crate) broken: bool,
    main_file: MainFile,
}

/// How the main file stands, without the log.
#[derive(PartialEq)]
enum MainFile {
    /// It does not bear the mark "in use".
    Closed,
    /// It may bear the mark.
    InUse,
    /// It bears the mark, and what was recovered at open has been made durable.
    Durable,
}

impl Database {
    pub(crate) async fn open(settings: Settings) -> Result<Self> {
        tokio::runtime::Handle::try_current().map_err(|_| PersistentError::NoRuntime)?;
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
                let in_use = has_wal || schema::was_left_open(lock.database()).await?;
                // Refused before SQLite opens it for writing, because that makes a log, and the next open would take it
                // for the one that is missing.
                if in_use && !has_wal && !settings.accept_missing_wal {
                    return Err(file::wal_is_missing(lock.database()));
                }
                Self::connect(settings, Some(lock), in_use).await
            }
        }
    }

    async fn connect(settings: Settings, lock: Option<LockFile>, in_use: bool) -> Result<Self> {
        let path = lock.as_ref().map_or_else(
            || settings.path.clone(),
            |lock| lock.database().to_path_buf(),
        );
        // The file is not touched here but by the pragmas: from then on whatever fails, the database is closed with care.
        let sqlite = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| storage(opening(&path), error))?;
        let mut database = Database {
            survives: match lock {
                Some(_) => settings.synchronous.survives(),
                None => Survives::Nothing,
            },
            quick_check: settings.quick_check,
            synchronous: settings.synchronous,
            connection: AsyncMutex::new(Some(Connection {
                sqlite,
                in_transaction: false,
                broken: false,
                main_file: if in_use {
                    MainFile::InUse
                } else {
                    MainFile::Closed
                },
            })),
            claims: Mutex::default(),
            lock,
            path,
        };
        database.set_up(&settings).await?;
        tracing::debug!(target: "persistent_map", path = %database.path.display(), "database open");
        Ok(database)
    }

    async fn set_up(&mut self, settings: &Settings) -> Result<()> {
        let path = self.path.clone();
        let in_memory = self.lock.is_none();
        let sqlite = &mut self
            .connection
            .get_mut()
            .as_mut()
            .ok_or(PersistentError::Closed)?
            .sqlite;
        raw_sql(AssertSqlSafe(pragmas(settings)))
            .execute(&mut *sqlite)
            .await
            .map_err(|error| {
                if is_busy(&error) {
                    PersistentError::InUse {
                        path: path.clone(),
                        owner: "another SQLite connection".into(),
                    }
                } else {
                    storage(opening(&path), error)
                }
            })?;
        check_version(&mut *sqlite, &path).await?;
        if in_memory {
            schema::create_on(&mut *sqlite)
                .await
                .map_err(|error| storage(opening(&path), error))?;
        }
        check_pragmas(sqlite, settings, in_memory, &path).await
    }

    /// The connection, for one operation at a time, and with no transaction left open on it.
    pub(crate) async fn connection(&self) -> Result<ConnectionGuard<'_>> {
        let guard = self.connection.lock().await;
        let mut connection =
            MutexGuard::try_map(guard, Option::as_mut).map_err(|_| PersistentError::Closed)?;
        connection.end_abandoned_transaction().await?;
        Ok(connection)
    }

    /// Takes a table for one map. Waits a little for one that is just closing.
    pub(crate) async fn claim(&self, table: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.claims().insert(table.to_ascii_lowercase()) {
            if Instant::now() >= deadline {
                return Err(PersistentError::InUse {
                    path: self.path.clone(),
                    owner: format!("another map of this process, as table `{table}`"),
                });
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

    /// Once, before anything is read: commits that were recovered from the page cache of a killed process are not on the
    /// disk yet, and nobody may see what a power cut could still take. The checkpoint also puts the mark "in use" into
    /// the main file, by which a copy without its `-wal` is told.
    pub(crate) async fn make_durable(&self, connection: &mut Connection) -> Result<()> {
        if connection.main_file == MainFile::Durable {
            return Ok(());
        }
        connection.main_file = MainFile::InUse;
        let doing = || format!("making {} durable after opening it", self.path.display());
        for statement in [schema::MARK_IN_USE, "PRAGMA wal_checkpoint(TRUNCATE)"] {
            query(statement)
                .execute(&mut connection.sqlite)
                .await
                .map_err(|error| storage(doing(), error))?;
        }
        connection.main_file = MainFile::Durable;
        Ok(())
    }

    /// With `Full` every commit was synced already.
    pub(crate) async fn flush(&self, connection: &mut Connection) -> Result<()> {
        if self.synchronous == Synchronous::Full {
            return Ok(());
        }
        query("PRAGMA wal_checkpoint(FULL)")
            .execute(&mut connection.sqlite)
            .await
            .map(drop)
            .map_err(|error| storage(format!("flushing {}", self.path.display()), error))
    }

    /// Closes the database if this was its last user.
    pub(crate) async fn close(this: Arc<Self>) -> Result<()> {
        let Some(mut database) = Arc::into_inner(this) else {
            return Ok(());
        };
        let path = database.path.clone();
        match database.close_on_a_thread() {
            Some(closed) => closed
                .await
                .unwrap_or(Err(sqlx::Error::WorkerCrashed))
                .map_err(|error| storage(format!("closing {}", path.display()), error)),
            None => Ok(()),
        }
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
                    Ok(runtime) => runtime
                        .block_on(connection.shut_down(lock.as_ref().map(LockFile::database))),
                    Err(error) => Err(sqlx::Error::Io(error)),
                };
                drop(lock);
                let _ = done.send(result);
            });
        Some(closed)
    }
}

pub(crate) type ConnectionGuard<'a> = tokio::sync::MappedMutexGuard<'a, Connection>;

impl Connection {
    async fn end_abandoned_transaction(&mut self) -> Result<()> {
        if self.in_transaction {
            tracing::warn!(target: "persistent_map", "rolling back a transaction that was abandoned");
            self.roll_back().await.map_err(|error| {
                storage("rolling back an abandoned transaction", error).unknown()
            })?;
        }
        Ok(())
    }

    /// After an error SQLite may have rolled back by itself; then there is no transaction, which is what was wanted.
    pub(crate) async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        match query("ROLLBACK").execute(&mut self.sqlite).await {
            Err(sqlx::Error::Database(error))
                if error.message().contains("no transaction is active") => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        self.in_transaction = false;
        Ok(())
    }

    /// One tiny durable commit. After a commit whose sync failed it overwrites that commit's place in the log, so that
    /// it cannot come back after a crash.
    pub(crate) async fn barrier(&mut self) -> Result<(), sqlx::Error> {
        query(schema::BARRIER)
            .execute(&mut self.sqlite)
            .await
            .map(drop)
    }

    /// SQLite merges its log and removes it. Without the mark "closed" in the database, whoever opens it next would miss
    /// the log; so where the mark cannot be written, an empty log stays.
    async fn shut_down(mut self, file: Option<&Path>) -> Result<(), sqlx::Error> {
        if self.main_file == MainFile::Closed {
            return self.sqlite.close().await;
        }
        let marked = if self.broken {
            Ok(false)
        } else {
            self.mark_closed().await.map(|()| true)
        };
        let closed = self.sqlite.close().await;
        let log_stays = match (&marked, file) {
            (Ok(true), _) | (_, None) => Ok(()),
            (_, Some(file)) => file::keep_log(file).map_err(sqlx::Error::Io),
        };
        marked.map(drop).and(closed).and(log_stays)
    }

    async fn mark_closed(&mut self) -> Result<(), sqlx::Error> {
        self.roll_back().await?;
        query(schema::MARK_CLOSED)
            .execute(&mut self.sqlite)
            .await
            .map(drop)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.close_on_a_thread();
    }
}

fn opening(path: &Path) -> String {
    format!("opening {}", path.display())
}

/// The first two decide how the file is opened, so they come first.
fn pragmas(settings: &Settings) -> String {
    let locking_mode = if settings.shared_reads {
        "NORMAL"
    } else {
        "EXCLUSIVE"
    };
    let synchronous = synchronous_name(settings.synchronous);
    let fullfsync = settings.synchronous == Synchronous::Full;
    let cache_kib = (settings.page_cache_bytes / 1024).clamp(64, 1 << 30);
    // - fullfsync is what "sync" takes to mean on macOS; it has no effect elsewhere.
    // - A negative cache size is in KiB, not in pages.
    // - With the size limit one huge commit does not leave a huge log for good.
    format!(
        "PRAGMA locking_mode = {locking_mode}; \
         PRAGMA journal_mode = WAL; \
         PRAGMA synchronous = {synchronous}; \
         PRAGMA fullfsync = {fullfsync}; \
         PRAGMA checkpoint_fullfsync = ON; \
         PRAGMA cache_size = -{cache_kib}; \
         PRAGMA journal_size_limit = {}; \
         PRAGMA cell_size_check = ON; \
         PRAGMA trusted_schema = OFF;",
        64 << 20
    )
}

fn synchronous_name(level: Synchronous) -> &'static str {
    match level {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    }
}

async fn check_version(sqlite: &mut SqliteConnection, path: &Path) -> Result<()> {
    let version: String = query_scalar("SELECT sqlite_version()")
        .fetch_one(sqlite)
        .await
        .map_err(|error| storage(opening(path), error))?;
    if parse_version(&version) >= Some(SQLITE_FLOOR) {
        return Ok(());
    }
    let (x, y, z) = SQLITE_FLOOR;
    Err(PersistentError::unsupported(format!(
        "SQLite {version}: it can lose committed transactions. Build with {x}.{y}.{z} or later \
         (`cargo tree -i libsqlite3-sys` shows which crate holds it back)"
    )))
}

fn parse_version(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    ))
}

/// SQLite answers a pragma that it does not follow with success, so ask what is in force.
async fn check_pragmas(
    sqlite: &mut SqliteConnection,
    settings: &Settings,
    in_memory: bool,
    path: &Path,
) -> Result<()> {
    let expected = [
        ("journal_mode", if in_memory { "memory" } else { "wal" }),
        (
            "synchronous",
            match settings.synchronous {
                Synchronous::Full => "2",
                Synchronous::Normal => "1",
            },
        ),
        (
            "locking_mode",
            if settings.shared_reads {
                "normal"
            } else {
                "exclusive"
            },
        ),
    ];
    for (pragma, wanted) in expected {
        if in_memory && pragma == "locking_mode" {
            continue;
        }
        let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
        let found: String = query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *sqlite)
            .await
            .map_err(|error| storage(opening(path), error))?;
        if found != wanted {
            return Err(PersistentError::unsupported(format!(
                "PRAGMA {pragma} = {wanted} on this file system (SQLite answers {found}): \
                 writes would not be as durable as promised"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("3.51.3") < parse_version("3.60.0"));
        assert!(parse_version("3.9.0") < parse_version("3.51.3"));
        assert_eq!(parse_version("x"), None);
    }
}
