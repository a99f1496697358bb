//! Keys, values and closures that panic when they are dropped: what goes on without their caller goes on.

use persistent_map_core::{Outcome, PersistentError, PersistentMap, Phase};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults, drop_after_polls};

mod support;
use support::limit::limit;
use support::panicky::{Code, Panicky, has_panicked, panic_at, panic_next};
use support::{Shelf, backend_of, behind, lazy, soon};

#[tokio::test]
async fn an_answer_that_reaches_nobody_does_not_end_the_writer() {
    let _limit = limit();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(Shelf::bincode()))
        .await
        .unwrap();
    map.insert(1, Panicky(1)).await.unwrap();
    faults.pause();
    drop_after_polls(map.insert(1, Panicky(2)), 1).await;
    panic_next(Code::Drop);
    faults.resume();
    map.flush().await.unwrap();
    assert!(has_panicked());
    map.insert(2, Panicky(2)).await.unwrap();
    assert_eq!(map.len(), 2);
}

#[tokio::test]
async fn an_event_that_is_pushed_out_does_not_end_the_writer() {
    let _limit = limit();
    for fails in [false, true] {
        let faults = Faults::new();
        let map = PersistentMap::builder(faults.wrap(Disk::new().backend()))
            .event_capacity(1)
            .open()
            .await
            .unwrap();
        let _slow = map.subscribe();
        map.insert(1, Panicky(1)).await.unwrap();
        // Memory keeps the one copy of the value, and the event the other.
        panic_next(Code::Drop);
        if fails {
            faults.fail_next(Fault::Refused);
        }
        let written = map.insert(2, Panicky(2)).await;
        assert!(has_panicked());
        assert_eq!(written.is_err(), fails, "{written:?}");
        map.insert(3, Panicky(3)).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_that_is_replaced_before_it_is_stored_does_not_end_writing() {
    let _limit = limit();
    let disk = Disk::new();
    let map = behind(disk.backend(), lazy()).await;
    map.insert(1, Panicky(1)).await.unwrap();
    panic_next(Code::Drop);
    let old = map.insert(1, Panicky(2)).await.unwrap();
    assert!(has_panicked());
    assert_eq!((old, map.stats().phase), (Some(Panicky(1)), Phase::Open));
    map.close().await.unwrap();
    assert_eq!(disk.entries(), map.iter().collect());
}

#[tokio::test]
async fn a_closure_is_dropped_after_the_answer() {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "planted");
        }
    }
    let _limit = limit();
    let map = PersistentMap::new(Shelf::bincode()).await.unwrap();
    let guard = Guard;
    let change = move |_| {
        let _guard = &guard;
        Some(1)
    };
    let computed = map.compute(1, change).await;
    assert!(computed.is_ok(), "{computed:?}");
    map.insert(2, 2).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_too_much_for_the_store_does_not_end_the_writer() {
    let _limit = limit();
    let map = PersistentMap::new(Disk::new().one_at_a_time_backend())
        .await
        .unwrap();
    let two = map.transaction(|tx| {
        tx.insert(1, Panicky(1));
        tx.insert(2, Panicky(2));
        panic_next(Code::Drop);
        Ok::<_, PersistentError>(())
    });
    let error = two.await.unwrap_err();
    assert!(has_panicked());
    assert!(
        matches!(error, PersistentError::Unsupported { .. }),
        "{error}"
    );
    map.insert(3, Panicky(3)).await.unwrap();
}

#[tokio::test]
async fn a_change_that_has_been_stored_does_not_end_the_saver() {
    let _limit = limit();
    for atomic in [true, false] {
        let disk = Disk::new();
        let backend = backend_of(&disk, atomic);
        let map = behind(backend, lazy()).await;
        map.insert(1, Panicky(1)).await.unwrap();
        panic_next(Code::Drop);
        soon(map.flush()).await.unwrap();
        assert!(has_panicked());
        map.insert(2, Panicky(2)).await.unwrap();
        map.close().await.unwrap();
        assert_eq!(disk.entries().len(), 2);
    }
}

/// So many that each lane has an index, which has keys of its own.
#[tokio::test]
async fn the_index_of_what_is_unsaved_does_not_end_the_saver() {
    let _limit = limit();
    let disk = Disk::new();
    let map = behind(disk.backend(), lazy()).await;
    map.insert_many((0..2000).map(|n| (Panicky(n), n)))
        .await
        .unwrap();
    panic_next(Code::Drop);
    soon(map.flush()).await.unwrap();
    assert!(has_panicked());
    map.close().await.unwrap();
    assert_eq!(disk.entries().len(), 2000);
}

#[tokio::test]
async fn a_verify_does_not_end_the_saver() {
    let _limit = limit();
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy()).await;
    map.insert(1, Panicky(1)).await.unwrap();
    faults.fail_next(Fault::Refused);
    panic_next(Code::Drop);
    soon(map.verify()).await.unwrap_err();
    assert!(has_panicked());
    map.flush().await.unwrap();
    // What the store has given back is dropped first, then the copy of memory.
    for drops in 1..=2 {
        panic_at(drops, Code::Drop);
        let verified = soon(map.verify()).await;
        assert!(has_panicked());
        assert!(
            matches!(verified, Ok(1) | Err(PersistentError::Panicked { .. })),
            "{verified:?}"
        );
    }
    map.insert(2, Panicky(2)).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(disk.entries().len(), 2);
}

#[tokio::test]
async fn the_keys_that_a_verify_has_seen_do_not_end_the_writer() {
    let _limit = limit();
    let map = PersistentMap::new(Disk::new().backend()).await.unwrap();
    map.insert(Panicky(1), 1).await.unwrap();
    panic_next(Code::Drop);
    assert_eq!(map.verify().await.unwrap(), 1);
    assert!(has_panicked());
    map.insert(Panicky(2), 2).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_watched_does_not_disturb_the_close() {
    let _limit = limit();
    let map = PersistentMap::<_, u32, _>::new(InMemoryBackend::new())
        .await
        .unwrap();
    let mut watch = map.watch(Panicky(1));
    panic_next(Code::Drop);
    map.close().await.unwrap();
    assert!(has_panicked());
    assert!(matches!(
        soon(watch.changed()).await,
        Err(PersistentError::Closed)
    ));
}

#[tokio::test]
async fn a_clear_without_a_store_that_stops_half_way_does_not_say_that_nothing_was_done() {
    let _limit = limit();
    let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    map.insert_many((0..10).map(|n| (n, Panicky(n))))
        .await
        .unwrap();
    panic_at(5, Code::Drop);
    let error = map.clear().await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(map.len() < 10);
    map.clear().await.unwrap();
    assert!(map.is_empty());
}
