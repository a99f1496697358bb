//! One owner, and no acknowledgement of what the next one would not find.

#![cfg(unix)] // Links, modes and mounts are made by calls that other systems do not have.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;

use persistent_map_core::{Outcome, PersistentError, PersistentMap, Result, StorageBackend};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

type Map = PersistentMap<u32, u32, CsvBackend>;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    (dir, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn open(path: &Path) -> Result<Map> {
    PersistentMap::new(CsvBackend::new(path)).await
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    name: String,
    score: u32,
}

async fn upgrade(path: &Path) -> Result<PersistentMap<u32, New, CsvBackend>> {
    PersistentMap::builder(CsvBackend::new(path))
        .migrate(|old: Old| New {
            name: old.name,
            score: 0,
        })
        .open()
        .await
}

/// The first load of each fails, and the second follows.
#[test]
fn two_starts_of_an_upgraded_program_have_one_owner() {
    for round in 0..20 {
        let (_dir, path) = place();
        fs::write(&path, "key,name\n1,ann\n2,bob\n").unwrap();
        let (start, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let starts: Vec<_> = (0..2)
            .map(|id| {
                let (path, start, end) = (path.clone(), Arc::clone(&start), Arc::clone(&end));
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread()
                        .worker_threads(1)
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        start.wait();
                        let map = upgrade(&path).await;
                        let mut is_owner = false;
                        if let Ok(map) = &map {
                            let name = format!("p{id}");
                            is_owner = map.insert(100 + id, New { name, score: id }).await.is_ok();
                        }
                        end.wait();
                        if let Ok(map) = map {
                            map.close().await.unwrap();
                        }
                        is_owner
                    })
                })
            })
            .collect();
        let owners = starts.into_iter().map(|start| start.join().unwrap());
        assert_eq!(
            owners.filter(|is_owner| *is_owner).count(),
            1,
            "round {round}"
        );
    }
}

#[tokio::test]
async fn nobody_comes_in_between_two_loads_of_a_backend() {
    let (_dir, path) = place();
    fs::write(&path, "key,name\n1,ann\n").unwrap();
    let backend = CsvBackend::new(&path);
    let refused = StorageBackend::<u32, New>::load_all(&backend).await;
    assert!(
        matches!(refused, Err(PersistentError::Mismatch { .. })),
        "{refused:?}"
    );
    let other = open(&path).await.unwrap_err();
    assert!(matches!(other, PersistentError::InUse { .. }), "{other}");
    let loaded = StorageBackend::<u32, Old>::load_all(&backend)
        .await
        .unwrap();
    assert_eq!(loaded.len(), 1);
    StorageBackend::<u32, Old>::close(&backend).await.unwrap();

    let _ = StorageBackend::<u32, New>::load_all(&backend).await;
    StorageBackend::<u32, New>::close(&backend).await.unwrap();
    let _ = StorageBackend::<u32, New>::load_all(&CsvBackend::new(&path)).await;
    let loaded = StorageBackend::<u32, Old>::load_all(&CsvBackend::new(&path)).await;
    assert_eq!(loaded.unwrap().len(), 1, "closed or dropped, it is free");
}

#[tokio::test]
async fn a_lock_or_a_journal_that_loses_its_name_is_told_by_the_next_call() {
    for suffix in [".lock", ".journal"] {
        for harm in ["deleted", "moved", "replaced"] {
            for call in ["insert", "clear", "flush"] {
                let (dir, path) = place();
                let map = open(&path).await.unwrap();
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
                    _ => map.flush().await,
                };
                let told = told.unwrap_err();
                assert_eq!(told.outcome(), Outcome::Unknown, "{told}");
                let text = told.to_string();
                for word in ["t.csv", suffix, "deleted, moved or replaced", "`copy`"] {
                    assert!(text.contains(word), "{harm}, {call}: {text}");
                }
                assert_eq!(map.get(&1), Some(1));
                let refused = map.insert(3, 3).await.unwrap_err();
                let is_poisoned = matches!(refused, PersistentError::Poisoned { .. });
                assert!(call == "flush" || is_poisoned, "{refused}");
            }
        }
    }
}

