//! Write-behind: at the speed of memory, stored soon, never forgotten, never silent.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use persistent_map_core::{
    Behind, Bincode, Capabilities, Outcome, PersistentError, PersistentMap, Result, StorageBackend,
    Write, WriteMode,
};
use persistent_map_testkit::{Disk, DiskBackend, Fault, Faults, drop_after_polls};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

mod support;
use support::panicky::{Apart, Code, Panicky, panic_at};
use support::{backend_of, behind, lazy, soon, until};

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
    map.flush().await.unwrap();
    assert_eq!(faults.writes(), 20, "there was nothing to save");
    assert_eq!(map.stats().unsaved, 0);
}

#[tokio::test]
async fn half_of_the_limit_starts_a_save_and_all_of_it_makes_writers_wait() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy().max_entries(10)).await;
    for n in 0..5 {
        map.insert(n, 0).await.unwrap();
    }
    sleep(Duration::from_millis(20)).await;
    assert!(disk.entries().is_empty(), "not more than half");
    map.insert(5, 0).await.unwrap();
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
async fn a_first_change_that_takes_all_room_starts_a_save() {
    for (limit, entries) in [(1, 1), (10, 20)] {
        let map = behind(Disk::new().backend(), lazy().max_entries(limit)).await;
        map.insert_many((0..entries).map(|n| (n, n))).await.unwrap();
        soon(map.insert(100, 0)).await.unwrap();
    }
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let shelf = support::Shelf::new(Bincode);
    let limits = lazy().max_bytes(1000);
    let builder = PersistentMap::builder(shelf).write_mode(WriteMode::Behind(limits));
    let map: PersistentMap<u32, String, _> = builder.open().await.unwrap();
    for n in 0..100 {
        map.insert(n, "x".repeat(80)).await.unwrap();
        assert!(map.stats().unsaved_bytes <= 1100, "{:?}", map.stats());
    }
    let commits = map.stats().commits;
    assert!(commits > 5, "{commits} saves of more than 8000 bytes");
    map.flush().await.unwrap();
    assert_eq!(map.stats().unsaved_bytes, 0);
}

#[tokio::test]
async fn an_entry_that_is_written_again_counts_with_its_latest_bytes() {
    let map = behind(support::Shelf::new(Bincode), lazy()).await;
    map.insert(1, "x".repeat(40)).await.unwrap();
    let once = map.stats().unsaved_bytes;
    assert!(once > 40, "{once}");
    for length in [10, 80, 40] {
        map.insert(1, "x".repeat(length)).await.unwrap();
    }
    let stats = map.stats();
    assert_eq!((stats.unsaved, stats.unsaved_bytes), (1, once));
    map.flush().await.unwrap();
    let stats = map.stats();
    assert_eq!((stats.unsaved, stats.unsaved_bytes), (0, 0));
}

#[tokio::test]
async fn half_of_the_bytes_starts_a_save_and_all_of_them_make_writers_wait() {
    let text = || "x".to_string();
    let map = behind(support::Shelf::new(Bincode), lazy()).await;
    map.insert(0, text()).await.unwrap();
    let bytes = map.stats().unsaved_bytes;

    let (shelf, faults) = (support::Shelf::new(Bincode), Faults::new());
    let rows = shelf.rows();
    let map = behind(faults.wrap(shelf), lazy().max_bytes(4 * bytes)).await;
    for n in 0..2 {
        map.insert(n, text()).await.unwrap();
    }
    sleep(Duration::from_millis(20)).await;
    assert!(rows.lock().unwrap().is_empty(), "not more than half");
    map.insert(2, text()).await.unwrap();
    until("the save", || rows.lock().unwrap().len() == 3).await;

    faults.pause();
    for n in 3..7 {
        soon(map.insert(n, text())).await.unwrap();
    }
    let waited = timeout(Duration::from_millis(50), map.insert(7, text())).await;
    assert!(waited.is_err(), "there was room");
    faults.resume();
    soon(map.insert(7, text())).await.unwrap();
}

/// The time to try again is for a store that fails.
#[tokio::test]
async fn a_change_after_a_save_waits_for_its_own_delay() {
    let disk = Disk::new();
    let limits = lazy().retry(Duration::from_millis(1), Duration::from_millis(1));
    let map = behind(disk.backend(), limits).await;
    map.insert(1, 1).await.unwrap();
    map.flush().await.unwrap();
    map.insert(2, 2).await.unwrap();
    sleep(Duration::from_millis(30)).await;
    assert_eq!(disk.entries(), HashMap::from([(1, 1)]));
}

