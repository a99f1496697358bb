//! Who has a file: a lock file beside it.
//!
//! Locks of the file itself are no use here: SQLite's own, or none in a text file that others replace. This one works
//! between processes and within one, answers at once, and says who has it. The lock is the operating system's, so it goes
//! with its process, however that ends.
//!
//! The file stays for good, and means nothing without a lock on it. Whoever removed it would make two owners: one of the file
//! that has lost its name, and one of the next file of this name. Others may remove it all the same, so what is locked is
//! compared with what has the name, after locking and then as often as the owner asks.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use persistent_map_core::{Owner, PersistentError, Result};

use crate::advice::unusable;
use crate::beside::{create_lock, has_name, open_itself};
use crate::owner;
use crate::path::{identity, refused, with_suffix};

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
/// lock.check().unwrap(); // with each commit
/// drop(lock);
///
/// LockFile::acquire(&target)?;
/// assert_eq!(std::fs::read(dir.path().join("app.db.lock")).unwrap(), b"", "it stays, and names nobody");
/// # Ok::<(), PersistentError>(())
/// ```
#[derive(Debug)]
pub struct LockFile {
    target: PathBuf,
    path: PathBuf,
    file: File,
    identity: (u64, u64),
    /// Who has made it. A process that was forked from this one has the descriptor, and not the lock.
    process: u32,
    /// It says who has the lock. (A file of this name that says something else is locked, and left as it is; and on a full disk
    /// it says nothing.)
    is_ours: bool,
    /// When the owner was written into it.
    written: Mutex<Option<SystemTime>>,
    /// What is left in it for the next owner.
    note: Mutex<Option<String>>,
}

