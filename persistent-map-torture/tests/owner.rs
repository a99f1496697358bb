//! One owner at a time, and an answer that says who.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use persistent_map_core::{ByteStore as _, PersistentError, PersistentMap};
use persistent_map_sqlite::SqliteBackend;
use support::Holder;

/// Within which a second opener has its answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Opens a store that is in use, and returns what the error says.
async fn refused_opening(path: &Path) -> String {
    let started = Instant::now();
    let error = SqliteBackend::new(path).await.expect_err("it is in use");
    assert!(started.elapsed() < ANSWER, "{:?}", started.elapsed());
    assert!(matches!(error, PersistentError::InUse { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn another_process_has_it_until_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let holder = Holder::start(&path);
    let acknowledged = holder.said.iter().any(|line| line.starts_with("K "));
    assert!(acknowledged, "{:?}", holder.said);

    let error = refused_opening(&path).await;
    assert!(
        error.contains(&format!("process {}", holder.id())),
        "{error}"
    );

    let last = last_states(&holder.said);
    drop(holder);
    let started = Instant::now();
    let backend = SqliteBackend::new(&path).await.unwrap();
    assert!(started.elapsed() < ANSWER, "{:?}", started.elapsed());
    backend.close().await.unwrap();

    let dump = support::torture(["dump".as_ref(), path.as_os_str()]);
    let mut stored: Vec<String> = String::from_utf8_lossy(&dump.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("S "))
        .map(str::to_string)
        .collect();
    stored.sort();
    assert_eq!(stored, last);
}

/// "key version" of each entry that a worker has left, sorted.
fn last_states(said: &[String]) -> Vec<String> {
    let mut states = std::collections::BTreeMap::new();
    for line in said {
        if let ["A", key, version, change] = *line.split(' ').collect::<Vec<_>>() {
            states.insert(key, (change == "put").then_some(version));
        }
    }
    states
        .into_iter()
        .filter_map(|(key, version)| Some(format!("{key} {}", version?)))
        .collect()
}

#[tokio::test]
async fn the_same_process_has_it_until_it_closes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let map = PersistentMap::<u64, u64, _>::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    map.insert(1, 1).await.unwrap();

    let error = refused_opening(&path).await;
    let pid = std::process::id();
    assert!(error.contains(&format!("process {pid}")), "{error}");

    // The one who was refused has not disturbed the owner.
    map.insert(2, 2).await.unwrap();
    map.close().await.unwrap();
    let map = PersistentMap::<u64, u64, _>::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    assert_eq!(map.len(), 2);
    map.close().await.unwrap();
}

#[tokio::test]
async fn maps_of_one_file_share_it_by_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteBackend::new(dir.path().join("app.db")).await.unwrap();
    let users = PersistentMap::<u64, String, _>::new(file.table("users").await.unwrap())
        .await
        .unwrap();
    let visits = PersistentMap::<String, u64, _>::new(file.table("visits").await.unwrap())
        .await
        .unwrap();

    let writing_users = async {
        for n in 0..50 {
            users.insert(n, format!("user {n}")).await.unwrap();
        }
    };
    let writing_visits = async {
        for n in 0..50 {
            visits.insert(format!("page {n}"), n).await.unwrap();
        }
    };
    tokio::join!(writing_users, writing_visits);
    assert_eq!((users.len(), visits.len()), (50, 50));

    let second = file.table("Users").await.unwrap();
    let error = PersistentMap::<u64, String, _>::new(second)
        .await
        .expect_err("the table is in use");
    assert!(matches!(error, PersistentError::InUse { .. }), "{error:?}");
    users.insert(50, "still here".into()).await.unwrap();

    users.close().await.unwrap();
    let users = PersistentMap::<u64, String, _>::new(file.table("users").await.unwrap())
        .await
        .unwrap();
    assert_eq!(users.len(), 51);
}
