//! One file, its maps, its owner, and what SQLite is set to.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use persistent_map_core::{Capabilities, PersistentError, PersistentMap, Survives};
use persistent_map_sqlite::{SqliteBackend, Synchronous};
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, query_scalar, raw_sql};

#[tokio::test]
async fn several_maps_live_in_one_file_with_types_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    for round in 1..=2u64 {
        let db = SqliteBackend::new(&path).await.unwrap();
        let users = PersistentMap::new(db.table("users").await.unwrap())
            .await
            .unwrap();
        let scores = PersistentMap::new(db.table("scores").await.unwrap())
            .await
            .unwrap();
        let default = PersistentMap::new(db).await.unwrap();
        let (a, b, c) = tokio::join!(
            users.insert(round, format!("user {round}")),
            scores.insert(("a".to_string(), round), 0.5f64),
            default.insert(round.to_string(), ()),
        );
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (None, None, None));
        users.clear().await.unwrap();
        users.insert(round, "again".to_string()).await.unwrap();
        assert_eq!(users.len(), 1);
        assert_eq!(scores.len() as u64, round);
        assert_eq!(default.len() as u64, round);
        users.close().await.unwrap();
        scores.insert(("b".to_string(), 0), 1.0).await.unwrap();
        scores.remove(&("b".to_string(), 0)).await.unwrap();
        scores.close().await.unwrap();
        default.close().await.unwrap();
    }
}

#[tokio::test]
async fn any_number_of_entries_of_any_key_come_back() {
    let dir = tempfile::tempdir().unwrap();
    for count in [0, 1, 999, 1000, 1001, 3000] {
        let path = dir.path().join(format!("{count}.db"));
        let map = PersistentMap::new(SqliteBackend::new(&path).await.unwrap())
            .await
            .unwrap();
        let mut inserts = tokio::task::JoinSet::new();
        for n in 0..count {
            // Keys that are the beginning of other keys, and zeros at their end.
            let (map, key) = (
                map.clone(),
                vec![0u8; n % 50].into_iter().chain(n.to_le_bytes()),
            );
            inserts.spawn(async move { map.insert(key.collect::<Vec<u8>>(), n).await.unwrap() });
        }
        inserts.join_all().await;
        map.close().await.unwrap();
        let reopened =
            PersistentMap::<Vec<u8>, usize, _>::new(SqliteBackend::new(&path).await.unwrap())
                .await
                .unwrap();
        assert_eq!(reopened.len(), count);
        for (key, value) in &map {
            assert_eq!(reopened.get(&key), Some(value));
        }
        reopened.close().await.unwrap();
    }
    // The one key that has no bytes at all.
    let path = dir.path().join("unit.db");
    for _ in 0..2 {
        let map = PersistentMap::new(SqliteBackend::new(&path).await.unwrap())
            .await
            .unwrap();
        map.insert((), "value".to_string()).await.unwrap();
        map.close().await.unwrap();
    }
    let map = PersistentMap::<(), String, _>::new(SqliteBackend::new(&path).await.unwrap()).await;
    assert_eq!(map.unwrap().get(&()).as_deref(), Some("value"));
}

/// Large ones are read by themselves: alone, side by side, and at the beginning and the end of what is read together.
#[tokio::test]
async fn large_values_come_back_wherever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let size = |n: u32| match n {
        0 | 1 | 500 | 998..=1002 | 1999 => 20_000,
        // As long as the longest that are read together, and a little more and less.
        600..610 => (16 << 10) - 611 + n as usize,
        _ => 1,
    };
    let value = |n: u32| "x".repeat(size(n)) + &n.to_string();
    let entries: Vec<_> = (0..2000)
        .map(|n: u32| (n.to_be_bytes(), value(n)))
        .collect();
    let open = async || PersistentMap::new(SqliteBackend::new(&path).await?).await;
    let map = open().await.unwrap();
    map.insert_many(entries.clone()).await.unwrap();
    map.close().await.unwrap();
    let map = open().await.unwrap();
    assert_eq!(map.len(), entries.len());
    for (key, value) in &entries {
        assert_eq!(map.get(key).as_ref(), Some(value));
    }
    assert_eq!(map.verify().await.unwrap(), 2000);
    map.close().await.unwrap();
}

#[tokio::test]
async fn a_table_has_one_map_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let db = SqliteBackend::new(dir.path().join("app.db")).await.unwrap();
    let first = PersistentMap::<u8, u8, _>::new(db.table("same").await.unwrap())
        .await
        .unwrap();
    for name in ["same", "SAME"] {
        let second = PersistentMap::<u8, u8, _>::new(db.table(name).await.unwrap()).await;
        let error = second.unwrap_err();
        assert!(matches!(error, PersistentError::InUse { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("table `{name}`")),
            "{error}"
        );
    }
    first.insert(1, 1).await.unwrap();
    first.close().await.unwrap();
    let next = PersistentMap::<u8, u8, _>::new(db.table("Same").await.unwrap())
        .await
        .unwrap();
    assert_eq!(next.get(&1), Some(1));
}

