//! What is not a database of ours, or not for these types: one clear error each, and the file stays as it was.

use std::fs;
use std::path::Path;

use persistent_map_core::{Json, PersistentError, PersistentMap, Result};
use persistent_map_sqlite::SqliteBackend;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, raw_sql};
use tempfile::TempDir;

async fn open<V: persistent_map_core::Value>(path: &Path) -> Result<usize> {
    let map = PersistentMap::<String, V, _>::new(SqliteBackend::new(path).await?).await?;
    map.close().await?;
    Ok(map.len())
}

/// A closed database with one entry.
async fn database() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let map = PersistentMap::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    map.insert("a".to_string(), "1".to_string()).await.unwrap();
    map.close().await.unwrap();
    (dir, path)
}

async fn sqlite(path: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let mut connection: SqliteConnection = options.connect().await.unwrap();
    raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn assert_refused<V: persistent_map_core::Value>(path: &Path, words: &[&str]) {
    persistent_map_testkit::assert_refused(path, words, open::<V>(path)).await;
}

#[tokio::test]
async fn files_that_are_not_databases() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "Dear diary,\n".repeat(100)).unwrap();
    assert_refused::<String>(&text, &["not a SQLite database", "not changed"]).await;

    let short = dir.path().join("short.txt");
    fs::write(&short, "x").unwrap();
    assert_refused::<String>(&short, &["not a SQLite database"]).await;

    let empty = dir.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    assert_refused::<String>(&empty, &["an empty file", "delete it"]).await;

    let directory = dir.path().join("directory");
    fs::create_dir(&directory).unwrap();
    assert_refused::<String>(&directory, &["it is a directory"]).await;
}

#[tokio::test]
async fn a_database_of_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    sqlite(
        &path,
        "CREATE TABLE entries (key, value); INSERT INTO entries VALUES ('a', 'b')",
    )
    .await;
    assert_refused::<String>(&path, &["of another program", "not changed"]).await;

    // In WAL mode, and with an application id of its own.
    sqlite(
        &path,
        "PRAGMA journal_mode = WAL; PRAGMA application_id = 7",
    )
    .await;
    assert_refused::<String>(&path, &["of another program"]).await;
}

