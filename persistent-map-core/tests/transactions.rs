//! Many entries in one step: all or nothing, one after the other.

use std::collections::HashMap;
use std::time::Duration;

use persistent_map_core::{
    Behind, Outcome, PersistentError, PersistentMap, StorageBackend, Transaction, WriteMode,
};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults, drop_after_polls};
use tokio::task::JoinSet;
use tokio::time::timeout;

mod support;
use support::limit::limit;

const ACCOUNTS: u32 = 1000;

#[derive(Debug)]
enum NoTransfer {
    Planned,
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
) -> Result<i64, NoTransfer> {
    let source = tx.get(&from).unwrap_or(0);
    tx.insert(from, source - amount);
    // In the middle, where the sum is wrong.
    match amount % 10 {
        3 => return Err(NoTransfer::Planned),
        7 => panic!("a planned panic"),
        _ => {}
    }
    let target = tx.get(&to).unwrap_or(0);
    tx.insert(to, target + amount);
    Ok(source)
}

/// Sixteen tasks move money at random; some closures fail, some panic, some callers give up. No look at the whole ever
/// finds another sum, and neither does the next owner of the store.
async fn money_is_neither_made_nor_lost<B>(map: PersistentMap<u32, i64, B>, transfers: usize)
where
    B: StorageBackend<u32, i64>,
{
    map.insert_many((0..ACCOUNTS).map(|account| (account, 100)))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let map = map.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(task);
            for n in 0..transfers {
                let (from, to) = (random.u32(..ACCOUNTS), random.u32(..ACCOUNTS));
                let amount = random.i64(1..50);
                let call = map.transaction(move |tx| transfer(tx, from, to, amount));
                if n % 7 == 3 {
                    drop_after_polls(call, random.usize(..4)).await;
                    continue;
                }
                match (call.await, amount % 10) {
                    (Err(NoTransfer::Planned), 3)
                    | (Err(NoTransfer::Store(PersistentError::Panicked { .. })), 7)
                    | (Ok(_), _) => {}
                    (other, _) => panic!("{other:?}"),
                }
            }
        });
    }
    let mut looks = 0;
    while !tasks.is_empty() {
        let snapshot = map.snapshot().await.unwrap();
        assert_eq!(snapshot.values().sum::<i64>(), 100 * i64::from(ACCOUNTS));
        looks += 1;
        if let Ok(Some(task)) = timeout(Duration::from_millis(1), tasks.join_next()).await {
            task.unwrap();
        }
    }
    assert!(looks > 1);
    map.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_stays_without_a_store() {
    let _limit = limit();
    let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    money_is_neither_made_nor_lost(map, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_stays_with_a_store() {
    let _limit = limit();
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let disk = Disk::new();
        let map = PersistentMap::builder(disk.backend()).write_mode(mode);
        let map = map.open().await.unwrap();
        money_is_neither_made_nor_lost(map.clone(), 300).await;
        map.close().await.unwrap();
        let stored = disk.entries();
        assert_eq!(stored.values().sum::<i64>(), 100 * i64::from(ACCOUNTS));
        assert_eq!(stored, map.iter().collect());
    }
}

#[tokio::test]
async fn a_transaction_reads_its_own_changes_and_those_before_it_in_the_same_commit() {
    let _limit = limit();
    let disk = Disk::new();
    let map = PersistentMap::new(disk.backend()).await.unwrap();
    map.insert_many((0..20).map(|n| (n, n))).await.unwrap();
    let (insert, transaction) = tokio::join!(
        map.insert(100, 1),
        map.transaction(|tx| {
            assert_eq!(tx.get(&100), Some(1));
            assert_eq!(
                [1, 100, 50].map(|key| tx.contains_key(&key)),
                [true, true, false]
            );
            assert_eq!(tx.remove(&0), Some(0));
            assert_eq!(
                (tx.get(&0), tx.contains_key(&0), tx.remove(&0)),
                (None, false, None)
            );
            for n in 20..40 {
                assert_eq!(tx.insert(n, n), None);
            }
            assert_eq!(tx.insert(20, 21), Some(20));
            let mut keys = tx.keys();
            keys.sort_unstable();
            assert_eq!(keys, (1..40).chain([100]).collect::<Vec<_>>());
            Ok::<_, PersistentError>(tx.with(&20, |value| value + 1))
        }),
    );
    assert_eq!((insert.unwrap(), transaction.unwrap()), (None, Some(22)));
    assert_eq!(disk.entries(), map.iter().collect());
    assert_eq!(map.len(), 40);
}

/// What memory has, what is about to be stored before it, and its own changes: each entry once, as it is by then.
async fn all_entries_are_seen<B: StorageBackend<u32, u32>>(map: PersistentMap<u32, u32, B>) {
    map.insert_many((0..20).map(|n| (n, n))).await.unwrap();
    // With a writer, all are in one commit.
    let (first, second, third, seen) = tokio::join!(
        map.insert(5, 500),
        map.insert(50, 50),
        map.remove(&6),
        map.transaction(|tx| {
            let before = sorted(tx.iter());
            tx.insert(7, 700);
            tx.insert(70, 70);
            tx.insert(71, 71);
            tx.remove(&8);
            tx.remove(&50);
            tx.remove(&71);
            let after = sorted(tx.iter());
            let mut keys = tx.keys();
            keys.sort_unstable();
            assert!(after.iter().map(|(key, _)| *key).eq(keys));
            Ok::<_, PersistentError>((before, after))
        }),
    );
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    let (before, after) = seen.unwrap();
    let unchanged = |except: &'static [u32]| {
        let kept = (0..20).filter(|n| !except.contains(n));
        kept.map(|n| (n, n))
    };
    let expected = sorted(unchanged(&[5, 6]).chain([(5, 500), (50, 50)]));
    assert_eq!(before, expected);
    let expected = unchanged(&[5, 6, 7, 8]).chain([(5, 500), (7, 700), (70, 70)]);
    assert_eq!(after, sorted(expected));
    assert_eq!(after, sorted(map.iter()));
}

