//! Write-behind: at the speed of memory, stored soon, never forgotten, never silent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use persistent_map_core::{
    Behind, Capabilities, Event, Outcome, PersistentError, PersistentMap, Phase, Result,
    StorageBackend, Write, WriteMode,
};
use persistent_map_testkit::{Disk, Fault, Faults, drop_after_polls};
use tokio::time::{sleep, timeout};

type Map<B> = PersistentMap<u32, u32, B>;

async fn behind<B: StorageBackend<u32, u32>>(backend: B, limits: Behind) -> Map<B> {
    let builder = PersistentMap::builder(backend).write_mode(WriteMode::Behind(limits));
    builder.open().await.unwrap()
}

/// Never by itself within a test.
fn lazy() -> Behind {
    Behind::new().max_delay(Duration::from_hours(1))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "not within 5 seconds: {what}"
        );
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_write_is_read_at_once_and_stored_after_the_delay() {
    let disk = Disk::new();
    let limits = Behind::new().max_delay(Duration::from_millis(50));
    let map = behind(disk.backend(), limits).await;
    assert_eq!(map.insert(1, 1).await.unwrap(), None);
    assert_eq!(map.insert(1, 2).await.unwrap(), Some(1));
    assert_eq!(map.get(&1), Some(2));
    assert!(disk.entries().is_empty());
    let stats = map.stats();
    assert_eq!((stats.unsaved, stats.commits), (1, 0));
    until("the save", || disk.entries() == HashMap::from([(1, 2)])).await;
    until("the count", || map.stats().unsaved == 0).await;
    assert_eq!(map.stats().commits, 1);
}

#[tokio::test]
async fn the_delay_counts_from_the_first_change_of_a_busy_key() {
    let disk = Disk::new();
    let limits = Behind::new().max_delay(Duration::from_millis(60));
    let map = behind(disk.backend(), limits).await;
    let started = Instant::now();
    while disk.entries().is_empty() {
        map.update(&1, |n| *n += 1).await.unwrap();
        map.insert_if_absent(1, 0).await.unwrap();
        sleep(Duration::from_millis(1)).await;
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "put off for good"
        );
    }
}

/// Its calls have no reason to wait, so the saver must get its turn in another way.
async fn a_task_that_only_writes_is_saved() {
    let disk = Disk::new();
    let limits = Behind::new().max_delay(Duration::from_millis(5));
    let map = behind(disk.backend(), limits).await;
    let writing = tokio::spawn(async move {
        let started = Instant::now();
        while disk.entries().is_empty() && started.elapsed() < Duration::from_secs(5) {
            map.insert(1, 1).await.unwrap();
        }
        disk.entries().len()
    });
    assert_eq!(writing.await.unwrap(), 1, "put off for good");
}

#[tokio::test]
async fn a_task_that_only_writes_does_not_keep_the_saver_from_its_only_thread() {
    a_task_that_only_writes_is_saved().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_only_writes_does_not_keep_the_saver_from_two_threads() {
    a_task_that_only_writes_is_saved().await;
}

#[tokio::test]
async fn a_flush_is_a_watermark() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy()).await;
    for (round, commits) in (0..20).zip(1..) {
        map.insert(round, round).await.unwrap();
        map.insert_many((100..120).map(|n| (n, round)))
            .await
            .unwrap();
        map.remove(&(round / 2)).await.unwrap();
        map.flush().await.unwrap();
        assert_eq!(disk.entries(), map.iter().collect());
        assert_eq!(faults.writes(), commits, "a save is one commit");
    }
    assert_eq!(map.stats().unsaved, 0);
}

#[tokio::test]
async fn half_of_the_limit_starts_a_save_and_all_of_it_makes_writers_wait() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy().max_entries(10)).await;
    for n in 0..6 {
        map.insert(n, 0).await.unwrap();
    }
    until("the save at half of the limit", || {
        disk.entries().len() == 6
    })
    .await;

    faults.pause();
    for n in 10..20 {
        let write = timeout(Duration::from_secs(5), map.insert(n, 0));
        write.await.expect("there is room for ten").unwrap();
    }
    assert_eq!(map.stats().unsaved, 10);
    let waiting = map.insert(20, 0);
    let waited = timeout(Duration::from_millis(50), waiting).await;
    assert!(waited.is_err(), "an eleventh entry was accepted");
    assert_eq!(
        map.get(&20),
        None,
        "a call that waited and was dropped did something"
    );
    faults.resume();
    let write = timeout(Duration::from_secs(5), map.insert(20, 0));
    write.await.expect("no room after the save").unwrap();
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    use persistent_map_core::Bincode;
    let shelf = support::Shelf::new(Bincode);
    let limits = lazy().max_bytes(1000);
    let builder = PersistentMap::builder(shelf).write_mode(WriteMode::Behind(limits));
    let map: PersistentMap<u32, String, _> = builder.open().await.unwrap();
    for n in 0..100 {
        map.insert(n, "x".repeat(80)).await.unwrap();
        assert!(map.stats().unsaved_bytes <= 1100, "{:?}", map.stats());
    }
    map.flush().await.unwrap();
    assert_eq!(map.stats().unsaved_bytes, 0);
}

