//! The promises of the whole map on each backend, at the sizes that the README speaks of.
#![cfg(all(feature = "sqlite", feature = "in_memory", feature = "csv_backend"))]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use persistent_map::csv::CsvBackend;
use persistent_map::in_memory::InMemoryBackend;
use persistent_map::sqlite::SqliteBackend;
use persistent_map::{
    Behind, DynBackend, PersistentError, PersistentMap, StorageBackend, Transaction, WriteMode,
};
use persistent_map_history::{History, Op, make_random_calls};
use persistent_map_testkit::drop_after_polls;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

type Map<K, V> = PersistentMap<K, V, DynBackend<K, V>>;

async fn open<K, V>(kind: &str, dir: &Path, mode: WriteMode) -> Map<K, V>
where
    K: persistent_map::Key,
    V: persistent_map::Value,
{
    let backend: DynBackend<K, V> = match kind {
        "sqlite" => Arc::new(SqliteBackend::new(dir.join("map.db")).await.unwrap()),
        "csv" => Arc::new(CsvBackend::new(dir.join("map.csv"))),
        _ => Arc::new(InMemoryBackend::new()),
    };
    let builder = PersistentMap::builder(backend).write_mode(mode);
    builder.open().await.unwrap()
}

fn modes() -> [WriteMode; 2] {
    [WriteMode::Through, WriteMode::Behind(Behind::new())]
}

const ACCOUNTS: u32 = 1000;
const MONEY: i64 = 100 * ACCOUNTS as i64;

#[derive(Debug)]
enum NoTransfer {
    TooPoor,
    Store(PersistentError),
}

impl From<PersistentError> for NoTransfer {
    fn from(error: PersistentError) -> Self {
        NoTransfer::Store(error)
    }
}

fn transfer(
    tx: &mut Transaction<'_, u32, i64>,
    from: u32,
    to: u32,
    amount: i64,
) -> Result<(), NoTransfer> {
    let left = tx.get(&from).unwrap_or(0) - amount;
    tx.insert(from, left);
    // Half of it is done when these happen.
    if left < 0 {
        return Err(NoTransfer::TooPoor);
    }
    assert!(amount % 10 != 7, "a planted panic");
    let more = tx.get(&to).unwrap_or(0) + amount;
    tx.insert(to, more);
    Ok(())
}

