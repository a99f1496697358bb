//! SQLite's errors, and what they say about a commit.

use std::io::{self, ErrorKind};

use persistent_map_core::{Location, PersistentError};

// https://www.sqlite.org/rescode.html
const BUSY: i32 = 5;
const IOERR: i32 = 10;
const FULL: i32 = 13;
const IOERR_READ: i32 = 266;
const IOERR_SHORT_READ: i32 = 522;
const IOERR_WRITE: i32 = 778;
const IOERR_NOMEM: i32 = 3082;

pub(crate) fn storage(doing: impl Into<String>, error: sqlx::Error) -> PersistentError {
    if primary_code(&error) == Some(FULL) {
        // The kind is how callers find a full disk, whatever the store is. The text stays SQLite's.
        return PersistentError::storage(doing, io::Error::new(ErrorKind::StorageFull, error));
    }
    PersistentError::storage(doing, error)
}

/// Damage to a table that is not of a single row.
pub(crate) fn damaged(location: &Location, reason: impl Into<String>) -> PersistentError {
    PersistentError::damaged(location, reason)
}

pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(BUSY)
}

/// Whether a commit that failed like this has certainly left no trace that a crash could bring back.
///
/// All errors are, that come before the commit record is in the log: no space, no permission, a failed write. A failed
/// sync comes after it. Whatever else the file system says about a commit is taken for a failed sync.
pub(crate) fn leaves_no_trace(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(IOERR_READ | IOERR_SHORT_READ | IOERR_WRITE | IOERR_NOMEM) => true,
        Some(code) => code & 0xff != IOERR,
        // Not SQLite's error but the driver's: the statement may well have run.
        None => false,
    }
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    code(error).map(|code| code & 0xff)
}

/// SQLite's extended result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use sqlx::{Connection as _, SqliteConnection, raw_sql};

    use super::*;

    /// An error of SQLite with this code.
    #[derive(Debug)]
    struct Coded(i32);

    impl std::fmt::Display for Coded {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "code {}", self.0)
        }
    }

    impl Error for Coded {}

    impl sqlx::error::DatabaseError for Coded {
        fn message(&self) -> &'static str {
            "failed"
        }
        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some(self.0.to_string().into())
        }
        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    #[test]
    fn what_the_file_system_says_of_a_commit_is_taken_for_a_failed_sync() {
        const FSYNC: i32 = 1034;
        const DIR_FSYNC: i32 = 1290;
        const TRUNCATE: i32 = 1546;
        const BUSY_SNAPSHOT: i32 = 517;
        let of = |code| sqlx::Error::Database(Box::new(Coded(code)));
        for code in [IOERR, FSYNC, DIR_FSYNC, TRUNCATE] {
            assert!(!leaves_no_trace(&of(code)), "{code}");
        }
        assert!(!leaves_no_trace(&sqlx::Error::WorkerCrashed));
        let before_the_commit_record = [IOERR_READ, IOERR_SHORT_READ, IOERR_WRITE, IOERR_NOMEM];
        for code in before_the_commit_record.into_iter().chain([1, BUSY, FULL]) {
            assert!(leaves_no_trace(&of(code)), "{code}");
        }
        assert!(is_busy(&of(BUSY)) && is_busy(&of(BUSY_SNAPSHOT)));
        assert!(!is_busy(&of(FULL)) && !is_busy(&of(IOERR)));
    }

    async fn failure(sql: &'static str) -> sqlx::Error {
        let mut sqlite = SqliteConnection::connect(":memory:").await.unwrap();
        raw_sql(sql).execute(&mut sqlite).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_full_database_is_told_as_a_full_disk_in_the_words_of_sqlite() {
        let sql = "PRAGMA max_page_count = 2; CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000));";
        let words = failure(sql).await.to_string();
        let error = storage("writing x", failure(sql).await);
        assert!(error.is_storage_full(), "{error}");
        let text = error.to_string();
        assert_eq!(text.matches(&words).count(), 1, "{text}");
        assert_eq!(text.matches("full").count(), 1, "{text}");
        let io = error
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>());
        let sqlite = io.and_then(io::Error::get_ref).unwrap();
        assert!(sqlite.is::<sqlx::Error>(), "the driver's own error is lost");

        let error = storage("writing x", failure("INSERT INTO nothing VALUES (1)").await);
        assert!(!error.is_storage_full(), "{error}");
    }
}
