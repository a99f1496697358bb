//! From a path to a file that may be opened: locked, and known to be ours before SQLite touches it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use persistent_map_core::{PersistentError, Result};

use crate::lock::LockFile;

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
    let path = resolve(path)?;
    is_regular_file(&path)?;
    let lock = LockFile::acquire(&path)?;
    match look_at(&path) {
        Ok(true) => {
            let has_wal = with_suffix(&path, "-wal").exists();
            Ok(Target::Existing { lock, has_wal })
        }
        Ok(false) => match fs::metadata(with_suffix(&path, "-wal")) {
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
fn look_at(path: &Path) -> Result<bool> {
    let exists = is_regular_file(path)?;
    if exists {
        check_header(path)?;
    }
    Ok(exists)
}

/// `app.db` and `-wal` make `app.db-wal`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A new name, or a file's disappearance, is durable when the directory is.
#[cfg(unix)]
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Windows has no such call; NTFS journals names by itself.
#[cfg(not(unix))]
pub(crate) fn sync_directory_of(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes sure that there is a log beside a database: an empty one if SQLite has merged and removed it.
pub(crate) fn keep_log(database: &Path) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(with_suffix(database, "-wal"))?;
    sync_directory_of(database)
}

pub(crate) fn refused(
    path: &Path,
    reason: impl Into<String>,
    advice: &str,
    source: Option<io::Error>,
) -> PersistentError {
    PersistentError::Refused {
        path: path.to_path_buf(),
        reason: match &source {
            Some(source) => format!("{}: {source}", reason.into()),
            None => reason.into(),
        },
        advice: advice.to_string(),
        source: source.map(|source| std::sync::Arc::new(source) as _),
    }
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

/// Absolute and without links, so that two ways to write a path meet at one lock.
fn resolve(path: &Path) -> Result<PathBuf> {
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
    if text.contains('\0') {
        return Err(refused(
            path,
            "the path contains a NUL byte",
            "Give a plain path",
            None,
        ));
    }
    let absolute = std::path::absolute(path).map_err(|error| {
        refused(
            path,
            "the path cannot be made absolute",
            "Give a full path",
            Some(error),
        )
    })?;
    if fs::symlink_metadata(&absolute).is_ok() {
        return fs::canonicalize(&absolute).map_err(|error| {
            let (reason, advice) = if error.kind() == io::ErrorKind::NotFound {
                (
                    "it is a link to a file that does not exist",
                    "Remove the link or make it point to a database",
                )
            } else {
                (
                    "the path cannot be resolved",
                    "Check the permissions of the directories on the way",
                )
            };
            refused(&absolute, reason, advice, Some(error))
        });
    }
    let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(refused(
            &absolute,
            "it is not the name of a file",
            "Name a file in a directory",
            None,
        ));
    };
    let directory = fs::canonicalize(directory).map_err(|error| {
        refused(
            &absolute,
            "its directory cannot be used",
            "Make the directory first, or check its permissions",
            Some(error),
        )
    })?;
    Ok(directory.join(name))
}

fn is_regular_file(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(metadata) => Err(refused(
            path,
            if metadata.is_dir() {
                "it is a directory"
            } else {
                "it is not a regular file"
            },
            "Name a file, as in `data/app.db`",
            None,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused(
            path,
            "it cannot be looked at",
            "Check the permissions of its directory",
            Some(error),
        )),
    }
}

/// The first 100 bytes of a database tell whose it is (<https://www.sqlite.org/fileformat.html#the_database_header>).
/// Ours are written before the file gets its name, so they are never out of date.
fn check_header(path: &Path) -> Result<()> {
    const UNTOUCHED: &str = "The file was not changed; give another path, or move it away";
    let mut header = Vec::with_capacity(100);
    // For writing too, because SQLite would fall back to reading and then fail without saying why.
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|file| file.take(100).read_to_end(&mut header))
        .map_err(|error| {
            refused(
                path,
                "it cannot be opened for reading and writing",
                "Check the permissions of the file",
                Some(error),
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
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if number(68) != APPLICATION_ID {
        return Err(refused(
            path,
            "it is a SQLite database of another program",
            UNTOUCHED,
            None,
        ));
    }
    match number(60) {
        FORMAT_VERSION => Ok(()),
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