#[tokio::test]
async fn a_shared_backend_has_one_map_at_a_time() {
    let backend = Arc::new(SqliteBackend::new(":memory:").await.unwrap());
    let first = PersistentMap::<u8, u8, _>::new(Arc::clone(&backend))
        .await
        .unwrap();
    let second = PersistentMap::<u8, u8, _>::new(Arc::clone(&backend)).await;
    assert!(matches!(second, Err(PersistentError::InUse { .. })));
    first.insert(1, 1).await.unwrap();
}

#[tokio::test]
async fn a_refused_second_map_does_not_free_the_table() {
    let db = SqliteBackend::new(":memory:").await.unwrap();
    let first = PersistentMap::<u8, u8, _>::new(db.table("same").await.unwrap())
        .await
        .unwrap();
    for _ in 0..2 {
        let second = PersistentMap::<u8, u8, _>::new(db.table("same").await.unwrap()).await;
        assert!(matches!(second, Err(PersistentError::InUse { .. })));
    }
    first.insert(1, 1).await.unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused_within_a_second_and_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let owner = SqliteBackend::new(&path).await.unwrap();
    let asked = Instant::now();
    let error = SqliteBackend::new(&path).await.unwrap_err();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert!(matches!(error, PersistentError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!(
            "this very process: process {}",
            std::process::id()
        )),
        "{text}"
    );
    // The refusal must not have dropped the owner's own locks on the file.
    let map = PersistentMap::<u8, u8, _>::new(owner).await.unwrap();
    drop(SqliteBackend::new(&path).await);
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_cannot_read_it"])
        .env("DATABASE", &path)
        .output()
        .unwrap();
    assert!(
        other.status.success(),
        "{}",
        String::from_utf8_lossy(&other.stdout)
    );
    map.close().await.unwrap();
    SqliteBackend::new(&path).await.unwrap();
}

/// The other half of the test above, run by it in a process of its own; alone it has nothing to look at.
#[tokio::test]
async fn another_process_cannot_read_it() {
    let Some(path) = std::env::var_os("DATABASE") else {
        return;
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::ZERO);
    let read = async {
        let mut connection: SqliteConnection = options.connect().await?;
        query_scalar::<_, i64>("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut connection)
            .await
    };
    let error = read.await.unwrap_err();
    assert!(error.to_string().contains("locked"), "{error}");
}

#[tokio::test]
async fn other_processes_may_read_a_file_that_is_opened_for_shared_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let backend = SqliteBackend::builder(&path)
        .shared_reads(true)
        .open()
        .await
        .unwrap();
    let map = PersistentMap::new(backend).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut reader: SqliteConnection = options.connect().await.unwrap();
    for n in 1..=3i64 {
        map.insert(n, n).await.unwrap();
        let rows: i64 = query_scalar("SELECT count(*) FROM entries")
            .fetch_one(&mut reader)
            .await
            .unwrap();
        assert_eq!(rows, n);
    }
    reader.close().await.unwrap();
    map.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_another_program_works_on_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let made = SqliteBackend::new(&path).await.unwrap();
    persistent_map_core::ByteStore::close(&made).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other: SqliteConnection = options.connect().await.unwrap();
    raw_sql("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    let error = SqliteBackend::new(&path).await.unwrap_err();
    assert!(matches!(error, PersistentError::InUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("another SQLite connection"), "{text}");
    other.close().await.unwrap();
    SqliteBackend::new(&path).await.unwrap();
}

#[tokio::test]
async fn the_bundled_sqlite_does_not_lose_transactions() {
    let options = sqlx::sqlite::SqliteConnectOptions::new().in_memory(true);
    let mut connection: SqliteConnection = options.connect().await.unwrap();
    let version: String = query_scalar("SELECT sqlite_version()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap());
    let mut next = || parts.next().unwrap();
    assert!(
        (next(), next(), next()) >= (3, 51, 3),
        "SQLite {version} is older than 3.51.3"
    );
}

#[tokio::test]
async fn what_ok_is_worth_follows_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let survives = |capabilities: Capabilities| capabilities.survives;
    let full = SqliteBackend::new(dir.path().join("full.db"))
        .await
        .unwrap();
    let full = PersistentMap::<u8, u8, _>::new(full).await.unwrap();
    assert_eq!(survives(full.capabilities()), Survives::PowerLoss);
    let normal = SqliteBackend::builder(dir.path().join("normal.db"))
        .synchronous(Synchronous::Normal)
        .open()
        .await
        .unwrap();
    let normal = PersistentMap::<u8, u8, _>::new(normal).await.unwrap();
    assert_eq!(survives(normal.capabilities()), Survives::ProcessKill);
    normal.insert(1, 1).await.unwrap();
    normal.flush().await.unwrap();
    let memory = SqliteBackend::new(":memory:").await.unwrap();
    let memory = PersistentMap::<u8, u8, _>::new(memory).await.unwrap();
    assert_eq!(survives(memory.capabilities()), Survives::Nothing);
}

#[test]
fn a_database_may_be_dropped_anywhere_and_is_free_soon_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let open = || async {
        let map = PersistentMap::new(SqliteBackend::new(&path).await.unwrap())
            .await
            .unwrap();
        let n = map.len() as u64;
        map.insert(n, n).await.unwrap();
        map
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(runtime.block_on(open()));
    let map = runtime.block_on(open());
    std::thread::spawn(move || drop(map)).join().unwrap();
    runtime.block_on(async {
        drop(open().await);
    });
    let map = runtime.block_on(open());
    drop(runtime);
    drop(map);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let map = open().await;
        assert_eq!(map.len(), 5, "an acknowledged entry is missing");
        map.close().await.unwrap();
    });
}

