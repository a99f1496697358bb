//! From a path to a file that may be opened: locked, and known to be ours before SQLite touches it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::{
    LockFile, identity, is_regular_file, refused, resolve, sync_directory_of, unusable, with_suffix,
};

use crate::import::{first_page, is_of_version_0_1};

/// "PMAP", in the header of every file of ours.
pub(crate) const APPLICATION_ID: u32 = 0x504d_4150;
/// The layout of the tables. It changes when an older reader would misread them.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The name that SQLite gives a database without a file.
pub(crate) const IN_MEMORY: &str = ":memory:";

/// What there is to open.
pub(crate) enum Target {
    /// `:memory:`
    Memory,
    /// Nothing yet.
    New(LockFile),
    /// A database of ours, of a version that we read.
    Existing { lock: LockFile, has_wal: bool },
}

/// Resolves, locks and looks. Blocks on the file system, and up to half a second on the lock.
pub(crate) fn prepare(path: &Path) -> Result<Target> {
    if path == Path::new(IN_MEMORY) {
        return Ok(Target::Memory);
    }
    let path = resolve(checked(path)?)?;
    is_regular_file(&path)?;
    let lock = LockFile::acquire(&path)?;
    let log = with_suffix(&path, "-wal");
    // What is no file would be removed by SQLite.
    let looked = is_regular_file(&log).and_then(|has_log| Ok((look_at(&path, has_log)?, has_log)));
    match looked {
        Ok((true, has_wal)) => Ok(Target::Existing { lock, has_wal }),
        Ok((false, _)) => match fs::metadata(&log) {
            Ok(log) if log.len() > 0 => {
                lock.leave_no_file();
                Err(refused(
                    &path,
                    "the database is missing, and its `-wal` file is still there",
                    "Bring the database back, or move the `-wal` file away: a new database would take its contents for its \
                     own",
                    None,
                ))
            }
            _ => Ok(Target::New(lock)),
        },
        Err(refused) => {
            lock.leave_no_file();
            Err(refused)
        }
    }
}

/// Whether there is a database of ours. Only with the lock in hand, because closing a file drops all POSIX locks that
/// this process has on it: those of a map that has it open.
fn look_at(path: &Path, has_log: bool) -> Result<bool> {
    let exists = is_regular_file(path)?;
    if exists {
        check_header(path, has_log)?;
    }
    Ok(exists)
}

/// Which file has a name.
pub(crate) fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| identity(&metadata))
}

/// Makes sure that there is a log beside a database: an empty one if SQLite has merged and removed it.
pub(crate) fn keep_log(database: &Path) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(with_suffix(database, "-wal"))?;
    sync_directory_of(database)
}

pub(crate) fn wal_is_missing(path: &Path) -> PersistentError {
    refused(
        path,
        "it was open when it was last written, and the latest writes are in a `-wal` file that is not beside it",
        "Bring the `-wal` file back, or take a backup of a closed database. If another SQLite tool has opened and closed \
         it since, nothing is missing: open it once with `SqliteBackend::builder(..).accept_missing_wal(true)`",
        None,
    )
}

/// Refuses what SQLite would not take for a plain path.
fn checked(path: &Path) -> Result<&Path> {
    let text = path.to_str().ok_or_else(|| {
        refused(
            path,
            "the path is not valid UTF-8",
            "SQLite takes UTF-8 paths only",
            None,
        )
    })?;
    if text.is_empty() {
        return Err(refused(
            path,
            "the path is empty",
            "Name a file, or `:memory:`",
            None,
        ));
    }
    if text.starts_with("file:") {
        return Err(refused(
            path,
            "it looks like a URI",
            "Give a plain path; options are set with `SqliteBackend::builder`",
            None,
        ));
    }
    Ok(path)
}

/// The first 100 bytes of a database tell whose it is (<https://www.sqlite.org/fileformat.html#the_database_header>).
/// Ours are written before the file gets its name, so they are never out of date.
fn check_header(path: &Path, has_log: bool) -> Result<()> {
    const UNTOUCHED: &str = "The file was not changed; give another path, or move it away";
    // For writing too, because SQLite would fall back to reading and then fail without saying why.
    let (header, length) = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|file| Ok((first_page(&file)?, file.metadata()?.len())))
        .map_err(|error| {
            unusable(
                path,
                "it cannot be opened for reading and writing",
                "Check the permissions of the file",
                error,
            )
        })?;
    if header.is_empty() {
        return Err(refused(
            path,
            "it is an empty file, and a database is never empty",
            "If nothing of value was there, delete it and a new database is made; otherwise restore it from a backup",
            None,
        ));
    }
    if header.len() < 100 || !header.starts_with(b"SQLite format 3\0") {
        return Err(refused(
            path,
            "it is not a SQLite database",
            UNTOUCHED,
            None,
        ));
    }
    let number = |at| number_at(&header, at);
    if number(68) != APPLICATION_ID && is_of_version_0_1(&header) {
        return Err(refused(
            path,
            "it was written by persistent-map 0.1",
            "Open a new file, and insert the entries that `import_0_1` gives for this one. It was not changed",
            None,
        ));
    }
    if number(68) != APPLICATION_ID {
        return Err(refused(
            path,
            "it is a SQLite database of another program",
            UNTOUCHED,
            None,
        ));
    }
    match number(60) {
        FORMAT_VERSION if has_log => Ok(()),
        // SQLite would make the length fit, and so change what is to be mended.
        FORMAT_VERSION => match length_of(&header) {
            Some(expected) if expected != length => Err(refused(
                path,
                format!("it has {length} bytes, and should have {expected}"),
                "The file is damaged, and was not changed; restore it from a backup",
                None,
            )),
            _ => Ok(()),
        },
        newer if newer > FORMAT_VERSION => Err(refused(
            path,
            format!(
                "it has format version {newer}, and this version of persistent-map reads {FORMAT_VERSION}"
            ),
            "Update persistent-map",
            None,
        )),
        other => Err(refused(
            path,
            format!("it has format version {other}, which never existed"),
            "The file is damaged; restore it from a backup",
            None,
        )),
    }
}

/// The length of a database that has no log, if its header can tell: its number of pages counts if it was written with
/// the last change.
fn length_of(header: &[u8]) -> Option<u64> {
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        size => u64::from(size),
    };
    let pages = number_at(header, 28);
    let is_valid = number_at(header, 24) == number_at(header, 92);
    (is_valid && pages > 0).then_some(u64::from(pages) * page_size)
}

fn number_at(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
