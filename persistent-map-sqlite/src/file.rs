//! From a path to a file that may be opened: locked, and known to be ours before SQLite touches it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::{
    LockFile, OpenFile, check_place, create_anew, identity, is_regular_file, refused, resolve,
    sync_directory_of, unusable, with_suffix,
};

use crate::import::{first_page, is_of_version_0_1};
use crate::length;

/// "PMAP", in the header of every file of ours.
pub(crate) const APPLICATION_ID: u32 = 0x504d_4150;
/// The layout of the tables. It changes when an older reader would misread them.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What the name of a database that is being made has at its end.
pub(crate) const DRAFT: &str = ".persistent-map-creating";

/// The name that SQLite gives a database without a file.
pub(crate) const IN_MEMORY: &str = ":memory:";

/// What there is to open.
pub(crate) enum Target {
    /// `:memory:`
    Memory,
    /// Nothing yet.
    New(LockFile),
    /// A database of ours, of a version that we read.
    Existing { owned: Owned, has_wal: bool },
}

/// A file that is ours: in this process, and then among all.
pub(crate) struct Owned {
    _open: OpenFile,
    lock: LockFile,
}

impl Owned {
    /// Before the file is opened for the first time.
    pub(crate) fn new(lock: LockFile) -> Result<Self> {
        Ok(Owned {
            _open: OpenFile::own(lock.target())?,
            lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.lock.target()
    }

    /// Whether the lock still keeps others out.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.lock.check()
    }
}

/// Resolves, locks and looks. Blocks on the file system, and up to half a second on the lock.
pub(crate) fn prepare(path: &Path) -> Result<Target> {
    if path == Path::new(IN_MEMORY) {
        return Ok(Target::Memory);
    }
    let path = resolve(checked(path)?)?;
    length::check(&path)?;
    is_regular_file(&path)?;
    let owned = Owned::new(LockFile::acquire(&path)?)?;
    forget_draft(&path).map_err(|error| {
        PersistentError::storage(format!("clearing up beside {}", path.display()), error)
    })?;
    check_place(&path)?;
    let log = with_suffix(&path, "-wal");
    // What is no file would be removed by SQLite.
    let has_wal = is_regular_file(&log)?;
    if look_at(&path, has_wal)? {
        return Ok(Target::Existing { owned, has_wal });
    }
    match fs::metadata(&log) {
        Ok(log) if log.len() > 0 => Err(refused(
            &path,
            "the database is missing, and its `-wal` file is still there",
            "Bring the database back, or move the `-wal` file away: a new database would take its contents for its own",
            None,
        )),
        _ => Ok(Target::New(owned.lock)),
    }
}

/// Where a new database is made, before it gets its name.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    with_suffix(path, DRAFT)
}

/// A crash between the two steps in which a new database gets its name leaves it two.
fn forget_draft(path: &Path) -> io::Result<()> {
    let draft = draft_of(path);
    let identity_of = |path: &Path| {
        fs::symlink_metadata(path)
            .map(|named| identity(&named))
            .ok()
    };
    if identity_of(&draft).is_some_and(|draft| identity_of(path) == Some(draft)) {
        fs::remove_file(&draft)?;
    }
    Ok(())
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

/// Makes sure that there is a log beside a database: an empty one if SQLite has merged and removed it.
pub(crate) fn keep_log(database: &Path) -> io::Result<()> {
    let log = with_suffix(database, "-wal");
    if fs::exists(database)? && fs::symlink_metadata(&log).is_err() {
        create_anew(&log, database)?;
    }
    sync_directory_of(database)
}

pub(crate) fn wal_is_missing(path: &Path) -> PersistentError {
    refused(
        path,
        "it was open when it was last written, and the latest writes are in a `-wal` file that is not beside it",
        "Bring the `-wal` file back. If this is a copy: copy a database that is closed, with all files beside it. If another \
         SQLite tool has opened and closed this very file since, the tool has merged the writes into it, and nothing that was \
         acknowledged is missing: open it once with `SqliteBackend::builder(..).accept_missing_wal(true)`",
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
    if text.starts_with("file:") || text.starts_with("sqlite:") {
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