#[tokio::test]
async fn an_open_dropped_half_way_releases_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    for polls in 0..30 {
        let open =
            async { PersistentMap::<u8, u8, _>::new(SqliteBackend::new(&path).await?).await };
        persistent_map_testkit::drop_after_polls(open, polls).await;
        let open = async { PersistentMap::new(SqliteBackend::new(&path).await?).await };
        let map = tokio::time::timeout(Duration::from_secs(5), open)
            .await
            .unwrap()
            .unwrap();
        map.insert(polls.to_le_bytes()[0], 0u8).await.unwrap();
        map.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_ends_in_a_commit_leaves_the_other_maps_of_the_file_usable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let db = SqliteBackend::new(&path).await.unwrap();
    let other = PersistentMap::new(db.table("other").await.unwrap())
        .await
        .unwrap();
    for round in 0..20u64 {
        let table = db.table("ending").await.unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let map = runtime.block_on(PersistentMap::new(table)).unwrap();
            for n in 0..200u64 {
                let map = map.clone();
                runtime.spawn(async move { map.insert(n, "x".repeat(2000)).await });
            }
            std::thread::sleep(Duration::from_micros(200 * (round % 10)));
            runtime.shutdown_background();
        })
        .join()
        .unwrap();
        let insert = other.insert(round, round);
        tokio::time::timeout(Duration::from_secs(5), insert)
            .await
            .expect("wedged")
            .unwrap();
    }
    drop(db);
    other.close().await.unwrap();
    let db = SqliteBackend::new(&path).await.unwrap();
    let other = PersistentMap::<u64, u64, _>::new(db.table("other").await.unwrap())
        .await
        .unwrap();
    assert_eq!(other.len(), 20);
    let ending = PersistentMap::<u64, String, _>::new(db.table("ending").await.unwrap()).await;
    assert!(ending.unwrap().values().all(|value| value.len() == 2000));
}

#[tokio::test]
async fn an_open_dropped_half_way_gives_its_table_back() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Arc::new(SqliteBackend::new(dir.path().join("app.db")).await.unwrap());
    for polls in 1..10 {
        let open = PersistentMap::<u8, u8, _>::new(Arc::clone(&backend));
        if let Some(map) = persistent_map_testkit::drop_after_polls(open, polls).await {
            map.unwrap();
            return;
        }
    }
    PersistentMap::<u8, u8, _>::new(backend).await.unwrap();
}

