//! One order: that in which calls were accepted is that of commits, of memory and of answers.

mod support;
use support::limit::limit;

use persistent_map_core::{PersistentError, PersistentMap, Phase, Result};
use persistent_map_testkit::{Disk, DiskBackend, Fault, Faults, Faulty};
use tokio::task::JoinHandle;

use support::backend_of;

type Map = PersistentMap<String, u64, Faulty<DiskBackend<String, u64>>>;

/// A map whose writer is held up in a first commit, so that what follows queues up behind it, in order.
struct Held {
    map: Map,
    disk: Disk<String, u64>,
    faults: Faults,
    first: JoinHandle<Result<Option<u64>>>,
}

impl Held {
    async fn new(atomic_batches: bool) -> Self {
        let (disk, faults) = (Disk::new(), Faults::new());
        let backend = backend_of(&disk, atomic_batches);
        let map = PersistentMap::new(faults.wrap(backend)).await.unwrap();
        faults.pause();
        let insert = map.clone();
        let first = tokio::spawn(async move { insert.insert("first".to_string(), 0).await });
        while faults.writes() == 0 {
            tokio::task::yield_now().await;
        }
        Held {
            map,
            disk,
            faults,
            first,
        }
    }

    /// Starts a call, and waits until it has its place in the queue.
    async fn queue<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let pending = self.map.stats().pending;
        let call = tokio::spawn(call);
        while self.map.stats().pending == pending {
            tokio::task::yield_now().await;
        }
        call
    }

    async fn queue_insert(&self, key: &str, value: u64) -> JoinHandle<Result<Option<u64>>> {
        let (map, key) = (self.map.clone(), key.to_string());
        self.queue(async move { map.insert(key, value).await })
            .await
    }

    async fn go_on(self) -> (Map, Disk<String, u64>) {
        self.faults.resume();
        self.first.await.unwrap().unwrap();
        (self.map, self.disk)
    }
}

#[tokio::test]
async fn each_write_of_a_key_replaces_the_one_accepted_before_it() {
    let _limit = limit();
    for atomic_batches in [true, false] {
        let held = Held::new(atomic_batches).await;
        let mut calls = Vec::new();
        for n in 1..=20 {
            calls.push(held.queue_insert("key", n).await);
        }
        let (map, disk) = held.go_on().await;
        for (before, call) in (0..).zip(calls) {
            let replaced = call.await.unwrap().unwrap();
            assert_eq!(replaced.unwrap_or(0), before);
        }
        assert_eq!(map.get("key"), Some(20));
        assert_eq!(disk.entries().get("key"), Some(&20));
    }
}

/// Where one write of a group may fail by itself, the next call waits for it before it looks.
#[tokio::test]
async fn a_call_does_not_build_on_a_write_that_fails() {
    let _limit = limit();
    let held = Held::new(false).await;
    let insert = held.queue_insert("key", 1).await;
    let map = held.map.clone();
    let update = held
        .queue(async move { map.update("key", |value| *value += 1).await })
        .await;
    held.faults.fail_next(Fault::Refused);
    let (map, disk) = held.go_on().await;
    insert.await.unwrap().unwrap_err();
    assert_eq!(update.await.unwrap().unwrap(), None);
    assert!(!map.contains_key("key") && !disk.entries().contains_key("key"));
}

#[tokio::test]
async fn a_clear_takes_what_was_accepted_before_it_and_nothing_after() {
    let _limit = limit();
    for atomic_batches in [true, false] {
        let held = Held::new(atomic_batches).await;
        let before = held.queue_insert("before", 1).await;
        let map = held.map.clone();
        let clear = held.queue(async move { map.clear().await }).await;
        let after = held.queue_insert("after", 2).await;
        let (map, disk) = held.go_on().await;
        before.await.unwrap().unwrap();
        clear.await.unwrap().unwrap();
        after.await.unwrap().unwrap();
        assert_eq!(map.keys().collect::<Vec<_>>(), ["after"]);
        assert_eq!(disk.entries().into_keys().collect::<Vec<_>>(), ["after"]);
    }
}

#[tokio::test]
async fn a_flush_answers_when_all_that_was_accepted_before_it_is_stored() {
    let _limit = limit();
    for atomic_batches in [true, false] {
        let held = Held::new(atomic_batches).await;
        let write = held.queue_insert("before", 1).await;
        let (map, disk) = (held.map.clone(), held.disk.clone());
        let flush = held
            .queue(async move {
                map.flush().await.unwrap();
                disk.entries()
            })
            .await;
        held.go_on().await;
        assert!(flush.await.unwrap().contains_key("before"));
        write.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_close_finishes_what_was_accepted_before_it_and_refuses_the_rest() {
    let _limit = limit();
    for atomic_batches in [true, false] {
        let held = Held::new(atomic_batches).await;
        let before = held.queue_insert("before", 1).await;
        let map = held.map.clone();
        let close = tokio::spawn(async move { map.close().await });
        while held.map.stats().phase != Phase::Closed {
            tokio::task::yield_now().await;
        }
        let refused = held.map.insert("after".to_string(), 2).await;
        assert!(
            matches!(refused, Err(PersistentError::Closed)),
            "{refused:?}"
        );
        let (map, disk) = held.go_on().await;
        assert_eq!(before.await.unwrap().unwrap(), None);
        close.await.unwrap().unwrap();
        assert_eq!(map.get("before"), Some(1));
        let stored = disk.entries();
        assert!(stored.contains_key("before") && !stored.contains_key("after"));
    }
}

#[tokio::test]
async fn a_dropped_map_finishes_what_was_accepted() {
    let _limit = limit();
    let held = Held::new(true).await;
    let queued = held.queue_insert("queued", 1).await;
    queued.abort();
    let _ = queued.await;
    let disk = held.disk.clone();
    let (map, _) = held.go_on().await;
    drop(map);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(disk.entries().get("queued"), Some(&1));
}
