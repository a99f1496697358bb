//! Files that a backend must not open, and must not touch.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use persistent_map_core::Result;

/// Checks that `open` fails with an error that names the file or directory at `path` and contains all of these words, and
/// that it changes nothing: neither the file, or the names and bytes of all that is in the directory, nor the names of what
/// is beside it, nor the bytes of files there whose names begin as that of `path`. Only an empty file `NAME.lock` may be made:
/// a lock file that somebody may wait for cannot be removed without making two owners. Returns the text of the error.
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
    let before = state(path);
    let Err(error) = open.await else {
        panic!("{} was opened", path.display());
    };
    let text = error.to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for word in words.iter().chain([&&*name]) {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
    let after = state(path);
    for (path, bytes) in &before {
        match after.get(path) {
            None => panic!("{} was removed", path.display()),
            Some(now) => assert!(now == bytes, "{} was changed", path.display()),
        }
    }
    let lock = lock_of(path);
    for (path, bytes) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        let is_lock = *path == lock && bytes.as_deref() == Some(&[]);
        assert!(is_lock, "{} was made", path.display());
    }
    text
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// What is at a path and beside it, and the bytes of what may belong to it.
fn state(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut state = BTreeMap::new();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    for beside in path.parent().map(names_in).into_iter().flatten() {
        let name = beside.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&*stem) {
            add(&beside, &mut state);
        } else {
            state.insert(beside, None);
        }
    }
    add(path, &mut state);
    state
}

fn add(path: &Path, state: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let Ok(kind) = fs::symlink_metadata(path) else {
        return;
    };
    // A pipe would be waited for.
    let bytes = kind.is_file().then(|| fs::read(path).unwrap_or_default());
    state.insert(path.to_path_buf(), bytes);
    if kind.is_dir() {
        for inside in names_in(path) {
            add(&inside, state);
        }
    }
}

fn names_in(directory: &Path) -> Vec<PathBuf> {
    // The parent of a mere name.
    let here = directory.as_os_str().is_empty();
    let entries = fs::read_dir(if here { Path::new(".") } else { directory });
    let paths = |entries: fs::ReadDir| entries.map(|entry| Ok(entry?.path()));
    let found: io::Result<Vec<PathBuf>> = entries.and_then(|entries| paths(entries).collect());
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use persistent_map_core::PersistentError;

    use super::*;

    async fn refused(path: &Path, harm: impl FnOnce()) {
        let open = async {
            harm();
            let error = format!("{} is not ours", path.display());
            Err::<(), _>(PersistentError::unsupported(error))
        };
        assert_refused(path, &["not ours"], open).await;
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        fs::create_dir_all(path.join("deep")).unwrap();
        fs::write(path.join("deep/table"), "rows").unwrap();
        fs::write(dir.path().join("store-wal"), "log").unwrap();
        (dir, path)
    }

    #[tokio::test]
    async fn a_refusal_that_changes_nothing_passes() {
        let (_dir, path) = directory();
        refused(&path, || {}).await;
        refused(&path.join("deep/table"), || {}).await;
        refused(&path.join("missing"), || {}).await;
    }

    #[tokio::test]
    #[should_panic(expected = "table was changed")]
    async fn a_changed_file_in_a_directory_is_found() {
        let (_dir, path) = directory();
        refused(&path, || {
            fs::write(path.join("deep/table"), "mine").unwrap();
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "marker was made")]
    async fn a_file_that_was_made_in_a_directory_is_found() {
        let (_dir, path) = directory();
        refused(&path, || fs::write(path.join("marker"), "").unwrap()).await;
    }

    #[tokio::test]
    async fn an_empty_lock_file_may_stay() {
        let (_dir, path) = directory();
        refused(&path, || fs::write(lock_of(&path), "").unwrap()).await;
    }

    #[tokio::test]
    #[should_panic(expected = "store.lock was made")]
    async fn a_lock_file_that_names_somebody_is_found() {
        let (_dir, path) = directory();
        refused(&path, || {
            fs::write(lock_of(&path), "process 1").unwrap();
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "store-wal was changed")]
    async fn a_changed_file_beside_it_is_found() {
        let (dir, path) = directory();
        refused(&path, || {
            fs::write(dir.path().join("store-wal"), "").unwrap();
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "deep was removed")]
    async fn a_removed_directory_is_found() {
        let (_dir, path) = directory();
        refused(&path, || fs::remove_dir_all(path.join("deep")).unwrap()).await;
    }
}