#[tokio::test]
async fn a_newer_format() {
    let (_dir, path) = database().await;
    sqlite(&path, "PRAGMA user_version = 2").await;
    assert_refused::<String>(&path, &["format version 2", "Update persistent-map"]).await;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Point {
    lat: f64,
    lon: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Swapped {
    lon: f64,
    lat: f64,
}

#[tokio::test]
async fn other_types_and_codecs() {
    let (_dir, path) = database().await;
    assert_refused::<u64>(
        &path,
        &["values of type str", "values of type u64", "entries"],
    )
    .await;
    assert_refused::<Option<String>>(&path, &["?str"]).await;

    let backend = SqliteBackend::builder(&path)
        .codec(Json)
        .open()
        .await
        .unwrap();
    let bytes = fs::read(&path).unwrap();
    let error = PersistentMap::<String, String, _>::new(backend)
        .await
        .unwrap_err();
    assert!(matches!(error, PersistentError::Mismatch { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("codec bincode2, but was opened as codec json"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes, "the file was changed");

    let points = path.with_file_name("points.db");
    let map = PersistentMap::new(SqliteBackend::new(&points).await.unwrap())
        .await
        .unwrap();
    map.insert("a".to_string(), Point { lat: 1.0, lon: 2.0 })
        .await
        .unwrap();
    map.close().await.unwrap();
    assert_refused::<Swapped>(&points, &["{lat:f64,lon:f64}", "{lon:f64,lat:f64}"]).await;
    assert_eq!(open::<Point>(&points).await.unwrap(), 1);
}

#[tokio::test]
async fn paths_that_are_not_file_names() {
    let dir = tempfile::tempdir().unwrap();
    for (path, word) in [
        ("", "the path is empty"),
        ("file:app.db?mode=ro", "looks like a URI"),
        ("sqlite:app.db", "looks like a URI"),
        ("sqlite://app.db", "looks like a URI"),
        ("a\0b", "NUL"),
        ("/", "it is a directory"),
        ("missing/app.db", "Make the directory first"),
    ] {
        let path = if path.starts_with("missing") {
            dir.path().join(path)
        } else {
            path.into()
        };
        let error = SqliteBackend::new(path).await.unwrap_err();
        assert!(matches!(error, PersistentError::Refused { .. }), "{error}");
        assert!(
            error.to_string().contains(word),
            "`{word}` is missing: {error}"
        );
    }
}

#[cfg(unix)] // Links and named pipes are made by calls that other systems do not have.
#[tokio::test]
async fn links_and_pipes() {
    use std::os::unix::fs::symlink;

    let (dir, path) = database().await;
    let link = dir.path().join("link.db");
    symlink(&path, &link).unwrap();
    assert_eq!(open::<String>(&link).await.unwrap(), 1);
    let owner = SqliteBackend::new(&path).await.unwrap();
    let error = SqliteBackend::new(&link).await.unwrap_err();
    assert!(
        matches!(error, PersistentError::InUse { .. }),
        "one file, two names: {error}"
    );
    drop(owner);

    let dangling = dir.path().join("dangling.db");
    symlink(dir.path().join("nowhere.db"), &dangling).unwrap();
    let error = SqliteBackend::new(&dangling).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a link to a file that does not exist"),
        "{error}"
    );
    assert!(!dir.path().join("nowhere.db").exists());

    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let error = SqliteBackend::new(&pipe).await.unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn a_relative_path_is_taken_from_where_it_was_given() {
    let backend = SqliteBackend::new("relative-path-test.db").await.unwrap();
    let absolute = std::path::absolute("relative-path-test.db").unwrap();
    assert!(
        format!("{backend:?}").contains(absolute.to_str().unwrap()),
        "{backend:?}"
    );
    drop(backend);
    for suffix in ["", "-wal", ".lock"] {
        let _ = fs::remove_file(format!("relative-path-test.db{suffix}"));
    }
}

#[tokio::test]
async fn a_database_whose_wal_was_left_behind() {
    let (dir, path) = database().await;
    let map = PersistentMap::<String, String, _>::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    map.insert("b".to_string(), "in the -wal file".to_string())
        .await
        .unwrap();
    let copy = dir.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    map.close().await.unwrap();

    let bytes = fs::read(&copy).unwrap();
    for _ in 0..2 {
        let error = open::<String>(&copy).await.unwrap_err();
        for word in ["copy.db", "-wal", "accept_missing_wal"] {
            assert!(
                error.to_string().contains(word),
                "`{word}` is missing: {error}"
            );
        }
        assert_eq!(fs::read(&copy).unwrap(), bytes, "the file was changed");
    }
    let backend = SqliteBackend::builder(&copy)
        .accept_missing_wal(true)
        .open()
        .await
        .unwrap();
    let map = PersistentMap::<String, String, _>::new(backend)
        .await
        .unwrap();
    assert_eq!(
        (map.contains_key("a"), map.contains_key("b")),
        (true, false)
    );
    map.close().await.unwrap();
    assert_eq!(
        open::<String>(&copy).await.unwrap(),
        1,
        "a close makes it whole again"
    );
}

#[tokio::test]
async fn names_that_are_not_tables() {
    let backend = SqliteBackend::new(":memory:").await.unwrap();
    for name in [
        "",
        "a b",
        "a\"b",
        "sqlite_x",
        "SQLITE_x",
        "persistent_map_maps",
        &"x".repeat(65),
        "ä",
    ] {
        let error = backend.table(name).await.unwrap_err();
        assert!(
            error.to_string().contains("cannot be the name of a map"),
            "{name}: {error}"
        );
    }
    for name in ["a", "select", "1", "-", "A-b_9"] {
        let table = backend.table(name).await.unwrap();
        let map = PersistentMap::new(table).await.unwrap();
        map.insert(name.to_string(), 1u8).await.unwrap();
    }
}

#[tokio::test]
async fn a_log_without_its_database() {
    let (_dir, path) = database().await;
    let map = PersistentMap::<String, String, _>::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    map.insert("b".to_string(), "2".to_string()).await.unwrap();
    let alone = path.with_file_name("alone.db");
    fs::copy(
        path.with_file_name("app.db-wal"),
        path.with_file_name("alone.db-wal"),
    )
    .unwrap();
    map.close().await.unwrap();
    assert_refused::<String>(
        &alone,
        &["the database is missing", "move the `-wal` file away"],
    )
    .await;
}

#[tokio::test]
async fn a_file_that_has_the_name_of_the_lock_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("Cargo.lock");
    fs::write(&lock, "not ours").unwrap();
    let path = dir.path().join("Cargo");
    assert_eq!(open::<String>(&path).await.unwrap(), 0);
    assert_eq!(fs::read_to_string(&lock).unwrap(), "not ours");
}
