//! What to say about an error of the file system: what is wrong, and the one next step that mends it.

use std::io;
use std::path::Path;

use persistent_map_core::PersistentError;

use crate::path::refused;

/// The reason and the cure of an error of the file system, for a path that a store was `tried` on ("the lock file cannot be
/// opened"). An error that has no cure of its own gets `otherwise`.
///
/// ```
/// use std::io;
/// use std::path::Path;
///
/// use persistent_map_file::unusable;
///
/// let full = io::Error::from(io::ErrorKind::StorageFull);
/// let error = unusable(Path::new("app.csv"), "it cannot be opened", "Check its permissions", full);
/// assert!(error.to_string().ends_with("Make room on its disk, and open it again"));
/// ```
pub fn unusable(path: &Path, tried: &str, otherwise: &str, error: io::Error) -> PersistentError {
    let advice = cure(&error).unwrap_or(otherwise);
    refused(path, tried, advice, Some(error))
}

/// The next step that fits an error, whatever was tried. `None`: it depends on what was tried, as for a lack of permission,
/// which a file or its directory can have.
///
/// ```
/// use std::io;
///
/// use persistent_map_file::cure;
///
/// let advice = cure(&io::ErrorKind::ReadOnlyFilesystem.into());
/// assert!(advice.unwrap().contains("read-only"));
/// assert_eq!(cure(&io::Error::other("something else")), None);
/// ```
pub fn cure(error: &io::Error) -> Option<&'static str> {
    if let Some(advice) = by_number(error) {
        return Some(advice);
    }
    Some(match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "Its file system is mounted read-only: mount it for writing, or keep the file elsewhere"
        }
        io::ErrorKind::InvalidFilename => {
            "Give a shorter path: its name, with what is put beside it at the end, is longer than the file system takes"
        }
        io::ErrorKind::StorageFull => "Make room on its disk, and open it again",
        io::ErrorKind::QuotaExceeded => {
            "Make room within the quota of this user, or have it raised, and open it again"
        }
        io::ErrorKind::NotADirectory => {
            "Correct the path: something on the way is a file, where a directory must be"
        }
        io::ErrorKind::IsADirectory => "Name a file in this directory",
        io::ErrorKind::ResourceBusy => {
            "Find out who uses the file (it may be mounted by itself, as into a container: mount its directory), then open it again"
        }
        io::ErrorKind::StaleNetworkFileHandle => {
            "Mount the network share anew, since the server has replaced the file, and open it again"
        }
        _ => return None,
    })
}

/// Errors that have no stable [`io::ErrorKind`], by the numbers of the operating system.
#[cfg(unix)]
fn by_number(error: &io::Error) -> Option<&'static str> {
    // The same on Linux, macOS and the BSDs, but for the last.
    const EPERM: i32 = 1;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

    match error.raw_os_error()? {
        // The kind cannot tell it from a lack of permissions, which has another cure.
        EPERM => Some(
            "Take the file's or its directory's protection away (`lsattr` shows it on Linux, `ls -lO` on macOS)",
        ),
        EMFILE => Some(
            "This process has as many files open as it may: close some, or raise its limit (`ulimit -n`)",
        ),
        ENFILE => Some(
            "The whole system has as many files open as it may: close some, or raise its limit (`sysctl fs.file-max` on \
             Linux, `kern.maxfiles` on macOS)",
        ),
        ELOOP => Some("Correct the links of the path: they lead in a circle, or through too many"),
        _ => None,
    }
}

/// Windows has kinds for those that it has.
#[cfg(not(unix))]
fn by_number(_: &io::Error) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn each_kind_has_a_cure_of_its_own() {
        let kinds = [
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::InvalidFilename,
            ErrorKind::StorageFull,
            ErrorKind::QuotaExceeded,
            ErrorKind::NotADirectory,
            ErrorKind::IsADirectory,
            ErrorKind::ResourceBusy,
            ErrorKind::StaleNetworkFileHandle,
        ];
        let cures: HashSet<_> = kinds.iter().map(|kind| cure(&Error::from(*kind))).collect();
        assert_eq!(cures.len(), kinds.len());
        assert!(!cures.contains(&None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn each_number_of_linux_has_a_cure_of_its_own() {
        // EPERM, EBUSY, ENOTDIR, EISDIR, ENFILE, EMFILE, ENOSPC, EROFS, ENAMETOOLONG, ELOOP, ESTALE
        let numbers = [1, 16, 20, 21, 23, 24, 28, 30, 36, 40, 116];
        let cures: HashSet<_> = numbers
            .iter()
            .map(|number| cure(&Error::from_raw_os_error(*number)))
            .collect();
        assert_eq!(cures.len(), numbers.len());
        assert!(!cures.contains(&None));
    }
}
