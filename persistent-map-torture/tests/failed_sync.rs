//! With `Synchronous::Normal`, a sync of the log that fails is never passed over: after it a later one would answer success
//! for what is not on the disk. (What becomes of errors with `Synchronous::Full` is told by `faults`.)

// strace is Linux's.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, exit};

use persistent_map_core::{Outcome, PersistentMap, Result};
use persistent_map_sqlite::{SqliteBackend, Synchronous};

/// More than the worker makes.
const ENOUGH: u32 = 40;

/// Run by the test below in a process of its own, which ends like a kill: with 1 after an error, else with 0.
#[tokio::test]
async fn worker() {
    let Some(path) = std::env::var_os("DATABASE") else {
        return;
    };
    match write(Path::new(&path)).await {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

/// Logs for several merges, and a flush in the end. The first error that was told.
async fn write(path: &Path) -> Result<()> {
    let backend = SqliteBackend::builder(path).synchronous(Synchronous::Normal);
    let backend = backend.open().await?;
    let other = PersistentMap::<u32, u32, _>::new(backend.table("other").await?).await?;
    let map = PersistentMap::<u32, String, _>::new(backend).await?;
    let mut told = Ok(());
    for n in 0..36 {
        let Err(error) = map.insert(n, "x".repeat(256 << 10)).await else {
            continue;
        };
        // What ends writing for one map of the file ends it for all.
        if error.outcome() == Outcome::Unknown && other.flush().await.is_ok() {
            eprintln!("after this, another map was flushed: {error}");
            exit(2);
        }
        told = told.and(Err(error));
    }
    let flushed = map.flush().await;
    told.and(flushed).and(other.flush().await)
}

#[test]
fn a_failed_sync_of_the_log_is_told() {
    let mut traces = Command::new("strace");
    traces.args(["-o", "/dev/null", "true"]);
    if !traces.output().is_ok_and(|output| output.status.success()) {
        return support::skip("failed_sync", "strace is needed, and may trace");
    }
    let mut failed = 0;
    for n in 1..=ENOUGH {
        let dir = tempfile::tempdir().unwrap();
        let (path, trace) = (dir.path().join("app.db"), dir.path().join("trace"));
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-qq",
            "-e",
            "signal=none",
            "-e",
            "trace=fsync,fdatasync",
        ]);
        strace
            .arg("-e")
            .arg(format!("inject=fsync,fdatasync:error=EIO:when={n}"));
        strace.arg("-o").arg(&trace);
        strace.arg("-P").arg(dir.path().join("app.db-wal"));
        strace.arg(std::env::current_exe().unwrap());
        strace.args(["--exact", "worker", "--nocapture"]);
        let output = strace.env("DATABASE", &path).output();
        let output = output.expect("this proof needs strace");
        let said = String::from_utf8_lossy(&output.stderr);
        let injected = fs::read_to_string(&trace).unwrap().contains("INJECTED");
        match (injected, output.status.code()) {
            (true, Some(1)) => failed += 1,
            (false, Some(0)) => {
                assert!(failed > 5, "only {failed} syncs were tried");
                return;
            }
            (_, code) => panic!("sync {n} of the log failed: {injected}; {code:?}: {said}"),
        }
    }
    panic!("the worker makes more than {ENOUGH} syncs");
}
