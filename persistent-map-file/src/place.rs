//! Where a file is: under one name, in a directory that everybody who has the file sees.

use std::fs;
use std::path::Path;

use persistent_map_core::Result;

use crate::path::refused;

/// Whether all who open the file meet at the files beside it: its lock, and what is written and not merged yet.
///
/// They do not under a second name (a hard link), nor if the file alone is mounted into a container: each has a directory
/// of its own then. A file that does not exist yet is in order.
///
/// ```
/// use std::fs;
///
/// use persistent_map_file::check_place;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.csv");
/// check_place(&path)?; // to be made
/// fs::write(&path, "key,value\n").unwrap();
/// check_place(&path)?;
/// fs::hard_link(&path, path.with_extension("link")).unwrap();
/// # #[cfg(unix)] // Windows does not tell the number of names.
/// assert!(check_place(&path).unwrap_err().to_string().contains("2 names"));
/// # Ok::<(), persistent_map_core::PersistentError>(())
/// ```
///
/// # Errors
/// [`Refused`](persistent_map_core::PersistentError::Refused): it has several names, or is mounted by itself.
pub fn check_place(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        // A file that cannot be looked at is found out when it is opened.
        return Ok(());
    };
    let names = number_of_names(&metadata);
    if names > 1 {
        return Err(refused(
            path,
            format!("the file has {names} names (hard links)"),
            "What belongs to it is found by its name, so that under each name there would be another store, and another \
             owner. Leave it one name (`find -samefile` finds the others), make a copy, or use symbolic links",
            None,
        ));
    }
    if is_mounted_alone(path) {
        return Err(refused(
            path,
            "the file is mounted by itself, without its directory. The lock and the latest writes are kept in files beside \
             it, which nobody outside of this mount would see",
            "Mount the directory that the file is in instead of the file alone",
            None,
        ));
    }
    Ok(())
}

#[cfg(unix)]
fn number_of_names(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    metadata.nlink()
}

/// Other systems do not tell.
#[cfg(not(unix))]
fn number_of_names(_: &fs::Metadata) -> u64 {
    1
}

/// Only Linux mounts files.
#[cfg(target_os = "linux")]
fn is_mounted_alone(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;

    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|place| unescaped(place) == path.as_os_str().as_bytes())
}

#[cfg(not(target_os = "linux"))]
fn is_mounted_alone(_: &Path) -> bool {
    false
}

/// The kernel writes blanks, line ends and backslashes as a backslash and three octal digits.
#[cfg(target_os = "linux")]
fn unescaped(place: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(place.len());
    let mut rest = place;
    while let [first, others @ ..] = rest {
        let octal = others.get(..3).filter(|_| *first == b'\\');
        let byte = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &others[3..] } else { others };
    }
    plain
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::unescaped;

    #[test]
    fn places_are_read_as_the_kernel_writes_them() {
        for (written, plain) in [
            (r"/srv/a\040b", "/srv/a b"),
            (r"/srv/a\134b\012", "/srv/a\\b\n"),
            ("/srv/ü", "/srv/ü"),
            (r"/srv/a\", r"/srv/a\"),
        ] {
            assert_eq!(unescaped(written.as_bytes()), plain.as_bytes());
        }
    }
}