fn sorted(entries: impl Iterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    entries
}

#[tokio::test]
async fn a_transaction_goes_through_all_entries() {
    let _limit = limit();
    all_entries_are_seen(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let map = PersistentMap::builder(Disk::new().backend()).write_mode(mode);
        all_entries_are_seen(map.open().await.unwrap()).await;
    }
}

/// Others insert, move and clear all the while. What the closure has seen is as it was when it looks again.
async fn nothing_changes_meanwhile<B>(map: PersistentMap<u32, u32, B>)
where
    B: StorageBackend<u32, u32>,
{
    let mut writers = JoinSet::new();
    for task in 0..4 {
        let map = map.clone();
        writers.spawn(async move {
            for n in 0.. {
                map.insert(task, n).await.unwrap();
                map.update_or_insert(n % 8, 0, |n| *n += 1).await.unwrap();
                if n % 16 == 0 {
                    map.clear().await.unwrap();
                }
                // Without a store the calls never wait, and a task that never waits cannot be ended.
                tokio::task::yield_now().await;
            }
        });
    }
    until_written(&map).await;
    for _ in 0..20 {
        let look = map.transaction(|tx| {
            let first = sorted(tx.iter());
            tx.insert(1000, 1);
            std::thread::sleep(Duration::from_millis(2));
            let mut second = sorted(tx.iter());
            let own = second.pop();
            tx.remove(&1000);
            Ok::<_, PersistentError>((first, second, own))
        });
        let (first, second, own) = look.await.unwrap();
        assert_eq!(first, second);
        assert_eq!(own, Some((1000, 1)));
    }
}

async fn until_written<B: StorageBackend<u32, u32>>(map: &PersistentMap<u32, u32, B>) {
    let written = async {
        while map.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), written).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_transaction_goes_through_all_entries_none_of_them_changes() {
    let _limit = limit();
    nothing_changes_meanwhile(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let map = PersistentMap::builder(Disk::new().backend()).write_mode(mode);
        nothing_changes_meanwhile(map.open().await.unwrap()).await;
    }
}

