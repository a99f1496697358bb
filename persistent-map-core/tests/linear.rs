//! Recorded histories of all calls on single entries, with callers that give up, errors, and reopening: one order must
//! explain each.

use std::time::Duration;

use persistent_map_core::{Behind, PersistentMap, Phase, StorageBackend, WriteMode};
use persistent_map_history::{History, Op, make_random_calls};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults, drop_after_polls};
use tokio::task::JoinSet;

mod support;
use support::limit::limit;

const KEYS: u64 = 3;
const TASKS: usize = 6;

async fn drive<B: StorageBackend<u64, u64>>(
    map: &PersistentMap<u64, u64, B>,
    history: &History,
    seed: u64,
) {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (map, history) = (map.clone(), history.clone());
        tasks.spawn(async move { make_random_calls(&map, &history, task, 40, KEYS, seed).await });
    }
    tasks.join_all().await;
}

/// What the next owner finds is part of the history.
fn look<B: StorageBackend<u64, u64>>(map: &PersistentMap<u64, u64, B>, history: &History) {
    history.reopened();
    for key in 0..KEYS {
        let call = history.call(99, key, Op::Get);
        call.returned(map.get(&key));
    }
}

fn check(history: &History, what: &str, seed: u64) {
    if let Err(anomaly) = history.check() {
        panic!("{what}, seed {seed}: {anomaly}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store() {
    let _limit = limit();
    for seed in 0..40 {
        let history = History::new();
        let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
        drive(&map, &history, seed).await;
        check(&history, "without a store", seed);
    }
}

/// Errors that applied nothing, errors that do not know, and a new map on the same store after each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_store_that_fails_and_is_reopened() {
    let _limit = limit();
    for seed in 0..60 {
        let history = History::new();
        let disk = Disk::new();
        let faults = Faults::new();
        for round in 0..4u64 {
            let backend = match seed % 2 {
                0 => disk.backend(),
                _ => disk.one_at_a_time_backend(),
            };
            let map = PersistentMap::builder(faults.wrap(backend)).queue_capacity(4);
            let map = map.open().await.unwrap();
            if round > 0 {
                look(&map, &history);
            }
            let fault = [
                Fault::Refused,
                Fault::UnknownApplied,
                Fault::UnknownNotApplied,
                Fault::Panic,
            ];
            let kind = fault[usize::try_from((seed / 2 + round) % 4).unwrap()];
            faults.fail_nth(3 + seed % 17, kind);
            drive(&map, &history, seed * 10 + round).await;
            drop_after_polls(map.close(), 1).await;
            let _ = map.close().await;
            faults.heal();
        }
        check(&history, "with a store", seed);
    }
}

/// Memory is linearizable, and closing brings all of it to the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_behind() {
    let _limit = limit();
    for seed in 0..40 {
        let history = History::new();
        let disk = Disk::new();
        let faults = Faults::new();
        for round in 0..3u64 {
            let backend = match seed % 2 {
                0 => disk.backend(),
                _ => disk.one_at_a_time_backend(),
            };
            let limits = Behind::new()
                .max_delay(Duration::from_micros(200))
                .max_entries(2)
                .retry(Duration::from_micros(100), Duration::from_millis(1));
            let map = PersistentMap::builder(faults.wrap(backend));
            let map = map
                .write_mode(WriteMode::Behind(limits))
                .open()
                .await
                .unwrap();
            if round > 0 {
                look(&map, &history);
            }
            faults.fail_nth(3 + seed % 5, Fault::Refused);
            drive(&map, &history, seed * 10 + round).await;
            faults.heal();
            assert_eq!(map.stats().phase, Phase::Open);
            map.close().await.unwrap();
        }
        check(&history, "write-behind", seed);
    }
}
