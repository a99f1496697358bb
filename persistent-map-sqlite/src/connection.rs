//! The connection that all maps of a database share: how it is set, and what must be remembered about it.

use std::path::Path;
use std::time::Duration;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::refused;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, query, query_scalar, raw_sql};

use crate::failure::{is_busy, storage};
use crate::file::{self, IN_MEMORY};
use crate::settings::{Settings, Synchronous};

/// How long SQLite waits for a lock that another process holds for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// The first version whose WAL does not lose committed transactions (<https://www.sqlite.org/releaselog/3_51_3.html>).
const SQLITE_FLOOR: (u32, u32, u32) = (3, 51, 3);

const MARK_IN_USE: &str = "UPDATE persistent_map_state SET in_use = 1, barrier = barrier + 1";
/// The mark of a database that others may read: they may also merge its log and remove it, when they close it last.
const MARK_SHARED: &str = "UPDATE persistent_map_state SET in_use = 2, barrier = barrier + 1";
const MARK_CLOSED: &str = "UPDATE persistent_map_state SET in_use = 0";
const BARRIER: &str = "UPDATE persistent_map_state SET barrier = barrier + 1";

const SCAN_CACHE_KIB: u64 = 256;

/// Used by one operation at a time.
pub(crate) struct Connection {
    pub(crate) sqlite: SqliteConnection,
    /// Set from BEGIN to the end of its transaction. A task that was dropped in between (its runtime ended) leaves it
    /// set, and the next one clears up.
    pub(crate) in_transaction: bool,
    /// The failure that left the outcome of a commit unknown: nothing more may be written through this connection.
    pub(crate) broken: Option<PersistentError>,
    synchronous: Synchronous,
    page_cache_kib: u64,
    mark: &'static str,
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

impl Connection {
    /// Opens the file, which must exist, and checks that it is set as wanted. `in_use` says whether it bears the mark.
    pub(crate) async fn open(path: &Path, settings: &Settings, in_use: bool) -> Result<Self> {
        // The file is not touched here but by the pragmas: from then on, whatever fails, it must be closed with care.
        let sqlite = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| storage(opening(path), error))?;
        Ok(Connection {
            sqlite,
            in_transaction: false,
            broken: None,
            synchronous: settings.synchronous,
            page_cache_kib: page_cache_kib(settings),
            mark: if settings.shared_reads {
                MARK_SHARED
            } else {
                MARK_IN_USE
            },
            main_file: if in_use {
                MainFile::InUse
            } else {
                MainFile::Closed
            },
        })
    }

    /// Sets the pragmas, and asks whether they and the version are what durability needs.
    pub(crate) async fn set_up(&mut self, path: &Path, settings: &Settings) -> Result<()> {
        raw_sql(AssertSqlSafe(pragmas(settings)))
            .execute(&mut self.sqlite)
            .await
            .map_err(|error| {
                if is_busy(&error) {
                    PersistentError::in_use(path, "another SQLite connection")
                } else {
                    storage(opening(path), error)
                }
            })?;
        check_version(&mut self.sqlite, path).await?;
        check_pragmas(&mut self.sqlite, settings, path).await
    }

    /// Once, before anything is read: commits that were recovered from the page cache of a killed process are not on the
    /// disk yet, and nobody may see what a power cut could still take. The checkpoint also puts the mark "in use" into
    /// the main file, by which a copy without its `-wal` is told.
    pub(crate) async fn make_durable(&mut self, path: &Path) -> Result<()> {
        if self.main_file == MainFile::Durable {
            return Ok(());
        }
        self.main_file = MainFile::InUse;
        let doing = || format!("making {} durable after opening it", path.display());
        self.commit_and_sync(self.mark)
            .await
            .map_err(|error| storage(doing(), error))?;
        query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut self.sqlite)
            .await
            .map_err(|error| storage(doing(), error))?;
        self.main_file = MainFile::Durable;
        Ok(())
    }

    /// For reading a whole table, which looks at each page once: no more of them are kept than that needs.
    pub(crate) async fn keep_few_pages(&mut self) -> Result<(), sqlx::Error> {
        self.set_page_cache(SCAN_CACHE_KIB).await?;
        query("PRAGMA shrink_memory")
            .execute(&mut self.sqlite)
            .await
            .map(drop)
    }

    /// As the settings say.
    pub(crate) async fn keep_pages(&mut self) -> Result<(), sqlx::Error> {
        self.set_page_cache(self.page_cache_kib).await
    }

    async fn set_page_cache(&mut self, kib: u64) -> Result<(), sqlx::Error> {
        // A negative size is in KiB, not in pages.
        let pragma = AssertSqlSafe(format!("PRAGMA cache_size = -{kib}"));
        raw_sql(pragma).execute(&mut self.sqlite).await.map(drop)
    }

    /// Makes all commits durable, where they are not already.
    pub(crate) async fn sync(&mut self) -> Result<(), sqlx::Error> {
        match self.synchronous {
            Synchronous::Full => Ok(()),
            Synchronous::Normal => self.commit_and_sync(BARRIER).await,
        }
    }

    /// A commit that is durable when it returns, and with it all before it: they are in the same log. (A checkpoint would
    /// not do: it answers success when a reader keeps it from working.)
    async fn commit_and_sync(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        if self.synchronous == Synchronous::Full {
            return query(statement).execute(&mut self.sqlite).await.map(drop);
        }
        query("PRAGMA synchronous = FULL")
            .execute(&mut self.sqlite)
            .await?;
        let done = query(statement).execute(&mut self.sqlite).await.map(drop);
        query("PRAGMA synchronous = NORMAL")
            .execute(&mut self.sqlite)
            .await?;
        done
    }

    /// A task that was dropped in the middle of a transaction leaves it to the next one.
    pub(crate) async fn end_abandoned_transaction(&mut self, path: &Path) -> Result<()> {
        if self.in_transaction {
            tracing::warn!(target: "persistent_map", "rolling back a transaction that was abandoned");
            self.roll_back().await.map_err(|error| {
                let doing = format!("rolling back an abandoned write to {}", path.display());
                storage(doing, error).unknown()
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
        query(BARRIER).execute(&mut self.sqlite).await.map(drop)
    }

    /// SQLite merges its log and removes it. Without the mark "closed" in the database, whoever opens it next would miss
    /// the log; so where the mark cannot be written, an empty log stays.
    pub(crate) async fn shut_down(mut self, file: Option<&Path>) -> Result<(), sqlx::Error> {
        if self.main_file == MainFile::Closed {
            return self.sqlite.close().await;
        }
        let marked = if self.broken.is_some() {
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
        query(MARK_CLOSED).execute(&mut self.sqlite).await.map(drop)
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
    let cache_kib = page_cache_kib(settings);
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

fn page_cache_kib(settings: &Settings) -> u64 {
    (settings.page_cache_bytes / 1024).clamp(64, 1 << 30)
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
    Err(refused(
        path,
        format!(
            "this program was built with SQLite {version}, which can lose committed transactions"
        ),
        &format!(
            "Build it with {x}.{y}.{z} or later: `cargo tree -i libsqlite3-sys` shows which crate holds it back"
        ),
        None,
    ))
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
    path: &Path,
) -> Result<()> {
    let in_memory = path == Path::new(IN_MEMORY);
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
            return Err(refused(
                path,
                format!(
                    "SQLite answers `{pragma} = {found}` and not `{wanted}`, so writes would not be as durable as promised"
                ),
                "Keep the file on a local disk; some file systems cannot do what SQLite needs",
                None,
            ));
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