/// Sixteen tasks, a thousand accounts; closures that fail and panic, callers that give up.
async fn transfers_keep_the_sum(kind: &str, mode: WriteMode) {
    let dir = tempfile::tempdir().unwrap();
    let map: Map<u32, i64> = open(kind, dir.path(), mode.clone()).await;
    map.insert_many((0..ACCOUNTS).map(|account| (account, 100)))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..16u32 {
        let map = map.clone();
        tasks.spawn(async move {
            let (mut failed, mut panicked, mut gave_up) = (0, 0, 0);
            for n in 0..100u32 {
                let (from, to) = (
                    (task * 61 + n * 37) % ACCOUNTS,
                    (task * 17 + n * 91) % ACCOUNTS,
                );
                let amount = i64::from((task + n * 13) % 150);
                let call = map.transaction(move |tx| transfer(tx, from, to, amount));
                let patience = if n % 6 == 5 {
                    Duration::ZERO
                } else {
                    Duration::from_mins(1)
                };
                match timeout(patience, call).await {
                    Ok(Ok(())) => {}
                    Ok(Err(NoTransfer::TooPoor)) => failed += 1,
                    Ok(Err(NoTransfer::Store(PersistentError::Panicked { .. }))) => panicked += 1,
                    Ok(Err(error)) => panic!("{error:?}"),
                    Err(_) => gave_up += 1,
                }
            }
            assert!(
                failed > 0 && panicked > 0,
                "{failed} failed, {panicked} panicked, {gave_up} gave up"
            );
        });
    }
    let mut looks = 0;
    while !tasks.is_empty() {
        let sum: i64 = map.snapshot().await.unwrap().values().sum();
        assert_eq!(sum, MONEY, "in a snapshot of {kind}");
        looks += 1;
        if let Ok(Some(task)) = timeout(Duration::from_millis(1), tasks.join_next()).await {
            task.unwrap();
        }
    }
    assert!(looks > 0);
    let at_the_end = map.snapshot().await.unwrap();
    map.close().await.unwrap();
    if kind != "memory" {
        let map: Map<u32, i64> = open(kind, dir.path(), mode).await;
        assert_eq!(
            map.snapshot().await.unwrap(),
            at_the_end,
            "{kind} after reopening"
        );
    }
    assert_eq!(at_the_end.values().sum::<i64>(), MONEY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transfer_makes_or_loses_money() {
    for kind in ["sqlite", "csv", "memory"] {
        for mode in modes() {
            transfers_keep_the_sum(kind, mode).await;
        }
    }
}

/// 64 tasks count to 64,000 on one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_under_contention_are_exact_and_share_commits() {
    for kind in ["sqlite", "csv", "memory"] {
        for mode in modes() {
            let dir = tempfile::tempdir().unwrap();
            let map: Map<String, u64> = open(kind, dir.path(), mode).await;
            map.insert("counter".to_string(), 0).await.unwrap();
            let mut tasks = JoinSet::new();
            for _ in 0..64 {
                let map = map.clone();
                tasks.spawn(async move {
                    for _ in 0..1000 {
                        map.update("counter", |n| *n += 1).await.unwrap();
                    }
                });
            }
            tasks.join_all().await;
            assert_eq!(map.get("counter"), Some(64_000));
            let stats = map.stats();
            println!(
                "{kind}: {} commits for {} writes",
                stats.commits, stats.writes
            );
            assert!(stats.commits < 16_000, "{kind}: {stats:?}");
            map.close().await.unwrap();
            if kind != "memory" {
                let map: Map<String, u64> = open(kind, dir.path(), WriteMode::Through).await;
                assert_eq!(map.get("counter"), Some(64_000), "{kind} after reopening");
            }
        }
    }
}

/// Random calls of six tasks, with callers that give up, on a map that is closed and opened again: one order of all calls
/// explains every answer, and what each next owner finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_over_restarts() {
    for (seed, kind) in ["sqlite", "csv"].into_iter().cycle().take(12).enumerate() {
        let mode = modes()[seed / 2 % 2].clone();
        let seed = seed as u64;
        let dir = tempfile::tempdir().unwrap();
        let history = History::new();
        for round in 0..3 {
            let map: Map<u64, u64> = open(kind, dir.path(), mode.clone()).await;
            history.reopened();
            for key in 0..3 {
                let look = history.call(99, key, Op::Get);
                look.returned(map.get(&key));
            }
            let mut tasks = JoinSet::new();
            for task in 0..6 {
                let (map, history) = (map.clone(), history.clone());
                tasks.spawn(async move {
                    make_random_calls(&map, &history, task, 40, 3, seed * 10 + round).await;
                });
            }
            tasks.join_all().await;
            drop_after_polls(map.close(), 1).await;
            map.close().await.unwrap();
        }
        if let Err(anomaly) = history.check() {
            panic!("{kind}, {mode:?}, seed {seed}: {anomaly}");
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PlayerV1 {
    name: String,
    score: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Player {
    name: String,
    score: u64,
    level: u8,
}

fn upgrade(old: PlayerV1) -> Player {
    Player {
        level: u8::try_from(old.score % 7).unwrap(),
        score: old.score.into(),
        name: old.name,
    }
}

/// Opens a map of either version, adds a player, and returns all of them.
async fn upgraded<B>(backend: B, round: usize) -> HashMap<String, Player>
where
    B: StorageBackend<String, Player> + StorageBackend<String, PlayerV1>,
{
    let builder = PersistentMap::<String, Player, _>::builder(backend);
    let map = builder.migrate(upgrade).open().await.unwrap();
    map.verify().await.unwrap();
    let new = PlayerV1 {
        name: "N".into(),
        score: 1,
    };
    let key = format!("new {round}");
    map.insert(key, upgrade(new)).await.unwrap();
    map.close().await.unwrap();
    map.snapshot().await.unwrap()
}

/// Files that an earlier version has written, kept for ever, open with new types.
#[tokio::test]
async fn golden_files_of_an_older_type_are_upgraded_when_they_are_opened() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (kind, golden) in [
        ("sqlite", "persistent-map-sqlite/tests/golden/players_v1.db"),
        ("csv", "persistent-map-csv/tests/golden/players_v1.csv"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let name = if kind == "csv" { "map.csv" } else { "map.db" };
        std::fs::copy(crates.join(golden), dir.path().join(name)).unwrap();
        for round in 0..2 {
            let path = dir.path().join(name);
            let found = if kind == "csv" {
                upgraded(CsvBackend::new(path), round).await
            } else {
                upgraded(SqliteBackend::new(path).await.unwrap(), round).await
            };
            assert_eq!(found.len(), 6 + round, "{kind}");
            assert!(
                found
                    .values()
                    .all(|player| u64::from(player.level) == player.score % 7)
            );
        }
        let map: Map<String, Player> = open(kind, dir.path(), WriteMode::Through).await;
        assert_eq!(map.len(), 7, "{kind} without an upgrade");
    }
}

/// A handle in a `static` outlives the runtime of the test that has opened the map.
#[test]
fn a_map_whose_runtime_has_ended_is_closed_and_opened_again_beside_its_old_handles() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    for kind in ["sqlite", "csv"] {
        let dir = tempfile::tempdir().unwrap();
        let first = runtime();
        let old: Map<u32, u32> = first.block_on(open(kind, dir.path(), WriteMode::Through));
        first.block_on(old.insert(1, 1)).unwrap();
        drop(first);
        let second = runtime();
        second.block_on(async {
            let refused = old.insert(2, 2).await.unwrap_err();
            assert!(matches!(refused, PersistentError::Closed), "{refused}");
            let end = old.close().await.unwrap_err();
            assert!(matches!(end, PersistentError::WriterGone), "{end}");
            let new: Map<u32, u32> = open(kind, dir.path(), WriteMode::Through).await;
            assert_eq!((new.get(&1), old.get(&1)), (Some(1), Some(1)));
            new.insert(2, 2).await.unwrap();
            new.close().await.unwrap();
        });
    }
}
