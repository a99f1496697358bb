//! Databases whose owner did not close them: they open, unless a part of them is missing.

use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{ByteStore as _, PersistentError, PersistentMap};
use persistent_map_sqlite::SqliteBackend;

type Map = PersistentMap<u64, String, SqliteBackend>;

/// What a kill would leave of a database with one entry: the files as they are while it is open.
async fn left_open(dir: &Path) -> PathBuf {
    let live = dir.join("live.db");
    let map = Map::new(SqliteBackend::new(&live).await.unwrap())
        .await
        .unwrap();
    map.insert(1, "one".into()).await.unwrap();
    let path = dir.join("left.db");
    fs::copy(&live, &path).unwrap();
    fs::copy(dir.join("live.db-wal"), dir.join("left.db-wal")).unwrap();
    map.close().await.unwrap();
    path
}

async fn entries(path: &Path) -> Vec<(u64, String)> {
    let map = Map::new(SqliteBackend::new(path).await.unwrap())
        .await
        .unwrap();
    let entries = map.iter().collect();
    map.close().await.unwrap();
    entries
}

#[tokio::test]
async fn a_backend_that_nobody_read_from_leaves_it_fit_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = left_open(dir.path()).await;

    // Closing merges the log and removes it; that must not look like a log that is missing.
    let unread = SqliteBackend::new(&path).await.unwrap();
    unread.close().await.unwrap();
    assert_eq!(entries(&path).await, [(1, "one".to_string())]);
}

#[tokio::test]
async fn a_map_of_other_types_leaves_it_fit_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = left_open(dir.path()).await;

    let backend = SqliteBackend::new(&path).await.unwrap();
    let error = PersistentMap::<String, bool, _>::new(backend)
        .await
        .unwrap_err();
    assert!(matches!(error, PersistentError::Mismatch { .. }), "{error}");
    assert_eq!(entries(&path).await, [(1, "one".to_string())]);
}

#[tokio::test]
async fn without_its_log_it_is_refused_as_often_as_it_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let path = left_open(dir.path()).await;
    fs::remove_file(dir.path().join("left.db-wal")).unwrap();

    for _ in 0..3 {
        let error = SqliteBackend::new(&path).await.unwrap_err();
        assert!(matches!(error, PersistentError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("-wal"), "{error}");
        // Not for a moment: a process that ends here must not leave an empty log that the next one accepts.
        assert!(!dir.path().join("left.db-wal").exists());
    }

    let accepted = SqliteBackend::builder(&path).accept_missing_wal(true);
    let map = Map::new(accepted.open().await.unwrap()).await.unwrap();
    map.close().await.unwrap();
    entries(&path).await;
}

#[tokio::test]
async fn names_that_mean_something_in_a_uri_are_plain_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("100% a?mode=memory#b&c.db");
    let map = Map::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    map.insert(1, "one".into()).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(entries(&path).await, [(1, "one".to_string())]);
}
