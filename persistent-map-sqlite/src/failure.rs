//! SQLite's errors, and what they say about a commit.

use persistent_map_core::{Location, PersistentError};

// https://www.sqlite.org/rescode.html
const BUSY: i32 = 5;
const IOERR: i32 = 10;
const IOERR_READ: i32 = 266;
const IOERR_SHORT_READ: i32 = 522;
const IOERR_WRITE: i32 = 778;
const IOERR_NOMEM: i32 = 3082;

pub(crate) fn storage(doing: impl Into<String>, error: sqlx::Error) -> PersistentError {
    PersistentError::storage(doing, error)
}

/// Damage to a table that is not of a single row.
pub(crate) fn damaged(location: &Location, reason: impl Into<String>) -> PersistentError {
    PersistentError::Damaged {
        place: location.to_string(),
        reason: reason.into(),
    }
}

pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code & 0xff == BUSY)
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

/// SQLite's extended result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}
