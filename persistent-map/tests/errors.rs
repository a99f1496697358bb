//! Every error, as its users meet it: made by a real map, and read by somebody who knows nothing of the code.
#![cfg(all(feature = "sqlite", feature = "csv_backend"))]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use persistent_map::csv::CsvBackend;
use persistent_map::sqlite::SqliteBackend;
use persistent_map::{Behind, Outcome, PersistentError, PersistentMap, Result, WriteMode};
use persistent_map_testkit::{Disk, DiskBackend, Fault, Faults, Faulty};
use serde::{Deserialize, Serialize};

/// What no message may show.
const SECRET: &str = "hunter2";

type Faulted = PersistentMap<u64, String, Faulty<DiskBackend<u64, String>>>;

/// A map of three entries whose disk fails on command.
async fn faulted(atomic: bool, mode: WriteMode) -> (Faulted, Faults) {
    let disk = Disk::new();
    let faults = Faults::new();
    let backend = if atomic {
        disk.backend()
    } else {
        disk.one_at_a_time_backend()
    };
    let builder = PersistentMap::builder(faults.wrap(backend)).write_mode(mode);
    let map = builder.open().await.unwrap();
    for key in 0..3 {
        map.insert(key, SECRET.to_string()).await.unwrap();
    }
    (map, faults)
}

async fn open_sqlite(path: &Path) -> Result<PersistentMap<String, String, SqliteBackend>> {
    PersistentMap::new(SqliteBackend::new(path).await?).await
}

/// A closed database with one entry.
async fn database(path: &Path) {
    let map = open_sqlite(path).await.unwrap();
    map.insert("key".to_string(), SECRET.to_string())
        .await
        .unwrap();
    map.close().await.unwrap();
}

async fn storage(dir: &Path) -> PersistentError {
    let path = dir.join("app.csv");
    let map = PersistentMap::new(CsvBackend::new(&path)).await.unwrap();
    // Where the journal belongs, which is made with the first write.
    fs::create_dir(dir.join("app.csv.journal")).unwrap();
    map.insert(1, SECRET.to_string()).await.unwrap_err()
}

