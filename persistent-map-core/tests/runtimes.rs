//! Runtimes of each kind, and code that has none.

use std::thread;

use persistent_map_core::{PersistentError, PersistentMap};
use persistent_map_testkit::Disk;
use tokio::runtime::Builder;

#[test]
fn a_plain_thread_writes_while_a_current_thread_runtime_runs() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let disk = Disk::new();
    runtime.block_on(async {
        let map = PersistentMap::new(disk.backend()).await.unwrap();
        let (done, finished) = tokio::sync::oneshot::channel();
        let blocking = map.blocking();
        let worker = thread::spawn(move || {
            for n in 0..100 {
                blocking.insert(n, 0).unwrap();
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
            assert!(matches!(error, PersistentError::Panicked { .. }), "{error}");
            assert!(
                error.to_string().contains("await the map itself"),
                "{error}"
            );
            assert_eq!(map.get(&1), Some(1));
            map.insert(1, 3).await.unwrap();
        });
    }
}
