//! What an error leaves behind: the map as it was, or a map that says it cannot tell.

mod support;
use support::limit::limit;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use persistent_map_core::{
    Outcome, PersistentError, PersistentMap, Phase, Result, StorageBackend, async_trait,
};
use persistent_map_testkit::{Disk, DiskBackend, Fault, Faults, Faulty};
use tokio::time::timeout;

use support::backend_of;

type Map = PersistentMap<String, u64, Faulty<DiskBackend<String, u64>>>;

/// A map of one entry on a disk that fails on command.
async fn stage(atomic_batches: bool) -> (Map, Disk<String, u64>, Faults) {
    let disk = Disk::new();
    let faults = Faults::new();
    let backend = backend_of(&disk, atomic_batches);
    let map = PersistentMap::new(faults.wrap(backend)).await.unwrap();
    map.insert("old".to_string(), 1).await.unwrap();
    (map, disk, faults)
}

fn memory(map: &Map) -> HashMap<String, u64> {
    map.iter().collect()
}

#[tokio::test]
async fn a_refused_write_leaves_memory_and_store_as_they_were() {
    let _limit = limit();
    for atomic_batches in [true, false] {
        let (map, disk, faults) = stage(atomic_batches).await;
        let before = disk.entries();
        for fault in 0..4 {
            faults.fail_next(Fault::Refused);
            let error = match fault {
                0 => map.insert("new".to_string(), 2).await.unwrap_err(),
                1 => map.insert("old".to_string(), 3).await.unwrap_err(),
                2 => map.remove("old").await.unwrap_err(),
                _ => map.clear().await.unwrap_err(),
            };
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            assert_eq!(memory(&map), before);
            assert_eq!(disk.entries(), before);
        }
        map.insert("new".to_string(), 2).await.unwrap();
        assert_eq!(memory(&map), disk.entries());
        assert_eq!(map.stats().failed_commits, 4);
        assert_eq!(map.stats().phase, Phase::Open);
    }
}

#[tokio::test]
async fn an_unknown_outcome_stops_all_writes_and_no_reads() {
    let _limit = limit();
    for fault in [
        Fault::UnknownApplied,
        Fault::UnknownNotApplied,
        Fault::Panic,
    ] {
        let (map, disk, faults) = stage(true).await;
        faults.fail_next(fault);
        let first = map.insert("new".to_string(), 2).await.unwrap_err();
        assert_eq!(first.outcome(), Outcome::Unknown, "{first}");

        assert_eq!(map.get("new"), None, "memory shows what may not be stored");
        assert_eq!(map.get("old"), Some(1), "reads go on");
        assert_eq!(map.stats().phase, Phase::Poisoned);
        let stored = disk.entries();
        for _ in 0..3 {
            let refusals = [
                map.insert("new".to_string(), 3).await.map(drop),
                map.remove("old").await.map(drop),
                map.clear().await,
                map.flush().await,
            ];
            for refusal in refusals {
                let Err(PersistentError::Poisoned { first: kept }) = refusal else {
                    panic!("{refusal:?}");
                };
                assert_eq!(
                    kept.to_string(),
                    first.to_string(),
                    "the first error is kept"
                );
            }
        }
        assert_eq!(disk.entries(), stored, "a refused write reached the store");
        let closed = map.close().await;
        assert!(
            matches!(closed, Err(PersistentError::Poisoned { .. })),
            "{closed:?}"
        );

        let map = PersistentMap::new(disk.backend()).await.unwrap();
        assert_eq!(map.contains_key("new"), fault == Fault::UnknownApplied);
        map.insert("new".to_string(), 4).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_commit_fails_the_whole_group_and_nothing_before_or_after_it() {
    let _limit = limit();
    let (map, disk, faults) = stage(true).await;
    faults.pause();
    let first = tokio::spawn({
        let map = map.clone();
        async move { map.insert("first".to_string(), 0).await }
    });
    while faults.writes() < 2 {
        tokio::task::yield_now().await;
    }
    // These queue up behind the commit that waits, and will share the next one.
    let group: Vec<_> = (0..10)
        .map(|n| {
            let map = map.clone();
            tokio::spawn(async move { map.insert(format!("group {n}"), n).await })
        })
        .collect();
    while map.stats().pending < 10 {
        tokio::task::yield_now().await;
    }
    faults.fail_next(Fault::Refused);
    faults.resume();
    first.await.unwrap().unwrap();
    for write in group {
        let error = write.await.unwrap().unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert!(
            error.to_string().contains("a fault was injected"),
            "{error}"
        );
    }
    assert_eq!(memory(&map), disk.entries());
    assert_eq!(map.len(), 2);
    map.insert("after".to_string(), 1).await.unwrap();
    assert_eq!(disk.entries().len(), 3);
}

#[tokio::test]
async fn nobody_reads_what_is_not_committed() {
    let _limit = limit();
    let (map, _, faults) = stage(true).await;
    faults.pause();
    let write = tokio::spawn({
        let map = map.clone();
        async move { map.insert("new".to_string(), 2).await }
    });
    while faults.writes() < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert_eq!(map.get("new"), None);
        tokio::task::yield_now().await;
    }
    faults.resume();
    write.await.unwrap().unwrap();
    assert_eq!(map.get("new"), Some(2));
}

#[tokio::test]
async fn a_clear_that_stops_half_way_says_how_far_it_came() {
    let _limit = limit();
    let (map, disk, faults) = stage(false).await;
    for n in 0..9 {
        map.insert(n.to_string(), n).await.unwrap();
    }
    faults.fail_nth(4, Fault::Refused);
    let error = map.clear().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::PartlyCleared { removed: 3, .. }),
        "{error:?}"
    );
    assert_eq!(error.outcome(), Outcome::Partly);
    assert_eq!(map.len(), 7);
    assert_eq!(memory(&map), disk.entries());
    map.clear().await.unwrap();
    assert!(disk.entries().is_empty());
}