#[tokio::test]
async fn after_the_lock_file_is_deleted_only_the_next_owner_acknowledges() {
    let (_dir, path) = place();
    let first = open(&path).await.unwrap();
    for key in 0..10 {
        first.insert(key, 1).await.unwrap();
    }
    fs::remove_file(beside(&path, ".lock")).unwrap();
    let second = open(&path).await.unwrap();
    assert_eq!(second.len(), 10, "it has all that was acknowledged");
    second.insert(10, 2).await.unwrap();
    first.insert(10, 1).await.unwrap_err();
    first.insert(11, 1).await.unwrap_err();
    first.flush().await.unwrap_err();
    let _ = first.close().await;
    second.insert(12, 2).await.unwrap();
    second.verify().await.unwrap();
    second.close().await.unwrap();
    let map = open(&path).await.unwrap();
    assert_eq!((map.len(), map.get(&10), map.get(&11)), (12, Some(2), None));
}

#[tokio::test]
async fn a_directory_that_is_renamed_takes_its_owner_along() {
    let dir = tempfile::tempdir().unwrap();
    let (home, moved) = (dir.path().join("home"), dir.path().join("moved"));
    fs::create_dir(&home).unwrap();
    let map = open(&home.join("t.csv")).await.unwrap();
    map.insert(1, 1).await.unwrap();
    fs::rename(&home, &moved).unwrap();
    let second = open(&moved.join("t.csv")).await.unwrap_err();
    assert!(matches!(second, PersistentError::InUse { .. }), "{second}");
    let told = map.insert(2, 2).await.unwrap_err();
    assert_eq!(told.outcome(), Outcome::Unknown, "{told}");
    drop(map);
    let map = open(&moved.join("t.csv")).await.unwrap();
    assert_eq!(map.get(&1), Some(1));
}

#[tokio::test]
async fn a_link_that_changes_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link.csv");
    let (one, two) = (dir.path().join("one.csv"), dir.path().join("two.csv"));
    for file in [&one, &two] {
        fs::write(file, "key,value\n").unwrap();
    }
    symlink(&one, &link).unwrap();
    let first = open(&link).await.unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&two, &link).unwrap();
    let second = open(&link).await.unwrap();
    first.insert(1, 1).await.unwrap();
    second.insert(2, 2).await.unwrap();
    first.close().await.unwrap();
    second.close().await.unwrap();
    assert_eq!(fs::read_to_string(&one).unwrap(), "key,value\n1,1\n");
    assert_eq!(fs::read_to_string(&two).unwrap(), "key,value\n2,2\n");
}

/// In a directory that others may write to.
#[tokio::test]
async fn nothing_is_written_through_a_link_that_somebody_has_planted() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "of somebody else").unwrap();
    for suffix in [".lock", ".journal"] {
        let path = dir.path().join("refused.csv");
        fs::write(&path, "key,value\n1,1\n").unwrap();
        let planted = beside(&path, suffix);
        let _ = fs::remove_file(&planted);
        symlink(&victim, &planted).unwrap();
        let refused = open(&path).await.unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
        fs::remove_file(&planted).unwrap();
    }
    for suffix in [
        ".persistent-map-new",
        ".journal.persistent-map-new",
        ".journal",
    ] {
        let path = dir.path().join("opens.csv");
        let map = open(&path).await.unwrap();
        symlink(&victim, beside(&path, suffix)).unwrap();
        map.insert(1, 1).await.unwrap();
        map.flush().await.unwrap();
        map.insert(1, 2).await.unwrap();
        map.close().await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "key,value\n1,2\n");
        fs::remove_file(&path).unwrap();
        let _ = fs::remove_file(beside(&path, suffix));
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "of somebody else");
}

/// Of the process's umask this test knows nothing, so it runs itself under an open one.
#[tokio::test]
async fn under_an_open_umask_nobody_else_may_write() {
    let Some(path) = std::env::var_os("TABLE").map(PathBuf::from) else {
        let (_dir, path) = place();
        let own = std::env::current_exe().unwrap();
        let name = "under_an_open_umask_nobody_else_may_write";
        let script = format!("umask 0; exec '{}' --exact {name}", own.display());
        let mut run = Command::new("sh");
        let run = run
            .args(["-c", &script])
            .env("TABLE", &path)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stdout)
        );
        return;
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let map = open(&path).await.unwrap();
    map.insert(1, 1).await.unwrap();
    assert_eq!(mode(&beside(&path, ".lock")), 0o660);
    assert_eq!(mode(&beside(&path, ".journal")), 0o664);
    map.close().await.unwrap();
    assert_eq!(mode(&path), 0o664);
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout == b"0\n")
}

