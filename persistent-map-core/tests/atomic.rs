//! One entry, read and changed in one step.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use persistent_map_core::{
    Behind, Outcome, PersistentError, PersistentMap, StorageBackend, WriteMode,
};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults};
use tokio::task::JoinSet;
use tokio::time::timeout;

mod support;
use support::limit::limit;

type Map<B> = PersistentMap<String, u64, B>;

fn key() -> String {
    "key".to_string()
}

/// Every kind of map: without a store, one write at a time, batches, and each of them write-behind.
macro_rules! on_every_kind {
    ($($name:ident => $check:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let _limit = limit();
            let disk = Disk::new;
            let behind = || WriteMode::Behind(Behind::new());
            $check(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
            $check(PersistentMap::new(disk().backend()).await.unwrap()).await;
            $check(PersistentMap::new(disk().one_at_a_time_backend()).await.unwrap()).await;
            let builder = PersistentMap::builder(disk().backend());
            $check(builder.write_mode(behind()).open().await.unwrap()).await;
            let builder = PersistentMap::builder(disk().one_at_a_time_backend());
            $check(builder.write_mode(behind()).open().await.unwrap()).await;
        }
    )*};
}

on_every_kind! {
    each_call_does_what_it_says => does_what_it_says;
    a_counter_under_contention_is_exact => counter_is_exact;
    a_counter_is_made_by_whoever_counts_first => counter_is_made;
    a_closure_that_panics_fails_its_call_alone => panic_fails_alone;
    one_of_many_wins => one_wins;
    a_closure_may_read_the_map => closure_reads;
    a_thousand_callers_share_one_initialiser => one_flight;
    an_initialiser_that_fails_or_panics_or_is_dropped_lets_the_next_one_try => next_one_tries;
}

async fn does_what_it_says<B: StorageBackend<String, u64>>(map: Map<B>) {
    assert_eq!(map.update("key", |n| *n += 1).await.unwrap(), None);
    assert_eq!(map.compute(key(), |n| n).await.unwrap(), None);
    assert!(map.is_empty());

    assert_eq!(
        map.compute(key(), |n| Some(n.unwrap_or(0) + 5))
            .await
            .unwrap(),
        Some(5)
    );
    let doubled = map.update("key", |n| {
        *n *= 2;
        *n + 1
    });
    assert_eq!(doubled.await.unwrap(), Some(11));
    assert_eq!(map.get("key"), Some(10));

    assert_eq!(
        map.update_or_insert(key(), 99, |n| std::mem::replace(n, 12))
            .await
            .unwrap(),
        10
    );
    assert_eq!(map.update("key", |n| *n -= 2).await.unwrap(), Some(()));

    assert_eq!(map.insert_if_absent(key(), 7).await.unwrap(), Some(10));
    assert_eq!(
        map.compare_and_swap(key(), Some(9), Some(1)).await.unwrap(),
        Err(Some(10))
    );
    assert_eq!(
        map.compare_and_swap(key(), None, Some(1)).await.unwrap(),
        Err(Some(10))
    );
    assert_eq!(
        map.compare_and_swap(key(), Some(10), Some(11))
            .await
            .unwrap(),
        Ok(())
    );
    assert_eq!(map.remove_if("key", |n| *n == 10).await.unwrap(), None);
    assert_eq!(map.remove_if("key", |n| *n == 11).await.unwrap(), Some(11));
    assert_eq!(map.remove_if("key", |_| true).await.unwrap(), None);

    assert_eq!(
        map.compare_and_swap(key(), Some(1), None).await.unwrap(),
        Err(None)
    );
    assert_eq!(
        map.compare_and_swap(key(), None, None).await.unwrap(),
        Ok(())
    );
    assert_eq!(map.insert_if_absent(key(), 7).await.unwrap(), None);
    assert_eq!(map.compute(key(), |_| None).await.unwrap(), None);
    assert!(map.is_empty());

    // The first value is changed as well.
    assert_eq!(
        map.update_or_insert(key(), 99, |n| {
            *n += 1;
            *n
        })
        .await
        .unwrap(),
        100
    );
    assert_eq!(map.remove("key").await.unwrap(), Some(100));

    map.close().await.unwrap();
    let refused = map.update("key", |n| *n += 1).await;
    assert!(
        matches!(refused, Err(PersistentError::Closed)),
        "{refused:?}"
    );
}

