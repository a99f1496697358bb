//! Paths and names that are too long, for the file itself or for those that are made beside it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::{refused, with_suffix};

use crate::file::DRAFT;

/// What SQLite opens on Unix: 512 bytes (`MAX_PATHNAME`), of which it keeps eight for the ends of the names beside the file.
/// On Windows it takes as much as the system.
const LONGEST_PATH: Option<usize> = if cfg!(unix) { Some(504) } else { None };

/// Refuses a path that could not be opened, or made if there is no such file. Before anything is made beside it.
pub(crate) fn check(path: &Path) -> Result<()> {
    check_name(path, ".lock")?;
    if fs::symlink_metadata(path).is_ok() {
        return check_path(path, 0, "");
    }
    check_name(path, DRAFT)?;
    check_path(path, DRAFT.len(), " to make a file")
}

fn check_path(path: &Path, behind: usize, what_for: &str) -> Result<()> {
    let bytes = path.as_os_str().len();
    match LONGEST_PATH.map(|longest| longest - behind) {
        Some(longest) if bytes > longest => Err(too_long(
            path,
            format!(
                "its full path has {bytes} bytes, and SQLite takes at most {longest}{what_for}"
            ),
        )),
        _ => Ok(()),
    }
}

/// The limit of names is the file system's, so ask it.
fn check_name(path: &Path, suffix: &str) -> Result<()> {
    match fs::symlink_metadata(with_suffix(path, suffix)) {
        Err(error) if error.kind() == ErrorKind::InvalidFilename => Err(too_long(
            path,
            format!(
                "a file beside it is named like it with `{suffix}` at the end, and that is longer than the file system allows"
            ),
        )),
        _ => Ok(()),
    }
}

fn too_long(path: &Path, reason: String) -> PersistentError {
    refused(
        path,
        reason,
        "Give it a shorter name, or a directory with a shorter path",
        None,
    )
}
