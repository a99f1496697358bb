//! Hearing of changes: all of them in order, or the latest of one key.

use std::collections::HashMap;
use std::time::Duration;

use persistent_map_core::{
    Behind, Event, PersistentError, PersistentMap, StorageBackend, WriteMode,
};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

mod support;
use support::limit::limit;

/// Whoever applies all events has the map.
async fn replay<B: StorageBackend<u32, u64>>(map: PersistentMap<u32, u64, B>) {
    map.insert(0, 0).await.unwrap();
    let mut events = map.subscribe();
    let mut replica = map.snapshot().await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..8u64 {
        let map = map.clone();
        tasks.spawn(async move {
            for n in 0..40u64 {
                let key = u32::try_from((task * 3 + n) % 10).unwrap();
                match n % 5 {
                    0 => drop(map.insert(key, task * 100 + n).await.unwrap()),
                    1 => drop(map.update(&key, |value| *value += 1).await.unwrap()),
                    2 => drop(map.remove(&key).await.unwrap()),
                    3 => drop(map.insert_many((0..3).map(|k| (k, n))).await.unwrap()),
                    _ => map
                        .transaction(move |tx| {
                            tx.insert(key, n);
                            tx.remove(&(key + 1));
                            Ok::<_, PersistentError>(())
                        })
                        .await
                        .unwrap(),
                }
            }
        });
    }
    tasks.join_all().await;
    map.clear().await.unwrap();
    map.insert(77, 7).await.unwrap();
    map.close().await.unwrap();
    let mut last = 0;
    while let Some(event) = events.recv().await {
        let Event::Changed(changes) = event else {
            panic!("{event:?}")
        };
        last = changes.len();
        for change in changes.iter() {
            let before = match change.new {
                Some(new) => replica.insert(change.key, new),
                None => replica.remove(&change.key),
            };
            assert_eq!(before, change.old, "an event is missing or out of order");
        }
    }
    assert_eq!(last, 1);
    assert_eq!(replica, map.iter().collect::<HashMap<_, _, _>>());
    assert_eq!(replica, HashMap::from_iter([(77, 7)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_changes_come_in_their_order_with_old_and_new_values() {
    let _limit = limit();
    replay(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
    replay(PersistentMap::new(Disk::new().backend()).await.unwrap()).await;
    let behind = WriteMode::Behind(Behind::new());
    let builder = PersistentMap::builder(Disk::new().backend()).write_mode(behind);
    replay(builder.open().await.unwrap()).await;
}

#[tokio::test]
async fn the_changes_of_one_call_come_together() {
    let _limit = limit();
    let map = PersistentMap::new(Disk::new().backend()).await.unwrap();
    let mut events = map.subscribe();
    map.insert_many((0..3).map(|n| (n, n))).await.unwrap();
    map.remove(&100).await.unwrap();
    map.clear().await.unwrap();
    drop(map);
    let mut sizes = Vec::new();
    while let Some(Event::Changed(changes)) = events.recv().await {
        sizes.push(changes.len());
    }
    assert_eq!(sizes, [3, 3]);
}

#[tokio::test]
async fn what_is_not_stored_is_no_change() {
    let _limit = limit();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(Disk::new().backend()))
        .await
        .unwrap();
    let mut events = map.subscribe();
    faults.fail_next(Fault::Refused);
    map.insert(1, 1).await.unwrap_err();
    map.insert(1, 2).await.unwrap();
    map.close().await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Failed(_))));
    match events.recv().await {
        Some(Event::Changed(changes)) => assert_eq!(changes[0].new, Some(2)),
        other => panic!("{other:?}"),
    }
    assert!(events.recv().await.is_none());
    assert!(events.next().await.is_none(), "the end is not the end");
    assert!(
        map.subscribe().recv().await.is_none(),
        "a subscription to a closed map hangs"
    );
}

#[tokio::test]
async fn a_slow_subscriber_holds_nobody_up_and_is_told_what_it_missed() {
    let _limit = limit();
    let builder = PersistentMap::builder(Disk::new().backend()).event_capacity(16);
    let map = builder.open().await.unwrap();
    let mut events = map.subscribe();
    for n in 0..100u32 {
        timeout(Duration::from_secs(5), map.insert(n, n))
            .await
            .expect("held up")
            .unwrap();
    }
    let Some(Event::Missed(missed)) = events.recv().await else {
        panic!("it was not told")
    };
    assert_eq!(missed, 84);
    let Some(Event::Changed(changes)) = events.next().await else {
        panic!("no events after the gap")
    };
    assert_eq!(changes[0].key, 84);
    assert!(!format!("{changes:?}").contains("84"), "values are printed");
}

#[tokio::test]
async fn neither_the_end_nor_those_who_come_late_push_an_event_out() {
    let _limit = limit();
    let builder = PersistentMap::builder(Disk::new().backend()).event_capacity(1);
    let map = builder.open().await.unwrap();
    let mut events = map.subscribe();
    map.insert(1, 1).await.unwrap();
    map.close().await.unwrap();
    for _ in 0..3 {
        assert!(map.subscribe().recv().await.is_none());
    }
    let event = events.recv().await;
    assert!(matches!(event, Some(Event::Changed(_))), "{event:?}");
    assert!(events.recv().await.is_none());
}

/// Whoever subscribes, and then looks, must not believe that half of a batch is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_subscribes_while_a_batch_is_shown_hears_of_it() {
    const BATCH: u32 = 20_000;
    let _limit = limit();
    for _ in 0..3 {
        let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
        let batch = tokio::spawn({
            let map = map.clone();
            async move { map.insert_many((0..BATCH).map(|n| (n, n))).await }
        });
        while !map.contains_key(&0) {
            std::hint::spin_loop();
        }
        let mut events = map.subscribe();
        let is_shown = map.contains_key(&(BATCH - 1));
        batch.await.unwrap().unwrap();
        map.close().await.unwrap();
        let event = events.recv().await;
        assert!(event.is_some() || is_shown, "the end of it was not told");
    }
}

