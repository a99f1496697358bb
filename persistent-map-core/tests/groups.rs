//! Calls that come while a commit is under way share the next one, up to a size.

use std::collections::HashMap;

use persistent_map_core::{
    Capabilities, Encoded, PersistentMap, Result, Stats, StorageBackend, Write, async_trait,
};
use persistent_map_testkit::Faults;
use tokio::task::{JoinSet, yield_now};

mod support;
use support::limit::limit;

/// Keeps nothing, and prepares as many bytes for a write as its value says.
struct Scales;

#[async_trait]
impl StorageBackend<usize, usize> for Scales {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }
    fn prepare(&self, _: &usize, value: Option<&usize>) -> Result<Option<Encoded>> {
        let bytes = value.map(|bytes| vec![0; *bytes]);
        Ok(Some(Encoded::new(&[], bytes.as_deref())))
    }
    async fn load_all(&self) -> Result<HashMap<usize, usize>> {
        Ok(HashMap::new())
    }
    async fn save(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    async fn delete(&self, _: &usize) -> Result<()> {
        Ok(())
    }
    async fn apply(&self, _: &[Write<usize, usize>]) -> Result<()> {
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// The figures of a map that got so many calls while it stored an entry, each of so many entries of so many bytes.
async fn calls_that_wait(count: usize, entries: usize, bytes: usize) -> Stats {
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(Scales)).await.unwrap();
    faults.pause();
    let mut calls = JoinSet::new();
    let first = map.clone();
    calls.spawn(async move { first.insert(usize::MAX, 0).await.map(drop) });
    while faults.writes() == 0 {
        yield_now().await;
    }
    for call in 0..count {
        let map = map.clone();
        calls.spawn(async move {
            if entries == 1 {
                return map.insert(call, bytes).await.map(drop);
            }
            let keys = call * entries..(call + 1) * entries;
            let batch = keys.map(|key| (key, bytes));
            map.insert_many(batch).await.map(drop)
        });
    }
    while map.stats().pending < count {
        yield_now().await;
    }
    faults.resume();
    for call in calls.join_all().await {
        call.unwrap();
    }
    // It is no commit.
    map.flush().await.unwrap();
    map.stats()
}

#[tokio::test]
async fn all_of_them_share_one_commit() {
    let _limit = limit();
    for entries in [1, 3] {
        let stats = calls_that_wait(100, entries, 0).await;
        let largest = 100 * entries as u64;
        assert_eq!((stats.commits, stats.largest_commit), (2, largest));
    }
}

#[tokio::test]
async fn no_call_is_added_to_1024_writes() {
    let _limit = limit();
    let stats = calls_that_wait(8, 256, 0).await;
    assert_eq!((stats.commits, stats.largest_commit), (3, 1024));
}

#[tokio::test]
async fn no_call_is_added_to_8_mib() {
    let _limit = limit();
    for entries in [1, 2] {
        let stats = calls_that_wait(4, entries, (4 << 20) / entries).await;
        let largest = 2 * entries as u64;
        assert_eq!((stats.commits, stats.largest_commit), (3, largest));
    }
}
