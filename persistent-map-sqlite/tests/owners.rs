//! One owner, and no acknowledgement of what the next one would not find.

#![cfg(unix)] // What is open twice, and links, are told by calls that other systems do not have.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use persistent_map_core::{Outcome, PersistentError, PersistentMap, Result};
use persistent_map_sqlite::{SqliteBackend, import_0_1};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, query, query_scalar};
use tempfile::TempDir;

type Map = PersistentMap<u32, u32, SqliteBackend>;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    (dir, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn open(path: &Path) -> Result<Map> {
    PersistentMap::new(SqliteBackend::new(path).await?).await
}

async fn open_shared(path: &Path) -> Result<Map> {
    let backend = SqliteBackend::builder(path).shared_reads(true);
    PersistentMap::new(backend.open().await?).await
}

/// Runs one of the tests below in a process of its own, which has its own locks. Returns what it printed.
fn in_another_process(test: &str, path: &Path) -> String {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env("DATABASE", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    said
}

/// As the SQLite shell does it: opens, looks, and closes, which merges the log and removes it. Alone it has nothing to do.
#[tokio::test]
async fn another_program_looks_at_it() {
    let Some(path) = std::env::var_os("DATABASE") else {
        return;
    };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::ZERO);
    let look = async {
        let mut connection: SqliteConnection = options.connect().await?;
        let count: i64 = query_scalar("SELECT count(*) FROM entries")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(count)
    };
    match look.await {
        Ok(count) => println!("it has {count}"),
        Err(error) => println!("it is refused: {error}"),
    }
}

#[tokio::test]
async fn a_file_that_is_open_here_is_refused_by_whatever_name_and_keeps_its_locks() {
    let (dir, path) = place();
    let map = open(&path).await.unwrap();
    map.insert(1, 1).await.unwrap();
    let (link, symbolic) = (dir.path().join("link.db"), dir.path().join("symbolic.db"));
    fs::hard_link(&path, &link).unwrap();
    symlink(&path, &symbolic).unwrap();
    for name in [&path, &link, &symbolic] {
        let started = Instant::now();
        let refused = import_0_1::<String, u32>(name).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(1));
        assert!(
            matches!(refused, PersistentError::InUse { .. }),
            "{refused}"
        );
        let refused = open(name).await.unwrap_err();
        assert!(
            matches!(refused, PersistentError::InUse { .. }),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(text.contains("this very process"), "{text}");
        let said = in_another_process("another_program_looks_at_it", &path);
        assert!(said.contains("it is refused"), "{said}");
    }
    fs::remove_file(&link).unwrap();
    map.insert(2, 2).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(open(&symbolic).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_database_of_two_names_is_refused() {
    let (dir, path) = place();
    open(&path).await.unwrap().close().await.unwrap();
    let link = dir.path().join("link.db");
    fs::hard_link(&path, &link).unwrap();
    for name in [&path, &link] {
        let refused = open(name).await.unwrap_err().to_string();
        assert!(refused.contains("2 names"), "{refused}");
    }
    fs::remove_file(&link).unwrap();
    open(&path).await.unwrap();
}

/// A crash between the two steps in which a new database gets its name.
#[tokio::test]
async fn a_new_database_that_has_the_name_of_its_draft_too_opens() {
    let (_dir, path) = place();
    open(&path).await.unwrap().close().await.unwrap();
    let draft = beside(&path, ".persistent-map-creating");
    fs::hard_link(&path, &draft).unwrap();
    open(&path).await.unwrap();
    assert!(!draft.exists());
}

/// A copy of a file that is open, made by the same process, takes SQLite's locks.
async fn copied_and_looked_at(path: &Path) -> Map {
    let map = open(path).await.unwrap();
    for key in 0..10 {
        map.insert(key, 1).await.unwrap();
    }
    fs::copy(path, path.with_extension("copy")).unwrap();
    let said = in_another_process("another_program_looks_at_it", path);
    assert!(
        said.contains("it has 10"),
        "the locks should be gone: {said}"
    );
    map
}

#[tokio::test]
async fn after_a_log_was_merged_by_another_program_nothing_is_acknowledged_that_is_lost() {
    for call in ["insert", "clear", "flush", "verify"] {
        let (_dir, path) = place();
        let map = copied_and_looked_at(&path).await;
        assert!(!beside(&path, "-wal").exists());
        let told = match call {
            "insert" => map.insert(100, 2).await.map(drop),
            "clear" => map.clear().await,
            "flush" => map.flush().await,
            _ => map.verify().await.map(drop),
        };
        let text = told.unwrap_err().to_string();
        for word in ["app.db", "-wal", "`copy`"] {
            assert!(text.contains(word), "{call}: {text}");
        }
        assert_eq!(map.len(), 10, "{call}");
    }
}

/// The other half of the next test: a process that is killed after its log was merged.
#[tokio::test]
async fn an_owner_whose_log_is_merged_and_who_is_killed() {
    let Some(path) = std::env::var_os("DATABASE").map(PathBuf::from) else {
        return;
    };
    let map = copied_and_looked_at(&path).await;
    let mut acknowledged = 0;
    for key in 100..150 {
        acknowledged += u32::from(map.insert(key, 2).await.is_ok());
    }
    println!("acknowledged {acknowledged}");
    std::process::exit(0);
}

#[tokio::test]
async fn the_advice_to_accept_a_missing_log_loses_nothing_that_was_acknowledged() {
    let (_dir, path) = place();
    let said = in_another_process("an_owner_whose_log_is_merged_and_who_is_killed", &path);
    assert!(said.contains("acknowledged 0"), "{said}");
    let refused = open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("accept_missing_wal"), "{refused}");
    let backend = SqliteBackend::builder(&path).accept_missing_wal(true);
    let map: Map = PersistentMap::new(backend.open().await.unwrap())
        .await
        .unwrap();
    assert_eq!(map.len(), 10);
}

/// What the other program is in the middle of is seen, too: it reads the log after it has made its index.
#[tokio::test]
async fn a_program_that_has_the_database_open_is_told_by_the_next_call() {
    let (_dir, path) = place();
    let map = open(&path).await.unwrap();
    map.insert(1, 1).await.unwrap();
    fs::write(beside(&path, "-shm"), "").unwrap();
    let told = map.insert(2, 2).await.unwrap_err();
    assert_eq!(told.outcome(), Outcome::Unknown);
    let text = told.to_string();
    assert!(
        text.contains("another program has it open with SQLite"),
        "{text}"
    );
    drop(map);

    // Left by whoever was killed.
    let (_dir, path) = place();
    open(&path).await.unwrap().close().await.unwrap();
    fs::write(beside(&path, "-shm"), "").unwrap();
    open(&path).await.unwrap().insert(1, 1).await.unwrap();
}

/// Closing would write the pages of this process over those of the other program.
#[tokio::test]
async fn what_another_program_has_written_is_not_overwritten_at_close() {
    let (_dir, path) = place();
    let map = open(&path).await.unwrap();
    for key in 0..200 {
        map.insert(key, 1).await.unwrap();
    }
    fs::copy(&path, path.with_extension("copy")).unwrap();
    in_another_process("another_program_empties_it", &path);
    map.close().await.unwrap_err();
    let backend = SqliteConnectOptions::new()
        .filename(&path)
        .immutable(true)
        .read_only(true);
    let mut connection = backend.connect().await.unwrap();
    let count: i64 = query_scalar("SELECT count(*) FROM entries")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let check: String = query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!((count, &*check), (0, "ok"));
}

/// The other half of the test above.
#[tokio::test]
async fn another_program_empties_it() {
    let Some(path) = std::env::var_os("DATABASE") else {
        return;
    };
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap();
    query("DELETE FROM entries")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_lock_or_a_log_that_loses_its_name_is_told_by_the_next_call() {
    for (suffix, is_shared) in [
        (".lock", false),
        (".lock", true),
        ("-wal", false),
        ("-wal", true),
    ] {
        for harm in ["deleted", "moved", "replaced"] {
            for call in ["insert", "clear", "flush", "verify", "close"] {
                let (dir, path) = place();
                let map = if is_shared {
                    open_shared(&path).await
                } else {
                    open(&path).await
                };
                let map = map.unwrap();
                map.insert(1, 1).await.unwrap();
                let (name, elsewhere) = (beside(&path, suffix), dir.path().join("elsewhere"));
                match harm {
                    "deleted" => fs::remove_file(&name).unwrap(),
                    "moved" => fs::rename(&name, &elsewhere).unwrap(),
                    _ => {
                        fs::copy(&name, &elsewhere).unwrap();
                        fs::rename(&elsewhere, &name).unwrap();
                    }
                }
                let told = match call {
                    "insert" => map.insert(2, 2).await.map(drop),
                    "clear" => map.clear().await,
                    "flush" => map.flush().await,
                    "verify" => map.verify().await.map(drop),
                    _ => map.close().await,
                };
                let text = told
                    .expect_err(&format!("{suffix} {harm} {call}"))
                    .to_string();
                for word in ["app.db", suffix, "deleted, moved or replaced", "`copy`"] {
                    assert!(text.contains(word), "{harm}, {call}: {text}");
                }
                assert_eq!(map.get(&1), Some(1));
            }
        }
    }
}

/// A cleaner of temporary files: the log is open here still, and closing merges it.
#[tokio::test]
async fn a_log_that_is_deleted_is_in_the_database_after_close() {
    let (_dir, path) = place();
    let map = open(&path).await.unwrap();
    for key in 0..10 {
        map.insert(key, 1).await.unwrap();
    }
    fs::remove_file(beside(&path, "-wal")).unwrap();
    map.insert(10, 1).await.unwrap_err();
    map.insert(11, 1).await.unwrap_err();
    let _ = map.close().await;
    assert_eq!(open(&path).await.unwrap().len(), 10);
}

/// The other half of the next test.
#[tokio::test]
async fn a_second_owner_counts() {
    let Some(path) = std::env::var_os("DATABASE").map(PathBuf::from) else {
        return;
    };
    let map = open_shared(&path).await.unwrap();
    for _ in 0..50 {
        map.update(&1, |count| *count += 1).await.unwrap();
    }
    map.close().await.unwrap();
}

#[tokio::test]
async fn with_shared_reads_only_the_next_owner_acknowledges() {
    let (_dir, path) = place();
    let map = open_shared(&path).await.unwrap();
    map.insert(1, 0).await.unwrap();
    let mut acknowledged = 50;
    fs::remove_file(beside(&path, ".lock")).unwrap();
    in_another_process("a_second_owner_counts", &path);
    for _ in 0..50 {
        acknowledged += u32::from(map.update(&1, |count| *count += 1).await.is_ok());
    }
    let _ = map.close().await;
    drop(map);
    let map = open_shared(&path).await.unwrap();
    assert_eq!((map.get(&1), acknowledged), (Some(50), 50));
}

#[tokio::test]
async fn nothing_is_written_through_a_link_that_somebody_has_planted() {
    let (dir, path) = place();
    let victim = dir.path().join("victim");
    fs::write(&victim, "of somebody else").unwrap();
    for suffix in [".lock", "-wal"] {
        symlink(&victim, beside(&path, suffix)).unwrap();
        let refused = open(&path).await.unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
    symlink(&victim, beside(&path, ".persistent-map-creating")).unwrap();
    let map = open(&path).await.unwrap();
    map.insert(1, 1).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "of somebody else");
}

/// How to copy a file that is open: with `shared_reads`, by SQLite's own backup.
#[tokio::test]
async fn a_live_file_can_be_copied_by_sqlite() {
    let has_shell = Command::new("sqlite3")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !has_shell.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED a copy by the SQLite shell: there is none");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "SKIPPED");
        return;
    }
    let (_dir, path) = place();
    let map = open_shared(&path).await.unwrap();
    for key in 0..100 {
        map.insert(key, 1).await.unwrap();
    }
    let copy = path.with_file_name("copy.db");
    let backup = format!(".backup '{}'", copy.display());
    let backup = Command::new("sqlite3")
        .arg(&path)
        .arg(backup)
        .output()
        .unwrap();
    assert!(
        backup.status.success(),
        "{}",
        String::from_utf8_lossy(&backup.stderr)
    );
    map.insert(100, 1).await.unwrap();
    assert_eq!(open(&copy).await.unwrap().len(), 100);
    map.close().await.unwrap();
}