mod support;

/// Whatever moment the store stops at, it has the state of one moment of the map.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_leaves_a_prefix_without_holes() {
    for atomic in [true, false] {
        let disk = Disk::new();
        let backend = if atomic {
            disk.backend()
        } else {
            disk.one_at_a_time_backend()
        };
        let limits = Behind::new().max_delay(Duration::ZERO).max_entries(50);
        let map = behind(backend, limits).await;
        let writer = tokio::spawn({
            let map = map.clone();
            async move {
                // Each write follows from the one before it, so a hole shows.
                for n in 1..=5000u32 {
                    map.insert(n % 7, n).await.unwrap();
                    if n % 50 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        let mut states = 0;
        while !writer.is_finished() {
            let stored = disk.entries();
            let last = stored.values().copied().max().unwrap_or(0);
            let expected: HashMap<u32, u32> = (1..=last).map(|n| (n % 7, n)).collect();
            assert_eq!(stored, expected, "not the state after write {last}");
            states += 1;
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
        assert!(states > 10, "{states}");
        map.close().await.unwrap();
        assert_eq!(disk.entries(), map.iter().collect());
    }
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_loses_nothing_and_says_so() {
    for atomic in [true, false] {
        let disk = Disk::new();
        let faults = Faults::new();
        let backend = if atomic {
            disk.backend()
        } else {
            disk.one_at_a_time_backend()
        };
        let limits = Behind::new()
            .max_delay(Duration::from_millis(5))
            .retry(Duration::from_millis(5), Duration::from_millis(20));
        let map = behind(faults.wrap(backend), limits).await;
        let mut events = map.subscribe();
        for n in 0..10 {
            map.insert(n, n).await.unwrap();
        }
        faults.fail_always(Fault::Refused);
        until("a failure", || map.stats().failed_commits > 0).await;

        // The next write, and each one after it: reading the error does not clear it.
        for _ in 0..3 {
            let error = map.insert(100, 1).await.unwrap_err();
            assert!(
                matches!(error, PersistentError::Unsaved { entries: 10, .. }),
                "{error}"
            );
            assert_eq!(error.outcome(), Outcome::NotApplied);
            let error = map.flush().await.unwrap_err();
            assert!(
                matches!(error, PersistentError::Unsaved { entries: 10, .. }),
                "{error}"
            );
        }
        assert_eq!(map.get(&100), None);
        let stats = map.stats();
        assert_eq!((stats.unsaved, stats.phase), (10, Phase::Open));
        assert!(stats.last_failure.is_some());
        let mut failures = 0;
        while let Ok(Some(event)) = timeout(Duration::from_millis(10), events.recv()).await {
            failures += u32::from(matches!(event, Event::Failed(_)));
        }
        assert!(failures > 0, "subscribers were not told");
        // It is tried again by itself, not only when somebody asks.
        let tries = faults.writes();
        until("a retry", || faults.writes() > tries + 1).await;
        assert!(disk.entries().is_empty());

        faults.heal();
        until("the recovery", || map.stats().unsaved == 0).await;
        assert_eq!(disk.entries(), map.iter().collect());
        map.insert(100, 2).await.unwrap();
        map.close().await.unwrap();
        assert_eq!(disk.entries().len(), 11);
    }
}

#[tokio::test]
async fn close_says_what_could_not_be_stored() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy()).await;
    map.insert_many((0..10).map(|n| (n, n))).await.unwrap();
    faults.fail_always(Fault::Refused);
    let error = map.close().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 10, .. }),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(map.len(), 10, "reads go on");
    let error = map.insert(1, 1).await.unwrap_err();
    assert!(matches!(error, PersistentError::Closed), "{error}");
    let again = map.close().await.unwrap_err();
    assert!(matches!(again, PersistentError::Unsaved { .. }), "{again}");
}

#[tokio::test]
async fn an_unknown_outcome_ends_writing_and_close_tells_of_the_rest() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy()).await;
    map.insert(1, 1).await.unwrap();
    faults.fail_next(Fault::UnknownApplied);
    map.flush().await.unwrap_err();
    assert_eq!(map.stats().phase, Phase::Poisoned);
    let error = map.insert(2, 2).await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
    let error = timeout(Duration::from_secs(5), map.close())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 1, .. }),
        "{error}"
    );
}

/// What was accepted is stored when the last handle goes, as long as the runtime runs.
#[tokio::test]
async fn a_map_that_is_dropped_stores_the_rest() {
    let disk = Disk::new();
    let map = behind(disk.backend(), lazy()).await;
    let other = map.clone();
    map.insert(1, 1).await.unwrap();
    drop(map);
    sleep(Duration::from_millis(20)).await;
    assert!(disk.entries().is_empty(), "there is another handle");
    other.insert(2, 2).await.unwrap();
    drop(other);
    until("the last save", || disk.entries().len() == 2).await;
}

