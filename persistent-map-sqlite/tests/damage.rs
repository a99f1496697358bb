//! Damaged files: an error that names the place, or the right value. Never a wrong one, never a missing one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use persistent_map_core::{OnCorrupt, OpenReport, PersistentError, PersistentMap, Result};
use persistent_map_sqlite::SqliteBackend;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection, query_scalar, raw_sql,
};
use tokio::time::timeout;

type Map = PersistentMap<String, String, SqliteBackend>;

async fn open(path: &Path, policy: OnCorrupt) -> Result<(Map, OpenReport)> {
    let backend = SqliteBackend::new(path).await?;
    PersistentMap::builder(backend)
        .on_corrupt(policy)
        .open_with_report()
        .await
}

fn entries(count: usize) -> HashMap<String, String> {
    (0..count)
        .map(|n| {
            (
                format!("key {n}"),
                format!("value {n} {}", "x".repeat(n % 50)),
            )
        })
        .collect()
}

/// A closed database with these entries.
async fn database(dir: &Path, entries: &HashMap<String, String>) -> PathBuf {
    let path = dir.join("app.db");
    let (map, _) = open(&path, OnCorrupt::Fail).await.unwrap();
    for (key, value) in entries {
        map.insert(key.clone(), value.clone()).await.unwrap();
    }
    map.close().await.unwrap();
    path
}

async fn sqlite(path: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap()
}

