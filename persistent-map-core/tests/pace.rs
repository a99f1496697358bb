//! Write-behind with writers who are faster than the store: how much a save holds, and how much a crash may take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use persistent_map_core::{
    Behind, Bincode, Capabilities, PersistentMap, Result, StorageBackend, Write, WriteMode,
};
use persistent_map_testkit::{Disk, DiskBackend, Fault, Faults};
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::{sleep, timeout};

mod support;
use support::{behind, lazy, soon, until};

/// A store that takes its time for each entry, and remembers how many came with each commit.
struct Slow {
    disk: DiskBackend<u32, u32>,
    an_entry: Duration,
    commits: Arc<Mutex<Vec<usize>>>,
}

impl Slow {
    fn new(disk: DiskBackend<u32, u32>, an_entry: Duration) -> Self {
        Slow {
            disk,
            an_entry,
            commits: Arc::default(),
        }
    }
}

#[async_trait]
impl StorageBackend<u32, u32> for Slow {
    fn capabilities(&self) -> Capabilities {
        self.disk.capabilities()
    }
    async fn load_all(&self) -> Result<HashMap<u32, u32>> {
        self.disk.load_all().await
    }
    async fn save(&self, key: u32, value: u32) -> Result<()> {
        self.apply(&[Write::insert(key, value)]).await
    }
    async fn delete(&self, key: &u32) -> Result<()> {
        self.apply(&[Write::remove(*key)]).await
    }
    async fn apply(&self, batch: &[Write<u32, u32>]) -> Result<()> {
        sleep(self.an_entry * u32::try_from(batch.len()).unwrap()).await;
        self.commits.lock().unwrap().push(batch.len());
        self.disk.apply(batch).await
    }
    async fn flush(&self) -> Result<()> {
        self.disk.flush().await
    }
}

/// 50 entries a millisecond: 2,500 in the time that a change may wait. Writers could go on for two seconds before they meet the
/// limit of entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_holds_what_the_store_takes_in_the_delay_however_much_may_be_unsaved() {
    const IN_TIME: usize = 2500;
    let disk = Disk::new();
    let slow = Slow::new(disk.backend(), Duration::from_micros(20));
    let commits = Arc::clone(&slow.commits);
    let limits = Behind::new()
        .max_delay(Duration::from_millis(50))
        .max_entries(100_000);
    let map = behind(slow, limits).await;
    for n in 0..60_000 {
        map.insert(n, n).await.unwrap();
    }
    // Two saves' worth: what is being stored, and what comes next.
    let unsaved = map.stats().unsaved;
    assert!(unsaved <= 2 * 2 * IN_TIME, "{unsaved} at risk");
    let closing = Instant::now();
    map.close().await.unwrap();
    assert!(
        closing.elapsed() < Duration::from_secs(5),
        "{:?}",
        closing.elapsed()
    );
    assert_eq!(disk.entries().len(), 60_000);
    // The store cannot be faster than it is, so more would be a save that takes longer.
    let commits = commits.lock().unwrap();
    assert!(commits[0] <= 4 * IN_TIME, "{commits:?}");
    for commit in &commits[2..] {
        assert!(*commit <= 2 * IN_TIME, "{commits:?}");
    }
}

#[tokio::test]
async fn a_store_that_takes_one_entry_at_a_time_is_not_left_behind_either() {
    let slow = Slow::new(
        Disk::new().one_at_a_time_backend(),
        Duration::from_millis(1),
    );
    let map = behind(slow, Behind::new().max_delay(Duration::from_millis(50))).await;
    let mut most = 0;
    for n in 0..1000 {
        map.insert(n, n).await.unwrap();
        most = most.max(map.stats().unsaved);
        if most >= 500 {
            break;
        }
    }
    map.flush().await.unwrap();
    // It has shown by now that it takes 50 in the delay.
    most = 0;
    for n in 0..200 {
        map.insert(n, n + 1).await.unwrap();
        most = most.max(map.stats().unsaved);
    }
    assert!(most <= 4 * 50, "{most} at risk");
    map.close().await.unwrap();
}

/// What came in while the store failed is two saves, not one that is twice as long.
#[tokio::test]
async fn what_a_failure_has_held_up_is_stored_cut_by_cut() {
    let disk = Disk::new();
    let faults = Faults::new();
    let slow = Slow::new(disk.backend(), Duration::ZERO);
    let commits = Arc::clone(&slow.commits);
    let map = behind(faults.wrap(slow), lazy()).await;
    map.insert_many((0..10).map(|n| (n, 1))).await.unwrap();
    faults.fail_next(Fault::Refused);
    faults.pause();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    while faults.writes() == 0 {
        tokio::task::yield_now().await;
    }
    // Accepted while the save is under way that will fail.
    map.insert_many((5..15).map(|n| (n, 2))).await.unwrap();
    faults.resume();
    flush.await.unwrap().unwrap_err();
    assert_eq!(map.stats().unsaved, 20);
    map.flush().await.unwrap();
    assert_eq!(*commits.lock().unwrap(), [10, 10]);
    assert_eq!(disk.entries(), map.iter().collect());
    assert_eq!((map.stats().unsaved, map.stats().unsaved_bytes), (0, 0));
}

static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Takes its time to be serialized: calls overlap between the look for room and the change.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Lengthy(u32);

impl Serialize for Lengthy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITTEN.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        serializer.serialize_newtype_struct("Lengthy", &self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_callers_as_there_are_places_come_in_at_the_same_time() {
    let faults = Faults::new();
    let limits = lazy().max_entries(3);
    let map = PersistentMap::builder(faults.wrap(support::Shelf::new(Bincode)))
        .write_mode(WriteMode::Behind(limits))
        .open()
        .await
        .unwrap();
    faults.pause();
    let callers: Vec<_> = (0..6)
        .map(|n| {
            let blocking = map.blocking();
            thread::spawn(move || blocking.insert(n, Lengthy(n)))
        })
        .collect();
    until("three entries", || map.stats().unsaved == 3).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(map.stats().unsaved, 3);
    assert_eq!(
        WRITTEN.load(Ordering::SeqCst),
        3,
        "callers who had no room went on"
    );
    faults.resume();
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
    map.close().await.unwrap();
}

/// A place that is not needed is given to who waits for it.
#[tokio::test]
async fn a_call_that_adds_nothing_gives_its_place_back() {
    let faults = Faults::new();
    let map = behind(faults.wrap(Disk::new().backend()), lazy().max_entries(2)).await;
    faults.pause();
    for n in 0..50 {
        soon(map.insert(1, n)).await.unwrap();
        soon(map.update(&2, |_| panic!("there is no such entry")))
            .await
            .unwrap();
    }
    soon(map.insert(2, 0)).await.unwrap();
    let waited = timeout(Duration::from_millis(50), map.insert(3, 0)).await;
    assert!(waited.is_err(), "a third entry was accepted");
    faults.resume();
    soon(map.insert(3, 0)).await.unwrap();
}
