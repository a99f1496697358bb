//! From a path to an open database that is ours alone, and back.

use std::fs;
use std::path::Path;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::{LockFile, is_regular_file, refused, sync_directory_of, with_suffix};
use redb::{Builder, Database, Error};

use crate::{ENTRIES, FORMAT};

pub(crate) struct Store {
    pub(crate) database: Database,
    /// After the database: the next owner comes when it is closed.
    lock: LockFile,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let is_new = !is_regular_file(path)?;
        let lock = LockFile::acquire(path)?;
        let made = if is_new { create(path) } else { Ok(()) };
        let database = made.and_then(|()| open(path))?;
        Ok(Store { database, lock })
    }

    pub(crate) fn close(self) -> Result<()> {
        let Store { database, lock } = self;
        let closed = database.close();
        closed.map_err(|error| failed(lock.target(), "closing", error.into()))
    }

    pub(crate) fn failed(&self, doing: &str, error: Error) -> PersistentError {
        failed(self.lock.target(), doing, error)
    }
}

/// Compares the checksums of all pages, so that damage is an error and never an entry.
fn open(path: &Path) -> Result<Database> {
    let opened = Builder::new().set_check_integrity_on_open(true).open(path);
    opened.map_err(|error| {
        let reason = format!("redb does not open it: {error}");
        let advice = "Restore it from a backup, or name another file";
        refused(path, reason, advice, None)
    })
}

/// A new database gets its name when it is complete, because redb would not know a half one again.
fn create(path: &Path) -> Result<()> {
    let draft = with_suffix(path, ".creating");
    let make = || -> Result<(), Error> {
        if fs::exists(&draft)? {
            fs::remove_file(&draft)?;
        }
        let database = Database::create(&draft)?;
        let transaction = database.begin_write()?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(FORMAT)?;
        transaction.commit()?;
        database.close()?;
        fs::rename(&draft, path)?;
        Ok(sync_directory_of(path)?)
    };
    make().map_err(|error| failed(path, "creating", error))
}

fn failed(path: &Path, doing: &str, error: Error) -> PersistentError {
    PersistentError::storage(format!("{doing} {}", path.display()), error)
}
