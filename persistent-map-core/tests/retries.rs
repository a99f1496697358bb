//! When write-behind tries a store again that has failed: soon at first, then less and less often, and soon again after it has
//! worked.

use std::time::Duration;

use persistent_map_core::PersistentMap;
use persistent_map_testkit::{Disk, DiskBackend, Fault, Faults, Faulty};
use tokio::time::sleep;

mod support;
use support::{backend_of, behind, lazy, until};

type Map = PersistentMap<u32, u32, Faulty<DiskBackend<u32, u32>>>;

/// Each try that fails doubles the time to the next one: after twenty of them it is more than ten times the limit of a test.
async fn fail_often(map: &Map, faults: &Faults) {
    faults.fail_always(Fault::Refused);
    map.insert(1, 1).await.unwrap();
    for _ in 0..20 {
        map.flush().await.unwrap_err();
    }
}

async fn map_of(faults: &Faults, atomic: bool, first: Duration, last: Duration) -> Map {
    let backend = faults.wrap(backend_of(&Disk::new(), atomic));
    behind(backend, lazy().retry(first, last)).await
}

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn after_a_success_it_is_tried_again_as_soon_as_at_first() {
    for atomic in [true, false] {
        let faults = Faults::new();
        let map = map_of(&faults, atomic, MS, LONG).await;
        fail_often(&map, &faults).await;
        faults.heal();
        map.flush().await.unwrap();

        faults.fail_next(Fault::Refused);
        map.insert(2, 2).await.unwrap();
        map.flush().await.unwrap_err();
        until("another try", || map.stats().unsaved == 0).await;
    }
}

#[tokio::test]
async fn the_time_between_two_tries_has_a_limit() {
    for atomic in [true, false] {
        let faults = Faults::new();
        let map = map_of(&faults, atomic, MS, 20 * MS).await;
        fail_often(&map, &faults).await;
        faults.heal();
        until("another try", || map.stats().unsaved == 0).await;
    }
}

#[tokio::test]
async fn a_failure_does_not_start_the_times_anew() {
    for atomic in [true, false] {
        let faults = Faults::new();
        let map = map_of(&faults, atomic, MS, LONG).await;
        fail_often(&map, &faults).await;
        let tries = faults.writes();
        sleep(100 * MS).await;
        assert_eq!(faults.writes(), tries, "the next try is minutes away");
    }
}

/// Not by those who write, either: they are refused.
#[tokio::test]
async fn only_time_or_a_flush_brings_the_next_try_on() {
    let faults = Faults::new();
    let map = map_of(&faults, true, LONG, LONG).await;
    faults.fail_always(Fault::Refused);
    map.insert(1, 1).await.unwrap();
    map.flush().await.unwrap_err();
    for n in 0..10 {
        map.insert(n, 1).await.unwrap_err();
    }
    sleep(50 * MS).await;
    assert_eq!(faults.writes(), 1);
}
