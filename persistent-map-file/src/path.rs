//! Paths: one name for one file, names beside it, and what to say about one that cannot be used.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use persistent_map_core::{Cause, PersistentError, Result};

use crate::advice::unusable;

/// Absolute and without links, so that two ways to write a path meet at one lock. The file need not exist, its directory
/// must.
///
/// # Errors
/// [`Refused`](PersistentError::Refused): an empty path, one that cannot be resolved, a link that leads nowhere.
///
/// ```
/// use persistent_map_file::resolve;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// std::fs::create_dir(dir.join("data"))?;
/// assert_eq!(resolve(&dir.join("data/../app.db"))?, resolve(&dir.join("app.db"))?);
/// let error = resolve(&dir.join("missing/app.db")).unwrap_err().to_string();
/// assert!(error.contains("Make the directory first"));
/// # Ok::<(), persistent_map_core::PersistentError>(())
/// ```
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(refused(path, "the path is empty", "Name a file", None));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
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
                    "Remove the link or make it point to a file",
                )
            } else {
                (
                    "the path cannot be resolved",
                    "Check the permissions of the directories on the way",
                )
            };
            unusable(&absolute, reason, advice, error)
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
        unusable(
            &absolute,
            "its directory cannot be used",
            "Make the directory first, or check its permissions",
            error,
        )
    })?;
    Ok(directory.join(name))
}

/// The same file, if it is one.
///
/// # Errors
/// It is a pipe, say: to read from it would be to wait for ever.
///
/// ```
/// use std::fs::File;
///
/// use persistent_map_file::regular;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// # std::fs::write(&path, "")?;
/// let file = File::open(path).and_then(regular)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file"))
}

/// Whether there is a file of this name, which is no link: see [`resolve`].
///
/// # Errors
/// [`Refused`](PersistentError::Refused): there is something else, or it cannot be told.
///
/// ```
/// use persistent_map_file::is_regular_file;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// assert!(!is_regular_file(&dir.join("app.db"))?); // to be made
/// assert!(is_regular_file(dir).unwrap_err().to_string().contains("it is a directory"));
/// # Ok::<(), persistent_map_core::PersistentError>(())
/// ```
pub fn is_regular_file(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(metadata) => {
            let (reason, advice) = if metadata.is_dir() {
                ("it is a directory", "Name a file in it")
            } else if metadata.is_symlink() {
                ("it is a symbolic link", "Name the file that it leads to")
            } else {
                ("it is not a regular file", "Name one that is")
            };
            Err(refused(path, reason, advice, None))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(
            path,
            "it cannot be looked at",
            "Check the permissions of its directory",
            error,
        )),
    }
}

/// Which file it is, by device and inode: another one may have taken its name since. The same for all where the system has
/// no such numbers.
///
/// ```
/// use std::fs::{self, File};
///
/// use persistent_map_file::identity;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let open = File::create(&path)?;
/// assert_eq!(identity(&open.metadata()?), identity(&fs::metadata(&path)?));
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(unix)]
pub fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.dev(), metadata.ino())
}

/// Which file it is: not to be told here.
#[cfg(not(unix))]
pub fn identity(_: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}

/// A name beside the file: `app.db` and `-wal` make `app.db-wal`.
///
/// ```
/// use std::path::Path;
/// use persistent_map_file::with_suffix;
///
/// assert_eq!(with_suffix(Path::new("app.db"), "-wal"), Path::new("app.db-wal"));
/// ```
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a new name, or a file's disappearance, durable: it is when its directory is.
///
/// ```
/// use std::fs::{self, File};
///
/// use persistent_map_file::sync_directory_of;
///
/// # let dir = tempfile::tempdir()?;
/// # let (path, new) = (dir.path().join("app.txt"), dir.path().join("app.txt.new"));
/// fs::write(&new, "contents")?;
/// File::open(&new)?.sync_all()?;
/// fs::rename(&new, &path)?;
/// sync_directory_of(&path)?; // only now a power cut leaves the new file
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The directory cannot be opened or synced; the name may not survive a power cut.
#[cfg(unix)]
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a new name durable: nothing to do, because Windows has no such call and NTFS journals names by itself.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn sync_directory_of(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The error for a path that cannot be used. `cause` becomes a part of the reason, so that it is seen where only the
/// message is printed.
///
/// ```
/// use std::path::Path;
///
/// use persistent_map_file::refused;
///
/// let error = refused(Path::new("app.txt"), "it is not a text file", "Name a file of this program", None);
/// assert_eq!(error.to_string(), "cannot use app.txt: it is not a text file. Name a file of this program");
/// ```
pub fn refused(
    path: &Path,
    reason: impl Into<String>,
    advice: &str,
    cause: Option<io::Error>,
) -> PersistentError {
    PersistentError::Refused {
        path: path.to_path_buf(),
        reason: match &cause {
            Some(cause) => format!("{}: {cause}", reason.into()),
            None => reason.into(),
        },
        advice: advice.to_string(),
        cause: cause.map(Cause::new),
    }
}