#[tokio::test]
async fn a_watch_of_a_map_that_is_gone_does_not_say_that_its_entry_was_removed() {
    let _limit = limit();
    let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    let (mut watch, mut stream) = (map.watch(1), map.watch(1));
    assert_eq!(stream.next().await, Some(None));
    map.insert(1, 1).await.unwrap();
    drop(map);
    let changed = watch.changed().await;
    assert!(
        matches!(changed, Err(PersistentError::Closed)),
        "{changed:?}"
    );
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_watch_sees_the_latest_value() {
    let _limit = limit();
    for resident in [true, false] {
        if resident {
            watching(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
        } else {
            watching(PersistentMap::new(Disk::new().backend()).await.unwrap()).await;
        }
    }
}

async fn watching<B: StorageBackend<u32, u64>>(map: PersistentMap<u32, u64, B>) {
    map.insert(1, 1).await.unwrap();
    let mut watch = map.watch(1);
    let mut other = map.watch(1);
    let mut absent = map.watch(2);
    assert_eq!(
        (watch.get(), absent.get(), *watch.key()),
        (Some(1), None, 1)
    );
    // Nothing has changed since, and a change of another key is none.
    map.insert(3, 3).await.unwrap();
    assert!(
        timeout(Duration::from_millis(20), watch.changed())
            .await
            .is_err()
    );

    map.insert(1, 2).await.unwrap();
    map.insert(1, 3).await.unwrap();
    assert_eq!(watch.changed().await.unwrap(), Some(3));
    assert!(
        timeout(Duration::from_millis(20), watch.changed())
            .await
            .is_err()
    );
    drop(watch);
    map.remove(&1).await.unwrap();
    assert_eq!(other.changed().await.unwrap(), None);
    map.insert(1, 5).await.unwrap();
    assert_eq!(other.changed().await.unwrap(), Some(5));
    map.clear().await.unwrap();
    let cleared = timeout(Duration::from_secs(5), other.changed()).await;
    assert_eq!(cleared.expect("not woken").unwrap(), None);

    map.insert(2, 9).await.unwrap();
    assert_eq!(
        absent.next().await,
        Some(Some(9)),
        "the stream begins with the value of now"
    );
    assert_eq!(
        absent.next().await,
        Some(Some(9)),
        "and with the change that nobody has seen"
    );
    map.close().await.unwrap();
    assert_eq!(absent.next().await, None);
    assert!(matches!(
        other.changed().await,
        Err(PersistentError::Closed)
    ));
    assert!(matches!(
        map.watch(5).changed().await,
        Err(PersistentError::Closed)
    ));
    assert_eq!(other.get(), None);
    drop(map);
    assert_eq!(absent.get(), None);
}

/// Whoever looks and then waits must not miss what came in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_slips_between_look_and_wait() {
    let _limit = limit();
    let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    for n in 0..2000u64 {
        let writer = tokio::spawn({
            let map = map.clone();
            async move { map.insert(n % 3, n).await.unwrap() }
        });
        let mut watch = map.watch(n % 3);
        while watch.get() != Some(n) {
            timeout(Duration::from_secs(5), watch.changed())
                .await
                .expect("missed")
                .unwrap();
        }
        writer.await.unwrap();
    }
}