async fn counter_is_exact<B: StorageBackend<String, u64>>(map: Map<B>) {
    map.insert(key(), 0).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let map = map.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                map.update("key", |n| *n += 1).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(map.get("key"), Some(64 * 20));
}

async fn counter_is_made<B: StorageBackend<String, u64>>(map: Map<B>) {
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let map = map.clone();
        tasks.spawn(async move {
            let mut counts = Vec::new();
            for _ in 0..1000 {
                let count = map.update_or_insert(key(), 0, |n| {
                    *n += 1;
                    *n
                });
                counts.push(count.await.unwrap());
            }
            counts
        });
    }
    let mut counts: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    counts.sort_unstable();
    assert!(
        counts.into_iter().eq(1..=64_000),
        "two calls have counted alike"
    );
    assert_eq!(map.get("key"), Some(64_000));
}

async fn panic_fails_alone<B: StorageBackend<String, u64>>(map: Map<B>) {
    map.insert(key(), 1).await.unwrap();
    let (panics, counts) = tokio::join!(
        map.update("key", |n| {
            *n = 99;
            assert!(*n == 0, "a planted panic");
        }),
        map.update("key", |n| *n += 1),
    );
    let error = panics.unwrap_err();
    assert!(matches!(error, PersistentError::Panicked { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(counts.unwrap(), Some(()));
    assert_eq!(map.get("key"), Some(2));

    let panics = map.update_or_insert("other".to_string(), 0, |n| {
        *n = 99;
        assert!(*n == 0, "a planted panic");
    });
    let error = panics.await.unwrap_err();
    assert!(matches!(error, PersistentError::Panicked { .. }), "{error}");
    assert!(!map.contains_key("other"));
}

async fn one_wins<B: StorageBackend<String, u64>>(map: Map<B>) {
    for round in 0..20 {
        let key = format!("key {round}");
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (map, key) = (map.clone(), key.clone());
            tasks.spawn(async move {
                match task % 2 {
                    0 => map.insert_if_absent(key, task).await.unwrap().is_none(),
                    _ => map
                        .compare_and_swap(key, None, Some(task))
                        .await
                        .unwrap()
                        .is_ok(),
                }
            });
        }
        let wins = tasks
            .join_all()
            .await
            .into_iter()
            .filter(|won| *won)
            .count();
        assert_eq!(wins, 1);
    }
}

async fn closure_reads<B: StorageBackend<String, u64>>(map: Map<B>) {
    map.insert(key(), 1).await.unwrap();
    let other = map.clone();
    let read = map.update("key", move |n| {
        *n += 1;
        (other.get("key"), other.len(), other.contains_key("none"))
    });
    let read = timeout(Duration::from_secs(5), read)
        .await
        .expect("a deadlock");
    assert_eq!(read.unwrap(), Some((Some(1), 1, false)));
}

async fn one_flight<B: StorageBackend<String, u64>>(map: Map<B>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let (map, runs) = (map.clone(), Arc::clone(&runs));
        tasks.spawn(async move {
            let init = || async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                runs.fetch_add(1, Ordering::SeqCst) as u64 + 7
            };
            map.get_or_insert_with(key(), init).await.unwrap()
        });
    }
    let all = timeout(Duration::from_secs(10), tasks.join_all());
    assert!(all.await.expect("a hang").iter().all(|value| *value == 7));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

async fn next_one_tries<B: StorageBackend<String, u64>>(map: Map<B>) {
    let tries = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (map, tries) = (map.clone(), Arc::clone(&tries));
        tasks.spawn(async move {
            let init = || async {
                let attempt = tries.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                match attempt {
                    0 => Err(std::io::Error::other("a planted failure").into()),
                    1 => panic!("a planted panic"),
                    // Until the caller gives up.
                    2 => std::future::pending().await,
                    _ => Ok::<_, PersistentError>(3),
                }
            };
            let call = map.get_or_try_insert_with(key(), init);
            timeout(Duration::from_millis(200), call).await
        });
    }
    let (mut values, mut failed, mut gave_up) = (Vec::new(), 0, 0);
    for result in timeout(Duration::from_secs(10), tasks.join_all())
        .await
        .expect("a hang")
    {
        match result {
            Ok(Ok(value)) => values.push(value),
            Ok(Err(_)) => failed += 1,
            Err(_) => gave_up += 1,
        }
    }
    assert_eq!(failed, 2);
    assert!(gave_up >= 1);
    // Those who waited behind the one that hung gave up with it, or soon after; whoever comes now gets an answer.
    let value = map.get_or_insert_with(key(), || async { 3 }).await.unwrap();
    assert!(value >= 3, "{value} is of one that failed");
    assert!(values.iter().all(|other| *other == value), "{values:?}");
    assert_eq!(values.len() + failed + gave_up, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_share_commits() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(disk.backend()))
        .await
        .unwrap();
    map.insert(key(), 0u64).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let map = map.clone();
        tasks.spawn(async move {
            for _ in 0..100 {
                map.update("key", |n| *n += 1).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    map.close().await.unwrap();
    assert_eq!(disk.entries()["key"], 6400);
    assert!(
        faults.writes() < 3200,
        "{} commits for 6400 updates",
        faults.writes()
    );
}

/// What was computed on top of a write that failed must fail with it.
#[tokio::test]
async fn what_was_read_before_a_failed_commit_is_not_answered() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(disk.backend()))
        .await
        .unwrap();
    map.insert(key(), 1u64).await.unwrap();
    faults.fail_next(Fault::Refused);
    let (insert, swap, absent, update, transaction) = tokio::join!(
        map.insert(key(), 2),
        map.compare_and_swap(key(), Some(1), Some(3)),
        map.insert_if_absent(key(), 4),
        map.update("key", |n| {
            *n += 1;
            *n
        }),
        map.transaction(|tx| Ok::<_, PersistentError>(tx.get("key"))),
    );
    assert!(insert.is_err());
    assert!(swap.is_err(), "it has seen a value that was never stored");
    assert!(absent.is_err() && update.is_err() && transaction.is_err());
    assert_eq!(map.get("key"), Some(1));
    assert_eq!(map.update("key", |n| *n += 1).await.unwrap(), Some(()));
    assert_eq!(disk.entries()["key"], 2);
}

#[tokio::test]
async fn a_first_value_that_is_not_stored_is_put_again_by_the_next_call() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(disk.backend()))
        .await
        .unwrap();
    let count = || {
        map.update_or_insert(key(), 10u64, |n| {
            *n += 1;
            *n
        })
    };
    faults.fail_next(Fault::Refused);
    let (first, second) = tokio::join!(count(), count());
    assert!(first.is_err() && second.is_err());
    assert!(map.is_empty());
    let (first, second) = tokio::join!(count(), count());
    assert_eq!((first.unwrap(), second.unwrap()), (11, 12));
    assert_eq!(disk.entries()["key"], 12);
}