async fn change(path: &Path, sql: &str) {
    let mut connection = sqlite(path).await;
    raw_sql(AssertSqlSafe(sql.to_string()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// Opens a damaged copy: refused, or with exactly these entries.
async fn assert_refused_or_right(
    bytes: &[u8],
    expected: &HashMap<String, String>,
    what: &str,
) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    fs::write(&path, bytes).unwrap();
    match open(&path, OnCorrupt::Fail).await {
        Err(error) => {
            let outcome = format!("{error}");
            assert!(outcome.contains("app.db"), "{what}: no path in `{outcome}`");
            true
        }
        Ok((map, _)) => {
            let found: HashMap<String, String> = map.iter().collect();
            assert!(
                found == *expected,
                "{what}: {} entries, some of them wrong or missing",
                found.len()
            );
            map.close().await.unwrap();
            false
        }
    }
}

/// How many positions to pass over; 1 looks at every byte (a few minutes).
fn stride(default: usize) -> usize {
    let given = std::env::var("DAMAGE_STRIDE").ok();
    given.map_or(default, |stride| {
        stride.parse().expect("DAMAGE_STRIDE is a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_an_error_or_the_right_value() {
    let dir = tempfile::tempdir().unwrap();
    let expected = entries(40);
    let bytes = fs::read(database(dir.path(), &expected).await).unwrap();
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(stride(23)) {
        for flip in [1, 255] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            refused += u32::from(
                assert_refused_or_right(&damaged, &expected, &format!("byte {at} ^ {flip}")).await,
            );
        }
    }
    assert!(refused > 100, "only {refused} of the flips were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let expected = entries(40);
    let bytes = fs::read(database(dir.path(), &expected).await).unwrap();
    for length in (0..bytes.len()).step_by(stride(511)) {
        let refused =
            assert_refused_or_right(&bytes[..length], &expected, &format!("{length} bytes")).await;
        assert!(
            refused,
            "a file cut to {length} of {} bytes opens",
            bytes.len()
        );
    }
}

/// SQLite would cut off or fill up the last page.
#[tokio::test]
async fn a_database_of_another_length_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(database(dir.path(), &entries(9)).await).unwrap();
    let longer = |by: usize| [&bytes[..], &vec![7; by]].concat();
    let shorter = |by: usize| bytes[..bytes.len() - by].to_vec();
    for other in [longer(1), longer(4096), shorter(1), shorter(4096)] {
        let home = tempfile::tempdir_in(&dir).unwrap();
        let path = home.path().join("app.db");
        fs::write(&path, &other).unwrap();
        let error = open(&path, OnCorrupt::Fail).await.unwrap_err();
        assert!(
            error.to_string().contains("bytes, and should have"),
            "{error}"
        );
        assert!(fs::read(&path).unwrap() == other, "the file was changed");
        let lock = fs::read(home.path().join("app.db.lock"));
        assert_eq!(lock.unwrap(), b"", "it stays, and names nobody");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }
}

#[tokio::test]
async fn a_corrupt_row_fails_the_open_with_file_table_row_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), &entries(9)).await;
    change(
        &path,
        "UPDATE entries SET value = CAST(x'00' || value AS BLOB) WHERE CAST(key AS TEXT) LIKE '%key 4'",
    )
    .await;
    let bytes = fs::read(&path).unwrap();

    let error = open(&path, OnCorrupt::Fail).await.unwrap_err();
    let PersistentError::Corrupt(row) = &error else {
        panic!("{error}");
    };
    assert_eq!((row.row, row.key.as_str()), (5, "\"key 4\""));
    let text = error.to_string();
    for word in [
        "row 5",
        "table `entries`",
        "app.db",
        "key \"key 4\"",
        "checksum",
        "Quarantine",
    ] {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
    assert!(
        !text.contains("value 4"),
        "the error shows the value: {text}"
    );

    // The mark "in use" came and went, so the file is compared by what it holds.
    let mut connection = sqlite(&path).await;
    let rows: i64 = query_scalar("SELECT count(*) FROM entries")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(rows, 9);
    connection.close().await.unwrap();
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len());
}

#[tokio::test]
async fn quarantined_rows_are_kept_aside_and_the_rest_opens() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = entries(9);
    let path = database(dir.path(), &expected).await;
    change(
        &path,
        "UPDATE entries SET value = x'00' WHERE CAST(key AS TEXT) LIKE '%key 4'",
    )
    .await;
    change(
        &path,
        "UPDATE entries SET checksum = checksum + (1 << 40) WHERE CAST(key AS TEXT) LIKE '%key 7'",
    )
    .await;
    expected.remove("key 4");
    expected.remove("key 7");

    let (map, report) = open(&path, OnCorrupt::Quarantine).await.unwrap();
    assert_eq!(
        report
            .quarantined
            .iter()
            .map(|row| row.row)
            .collect::<Vec<_>>(),
        [5, 8]
    );
    assert_eq!(map.iter().collect::<HashMap<_, _>>(), expected);
    map.insert("key 4".to_string(), "new".to_string())
        .await
        .unwrap();
    map.close().await.unwrap();

    let (map, report) = open(&path, OnCorrupt::Fail).await.unwrap();
    assert_eq!((map.len(), report.quarantined.len()), (8, 0));
    map.close().await.unwrap();
    let mut connection = sqlite(&path).await;
    let aside: i64 =
        query_scalar("SELECT count(*) FROM persistent_map_quarantine WHERE map = 'entries'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(aside, 2);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_found_by_its_key_is_not_said_to_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), &entries(9)).await;
    let good = fs::read(&path).unwrap();
    // Of the last one, those that follow its key are rows that have been read.
    for (key, first_letter) in [("key 2", b'z'), ("key 8", b'a')] {
        let mut bytes = good.clone();
        let place = bytes.windows(5).position(|text| text == key.as_bytes());
        bytes[place.unwrap()] = first_letter;
        fs::write(&path, &bytes).unwrap();

        let opened = timeout(Duration::from_secs(20), open(&path, OnCorrupt::Quarantine));
        let error = opened.await.expect("an open that ends").unwrap_err();
        assert!(error.to_string().contains("out of order"), "{error}");
        let error = open(&path, OnCorrupt::Fail).await.unwrap_err();
        assert!(matches!(error, PersistentError::Corrupt(_)), "{error}");
    }
}

#[tokio::test]
async fn rows_of_the_wrong_kind_are_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let expected = entries(9);
    for damage in [
        "UPDATE entries SET value = NULL WHERE key = (SELECT min(key) FROM entries)",
        "UPDATE entries SET value = 'text' WHERE key = (SELECT min(key) FROM entries)",
        "UPDATE entries SET checksum = NULL WHERE key = (SELECT min(key) FROM entries)",
        "UPDATE entries SET key = 7 WHERE key = (SELECT min(key) FROM entries)",
        "UPDATE persistent_map_maps SET value_type = 'u64'",
        "DELETE FROM persistent_map_maps",
        "DROP TABLE entries",
        "DELETE FROM persistent_map_state",
    ] {
        let home = tempfile::tempdir_in(&dir).unwrap();
        let path = database(home.path(), &expected).await;
        // The table's own rules forbid most of this; a damaged file does not ask.
        let relaxed = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = \
             replace(replace(sql, ' STRICT,', ''), 'NOT NULL', '') WHERE name = 'entries'; \
             PRAGMA writable_schema = RESET;";
        change(&path, relaxed).await;
        change(&path, damage).await;
        let bytes = fs::read(&path).unwrap();
        assert!(
            assert_refused_or_right(&bytes, &expected, damage).await,
            "{damage}: not noticed"
        );
    }
}

#[tokio::test]
async fn quarantined_rows_can_be_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let expected = entries(9);
    let path = database(dir.path(), &expected).await;
    let damage = "WHERE CAST(key AS TEXT) LIKE '%key 4'";
    change(
        &path,
        &format!("UPDATE entries SET checksum = checksum + 1 {damage}"),
    )
    .await;
    let (map, _) = open(&path, OnCorrupt::Quarantine).await.unwrap();
    map.close().await.unwrap();
    change(
        &path,
        "INSERT INTO entries SELECT key, value, checksum - 1 FROM persistent_map_quarantine WHERE map = 'entries'; \
         DELETE FROM persistent_map_quarantine WHERE map = 'entries'",
    )
    .await;
    let (map, _) = open(&path, OnCorrupt::Fail).await.unwrap();
    assert_eq!(map.iter().collect::<HashMap<_, _>>(), expected);
}