#[tokio::test]
async fn a_full_queue_makes_writers_wait_and_loses_nothing() {
    let _limit = limit();
    let disk = Disk::<u64, u64>::new();
    let faults = Faults::new();
    let map = PersistentMap::builder(faults.wrap(disk.backend()))
        .queue_capacity(4)
        .open()
        .await
        .unwrap();
    faults.pause();
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..50 {
        let map = map.clone();
        writes.spawn(async move { map.insert(n, n).await.unwrap() });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(map.stats().pending <= 4);
    }
    faults.resume();
    writes.join_all().await;
    assert_eq!(disk.entries().len(), 50);
}

/// Fails to give its entries, and says so to whoever opens it.
struct Unreadable;

#[async_trait]
impl StorageBackend<String, u64> for Unreadable {
    async fn load_all(&self) -> Result<HashMap<String, u64>> {
        Err(PersistentError::storage("reading", "the disk is on fire"))
    }
    async fn save(&self, _: String, _: u64) -> Result<()> {
        Ok(())
    }
    async fn delete(&self, _: &String) -> Result<()> {
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_does_not_open() {
    let _limit = limit();
    let error = PersistentMap::new(Unreadable).await.unwrap_err();
    assert!(error.to_string().contains("the disk is on fire"), "{error}");
    let PersistentError::Storage { cause, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(cause.to_string(), "the disk is on fire");
}

#[test]
fn opening_outside_of_a_runtime_is_an_error() {
    let _limit = limit();
    let open = PersistentMap::new(Disk::<String, u64>::new().backend());
    let mut open = Box::pin(open);
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(result) = open.as_mut().poll(&mut context) else {
        panic!("opening waits for something");
    };
    assert!(matches!(result, Err(PersistentError::NoRuntime)));
}

#[test]
fn a_runtime_that_ends_leaves_handles_that_answer() {
    let _limit = limit();
    let disk = Disk::<String, u64>::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let map = runtime.block_on(async {
        let map = PersistentMap::new(disk.backend()).await.unwrap();
        map.insert("a".to_string(), 1).await.unwrap();
        map
    });
    drop(runtime);
    assert_eq!(map.get("a"), Some(1));
    let other = tokio::runtime::Runtime::new().unwrap();
    other.block_on(async {
        let answers = async {
            let insert = map.insert("b".to_string(), 2).await;
            assert!(matches!(insert, Err(PersistentError::Closed)), "{insert:?}");
            let close = map.close().await;
            assert!(
                matches!(close, Err(PersistentError::WriterGone)),
                "{close:?}"
            );
        };
        timeout(Duration::from_secs(5), answers)
            .await
            .expect("an answer");
    });
    drop(map);
    assert_eq!(disk.entries().len(), 1);
}

#[test]
fn a_call_that_its_runtime_leaves_behind_says_that_it_does_not_know() {
    let _limit = limit();
    let disk = Disk::<String, u64>::new();
    let faults = Faults::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let map = runtime
        .block_on(PersistentMap::new(faults.wrap(disk.backend())))
        .unwrap();
    faults.pause();
    let other = tokio::runtime::Runtime::new().unwrap();
    let write = other.spawn({
        let map = map.clone();
        async move { map.insert("a".to_string(), 1).await }
    });
    while faults.writes() == 0 {
        std::thread::yield_now();
    }
    runtime.shutdown_background();
    let answer = other.block_on(async { timeout(Duration::from_secs(5), write).await });
    let error = answer.expect("an answer").unwrap().unwrap_err();
    assert!(matches!(error, PersistentError::WriterGone), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[test]
fn a_map_may_be_dropped_anywhere() {
    let _limit = limit();
    let disk = Disk::<String, u64>::new();
    let open = || async {
        let map = PersistentMap::new(disk.backend()).await.unwrap();
        map.insert("a".to_string(), 1).await.unwrap();
        map
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outside = runtime.block_on(open());
    drop(outside);
    let in_a_thread = runtime.block_on(open());
    std::thread::spawn(move || drop(in_a_thread))
        .join()
        .unwrap();
    let in_another_runtime = runtime.block_on(open());
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async move { drop(in_another_runtime) });
    let after_its_runtime = runtime.block_on(open());
    let in_a_task = runtime.block_on(open());
    runtime.spawn(async move {
        let _in_a_task = in_a_task;
        std::future::pending::<()>().await;
    });
    drop(runtime);
    drop(after_its_runtime);
}

#[tokio::test]
async fn a_shared_backend_is_a_backend() {
    let _limit = limit();
    let disk = Disk::<String, u64>::new();
    let backend = Arc::new(disk.backend());
    let map = PersistentMap::new(Arc::clone(&backend)).await.unwrap();
    map.insert("a".to_string(), 1).await.unwrap();
    let chosen_at_run_time: Arc<dyn StorageBackend<String, u64>> = backend;
    let map = PersistentMap::new(chosen_at_run_time).await.unwrap();
    assert_eq!(map.get("a"), Some(1));
}

/// Panics, or fails, outside of what the switches of the kit reach.
struct Rude(DiskBackend<String, u64>, &'static str);

impl StorageBackend<String, u64> for Rude {
    fn capabilities(&self) -> persistent_map_core::Capabilities {
        self.0.capabilities()
    }
    fn load_all<'a: 's, 's>(&'a self) -> Boxed<'s, Result<HashMap<String, u64>>> {
        self.0.load_all()
    }
    fn save<'a: 's, 's>(&'a self, _: String, _: u64) -> Boxed<'s, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn delete<'a: 's, 'k: 's, 's>(&'a self, _: &'k String) -> Boxed<'s, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn apply<'a: 's, 'b: 's, 's>(
        &'a self,
        batch: &'b [persistent_map_core::Write<String, u64>],
    ) -> Boxed<'s, Result<()>> {
        // Before there is a future that could be guarded.
        assert!(self.1 != "apply", "planted");
        self.0.apply(batch)
    }
    fn flush<'a: 's, 's>(&'a self) -> Boxed<'s, Result<()>> {
        let fails = self.1 == "flush";
        Box::pin(async move {
            if fails {
                return Err(PersistentError::storage("flushing", "a failed sync").unknown());
            }
            Ok(())
        })
    }
}

