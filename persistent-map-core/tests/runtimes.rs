//! Runtimes of each kind, and code that has none.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use persistent_map_core::{
    Behind, Capabilities, PersistentError, PersistentMap, Result, StorageBackend, WriteMode,
    async_trait,
};
use persistent_map_testkit::{Disk, DiskBackend};
use tokio::runtime::{Builder, Runtime};

mod support;
use support::limit::limit;

#[test]
fn a_plain_thread_writes_while_a_current_thread_runtime_runs() {
    let _limit = limit();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let disk = Disk::new();
    runtime.block_on(async {
        let map = PersistentMap::new(disk.backend()).await.unwrap();
        let (done, finished) = tokio::sync::oneshot::channel();
        let blocking = map.blocking();
        let worker = thread::spawn(move || {
            for n in 0..100 {
                match n % 2 {
                    0 => drop(blocking.insert(n, 0).unwrap()),
                    _ => blocking
                        .update_or_insert(n, 1, |value| *value -= 1)
                        .unwrap(),
                }
                blocking.update(&n, |value| *value += 1).unwrap();
            }
            let sum = blocking.transaction(|tx| {
                Ok::<_, PersistentError>((0..100).filter_map(|n| tx.get(&n)).sum::<i32>())
            });
            assert_eq!(sum.unwrap(), 100);
            blocking.flush().unwrap();
            blocking.close().unwrap();
            done.send(()).unwrap();
        });
        finished.await.unwrap();
        worker.join().unwrap();
    });
    assert_eq!(disk.entries().len(), 100);
}

#[test]
fn a_blocking_call_works_where_blocking_is_allowed_and_is_refused_elsewhere() {
    let _limit = limit();
    for threads in [0, 1, 2] {
        let runtime = match threads {
            0 => Builder::new_current_thread().enable_all().build(),
            n => Builder::new_multi_thread()
                .worker_threads(n)
                .enable_all()
                .build(),
        };
        let runtime = runtime.unwrap();
        runtime.block_on(async {
            let map = PersistentMap::new(Disk::new().backend()).await.unwrap();
            let blocking = map.blocking();
            let there = tokio::task::spawn_blocking(move || blocking.insert(1, 1));
            assert_eq!(there.await.unwrap().unwrap(), None);
            let blocking = map.blocking();
            let here = tokio::spawn(async move { blocking.insert(1, 2) })
                .await
                .unwrap();
            let error = here.unwrap_err();
            assert!(
                matches!(error, PersistentError::WouldDeadlock { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("spawn_blocking"), "{error}");
            assert_eq!(map.get(&1), Some(1));
            map.insert(1, 3).await.unwrap();
        });
    }
}

/// On a thread that is not of the runtime.
fn map_in_a_runtime() -> (Runtime, PersistentMap<i32, i32, DiskBackend<i32, i32>>) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let open = PersistentMap::new(Disk::new().backend());
    let map = runtime.block_on(open).unwrap();
    (runtime, map)
}

/// The reader holds what the writer waits for, whatever the key: keys share locks.
#[test]
fn a_blocking_call_inside_of_a_read_is_refused() {
    let _limit = limit();
    let (runtime, map) = map_in_a_runtime();
    let blocking = map.blocking();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        blocking.insert(1, 1).unwrap();
        let inside = || map.with(&1, |value| blocking.insert(1, value + 1));
        let nested = map.with(&1, |_| inside()).flatten();
        for refused in [inside(), nested] {
            let error = refused.unwrap().unwrap_err();
            assert!(
                matches!(error, PersistentError::WouldDeadlock { .. }),
                "{error}"
            );
        }
        let panicked = catch_unwind(AssertUnwindSafe(|| map.with(&1, |_| panic!("planted"))));
        assert!(panicked.is_err());
        assert_eq!(blocking.insert(1, 2).unwrap(), Some(1));
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(10));
    runtime.shutdown_background(); // its writer would be waited for
    ended.expect("it waits for itself, or a check has failed");
}

/// Nobody is left who would do it, and the handles may live on in a `static`.
#[test]
fn closing_after_the_runtime_has_ended_releases_the_store_once() {
    let _limit = limit();
    let capabilities = Capabilities::one_at_a_time();
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let backend = Counting::new(capabilities);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let open = PersistentMap::builder(Arc::clone(&backend)).write_mode(mode);
        let map = runtime.block_on(open.open()).unwrap();
        drop(runtime);
        assert_eq!(backend.closed.load(Ordering::SeqCst), 0);
        let other = Builder::new_current_thread().build().unwrap();
        for _ in 0..2 {
            let end = other.block_on(map.close());
            assert!(matches!(end, Err(PersistentError::WriterGone)), "{end:?}");
            assert_eq!(backend.closed.load(Ordering::SeqCst), 1);
        }
    }
}

#[test]
fn a_panic_of_the_code_that_is_waited_for_is_its_own() {
    let _limit = limit();
    let (_runtime, map) = map_in_a_runtime();
    let blocking = map.blocking();
    let waiting = catch_unwind(AssertUnwindSafe(|| {
        blocking.wait(async {
            map.insert(1, 1).await?;
            assert!(map.is_empty(), "planted");
            Ok::<_, PersistentError>(())
        })
    }));
    let panic = waiting.unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted"));
    assert_eq!(blocking.insert(1, 2).unwrap(), Some(1));
}

/// Counts how often it is flushed and closed.
struct Counting {
    capabilities: Capabilities,
    flushed: AtomicUsize,
    closed: AtomicUsize,
}

impl Counting {
    fn new(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Counting {
            capabilities,
            flushed: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl StorageBackend<u32, u32> for Counting {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
    async fn load_all(&self) -> Result<HashMap<u32, u32>> {
        Ok(HashMap::new())
    }
    async fn save(&self, _: u32, _: u32) -> Result<()> {
        Ok(())
    }
    async fn delete(&self, _: &u32) -> Result<()> {
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        self.flushed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_runtime_without_timers_is_refused_and_the_store_is_released() {
    let _limit = limit();
    let runtime = Builder::new_current_thread().build().unwrap();
    let store = Counting::new(Capabilities::one_at_a_time());
    let builder = PersistentMap::<u32, u32, _>::builder(Arc::clone(&store));
    let opened = runtime.block_on(builder.write_mode(WriteMode::Behind(Behind::new())).open());
    assert!(
        matches!(opened, Err(PersistentError::NoRuntime)),
        "{opened:?}"
    );
    assert_eq!(store.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_map_is_closed_once_however_often_that_is_asked() {
    let _limit = limit();
    for capabilities in [Capabilities::resident(), Capabilities::one_at_a_time()] {
        let store = Counting::new(capabilities);
        let map = PersistentMap::<u32, u32, _>::new(Arc::clone(&store))
            .await
            .unwrap();
        for _ in 0..3 {
            map.close().await.unwrap();
        }
        let calls = [&store.flushed, &store.closed].map(|calls| calls.load(Ordering::SeqCst));
        assert_eq!(calls, [1, 1]);
    }
}
