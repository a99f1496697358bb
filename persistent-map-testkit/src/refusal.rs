//! Files that a backend must not open, and must not touch.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use persistent_map_core::Result;

/// Checks that `open` fails with an error that names the file at `path` and contains all of these words, and that it
/// changes nothing: neither the file, nor what is beside it. Returns the text of the error.
///
/// ```
/// use std::path::Path;
///
/// use persistent_map_core::Result;
/// use persistent_map_file::refused;
/// use persistent_map_testkit::assert_refused;
///
/// /// The backend's.
/// async fn open(path: &Path) -> Result<()> {
///     if std::fs::read(path)?.starts_with(b"shelf 1\n") {
///         return Ok(());
///     }
///     Err(refused(path, "it is not a shelf", "Name a file that this program has made", None))
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("notes.txt");
/// std::fs::write(&path, "Buy milk.").unwrap();
/// let text = assert_refused(&path, &["not a shelf", "Name a file"], open(&path)).await;
/// assert!(!text.contains("milk"));
/// # }
/// ```
/// # Panics
/// If that is not so.
pub async fn assert_refused<T>(
    path: &Path,
    words: &[&str],
    open: impl Future<Output = Result<T>>,
) -> String {
    let state = || (fs::read(path).ok(), names_beside(path));
    let (bytes, names) = state();
    let Err(error) = open.await else {
        panic!("{} was opened", path.display());
    };
    let text = error.to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for word in words.iter().chain([&&*name]) {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
    let (bytes_after, names_after) = state();
    assert!(bytes_after == bytes, "{} was changed", path.display());
    assert_eq!(names_after, names, "files were made or removed");
    text
}

fn names_beside(path: &Path) -> Vec<OsString> {
    let entries = path
        .parent()
        .map(fs::read_dir)
        .and_then(std::io::Result::ok);
    let mut names: Vec<OsString> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    names.sort();
    names
}