/// Whatever moment the store stops at, it has the state of one moment of the map.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_leaves_a_prefix_without_holes() {
    for atomic in [true, false] {
        let disk = Disk::new();
        let backend = backend_of(&disk, atomic);
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

#[tokio::test]
async fn the_longest_durations_are_as_good_as_for_ever() {
    let disk = Disk::new();
    let faults = Faults::new();
    let limits = Behind::new()
        .max_delay(Duration::MAX)
        .retry(Duration::MAX, Duration::MAX);
    let map = behind(faults.wrap(disk.backend()), limits).await;
    map.insert(1, 1).await.unwrap();
    tokio::task::yield_now().await;
    faults.fail_next(Fault::Refused);
    map.flush().await.unwrap_err();
    map.close().await.unwrap();
    assert_eq!(disk.entries(), HashMap::from([(1, 1)]));
}

/// Its flush waits for a sign, and then does not know how it went.
struct Unsure {
    disk: DiskBackend<u32, u32>,
    begun: Notify,
    go_on: Notify,
}

#[async_trait]
impl StorageBackend<u32, u32> for Unsure {
    fn capabilities(&self) -> Capabilities {
        self.disk.capabilities()
    }
    async fn load_all(&self) -> Result<HashMap<u32, u32>> {
        self.disk.load_all().await
    }
    async fn save(&self, key: u32, value: u32) -> Result<()> {
        self.disk.save(key, value).await
    }
    async fn delete(&self, key: &u32) -> Result<()> {
        self.disk.delete(key).await
    }
    async fn apply(&self, batch: &[Write<u32, u32>]) -> Result<()> {
        self.disk.apply(batch).await
    }
    async fn flush(&self) -> Result<()> {
        self.begun.notify_one();
        self.go_on.notified().await;
        Err(PersistentError::storage("flushing", "a failed sync").unknown())
    }
}

impl Unsure {
    fn new() -> Self {
        Unsure {
            disk: Disk::new().backend(),
            begun: Notify::new(),
            go_on: Notify::new(),
        }
    }
}

#[tokio::test]
async fn a_close_with_nothing_left_says_what_has_ended_writing() {
    let map = behind(Unsure::new(), lazy()).await;
    map.insert(1, 1).await.unwrap();
    map.backend().go_on.notify_one();
    map.flush().await.unwrap_err();
    let error = map.close().await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
}

#[tokio::test]
async fn who_waits_for_room_hears_that_a_flush_has_ended_writing() {
    let map = behind(Unsure::new(), lazy().max_entries(2)).await;
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    map.backend().begun.notified().await;
    map.insert_many([(1, 1), (2, 2)]).await.unwrap();
    let mut waiting = Box::pin(map.insert(3, 3));
    let waited = timeout(Duration::from_millis(5), &mut waiting).await;
    assert!(waited.is_err(), "there was room");
    map.backend().go_on.notify_one();
    let error = soon(waiting).await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
    flush.await.unwrap().unwrap_err();
}

/// The call has room before the others take the rest, and its key panics when the change can no longer be taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_hears_that_a_call_has_ended_writing() {
    let faults = Faults::new();
    let map = PersistentMap::builder(faults.wrap(Disk::new().backend()))
        .hasher(BuildHasherDefault::<Apart>::default())
        .write_mode(WriteMode::Behind(lazy().max_entries(4)))
        .open()
        .await
        .unwrap();
    map.insert(Panicky(0), 0).await.unwrap();
    map.flush().await.unwrap();
    // The saver has its hands full.
    faults.pause();
    map.insert(Panicky(1), 1).await.unwrap();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    while faults.writes() < 2 {
        tokio::task::yield_now().await;
    }
    let (begun, has_begun) = mpsc::sync_channel(1);
    let (go_on, may_go_on) = mpsc::sync_channel::<()>(1);
    let may_go_on = Mutex::new(may_go_on);
    let call = tokio::spawn({
        let map = map.clone();
        async move {
            let change = move |value: &mut u32| {
                begun.send(()).unwrap();
                may_go_on.lock().unwrap().recv().unwrap();
                *value += 1;
                // The first time it is asked how memory writes the key.
                panic_at(2, Code::Hash);
            };
            map.update(&Panicky(0), change).await
        }
    });
    has_begun.recv().unwrap();
    soon(map.insert(Panicky(2), 2)).await.unwrap();
    soon(map.insert(Panicky(3), 3)).await.unwrap();
    let mut waiting = Box::pin(map.insert(Panicky(4), 4));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    go_on.send(()).unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let error = soon(waiting).await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
    faults.resume();
    flush.await.unwrap().unwrap_err();
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
