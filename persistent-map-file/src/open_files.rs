//! Files that this process has open, by what they are and not by name.
//!
//! Locks of the kind that SQLite uses belong to a process and a file: when the process closes any descriptor of the file, all
//! its locks on it are gone, without a word. So no code of ours opens a file a second time, by whatever name: it asks here
//! first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use persistent_map_core::{Owner, PersistentError, Result};

use crate::lock::{PATIENCE, RETRY};

/// A file that is open in this process, until this is dropped.
///
/// ```
/// use persistent_map_core::PersistentError;
/// use persistent_map_file::OpenFile;
///
/// # let dir = tempfile::tempdir().unwrap();
/// let (path, moved) = (dir.path().join("app.db"), dir.path().join("moved.db"));
/// std::fs::write(&path, "").unwrap();
/// let open = OpenFile::own(&path)?;
/// std::fs::rename(&path, &moved).unwrap();
/// # #[cfg(unix)] // Windows does not tell which file it is.
/// assert!(matches!(OpenFile::look(&moved), Err(PersistentError::InUse { .. })));
/// drop(open);
/// OpenFile::look(&moved)?;
/// # Ok::<(), PersistentError>(())
/// ```
#[derive(Debug)]
pub struct OpenFile(Option<Identity>);

type Identity = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Owned,
    LookedAt(usize),
}

static OPEN: Mutex<BTreeMap<Identity, Use>> = Mutex::new(BTreeMap::new());

impl OpenFile {
    /// Notes that the file at `path` is open, and stays so. The file is not opened by this. Waits for whoever only looks at
    /// it, for [`PATIENCE`], blocking the thread.
    ///
    /// # Errors
    /// - [`InUse`](PersistentError::InUse): it is open in this process already, under this name or another one.
    /// - [`Storage`](PersistentError::Storage): the file cannot be looked at.
    pub fn own(path: &Path) -> Result<Self> {
        let Some(file) = identity_of(path)? else {
            return Ok(OpenFile(None));
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut open = open_files();
            match open.get(&file) {
                None => {
                    open.insert(file, Use::Owned);
                    return Ok(OpenFile(Some(file)));
                }
                Some(Use::LookedAt(_)) if Instant::now() < deadline => {}
                Some(_) => return Err(in_use(path)),
            }
            drop(open);
            thread::sleep(RETRY);
        }
    }

    /// Notes that the file at `path` is read for a moment, beside others who do so.
    ///
    /// # Errors
    /// As for [`own`](OpenFile::own), at once.
    pub fn look(path: &Path) -> Result<Self> {
        let Some(file) = identity_of(path)? else {
            return Ok(OpenFile(None));
        };
        let mut open = open_files();
        match open.entry(file).or_insert(Use::LookedAt(0)) {
            Use::LookedAt(looks) => *looks += 1,
            Use::Owned => return Err(in_use(path)),
        }
        Ok(OpenFile(Some(file)))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let Some(file) = self.0 else { return };
        let mut open = open_files();
        match open.get_mut(&file) {
            Some(Use::LookedAt(looks)) if *looks > 1 => *looks -= 1,
            _ => {
                open.remove(&file);
            }
        }
    }
}

fn open_files() -> MutexGuard<'static, BTreeMap<Identity, Use>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_use(path: &Path) -> PersistentError {
    let owner = Owner::ThisProcess("under this name or another one".to_string());
    PersistentError::in_use(path, owner)
}

/// `None` if there is no file.
#[cfg(unix)]
fn identity_of(path: &Path) -> Result<Option<Identity>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(crate::path::identity(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PersistentError::storage(
            format!("looking at {}", path.display()),
            error,
        )),
    }
}

/// Other systems do not tell which file it is. Their locks belong to a descriptor.
#[cfg(not(unix))]
fn identity_of(_: &Path) -> Result<Option<Identity>> {
    Ok(None)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_under_each_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &link).unwrap();
        let looks = [
            OpenFile::look(&file).unwrap(),
            OpenFile::look(&link).unwrap(),
        ];
        let refused = OpenFile::own(&link).unwrap_err();
        assert!(
            matches!(refused, PersistentError::InUse { .. }),
            "{refused}"
        );
        drop(looks);
        let owned = OpenFile::own(&link).unwrap();
        for refused in [OpenFile::own(&file), OpenFile::look(&file)] {
            assert!(matches!(refused, Err(PersistentError::InUse { .. })));
        }
        drop(owned);
        OpenFile::own(&file).unwrap();
    }

    #[test]
    fn whoever_opens_it_waits_for_those_who_look() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let look = OpenFile::look(&file).unwrap();
        let looking = thread::spawn(move || {
            thread::sleep(PATIENCE / 5);
            drop(look);
        });
        OpenFile::own(&file).unwrap();
        looking.join().unwrap();
    }
}
