//! Keys and values whose code panics: the call fails, not the map, and not its neighbours.

use std::hash::BuildHasherDefault;

use persistent_map_core::{
    Event, Outcome, PersistentError, PersistentMap, Phase, StorageBackend, Subscription,
};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Faults};

mod support;
use support::limit::limit;
use support::panicky::{Apart, Code, Panicky, has_panicked, panic_at, panic_next};
use support::{Shelf, behind, lazy, soon};

#[tokio::test]
async fn a_panic_in_the_types_fails_the_call_and_not_the_map() {
    let _limit = limit();
    let map = PersistentMap::<Panicky, u64, _>::new(Shelf::bincode())
        .await
        .unwrap();
    map.insert(Panicky(1), 1).await.unwrap();
    for code in [
        Code::Hash,
        Code::Eq,
        Code::Serialize,
        Code::Deserialize,
        Code::Clone,
    ] {
        panic_next(code);
        let inserted = map.insert(Panicky(1), 2).await;
        assert!(
            matches!(inserted, Err(PersistentError::Panicked { .. })),
            "{code:?}: {inserted:?}"
        );
        panic_next(code);
        let error = map.remove(&Panicky(1)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{code:?}: {error}");
        map.insert(Panicky(1), 3).await.unwrap();
        assert_eq!(map.get(&Panicky(1)), Some(3), "{code:?}");
        assert_eq!(map.len(), 1);
    }
}

#[tokio::test]
async fn a_panic_of_a_key_changes_nothing_without_a_store() {
    let _limit = limit();
    let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    map.insert(Panicky(1), 1).await.unwrap();
    for many in [false, true] {
        panic_next(Code::Eq);
        let error = if many {
            let batch = [(Panicky(2), 2), (Panicky(1), 2)];
            map.insert_many(batch).await.unwrap_err()
        } else {
            map.insert(Panicky(1), 2).await.unwrap_err()
        };
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        assert_eq!((map.len(), map.get(&Panicky(1))), (1, Some(1)));
    }
    map.insert(Panicky(1), 3).await.unwrap();
    assert_eq!(map.get(&Panicky(1)), Some(3));
}

async fn assert_missed(events: &mut Subscription<u32, Panicky>) {
    assert!(has_panicked(), "nothing was cloned for subscribers");
    let event = soon(events.recv()).await;
    assert!(matches!(event, Some(Event::Missed(1))), "{event:?}");
}

async fn subscribers_miss_what_cannot_be_cloned<B: StorageBackend<u32, Panicky>>(
    map: PersistentMap<u32, Panicky, B>,
) {
    let mut events = map.subscribe();
    panic_next(Code::Clone);
    map.insert(1, Panicky(1)).await.unwrap();
    assert_missed(&mut events).await;
    // Of the new value a copy is made, of the one that it replaces none.
    panic_at(2, Code::Clone);
    map.insert(1, Panicky(2)).await.unwrap();
    assert_missed(&mut events).await;
    panic_next(Code::Clone);
    map.clear().await.unwrap();
    assert_missed(&mut events).await;
    assert!(map.is_empty());

    map.insert(2, Panicky(2)).await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Changed(_))));
    assert_eq!(map.get(&2), Some(Panicky(2)));
}

#[tokio::test]
async fn what_cannot_be_cloned_for_subscribers_is_done_and_they_hear_that_they_missed_it() {
    let _limit = limit();
    subscribers_miss_what_cannot_be_cloned(
        PersistentMap::new(InMemoryBackend::new()).await.unwrap(),
    )
    .await;
    subscribers_miss_what_cannot_be_cloned(PersistentMap::new(Shelf::bincode()).await.unwrap())
        .await;
}