/// A group of calls on one key reads what came before in the same commit.
#[tokio::test]
async fn calls_in_one_group_build_on_each_other() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(disk.backend()))
        .await
        .unwrap();
    let before = faults.writes();
    // All are queued before the writer runs.
    let (insert, update, swap, remove, absent) = tokio::join!(
        map.insert(key(), 1u64),
        map.update("key", |n| *n += 1),
        map.compare_and_swap(key(), Some(2), Some(10)),
        map.remove_if("key", |n| *n == 10),
        map.insert_if_absent(key(), 20),
    );
    assert_eq!(
        (insert.unwrap(), update.unwrap(), swap.unwrap()),
        (None, Some(()), Ok(()))
    );
    assert_eq!((remove.unwrap(), absent.unwrap()), (Some(10), None));
    assert_eq!(disk.entries(), HashMap::from([(key(), 20)]));
    assert_eq!(faults.writes() - before, 1, "commits");
}

#[tokio::test]
async fn a_value_that_cannot_be_stored_fails_its_update_alone() {
    let _limit = limit();
    let map = PersistentMap::new(support::Shelf::new(persistent_map_core::Bincode))
        .await
        .unwrap();
    map.insert(1u8, "a".to_string()).await.unwrap();
    let long = "x".repeat(200);
    let (first, too_long, last) = tokio::join!(
        map.update(&1, |text| text.push('b')),
        map.update(&1, move |text| text.push_str(&long)),
        map.update(&1, |text| text.push('c')),
    );
    first.unwrap();
    last.unwrap();
    let error = too_long.unwrap_err();
    assert!(matches!(error, PersistentError::TooLarge { .. }), "{error}");
    assert_eq!(map.get(&1).as_deref(), Some("abc"));
}