async fn storage_unknown(_: &Path) -> PersistentError {
    let (map, faults) = faulted(true, WriteMode::Through).await;
    faults.fail_next(Fault::UnknownApplied);
    map.insert(1, SECRET.to_string()).await.unwrap_err()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Login {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Option<String>,
    password: String,
}

async fn unstorable(dir: &Path) -> PersistentError {
    let backend = SqliteBackend::new(dir.join("app.db")).await.unwrap();
    let map = PersistentMap::new(backend).await.unwrap();
    let login = Login {
        note: None,
        password: SECRET.to_string(),
    };
    map.insert(1, login).await.unwrap_err()
}

async fn too_large(dir: &Path) -> PersistentError {
    let map = open_sqlite(&dir.join("app.db")).await.unwrap();
    let key = SECRET.repeat(10_000);
    map.insert(key, String::new()).await.unwrap_err()
}

async fn corrupt(dir: &Path) -> PersistentError {
    let path = dir.join("app.csv");
    fs::write(&path, format!("key,value\na,1\nb,{SECRET}\n")).unwrap();
    let map = PersistentMap::<String, u64, _>::new(CsvBackend::new(path));
    map.await.unwrap_err()
}

async fn damaged(dir: &Path) -> PersistentError {
    let path = dir.join("app.db");
    database(&path).await;
    let mut bytes = fs::read(&path).unwrap();
    let codec = b"bincode";
    let record = bytes.windows(codec.len()).position(|bytes| bytes == codec);
    bytes[record.unwrap()] ^= 1;
    fs::write(&path, bytes).unwrap();
    open_sqlite(&path).await.unwrap_err()
}

async fn mismatch(dir: &Path) -> PersistentError {
    let path = dir.join("app.db");
    database(&path).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    let map = PersistentMap::<String, u64, _>::new(backend);
    map.await.unwrap_err()
}

async fn refused(dir: &Path) -> PersistentError {
    let path = dir.join("app.db");
    fs::create_dir(&path).unwrap();
    open_sqlite(&path).await.unwrap_err()
}

async fn in_use(dir: &Path) -> PersistentError {
    let path = dir.join("app.db");
    let _owner = open_sqlite(&path).await.unwrap();
    open_sqlite(&path).await.unwrap_err()
}

async fn poisoned(_: &Path) -> PersistentError {
    let (map, faults) = faulted(true, WriteMode::Through).await;
    faults.fail_next(Fault::UnknownNotApplied);
    map.insert(1, SECRET.to_string()).await.unwrap_err();
    map.remove(&2).await.unwrap_err()
}

async fn closed(_: &Path) -> PersistentError {
    let (map, _) = faulted(true, WriteMode::Through).await;
    map.close().await.unwrap();
    map.remove(&2).await.unwrap_err()
}

async fn writer_gone(_: &Path) -> PersistentError {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (map, _) = runtime
        .spawn(faulted(true, WriteMode::Through))
        .await
        .unwrap();
    runtime.shutdown_background();
    // Whether the writer has ended yet or still closes the map is a race that the second call does not run.
    let _ = map.close().await;
    map.close().await.unwrap_err()
}

async fn unsupported(_: &Path) -> PersistentError {
    let (map, _) = faulted(false, WriteMode::Through).await;
    map.insert_many([(1, SECRET.to_string()), (2, SECRET.to_string())])
        .await
        .unwrap_err()
}

async fn panicked(_: &Path) -> PersistentError {
    let (map, _) = faulted(true, WriteMode::Through).await;
    let change = |value: &mut String| panic!("planted: {value}");
    map.update(&1, change).await.unwrap_err()
}

async fn would_deadlock(_: &Path) -> PersistentError {
    let (map, _) = faulted(true, WriteMode::Through).await;
    map.blocking().remove(&1).unwrap_err()
}

async fn partly_cleared(_: &Path) -> PersistentError {
    let (map, faults) = faulted(false, WriteMode::Through).await;
    faults.fail_nth(2, Fault::Refused);
    map.clear().await.unwrap_err()
}

async fn unsaved(_: &Path) -> PersistentError {
    let later = Behind::new().max_delay(Duration::from_hours(1));
    let (map, faults) = faulted(true, WriteMode::Behind(later)).await;
    faults.fail_always(Fault::Refused);
    map.flush().await.unwrap_err()
}

async fn not_as_written(_: &Path) -> PersistentError {
    let disk = Disk::new();
    let map = PersistentMap::new(disk.backend()).await.unwrap();
    map.insert(1, SECRET.to_string()).await.unwrap();
    let other = PersistentMap::new(disk.backend()).await.unwrap();
    other.clear().await.unwrap();
    map.verify().await.unwrap_err()
}

#[expect(clippy::unused_async, reason = "the others await")]
async fn no_runtime(_: &Path) -> PersistentError {
    let without_timers = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let open = PersistentMap::<u64, String, _>::builder(Disk::new().backend())
        .write_mode(WriteMode::Behind(Behind::new()))
        .open();
    std::thread::spawn(move || without_timers.block_on(open).unwrap_err())
        .join()
        .unwrap()
}

/// Makes an error, in a directory of its own, and reads it. The words are what a user needs: where, why, what now.
macro_rules! read {
    ($names:ident: $($make:ident is $variant:ident and says $($word:literal),+;)+) => {$(
        let dir = tempfile::tempdir().unwrap();
        let error = $make(dir.path()).await;
        assert!(matches!(error, PersistentError::$variant { .. }), "{error}");
        check(error, &[$($word),+]);
        $names.insert(stringify!($variant));
    )+};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_of_the_page_can_be_made_and_reads_well() {
    let mut made = BTreeSet::new();
    read! { made:
        storage is Storage and says "app.csv", "os error", "nothing was applied", "may be repeated";
        storage_unknown is Storage and says "a fault was injected", "may or may not", "Open the map again";
        unstorable is Unstorable and says "Login", "bincode", "skip_serializing_if", "MessagePack";
        too_large is TooLarge and says "the key of 7000", "65536 bytes", "in parts";
        corrupt is Corrupt and says "line 3 of", "app.csv", "\"b\"", "expected a whole number", "not changed";
        damaged is Damaged and says "app.db", "table `entries`", "checksum", "backup";
        mismatch is Mismatch and says "app.db", "table `entries`", "values of type str", "u64", "migrate";
        refused is Refused and says "app.db", "directory", "Name a file";
        in_use is InUse and says "app.db", "this very process", "clone()";
        poisoned is Poisoned and says "an earlier failure", "a fault was injected", "Open the map again";
        closed is Closed and says "closed", "open it again";
        writer_gone is WriterGone and says "runtime", "Open the map again";
        unsupported is Unsupported and says "several entries in one step", "nothing was applied";
        panicked is Panicked and says "panicked", "nothing was applied";
        would_deadlock is WouldDeadlock and says "inside of async code", "nothing was applied", "spawn_blocking";
        partly_cleared is PartlyCleared and says "only 1 entry was removed", "a fault was injected", "Repeat the call";
        unsaved is Unsaved and says "3 entries were accepted", "a fault was injected", "tries again";
        not_as_written is NotAsWritten and says "1 entry missing", "Another program", "new store";
        no_runtime is NoRuntime and says "enable_time", "#[tokio::main]";
    }
    let page = include_str!("../../persistent-map-core/docs/errors.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| [`"));
    let names = rows.filter_map(|row| row.split('`').next());
    assert_eq!(made, names.collect());
}

/// What holds for each message.
fn check(error: PersistentError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
    assert!(!text.contains(SECRET), "a value is shown: {text}");
    assert!(text.len() < 700, "too long to be read: {text}");
    for clumsy in [
        "{",
        ". .",
        ";;",
        ": ;",
        "  ",
        "\n",
        "1 entries",
        "Some(",
        "Error {",
    ] {
        assert!(!text.contains(clumsy), "`{clumsy}` in {text}");
    }
    assert!(!text.ends_with(['.', ';', ':', ' ']), "{text}");
    assert_eq!(format!("{error:?}"), text, "what `main` prints");

    // Those who print a chain of causes, with the line that an application puts in front, get nothing new.
    let chain = format!("{:#}", anyhow::Error::new(error).context("cannot start"));
    let rest = chain.strip_prefix(&format!("cannot start: {text}"));
    let rest = rest.unwrap_or_else(|| panic!("{chain}"));
    let outcomes = [Outcome::NotApplied, Outcome::Unknown].map(|outcome| outcome.to_string());
    for cause in rest.split([':', ';', '.']).map(str::trim) {
        let is_outcome = outcomes.iter().any(|outcome| outcome.contains(cause));
        assert!(
            text.contains(cause) || is_outcome,
            "`{cause}` is only in the chain: {chain}"
        );
    }
    let mut clauses = BTreeSet::new();
    for clause in text
        .split([':', ';', '.'])
        .filter(|clause| clause.len() > 12)
    {
        assert!(clauses.insert(clause), "`{clause}` is said twice: {text}");
    }
}
