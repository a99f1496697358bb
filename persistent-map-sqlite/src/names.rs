//! Whether an open database is what others find under its names.
//!
//! SQLite goes on with files that have lost their names, and nobody will ever find what it writes there. It also goes on when
//! its locks are gone: they are the process's, and vanish without a word when any code of the process opens and closes the
//! database by another descriptor, as `fs::copy` does. Then another program can open the database, and merge and remove the log
//! from under the map.
//!
//! That is seen before it does harm. Whoever opens a database in WAL mode makes the `-shm` file first, and reads the log after
//! that. An owner in exclusive mode has no such file. So as long as there is none after a commit, whoever comes next finds the
//! commit in the log; and as soon as there is one, nothing is acknowledged any more. One moment is out of reach: a program that
//! closes removes its index first, and the log after that.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use persistent_map_file::{identity, with_suffix};

pub(crate) struct Names {
    database: PathBuf,
    log: PathBuf,
    /// What other programs make first. With `shared_reads` they may.
    index: Option<PathBuf>,
    of_database: (u64, u64),
    of_log: (u64, u64),
    /// When the database was written, as of the last time that all was in order.
    written: Mutex<Option<SystemTime>>,
}

impl Names {
    /// Of a database that was just opened. In exclusive mode, so that an index beside it is one that somebody has left.
    pub(crate) fn of(database: &Path, shared_reads: bool) -> io::Result<Self> {
        let index = with_suffix(database, "-shm");
        if !shared_reads {
            match fs::remove_file(&index) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let log = with_suffix(database, "-wal");
        let now = fs::symlink_metadata(database)?;
        Ok(Names {
            of_log: identity(&fs::symlink_metadata(&log)?),
            of_database: identity(&now),
            written: Mutex::new(now.modified().ok()),
            index: (!shared_reads).then_some(index),
            database: database.to_path_buf(),
            log,
        })
    }

    /// Whether all is in order. Three looks at names, which the system has in memory.
    pub(crate) fn check(&self) -> io::Result<()> {
        let database = named(&self.database);
        if is_not(&database, self.of_database) {
            return Err(lost(
                "the file was deleted, moved or replaced while it was open, and what was written since is lost. All entries are \
                 in memory: `copy` the map to a new store",
            ));
        }
        if is_not(&named(&self.log), self.of_log) {
            return Err(lost(
                "its `-wal` file was deleted, moved or replaced while it was open, and the latest writes are lost unless another \
                 program has merged it. All entries are in memory: `copy` the map to a new store",
            ));
        }
        if self.is_indexed() {
            return Err(lost(
                "another program has it open with SQLite: the locks that keep others out are gone, because some code of this \
                 program has opened and closed the file while it was open (a copy of it, say). All entries are in memory: \
                 `copy` the map to a new store",
            ));
        }
        if let Ok(Some(database)) = database {
            *self.written() = database.modified().ok();
        }
        Ok(())
    }

    /// Whether another program has taken over the files, so that SQLite must not be closed: it would write its stale pages over
    /// that program's, or remove that program's log. A log that was only deleted is no such case: it is open here, and
    /// closing brings it into the database.
    pub(crate) fn are_taken(&self) -> bool {
        let log = named(&self.log);
        let is_gone = is_not(&log, self.of_log);
        if is_gone && matches!(log, Ok(Some(_))) {
            return true;
        }
        let is_written = match named(&self.database) {
            Ok(Some(database)) if identity(&database) == self.of_database => {
                database.modified().ok() != *self.written()
            }
            _ => return false,
        };
        // Whoever has it open may have committed to the log alone.
        self.is_indexed() || is_gone && is_written
    }

    fn is_indexed(&self) -> bool {
        let index = self.index.as_deref();
        index.is_some_and(|index| matches!(named(index), Ok(Some(_))))
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Option<SystemTime>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the name is another file's, or nobody's. Other errors do not tell.
fn is_not(named: &io::Result<Option<Metadata>>, file: (u64, u64)) -> bool {
    match named {
        Ok(Some(named)) => identity(named) != file,
        Ok(None) => true,
        Err(_) => false,
    }
}

fn lost(what: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, what)
}
