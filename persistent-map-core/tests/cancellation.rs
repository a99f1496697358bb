//! Dropping any call at any poll: never half, never a wedge.

mod support;
use support::limit::limit;

use std::collections::HashMap;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use persistent_map_core::{PersistentError, PersistentMap};
use persistent_map_testkit::{Disk, Fault, Faults, drop_after_polls};

use support::backend_of;

/// The map answers, and memory is what the store is.
async fn assert_sound<B>(map: &PersistentMap<String, u64, B>, disk: &Disk<String, u64>)
where
    B: persistent_map_core::StorageBackend<String, u64>,
{
    let usable = async {
        map.insert("probe".to_string(), 0).await.unwrap();
        map.flush().await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(5), usable)
        .await
        .expect("the map is wedged");
    assert_eq!(map.iter().collect::<HashMap<_, _>>(), disk.entries());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_dropped_at_any_of_its_first_ten_polls_is_done_or_not() {
    let _limit = limit();
    for atomic_batches in [true, false] {
        for queue_capacity in [1, 100] {
            let disk = Disk::new();
            let backend = backend_of(&disk, atomic_batches);
            let map = PersistentMap::builder(backend)
                .queue_capacity(queue_capacity)
                .open()
                .await
                .unwrap();
            for polls in 0..10 {
                map.insert("a".to_string(), 1).await.unwrap();
                drop_after_polls(map.insert("a".to_string(), 2), polls).await;
                assert_sound(&map, &disk).await;
                drop_after_polls(map.insert(format!("new {polls}"), 3), polls).await;
                assert_sound(&map, &disk).await;
                drop_after_polls(map.remove("a"), polls).await;
                assert_sound(&map, &disk).await;
                drop_after_polls(map.flush(), polls).await;
                assert_sound(&map, &disk).await;
                drop_after_polls(map.clear(), polls).await;
                assert_sound(&map, &disk).await;
            }
        }
    }
}

#[tokio::test]
async fn a_write_dropped_before_it_was_polled_does_nothing() {
    let _limit = limit();
    let disk = Disk::<String, u64>::new();
    let map = PersistentMap::new(disk.backend()).await.unwrap();
    drop(map.insert("a".to_string(), 1));
    map.flush().await.unwrap();
    assert!(map.is_empty() && disk.entries().is_empty());
}

/// Drops a call before the writer can look at it.
fn drop_when_queued(call: impl Future) {
    let polled = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "a call was done at its first poll");
}

#[tokio::test]
async fn a_write_dropped_after_it_was_queued_is_done() {
    let _limit = limit();
    let disk = Disk::new();
    let map = PersistentMap::new(disk.backend()).await.unwrap();
    map.insert_many([("old".to_string(), 1), ("older".to_string(), 1)])
        .await
        .unwrap();
    drop_when_queued(map.insert("new".to_string(), 2));
    drop_when_queued(map.insert_many([("many".to_string(), 3)]));
    drop_when_queued(map.update("old", |value| *value += 3));
    drop_when_queued(map.remove("older"));
    map.flush().await.unwrap();
    let expected = [("new", 2), ("many", 3), ("old", 4)].map(|(key, n)| (key.to_string(), n));
    assert_eq!(disk.entries(), HashMap::from(expected));
    assert_eq!(map.iter().collect::<HashMap<_, _>>(), disk.entries());

    drop_when_queued(map.clear());
    map.flush().await.unwrap();
    assert!(map.is_empty() && disk.entries().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_dropped_at_any_of_its_first_ten_polls_closes_or_not() {
    let _limit = limit();
    for polls in 0..10 {
        let disk = Disk::new();
        let map = PersistentMap::new(disk.backend()).await.unwrap();
        map.insert("a".to_string(), 1).await.unwrap();
        drop_after_polls(map.close(), polls).await;
        let after = async {
            match map.insert("b".to_string(), 2).await {
                Ok(_) => {}
                Err(PersistentError::Closed) => assert_eq!(map.get("b"), None),
                Err(other) => panic!("{other}"),
            }
            map.close().await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(5), after)
            .await
            .expect("the map is wedged");
        assert_eq!(map.iter().collect::<HashMap<_, _>>(), disk.entries());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_dropped_at_any_of_its_first_ten_polls_takes_nothing_along() {
    let _limit = limit();
    let disk = Disk::<String, u64>::new();
    for polls in 0..10 {
        drop_after_polls(PersistentMap::new(disk.backend()), polls).await;
    }
    let map = PersistentMap::new(disk.backend()).await.unwrap();
    assert_sound(&map, &disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_aborted_writers_leave_memory_and_store_equal() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = PersistentMap::builder(faults.wrap(disk.backend()))
        .queue_capacity(8)
        .open()
        .await
        .unwrap();
    for round in 0..20u64 {
        if round % 3 == 0 {
            faults.fail_nth(2, Fault::Refused);
        }
        let writers: Vec<_> = (0..50)
            .map(|n| {
                let map = map.clone();
                tokio::spawn(async move {
                    for key in 0..5u64 {
                        let _ = map.insert(key.to_string(), round * 100 + n).await;
                        let _ = map.remove(&(key + 1).to_string()).await;
                    }
                })
            })
            .collect();
        for (n, writer) in (0..).zip(writers) {
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            writer.abort();
        }
        faults.heal();
        assert_sound(&map, &disk).await;
    }
}