/// SQLite would go on with a file that nobody finds again.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_taken_away_is_told_by_each_call() {
    let dir = tempfile::tempdir().unwrap();
    for (number, call) in ["insert", "clear", "flush", "verify", "close"]
        .into_iter()
        .enumerate()
    {
        for taken in ["deleted", "moved", "replaced"] {
            let path = dir.path().join(format!("{number}-{taken}.db"));
            let backend = SqliteBackend::new(&path).await.unwrap();
            let map = PersistentMap::new(backend).await.unwrap();
            map.insert(1, 1).await.unwrap();
            map.flush().await.unwrap();
            match taken {
                "deleted" => std::fs::remove_file(&path).unwrap(),
                "moved" => std::fs::rename(&path, dir.path().join("elsewhere")).unwrap(),
                _ => {
                    let other = dir.path().join("other");
                    std::fs::copy(&path, &other).unwrap();
                    std::fs::rename(&other, &path).unwrap();
                }
            }
            let told = match call {
                "insert" => map.insert(2, 2).await.map(drop),
                "clear" => map.clear().await,
                "flush" => map.flush().await,
                "verify" => map.verify().await.map(drop),
                _ => map.close().await,
            };
            let text = told.unwrap_err().to_string();
            for word in [
                &*format!("{number}-{taken}.db"),
                "while it was open",
                "`copy`",
            ] {
                assert!(text.contains(word), "{call}, {taken}: {text}");
            }
            assert_eq!(map.get(&1), Some(1));
            if call == "insert" {
                let refused = map.insert(3, 3).await.unwrap_err();
                assert!(
                    matches!(refused, PersistentError::Poisoned { .. }),
                    "{refused}"
                );
            }
        }
    }
}

#[tokio::test]
async fn keys_are_refused_above_64_kib() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let map = PersistentMap::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    // Three bytes say how long the text is.
    map.insert("k".repeat((64 << 10) - 3), 1u8).await.unwrap();
    let error = map.insert("k".repeat((64 << 10) - 2), 1).await.unwrap_err();
    assert!(
        matches!(error, PersistentError::TooLarge { part: "key", .. }),
        "{error}"
    );
    map.close().await.unwrap();
    let map = PersistentMap::<String, u8, _>::new(SqliteBackend::new(&path).await.unwrap()).await;
    assert_eq!(map.unwrap().len(), 1);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Before {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Renamed {
    title: String,
}

#[tokio::test]
async fn a_renamed_field_is_accepted_once_and_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let map = PersistentMap::new(SqliteBackend::new(&path).await.unwrap())
        .await
        .unwrap();
    let value = Before { name: "a".into() };
    map.insert(1u8, value).await.unwrap();
    map.close().await.unwrap();
    let open = async |accept| {
        let backend = SqliteBackend::builder(&path)
            .accept_other_types(accept)
            .open()
            .await?;
        PersistentMap::<u8, Renamed, _>::new(backend).await
    };
    let error = open(false).await.unwrap_err();
    assert!(error.to_string().contains("accept_other_types"), "{error}");
    for accept in [true, false] {
        let map = open(accept).await.unwrap();
        assert_eq!(map.get(&1), Some(Renamed { title: "a".into() }));
        map.close().await.unwrap();
    }
}

/// What a kill would leave: the files as they are.
fn crash_image(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(from), name(to)).unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_merges_the_log_of_a_killed_owner_does_not_lock_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let (live, killed) = (dir.path().join("live.db"), dir.path().join("killed.db"));
    let backend = SqliteBackend::builder(&live)
        .shared_reads(true)
        .open()
        .await
        .unwrap();
    let map = PersistentMap::new(backend).await.unwrap();
    map.insert(1u8, 1u8).await.unwrap();
    crash_image(&live, &killed);
    map.close().await.unwrap();

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&killed);
    let mut reader: SqliteConnection = options.connect().await.unwrap();
    let rows: i64 = query_scalar("SELECT count(*) FROM entries")
        .fetch_one(&mut reader)
        .await
        .unwrap();
    assert_eq!(rows, 1);
    reader.close().await.unwrap();
    assert!(!dir.path().join("killed.db-wal").exists());
    let map = PersistentMap::<u8, u8, _>::new(SqliteBackend::new(&killed).await.unwrap()).await;
    assert_eq!(map.unwrap().get(&1), Some(1));
}

#[tokio::test]
async fn flush_syncs_whatever_readers_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let open = SqliteBackend::builder(&path)
        .shared_reads(true)
        .synchronous(Synchronous::Normal);
    let map = PersistentMap::new(open.open().await.unwrap())
        .await
        .unwrap();
    map.insert(1u8, 1u8).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut reader: SqliteConnection = options.connect().await.unwrap();
    raw_sql("BEGIN; SELECT count(*) FROM entries")
        .execute(&mut reader)
        .await
        .unwrap();
    let barrier = "SELECT barrier FROM persistent_map_state";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other: SqliteConnection = options.connect().await.unwrap();
    let before: i64 = query_scalar(barrier).fetch_one(&mut other).await.unwrap();
    map.flush().await.unwrap();
    // The flush is a durable commit of its own: a checkpoint would have answered success and done nothing.
    let after: i64 = query_scalar(barrier).fetch_one(&mut other).await.unwrap();
    assert_eq!(after, before + 1);
    other.close().await.unwrap();
    reader.close().await.unwrap();
    map.close().await.unwrap();
}