/// Says loudly that something was not tried.
fn skip(what: &str) {
    eprintln!("SKIPPED {what}: it needs root");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "SKIPPED {what}");
}

/// As containers have it: the file and not its directory.
#[tokio::test]
async fn a_table_that_is_mounted_alone_is_refused() {
    if let Some(path) = std::env::var_os("MOUNTED").map(PathBuf::from) {
        let refused = open(&path).await.unwrap_err().to_string();
        assert!(refused.contains("mounted by itself"), "{refused}");
        assert!(refused.contains("Mount the directory"), "{refused}");
        return;
    }
    if !is_root() {
        return skip("a mount of a single file");
    }
    let (dir, path) = place();
    fs::write(&path, "key,value\n1,1\n").unwrap();
    let point = dir.path().join("in a container.csv");
    fs::write(&point, "").unwrap();
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "mount --bind '{}' '{}' && exec '{}' --exact a_table_that_is_mounted_alone_is_refused",
        path.display(),
        point.display(),
        own.display()
    );
    let mut run = Command::new("unshare");
    let run = run
        .args(["--mount", "sh", "-c", &script])
        .env("MOUNTED", &point)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stdout)
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "key,value\n1,1\n");
}

/// The directory under two names is one directory, with one lock.
#[tokio::test]
async fn two_mounts_of_one_directory_have_one_owner() {
    if let Some(path) = std::env::var_os("SECOND_MOUNT").map(PathBuf::from) {
        let refused = open(&path).await.unwrap_err();
        assert!(
            matches!(refused, PersistentError::InUse { .. }),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(!text.contains("this very process"), "{text}");
        if std::process::id() == 1 {
            assert!(text.contains("(in another container)"), "{text}");
        }
        return;
    }
    if !is_root() {
        return skip("two mounts of one directory");
    }
    let (dir, path) = place();
    let map = open(&path).await.unwrap();
    map.insert(1, 1).await.unwrap();
    let point = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "mount --bind '{}' '{}' && exec '{}' --exact two_mounts_of_one_directory_have_one_owner",
        dir.path().display(),
        point.path().display(),
        own.display()
    );
    let mut run = Command::new("unshare");
    let run = run
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            &script,
        ])
        .env("SECOND_MOUNT", point.path().join("t.csv"))
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stdout)
    );
    map.insert(2, 2).await.unwrap();
    map.close().await.unwrap();
}

#[tokio::test]
async fn a_lock_file_of_another_user_is_told_with_its_owner() {
    if let Some(path) = std::env::var_os("OF_ROOT").map(PathBuf::from) {
        let refused = open(&path).await.unwrap_err().to_string();
        for word in ["user 0 (root)", "--reference", "t.csv.lock"] {
            assert!(refused.contains(word), "{refused}");
        }
        return;
    }
    if !is_root() {
        return skip("a lock file of another user");
    }
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let path = dir.path().join("t.csv");
    fs::write(beside(&path, ".lock"), "").unwrap();
    let own = dir.path().join("own");
    fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
    let script = "chmod 0777 \"$1\"; chmod 0755 \"$1/own\"; chmod 0600 \"$1/t.csv.lock\"; \
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$1/own\" --exact \
        a_lock_file_of_another_user_is_told_with_its_owner";
    let mut run = Command::new("sh");
    let run = run
        .args(["-c", script, "sh"])
        .arg(dir.path())
        .env("OF_ROOT", &path)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stdout)
    );
}

/// The administrator who looks at a table does not lock its owner out.
#[tokio::test]
async fn a_lock_file_that_root_makes_is_its_table_owners() {
    if !is_root() {
        return skip("a lock file made by root");
    }
    let (_dir, path) = place();
    fs::write(&path, "key,value\n1,1\n").unwrap();
    let chown = Command::new("chown").arg("65534:65534").arg(&path).status();
    assert!(chown.unwrap().success());
    let map = open(&path).await.unwrap();
    map.insert(2, 2).await.unwrap();
    for suffix in [".lock", ".journal"] {
        assert_eq!(
            fs::metadata(beside(&path, suffix)).unwrap().uid(),
            65534,
            "{suffix}"
        );
    }
    map.close().await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), 65534);
}