type Boxed<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[tokio::test]
async fn a_backend_that_panics_before_it_returns_a_future_does_not_end_the_writer() {
    let _limit = limit();
    let map = PersistentMap::new(Rude(Disk::new().backend(), "apply"))
        .await
        .unwrap();
    let error = map.insert("a".to_string(), 1).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let error = map.insert("a".to_string(), 1).await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
    assert!(matches!(
        map.close().await,
        Err(PersistentError::Poisoned { .. })
    ));
}

#[tokio::test]
async fn a_flush_whose_outcome_is_unknown_stops_writing_and_shows() {
    let _limit = limit();
    let map = PersistentMap::new(Rude(Disk::new().backend(), "flush"))
        .await
        .unwrap();
    map.insert("a".to_string(), 1).await.unwrap();
    assert_eq!(map.flush().await.unwrap_err().outcome(), Outcome::Unknown);
    let stats = map.stats();
    assert_eq!((stats.phase, stats.failed_commits), (Phase::Poisoned, 1));
    assert!(stats.last_failure.is_some());
    let error = map.insert("a".to_string(), 2).await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_call_that_nobody_polls() {
    let _limit = limit();
    let disk = Disk::<u64, u64>::new();
    let faults = Faults::new();
    let map = PersistentMap::builder(faults.wrap(disk.backend()))
        .queue_capacity(1)
        .open()
        .await
        .unwrap();
    faults.pause();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..2 {
        let map = map.clone();
        calls.spawn(async move { map.insert(n, n).await });
    }
    while faults.writes() == 0 || map.stats().pending == 0 {
        tokio::task::yield_now().await;
    }
    // Waits for a place, gets it when the writer goes on, and is not polled again.
    let mut idle = Box::pin(map.insert(7, 7));
    let mut context = Context::from_waker(Waker::noop());
    assert!(idle.as_mut().poll(&mut context).is_pending());
    let closing = tokio::spawn({
        let map = map.clone();
        async move { map.close().await }
    });
    faults.resume();
    calls.join_all().await;
    let closed = timeout(Duration::from_secs(5), closing).await;
    closed.expect("close waits for nobody").unwrap().unwrap();
    let idle = timeout(Duration::from_secs(5), idle)
        .await
        .expect("an answer");
    assert!(matches!(idle, Err(PersistentError::Closed)), "{idle:?}");
    assert!(!disk.entries().contains_key(&7));
}

#[tokio::test]
async fn a_call_that_comes_when_the_writer_has_gone_is_answered() {
    let _limit = limit();
    for polls in 1..6 {
        let disk = Disk::<u64, u64>::new();
        let map = PersistentMap::builder(disk.backend())
            .queue_capacity(1)
            .open()
            .await
            .unwrap();
        let mut idle = Box::pin(map.insert(7, 7));
        let mut context = Context::from_waker(Waker::noop());
        let closing = tokio::spawn({
            let map = map.clone();
            async move { map.close().await }
        });
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        let answer = idle.as_mut().poll(&mut context);
        closing.await.unwrap().unwrap();
        let answer = match answer {
            Poll::Ready(answer) => answer,
            Poll::Pending => timeout(Duration::from_secs(5), idle)
                .await
                .expect("an answer"),
        };
        assert_eq!(disk.entries().contains_key(&7), answer.is_ok());
    }
}

#[tokio::test]
async fn faults_reach_a_backend_without_a_store() {
    let _limit = limit();
    let faults = Faults::new();
    let map = PersistentMap::new(faults.wrap(persistent_map_memory::InMemoryBackend::new()))
        .await
        .unwrap();
    faults.fail_next(Fault::Refused);
    map.insert("a".to_string(), 1u8).await.unwrap_err();
    assert!(map.is_empty());
}