/// With a store that takes one write at a time, nothing is half done.
#[tokio::test]
async fn without_atomic_batches_many_entries_are_refused_and_nothing_is_written() {
    let _limit = limit();
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let disk = Disk::new();
        let map = PersistentMap::builder(disk.one_at_a_time_backend()).write_mode(mode);
        let map = map.open().await.unwrap();
        map.insert(1, 1).await.unwrap();
        let unsupported = |error: PersistentError| {
            assert!(
                matches!(error, PersistentError::Unsupported { .. }),
                "{error}"
            );
            assert_eq!(error.outcome(), Outcome::NotApplied);
        };
        unsupported(map.insert_many([(2, 2), (3, 3)]).await.unwrap_err());
        unsupported(map.remove_many([1, 2]).await.unwrap_err());
        let two = map.transaction(|tx| {
            tx.insert(2, 2);
            tx.remove(&1);
            Ok::<_, PersistentError>(())
        });
        unsupported(two.await.unwrap_err());
        map.flush().await.unwrap();
        assert_eq!(disk.entries(), HashMap::from([(1, 1)]));
        assert_eq!(map.iter().collect::<HashMap<_, _>>(), disk.entries());

        // One entry, or none, is no batch.
        assert_eq!(map.insert_many([(2, 2)]).await.unwrap(), 1);
        assert_eq!(map.remove_many([]).await.unwrap(), 0);
        let one = map.transaction(|tx| Ok::<_, PersistentError>((tx.get(&1), tx.insert(3, 3))));
        assert_eq!(one.await.unwrap(), (Some(1), None));
        assert_eq!(map.retain(|key, _| *key != 2).await.unwrap(), 1);
        map.flush().await.unwrap();
        assert_eq!(disk.entries(), HashMap::from([(1, 1), (3, 3)]));
        map.clear().await.unwrap();
        map.close().await.unwrap();
        assert!(disk.entries().is_empty());
    }
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(disk.backend()))
        .await
        .unwrap();
    map.insert_many((0..10).map(|n| (n, 0))).await.unwrap();
    faults.fail_always(Fault::Refused);
    assert!(map.insert_many((0..5000).map(|n| (n, 1))).await.is_err());
    assert!(map.remove_many(0..5).await.is_err());
    assert!(map.retain(|_, _| false).await.is_err());
    let set = map.transaction(|tx| Ok::<_, PersistentError>(tx.insert(1, 1)));
    assert!(set.await.is_err());
    faults.heal();
    let expected: HashMap<_, _> = (0..10).map(|n| (n, 0)).collect();
    assert_eq!(map.snapshot().await.unwrap(), expected);
    assert_eq!(disk.entries(), expected);
    // One commit, however large.
    let before = faults.writes();
    assert_eq!(
        map.insert_many((0..5000).map(|n| (n, 1))).await.unwrap(),
        4990
    );
    assert_eq!(faults.writes() - before, 1);
    let removed = map.retain(|key, _| key % 5 == 0).await.unwrap();
    assert_eq!((removed, faults.writes() - before), (4000, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_dropped_at_any_poll_is_done_or_not() {
    let _limit = limit();
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let disk = Disk::new();
        let map = PersistentMap::builder(disk.backend())
            .queue_capacity(1)
            .write_mode(mode);
        let map = map.open().await.unwrap();
        for polls in 0..10 {
            drop_after_polls(map.insert_many((0..100).map(|n| (n, polls))), polls).await;
            let swap = map.transaction(move |tx| {
                for n in 0..100 {
                    tx.insert(n, polls + 100);
                }
                Ok::<_, PersistentError>(())
            });
            drop_after_polls(swap, polls).await;
            drop_after_polls(map.snapshot(), polls).await;
            let all = map.snapshot().await.unwrap();
            let mut values: Vec<_> = all.values().collect();
            values.dedup();
            assert!(
                values.len() <= 1 && [0, 100].contains(&all.len()),
                "{values:?}"
            );
            map.flush().await.unwrap();
            assert_eq!(disk.entries(), all);
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_there_after_the_end_as_well() {
    let _limit = limit();
    let map = PersistentMap::new(Disk::new().backend()).await.unwrap();
    map.insert(1, 1).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(map.snapshot().await.unwrap(), HashMap::from([(1, 1)]));

    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(Disk::new().backend()))
        .await
        .unwrap();
    map.insert(1, 1).await.unwrap();
    faults.fail_next(Fault::UnknownApplied);
    map.insert(2, 2).await.unwrap_err();
    assert_eq!(map.snapshot().await.unwrap(), HashMap::from([(1, 1)]));
}

async fn assert_refuses_when_closed<B: StorageBackend<u32, u32>>(map: PersistentMap<u32, u32, B>) {
    map.close().await.unwrap();
    for refused in [
        map.clear().await,
        map.retain(|_, _| true).await.map(drop),
        map.insert_many([]).await.map(drop),
        map.transaction(|_| Ok(())).await,
    ] {
        assert!(
            matches!(refused, Err(PersistentError::Closed)),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_closed_map_refuses_calls_that_would_change_nothing() {
    let _limit = limit();
    assert_refuses_when_closed(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let disk = Disk::new();
        for backend in [disk.backend(), disk.one_at_a_time_backend()] {
            let builder = PersistentMap::builder(backend).write_mode(mode.clone());
            assert_refuses_when_closed(builder.open().await.unwrap()).await;
        }
    }
}