#[test]
fn a_runtime_that_ends_takes_the_unsaved_rest_and_nobody_hangs() {
    let disk = Disk::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let map = runtime.block_on(behind(disk.backend(), lazy()));
    runtime.block_on(async {
        map.insert(1, 1).await.unwrap();
        map.flush().await.unwrap();
        map.insert(2, 2).await.unwrap();
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(disk.entries(), HashMap::from([(1, 1)]));
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    other.block_on(async {
        let late = timeout(Duration::from_secs(5), map.insert(3, 3))
            .await
            .unwrap();
        assert!(late.is_err());
        let late = timeout(Duration::from_secs(5), map.close()).await.unwrap();
        assert!(matches!(late, Err(PersistentError::WriterGone)), "{late:?}");
        assert!(map.flush().await.is_err());
    });
    assert_eq!(map.get(&2), Some(2));
}

#[test]
fn a_runtime_without_timers_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let builder = PersistentMap::<u32, u32, _>::builder(Disk::new().backend());
    let opened = runtime.block_on(builder.write_mode(WriteMode::Behind(Behind::new())).open());
    assert!(
        matches!(opened, Err(PersistentError::NoRuntime)),
        "{opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_at_any_poll_is_done_or_not() {
    let disk = Disk::new();
    let map = behind(disk.backend(), lazy().max_entries(3)).await;
    for (polls, n) in (0..10).zip((0..).step_by(10)) {
        drop_after_polls(map.insert(n, 1), polls).await;
        drop_after_polls(map.insert(n + 1, 2), polls).await;
        drop_after_polls(map.update(&n, |value| *value += 1), polls).await;
        drop_after_polls(map.remove(&(n + 1)), polls).await;
        drop_after_polls(map.flush(), polls).await;
        drop_after_polls(map.clear(), polls % 2).await;
        timeout(Duration::from_secs(5), map.flush())
            .await
            .expect("a wedge")
            .unwrap();
        assert_eq!(disk.entries(), map.iter().collect());
    }
    drop_after_polls(map.close(), 1).await;
    timeout(Duration::from_secs(5), map.close())
        .await
        .expect("a wedge")
        .unwrap();
}

/// A store that takes one write at a time and does not like thirteen.
struct Picky(Disk<u32, u32>);

#[async_trait]
impl StorageBackend<u32, u32> for Picky {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time()
    }
    async fn load_all(&self) -> Result<HashMap<u32, u32>> {
        Ok(self.0.entries())
    }
    async fn save(&self, key: u32, value: u32) -> Result<()> {
        if value == 13 {
            return Err(PersistentError::TooLarge {
                part: "value",
                bytes: 13,
                limit: 12,
            });
        }
        let write = Write::insert(key, value);
        self.0.backend().apply(&[write]).await
    }
    async fn delete(&self, key: &u32) -> Result<()> {
        self.0.backend().apply(&[Write::remove(*key)]).await
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_entry_that_the_store_refuses_does_not_hold_up_the_others() {
    let disk = Disk::new();
    let map = behind(Picky(disk.clone()), lazy()).await;
    map.insert(1, 13).await.unwrap();
    map.insert(2, 2).await.unwrap();
    let error = map.flush().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 1, .. }),
        "{error}"
    );
    assert_eq!(disk.entries(), HashMap::from([(2, 2)]));
    // The others go on, and it is not forgotten.
    map.insert(3, 3).await.unwrap();
    map.flush().await.unwrap_err();
    assert_eq!(disk.entries(), HashMap::from([(2, 2), (3, 3)]));
    assert_eq!(map.stats().unsaved, 1);
    // Until it is replaced by one that the store takes.
    map.insert(1, 1).await.unwrap();
    map.flush().await.unwrap();
    assert_eq!(map.stats().unsaved, 0);
    map.insert(1, 13).await.unwrap();
    let error = map.close().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 1, .. }),
        "{error}"
    );
    assert_eq!(disk.entries()[&1], 1);
}

/// Cannot be cloned if it is unlucky.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Lucky(u32);

impl Clone for Lucky {
    fn clone(&self) -> Self {
        assert_ne!(self.0, 13, "unlucky");
        Lucky(self.0)
    }
}

#[tokio::test]
async fn a_batch_with_a_value_that_cannot_be_cloned_leaves_nothing_to_be_stored() {
    let disk = Disk::new();
    let builder = PersistentMap::builder(disk.backend()).write_mode(WriteMode::Behind(lazy()));
    let map = builder.open().await.unwrap();
    map.insert(1, Lucky(1)).await.unwrap();
    let batch = [(1, Lucky(2)), (2, Lucky(2)), (3, Lucky(13))];
    let error = map.insert_many(batch).await.unwrap_err();
    assert!(matches!(error, PersistentError::Panicked { .. }), "{error}");
    assert_eq!(map.iter().collect::<Vec<_>>(), [(1, Lucky(1))]);
    map.flush().await.unwrap();
    assert_eq!(disk.entries(), map.iter().collect());
    assert_eq!(map.stats().unsaved, 0);
}
