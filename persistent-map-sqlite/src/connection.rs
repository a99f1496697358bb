//! The connection that all maps of a database share: how it is set, and what must be remembered about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::{refused, with_suffix};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, query, query_scalar, raw_sql};

use crate::failure::{is_busy, storage};
use crate::file::{self, IN_MEMORY};
use crate::settings::{Settings, Synchronous};

/// How long SQLite waits for a lock that another process holds for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

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
    /// The log, if it is merged from here.
    pub(crate) log: Option<PathBuf>,
    synchronous: Synchronous,
    page_cache_kib: u64,
    /// For a scan, and not as the settings say.
    keeps_few_pages: bool,
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
            log: merges_its_log(settings).then(|| with_suffix(path, "-wal")),
            synchronous: settings.synchronous,
            page_cache_kib: page_cache_kib(settings),
            keeps_few_pages: false,
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

    /// Sets the pragmas, and asks whether they are what durability needs.
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

    /// Reading a whole table looks at each page once, so that no more of them are kept than that needs.
    pub(crate) async fn keep_few_pages(&mut self, few: bool) -> Result<(), sqlx::Error> {
        if few == self.keeps_few_pages {
            return Ok(());
        }
        let kib = if few {
            SCAN_CACHE_KIB
        } else {
            self.page_cache_kib
        };
        // A negative size is in KiB, not in pages.
        let pragma = AssertSqlSafe(format!("PRAGMA cache_size = -{kib}"));
        raw_sql(pragma).execute(&mut self.sqlite).await?;
        self.keeps_few_pages = few;
        Ok(())
    }

    /// Lets go of the pages that SQLite has in memory.
    pub(crate) async fn forget_pages(&mut self) -> Result<(), sqlx::Error> {
        query("PRAGMA shrink_memory")
            .execute(&mut self.sqlite)
            .await
            .map(drop)
    }

    /// Makes all commits durable, where they are not already.
    pub(crate) async fn sync(&mut self, doing: impl Fn() -> String) -> Result<()> {
        if self.synchronous == Synchronous::Full {
            return Ok(());
        }
        self.check_writing()?;
        let synced = self.commit_and_sync(BARRIER).await;
        // What a sync that failed has left on the disk, nobody can tell: the next one would answer success.
        synced.map_err(|error| self.end_writing(storage(doing(), error)))
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

    /// With a sync, because SQLite does not tell whether its own at closing went well.
    async fn mark_closed(&mut self) -> Result<(), sqlx::Error> {
        self.roll_back().await?;
        self.commit_and_sync(MARK_CLOSED).await
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
    let cache_kib = page_cache_kib(settings);
    let (merged_from, log_limit) = if merges_its_log(settings) {
        (0, 0)
    } else {
        (1000, 64 << 20)
    };
    // - fullfsync is what "sync" takes to mean on macOS; it has no effect elsewhere. With NORMAL it concerns `flush` only.
    // - A negative cache size is in KiB, not in pages.
    // - With the size limit one huge commit does not leave a huge log for good.
    format!(
        "PRAGMA locking_mode = {locking_mode}; \
         PRAGMA journal_mode = WAL; \
         PRAGMA synchronous = {synchronous}; \
         PRAGMA fullfsync = ON; \
         PRAGMA checkpoint_fullfsync = ON; \
         PRAGMA cache_size = -{cache_kib}; \
         PRAGMA wal_autocheckpoint = {merged_from}; \
         PRAGMA journal_size_limit = {log_limit}; \
         PRAGMA cell_size_check = ON; \
         PRAGMA trusted_schema = OFF;"
    )
}

/// See `log.rs`.
fn merges_its_log(settings: &Settings) -> bool {
    settings.synchronous == Synchronous::Normal && settings.path != Path::new(IN_MEMORY)
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
        ("fullfsync", "1"),
        ("checkpoint_fullfsync", "1"),
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
    use super::*;

    /// What a connection with these pragmas, to a file or in memory, is refused for.
    async fn refusal(path: &str, changed: &'static str) -> Option<String> {
        let settings = Settings::new(path.into());
        let options = SqliteConnectOptions::new().in_memory(true);
        let mut sqlite = options.connect().await.unwrap();
        raw_sql(AssertSqlSafe(pragmas(&settings)))
            .execute(&mut sqlite)
            .await
            .unwrap();
        raw_sql(changed).execute(&mut sqlite).await.unwrap();
        let checked = check_pragmas(&mut sqlite, &settings, Path::new(path)).await;
        checked.err().map(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_pragma_that_is_not_in_force_is_refused() {
        assert_eq!(refusal(IN_MEMORY, "").await, None);
        for (path, changed, words) in [
            ("app.db", "", "`journal_mode = memory` and not `wal`"),
            (
                IN_MEMORY,
                "PRAGMA synchronous = NORMAL",
                "`synchronous = 1` and not `2`",
            ),
            (
                IN_MEMORY,
                "PRAGMA fullfsync = OFF",
                "`fullfsync = 0` and not `1`",
            ),
            (
                IN_MEMORY,
                "PRAGMA checkpoint_fullfsync = OFF",
                "`checkpoint_fullfsync = 0` and",
            ),
        ] {
            let refused = refusal(path, changed).await.expect("it is refused");
            assert!(refused.contains(words), "{words}: {refused}");
        }
    }
}
