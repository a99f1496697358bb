//! Paths and names that are almost too long open; those that are too long are refused before anything is made.

// Windows has other limits.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{PersistentError, PersistentMap, Result};
use persistent_map_sqlite::SqliteBackend;

/// SQLite's limit, and what a new file needs of it.
const LONGEST: usize = 504;
const LONGEST_NEW: usize = LONGEST - DRAFT;
/// `.persistent-map-creating`
const DRAFT: usize = 24;
/// A name, on the usual file systems.
const LONGEST_NAME: usize = 255;

async fn open(path: &Path) -> Result<()> {
    let map = PersistentMap::<u8, u8, _>::new(SqliteBackend::new(path).await?).await?;
    map.insert(1, 1).await?;
    map.flush().await?;
    map.close().await
}

/// A path of so many bytes, in a directory of its own in `dir`.
fn path_of(bytes: usize, dir: &Path) -> PathBuf {
    let mut path = dir.canonicalize().unwrap();
    while bytes - path.as_os_str().len() > 200 {
        path.push("d".repeat(100));
    }
    fs::create_dir_all(&path).unwrap();
    let name = bytes - path.as_os_str().len() - 1;
    path.push("n".repeat(name));
    assert_eq!(path.as_os_str().len(), bytes);
    path
}

async fn assert_too_long(path: &Path, words: &[&str]) {
    let names = || {
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let error = open(path).await.unwrap_err();
    assert!(matches!(error, PersistentError::Refused { .. }), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert!(error.to_string().contains("a shorter name"), "{error}");
    assert_eq!(names(), before, "something was made or removed");
}

#[tokio::test]
async fn a_path_is_as_long_as_sqlite_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [LONGEST_NEW - 1, LONGEST_NEW] {
        let dir = tempfile::tempdir_in(&dir).unwrap();
        let path = path_of(bytes, dir.path());
        open(&path).await.unwrap();
        open(&path).await.unwrap();
    }
    for bytes in [LONGEST_NEW + 1, LONGEST, LONGEST + 1, 600] {
        let dir = tempfile::tempdir_in(&dir).unwrap();
        let path = path_of(bytes, dir.path());
        let words = [&*format!("has {bytes} bytes"), "at most 480 to make a file"];
        assert_too_long(&path, &words).await;
    }
}

#[tokio::test]
async fn a_file_that_is_there_may_have_a_longer_path_than_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made.db");
    open(&made).await.unwrap();
    for bytes in [LONGEST_NEW + 1, LONGEST] {
        let dir = tempfile::tempdir_in(&dir).unwrap();
        let path = path_of(bytes, dir.path());
        fs::copy(&made, &path).unwrap();
        open(&path).await.unwrap();
    }
    for bytes in [LONGEST + 1, LONGEST + 8, 600] {
        let dir = tempfile::tempdir_in(&dir).unwrap();
        let path = path_of(bytes, dir.path());
        fs::copy(&made, &path).unwrap();
        let words = [&*format!("has {bytes} bytes"), "at most 504."];
        assert_too_long(&path, &words).await;
    }
}

#[tokio::test]
async fn names_beside_it_may_be_as_long_as_the_file_system_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let name = |bytes| dir.path().join("n".repeat(bytes));
    open(&name(LONGEST_NAME - DRAFT)).await.unwrap();
    assert_too_long(
        &name(LONGEST_NAME - DRAFT + 1),
        &["`.persistent-map-creating`"],
    )
    .await;
    // `.lock` is the longest that a file needs that is there.
    let lock = ".lock".len();
    let made = name(LONGEST_NAME - lock);
    fs::rename(name(LONGEST_NAME - DRAFT), &made).unwrap();
    open(&made).await.unwrap();
    let long = name(LONGEST_NAME - lock + 1);
    fs::rename(&made, &long).unwrap();
    assert_too_long(&long, &["`.lock`"]).await;
    assert_too_long(&name(LONGEST_NAME + 1), &["`.lock`"]).await;
}