#[tokio::test]
async fn a_change_that_cannot_be_shown_does_not_mix_up_those_after_it() {
    let _limit = limit();
    let faults = Faults::new();
    let map = PersistentMap::builder(faults.wrap(Shelf::bincode()))
        .hasher(BuildHasherDefault::<Apart>::default())
        .open()
        .await
        .unwrap();
    map.insert_many((0..5).map(|n| (Panicky(n), 0)))
        .await
        .unwrap();
    faults.pause();
    let writes = faults.writes();
    let first = tokio::spawn({
        let map = map.clone();
        async move { map.insert(Panicky(0), 1).await }
    });
    while faults.writes() == writes {
        tokio::task::yield_now().await;
    }
    let batch = tokio::spawn({
        let map = map.clone();
        async move { map.insert_many((1..4).map(|n| (Panicky(n), 1))).await }
    });
    while map.stats().pending == 0 {
        tokio::task::yield_now().await;
    }
    let last = tokio::spawn({
        let map = map.clone();
        async move { map.insert(Panicky(4), 1).await }
    });
    while map.stats().pending < 2 {
        tokio::task::yield_now().await;
    }
    // Each key that is shown is compared with the one that is there.
    panic_at(2, Code::Eq);
    faults.resume();
    assert_eq!(first.await.unwrap().unwrap(), Some(0));
    let error = batch.await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(last.await.unwrap().unwrap(), Some(0));
    let shown = [0, 1, 2, 3, 4].map(|n| map.get(&Panicky(n)).unwrap());
    assert_eq!(shown, [1, 0, 1, 1, 1]);
    assert_eq!(map.stats().phase, Phase::Poisoned);
}

#[tokio::test]
async fn a_batch_with_a_value_that_cannot_be_cloned_leaves_nothing_to_be_stored() {
    let _limit = limit();
    let disk = Disk::new();
    let map = behind(disk.backend(), lazy()).await;
    map.insert(1, Panicky(1)).await.unwrap();
    panic_at(3, Code::Clone);
    let batch = (1..=3).map(|n| (n, Panicky(2)));
    let error = map.insert_many(batch).await.unwrap_err();
    assert!(matches!(error, PersistentError::Panicked { .. }), "{error}");
    let call = map.transaction(|tx| {
        for n in 1..=3 {
            tx.insert(n, Panicky(2));
        }
        panic_at(3, Code::Clone);
        Ok::<_, PersistentError>(())
    });
    assert_eq!(call.await.unwrap_err().outcome(), Outcome::NotApplied);
    assert_eq!(map.iter().collect::<Vec<_>>(), [(1, Panicky(1))]);
    map.flush().await.unwrap();
    assert_eq!(disk.entries(), map.iter().collect());
    assert_eq!(map.stats().unsaved, 0);
}

#[tokio::test]
async fn a_verify_that_cannot_copy_memory_fails_alone() {
    let _limit = limit();
    let disk = Disk::new();
    let map = behind(disk.backend(), lazy()).await;
    map.insert(1, Panicky(1)).await.unwrap();
    panic_next(Code::Clone);
    let error = soon(map.verify()).await.unwrap_err();
    assert!(matches!(error, PersistentError::Panicked { .. }), "{error}");
    assert_eq!(map.verify().await.unwrap(), 1);
    map.close().await.unwrap();
    assert_eq!(disk.entries().len(), 1);
}

/// Each place where the code of a key runs on the way to a value that is made.
#[tokio::test]
async fn a_panic_of_a_key_fails_the_call_that_would_make_its_value() {
    let _limit = limit();
    for code in [Code::Hash, Code::Eq, Code::Clone] {
        for n in 1.. {
            let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
            let other = map.get_or_insert_with(Panicky(2), async || {
                // Another value is being made meanwhile, for there to be a key that this one is compared with.
                panic_at(n, code);
                let made = map.get_or_insert_with(Panicky(1), async || 1).await;
                let has_panicked = has_panicked();
                match made {
                    Ok(made) => assert_eq!(made, 1),
                    Err(PersistentError::Panicked { .. }) => assert!(has_panicked, "{code:?} {n}"),
                    Err(error) => panic!("{code:?} {n}: {error}"),
                }
                u64::from(has_panicked)
            });
            let has_panicked = soon(other).await.unwrap();
            assert_eq!(soon(map.insert(Panicky(3), 3)).await.unwrap(), None);
            if has_panicked == 0 {
                break;
            }
        }
    }
}