impl LockFile {
    /// Locks the file `target`, which is absolute and need not exist. The lock is on a file beside it, `target` with
    /// `.lock` at the end. Waits for it for [`PATIENCE`], blocking the thread.
    ///
    /// The lock file stays when the lock is given up, also if `target` turns out to be no store. It can be opened by those who
    /// may write to `target`, and by nobody else.
    ///
    /// # Errors
    /// - [`InUse`](PersistentError::InUse): somebody has it, here or in another process.
    /// - [`Refused`](PersistentError::Refused): the lock file cannot be made or locked.
    pub fn acquire(target: &Path) -> Result<Self> {
        let path = with_suffix(target, ".lock");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let file = open_or_create(&path, target).map_err(|error| cannot_open(&path, error))?;
            let is_late = Instant::now() >= deadline;
            match file.try_lock() {
                // Others may have removed it while it was waited for.
                Ok(()) if has_name(&file, &path).unwrap_or(false) => {
                    return Self::locked(target, path, file);
                }
                Ok(()) if is_late => {
                    let error = io::Error::other("others replace it again and again");
                    return Err(cannot_open(&path, error));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if is_late => {
                    return Err(PersistentError::in_use(target, read_owner(&file)));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(RETRY),
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
    }

    fn locked(target: &Path, path: PathBuf, file: File) -> Result<Self> {
        let before = read(&file);
        let is_ours = write_owner(&file, &before);
        let metadata = file.metadata().map_err(|error| cannot_open(&path, error))?;
        Ok(LockFile {
            target: target.to_path_buf(),
            path,
            file,
            identity: identity(&metadata),
            process: process::id(),
            is_ours,
            written: Mutex::new(metadata.modified().ok()),
            note: Mutex::new(owner::note_in(&before).map(str::to_string)),
        })
    }

    /// The file that is locked.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// What the last owner has left in the lock file by [`leave`](Self::leave), or this one since. None if nothing was, if
    /// the owner ended without giving up the lock, or if it could not be written: nothing may depend on it.
    ///
    /// ```
    /// use persistent_map_file::LockFile;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let target = dir.path().join("app.csv");
    /// let lock = LockFile::acquire(&target)?;
    /// lock.leave(Some("3 rows"));
    /// drop(lock);
    /// assert_eq!(LockFile::acquire(&target)?.note().as_deref(), Some("3 rows"));
    /// # Ok::<(), persistent_map_core::PersistentError>(())
    /// ```
    pub fn note(&self) -> Option<String> {
        self.lock_note().clone()
    }

    /// Leaves one line for the next owner, of at most 500 bytes, in place of what was left before. It is written when the
    /// lock is given up, without a sync, and whether that succeeds is not told. For an example see [`note`](Self::note).
    pub fn leave(&self, note: Option<&str>) {
        *self.lock_note() = note.map(str::to_string);
    }

    fn lock_note(&self) -> MutexGuard<'_, Option<String>> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lock still keeps others out. Costs one look at a name.
    ///
    /// What was committed before this answered `Ok` is what the next owner finds, whoever that is. So a store asks after each
    /// commit, before it acknowledges that; and before it changes what another owner would not notice.
    ///
    /// # Errors
    /// It does not, and the text says why and what to do: the lock file was deleted, moved or replaced, also with its
    /// directory; another owner has written a name into it, because locks do not hold on this file system; or this is a
    /// fork of the process that has the lock.
    pub fn check(&self) -> io::Result<()> {
        if process::id() != self.process {
            return Err(io::Error::other(FORKED));
        }
        let named = match fs::symlink_metadata(&self.path) {
            Ok(named) => named,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(lost()),
            // Other errors do not tell.
            Err(_) => return Ok(()),
        };
        if identity(&named) != self.identity {
            return Err(lost());
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let now = named.modified().ok();
        if self.is_ours && now != *written {
            if !owner::is_own(&read(&self.file)) {
                return Err(io::Error::other(NOT_LOCKED));
            }
            // Somebody has touched it, and no more.
            *written = now;
        }
        Ok(())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if process::id() != self.process {
            return;
        }
        // An owner who has gone is named to nobody.
        if self.is_ours && self.check().is_ok() {
            let note = self.note().map(|note| owner::noted(&note));
            let _ = write(&self.file, &note.unwrap_or_default());
        }
        // Closing it would not do: a process that was forked meanwhile has the same lock by a descriptor of its own.
        let _ = self.file.unlock();
    }
}

const FORKED: &str = "this process was forked from the one that has the file open. Open the file in the new process, after \
    the old one has closed it";

const NOT_LOCKED: &str = "another program has written its name into the lock file beside it, so both have the file open: locks \
    do not keep programs apart on this file system (a network or overlay file system, say). Stop one of the two, and keep \
    the file on a local disk. All entries are in memory: `copy` the map to a new store";

fn lost() -> io::Error {
    io::Error::new(
        ErrorKind::NotFound,
        "the `.lock` file beside it was deleted, moved or replaced while it was open, so another program may have opened it \
         since. Keep what cleans up away from it, and see that no other program has the file open. All entries are in \
         memory: `copy` the map to a new store",
    )
}

fn open_or_create(path: &Path, target: &Path) -> io::Result<File> {
    loop {
        if let Some(file) = open_itself(path)? {
            return Ok(file);
        }
        match create_lock(path, target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
}

fn cannot_open(path: &Path, error: io::Error) -> PersistentError {
    if error.kind() == ErrorKind::PermissionDenied
        && let Some(owner) = foreign_owner_of(path)
    {
        return refused(
            path,
            format!(
                "the lock file belongs to user {owner}, by whom the file was opened before, and cannot be opened here"
            ),
            "Give it the owner and the mode of the file that it is for (`chown --reference`, `chmod --reference`), or run the \
             program as that user. Do not delete it while a program has the file open",
            Some(error),
        );
    }
    unusable(
        path,
        "the lock file cannot be opened",
        "The directory must be writable, and nothing else may have this name",
        error,
    )
}

#[cfg(unix)]
fn foreign_owner_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;

    let owner = fs::symlink_metadata(path).ok()?.uid();
    Some(owner::user(owner))
}

#[cfg(not(unix))]
fn foreign_owner_of(_: &Path) -> Option<String> {
    None
}

/// Returns whether the file says now who has it. That helps people, and a lock without it, as on a full disk, is one all the
/// same. Writes only over names like it, and notes.
fn write_owner(file: &File, before: &str) -> bool {
    let is_other =
        !before.is_empty() && !before.starts_with(owner::BEGINNING) && !owner::is_note(before);
    !is_other && write(file, &owner::introduction()).is_ok()
}

fn write(mut file: &File, text: &str) -> io::Result<()> {
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text.as_bytes()));
    // Half a name would be taken for somebody else's.
    written.inspect_err(|_| drop(file.set_len(0)))
}

/// On Windows a locked file cannot be read; then the owner has no name.
fn read_owner(file: &File) -> Owner {
    owner::named_by(&read(file))
}

fn read(mut file: &File) -> String {
    let mut text = Vec::new();
    let _ = file.rewind();
    let _ = file.take(owner::LONGEST).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn target() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("app.csv");
        (dir, target)
    }

    fn lock_of(target: &Path) -> PathBuf {
        with_suffix(target, ".lock")
    }

    /// The lock of a file that has lost its name keeps nobody out.
    #[test]
    fn whoever_waits_for_a_lock_file_that_is_removed_locks_the_next_one() {
        const ROUNDS: usize = 3000;
        let (_dir, target) = target();
        let (owners, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while rounds.fetch_add(1, Ordering::SeqCst) < ROUNDS {
                        let Ok(lock) = LockFile::acquire(&target) else {
                            continue;
                        };
                        assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "two owners");
                        thread::yield_now();
                        owners.fetch_sub(1, Ordering::SeqCst);
                        fs::remove_file(lock_of(&target)).unwrap();
                        drop(lock);
                    }
                });
            }
        });
    }

    #[test]
    fn a_lock_that_keeps_nobody_out_any_more_is_told() {
        let (dir, target) = target();
        let path = lock_of(&target);
        let elsewhere = dir.path().join("elsewhere");
        for harm in ["deleted", "moved", "replaced", "linked"] {
            let lock = LockFile::acquire(&target).unwrap();
            lock.check().unwrap();
            match harm {
                "moved" | "linked" => fs::rename(&path, &elsewhere).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            match harm {
                "replaced" => fs::write(&path, "").unwrap(),
                "linked" => std::os::unix::fs::symlink(&elsewhere, &path).unwrap(),
                _ => {}
            }
            let told = lock.check().unwrap_err().to_string();
            assert!(
                told.contains("deleted, moved or replaced"),
                "{harm}: {told}"
            );
            drop(lock);
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(&elsewhere);
        }
    }

    #[test]
    fn a_second_owner_is_told_where_locks_do_not_keep_it_out() {
        let (_dir, target) = target();
        let lock = LockFile::acquire(&target).unwrap();
        let later = SystemTime::now() + Duration::from_secs(1);
        lock.file.set_modified(later).unwrap();
        lock.check().expect("it was touched, and no more");
        fs::write(
            lock_of(&target),
            "process 1 (app)\ntoken 0 pid-namespace 1 boot 1\n",
        )
        .unwrap();
        lock.file
            .set_modified(later + Duration::from_secs(1))
            .unwrap();
        let told = lock.check().unwrap_err().to_string();
        assert!(told.contains("both have the file open"), "{told}");
    }

    #[test]
    fn a_note_stays_until_another_one_and_names_nobody() {
        let (_dir, target) = target();
        let acquire = || LockFile::acquire(&target).unwrap();
        acquire().leave(Some("3 rows"));
        for _ in 0..2 {
            // As by a load that fails.
            assert_eq!(acquire().note().as_deref(), Some("3 rows"));
        }
        let left = fs::read_to_string(lock_of(&target)).unwrap();
        assert!(
            !owner::named_by(&left).to_string().contains("3 rows"),
            "{left}"
        );
        acquire().leave(None);
        assert_eq!(acquire().note(), None);
        assert_eq!(fs::read(lock_of(&target)).unwrap(), b"");

        fs::write(lock_of(&target), "of another program").unwrap();
        acquire().leave(Some("3 rows"));
        let kept = fs::read_to_string(lock_of(&target)).unwrap();
        assert_eq!(kept, "of another program");
    }

    /// As a child has it that was forked and runs no other program.
    #[test]
    fn a_descriptor_that_a_child_has_inherited_does_not_keep_the_lock() {
        let (_dir, target) = target();
        let lock = LockFile::acquire(&target).unwrap();
        let _inherited = lock.file.try_clone().unwrap();
        drop(lock);
        LockFile::acquire(&target).unwrap();
    }

    #[test]
    fn a_fork_neither_has_the_lock_nor_gives_it_up() {
        let (_dir, target) = target();
        let lock = LockFile::acquire(&target).unwrap();
        let forked = LockFile {
            file: lock.file.try_clone().unwrap(),
            process: lock.process + 1,
            target: lock.target.clone(),
            path: lock.path.clone(),
            written: Mutex::default(),
            note: Mutex::default(),
            ..lock
        };
        let told = forked.check().unwrap_err().to_string();
        assert!(told.contains("forked"), "{told}");
        drop(forked);
        let refused = LockFile::acquire(&target).unwrap_err();
        assert!(
            matches!(refused, PersistentError::InUse { .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_refused_and_nothing_is_written_through_it() {
        let (dir, target) = target();
        let victim = dir.path().join("victim");
        fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, lock_of(&target)).unwrap();
        let refused = LockFile::acquire(&target).unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
        assert_eq!(fs::read(&victim).unwrap(), b"");
    }
}
