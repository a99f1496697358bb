//! Who has a file: a lock file beside it.
//!
//! Locks of the file itself are no use here: SQLite's own, or none in a text file that others replace. This one works
//! between processes and within one, answers at once, and says who has it. The lock is the operating system's, so it goes with its process, however that ends; the file stays
//! and means nothing without a lock on it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use persistent_map_core::{PersistentError, Result};

use crate::advice::unusable;
use crate::path::{refused, regular, with_suffix};

/// How long to wait for an owner who is just closing: what a backend waits that has a lock of another kind, to be like the
/// others.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use persistent_map_file::{PATIENCE, RETRY};
///
/// # let mut tries = 0;
/// # let mut try_lock = || { tries += 1; tries > 2 };
/// let deadline = Instant::now() + PATIENCE;
/// while !try_lock() {
///     assert!(Instant::now() < deadline, "in use");
///     std::thread::sleep(RETRY);
/// }
/// ```
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How often to look whether it has, within [`PATIENCE`].
pub const RETRY: Duration = Duration::from_millis(10);

/// The lock on a file, held until it is dropped or its process ends.
///
/// ```
/// use persistent_map_core::PersistentError;
/// use persistent_map_file::LockFile;
///
/// # let dir = tempfile::tempdir().unwrap();
/// let target = dir.path().join("app.db");
/// let lock = LockFile::acquire(&target)?;
/// assert!(matches!(LockFile::acquire(&target), Err(PersistentError::InUse { .. })));
/// drop(lock);
///
/// let lock = LockFile::acquire(&target)?;
/// // What is there turns out to be somebody else's:
/// lock.leave_no_file();
/// # Ok::<(), PersistentError>(())
/// ```
#[derive(Debug)]
pub struct LockFile {
    target: PathBuf,
    file: File,
    /// There was no lock file before this one.
    is_new: bool,
    /// It says who has the lock. (A file of this name that says something else is locked, and left as it is.)
    is_ours: bool,
}

impl LockFile {
    /// Locks the file `target`, which is absolute and need not exist. The lock is on a file beside it, `target` with
    /// `.lock` at the end. Waits for it for [`PATIENCE`], blocking the thread.
    ///
    /// # Errors
    /// - [`InUse`](PersistentError::InUse): somebody has it, here or in another process.
    /// - [`Refused`](PersistentError::Refused): the lock file cannot be made or locked.
    pub fn acquire(target: &Path) -> Result<Self> {
        let path = with_suffix(target, ".lock");
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(regular)
            .map_err(|error| {
                unusable(
                    &path,
                    "the lock file cannot be opened",
                    "The directory must be writable, and nothing else may have this name",
                    error,
                )
            })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(RETRY);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(PersistentError::in_use(target, read_owner(&mut file)));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(refused(
                        &path,
                        "the lock file cannot be locked",
                        "Keep the file on a local disk that supports file locks",
                        Some(error),
                    ));
                }
            }
        }
        let is_ours = write_owner(&mut file);
        Ok(LockFile {
            target: target.to_path_buf(),
            file,
            is_new,
            is_ours,
        })
    }

    /// Gives up a lock on what turned out not to be a file of ours: nothing stays beside it.
    pub fn leave_no_file(self) {
        if self.is_new {
            let _ = std::fs::remove_file(with_suffix(&self.target, ".lock"));
        }
    }

    /// The file that is locked.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // An owner who has gone is named to nobody.
        if self.is_ours {
            let _ = self.file.set_len(0);
        }
    }
}

/// The name helps people; whether it can be written does not decide anything. Writes only over names like it.
fn write_owner(file: &mut File) -> bool {
    let mut content = Vec::new();
    let _ = file.take(16).read_to_end(&mut content);
    if !content.is_empty() && !content.starts_with(b"process ") {
        return false;
    }
    let program = std::env::current_exe().ok();
    let name = program
        .as_deref()
        .and_then(Path::file_name)
        .map_or_else(|| "unknown program".into(), |name| name.to_string_lossy());
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = write!(file, "process {} ({name})", process::id());
    true
}

/// On Windows a locked file cannot be read; then the owner has no name.
fn read_owner(file: &mut File) -> String {
    let mut owner = String::new();
    let _ = file.rewind();
    let _ = file.take(256).read_to_string(&mut owner);
    let own = format!("process {} ", process::id());
    match owner.trim() {
        "" => "somebody who has not left a name".to_string(),
        owner if owner.starts_with(&own) => format!("this very process: {owner}"),
        owner => owner.to_string(),
    }
}
