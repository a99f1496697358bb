//! What a map says of its health: unhealthy while its store fails, and healthy again when it works.

use std::time::Duration;

use persistent_map_core::{Behind, PersistentMap, Phase};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults};

mod support;
use support::{backend_of, behind, lazy, until};

#[tokio::test]
async fn the_next_commit_that_goes_well_makes_it_healthy_again() {
    for atomic in [true, false] {
        let faults = Faults::new();
        let map = PersistentMap::new(faults.wrap(backend_of(&Disk::new(), atomic)))
            .await
            .unwrap();
        assert!(map.stats().is_healthy());
        faults.fail_next(Fault::Refused);
        map.insert(1, 1).await.unwrap_err();
        for _ in 0..2 {
            let stats = map.stats();
            assert!(!stats.is_healthy() && stats.last_failure.is_some());
        }
        // One that is refused before it reaches the store says nothing of it.
        let _ = map.get(&1);
        assert!(!map.stats().is_healthy());
        map.insert(1, 1).await.unwrap();
        let stats = map.stats();
        assert!(stats.is_healthy() && stats.last_failure.is_none());
        assert_eq!(stats.failed_commits, 1, "what has been stays counted");
    }
}

/// For a check that must not wait for somebody who writes.
#[tokio::test]
async fn a_flush_that_goes_well_makes_it_healthy_again() {
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(Disk::<u8, u8>::new().backend()))
        .await
        .unwrap();
    faults.fail_next(Fault::Refused);
    map.insert(1, 1).await.unwrap_err();
    map.flush().await.unwrap();
    assert!(map.stats().is_healthy());
}

#[tokio::test]
async fn write_behind_is_healthy_again_when_what_waited_is_stored() {
    for atomic in [true, false] {
        let faults = Faults::new();
        let retry = Duration::from_millis(5);
        let limits = Behind::new().max_delay(retry).retry(retry, retry);
        let map = behind(faults.wrap(backend_of(&Disk::new(), atomic)), limits).await;
        faults.fail_always(Fault::Refused);
        map.insert(1, 1).await.unwrap();
        until("the failure", || !map.stats().is_healthy()).await;
        faults.heal();
        until("the recovery", || map.stats().is_healthy()).await;
        assert_eq!(map.stats().unsaved, 0);
    }
}

#[tokio::test]
async fn an_unknown_outcome_and_a_close_are_for_good() {
    let faults = Faults::new();
    let map = behind(faults.wrap(Disk::<u8, u8>::new().backend()), lazy()).await;
    map.insert(1, 1).await.unwrap();
    faults.fail_next(Fault::UnknownApplied);
    map.flush().await.unwrap_err();
    map.flush().await.unwrap_err();
    let stats = map.stats();
    assert_eq!(stats.phase, Phase::Poisoned);
    assert!(!stats.is_healthy() && stats.last_failure.is_some());

    let map = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    map.insert(1, 1).await.unwrap();
    map.flush().await.unwrap();
    assert!(map.stats().is_healthy());
    map.close().await.unwrap();
    assert!(!map.stats().is_healthy());
}
