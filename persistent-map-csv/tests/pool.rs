//! A pool that is full stands in nobody's way.

use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use persistent_map_core::PersistentMap;
use persistent_map_csv::CsvBackend;
use tokio::runtime::Runtime;

/// As many as tokio's pool has threads, unless set.
const CALLERS: u32 = 512;

/// What a test has, on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

type Map = PersistentMap<u32, u32, CsvBackend>;

/// Runs it in a thread, and fails if it has not ended in time.
fn in_time(test: impl AsyncFnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let running = thread::spawn(move || {
        Runtime::new().unwrap().block_on(test());
        let _ = done.send(());
    });
    let has_ended = ended.recv_timeout(LIMIT).is_ok() || running.is_finished();
    assert!(has_ended, "calls wait for the pool after {LIMIT:?}");
    running.join().unwrap();
}

/// Each sits on a thread of the pool, and waits there for the map.
#[test]
fn callers_that_fill_the_pool_are_answered() {
    in_time(async || {
        let dir = tempfile::tempdir().unwrap();
        let backend = CsvBackend::new(dir.path().join("t.csv")).sync(false);
        let map: Map = PersistentMap::new(backend.merge_after(4096)).await.unwrap();
        let all_are_there = Arc::new(Barrier::new(CALLERS as usize));
        let calls: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (map, all_are_there) = (map.blocking(), Arc::clone(&all_are_there));
                tokio::task::spawn_blocking(move || {
                    all_are_there.wait();
                    map.insert(number, number).unwrap();
                    if number % 64 == 0 {
                        map.flush().unwrap();
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(map.len(), CALLERS as usize);
        map.close().await.unwrap();
    });
}

/// The pool is full from before the open to after the close.
#[test]
fn a_map_opens_verifies_and_closes_beside_a_full_pool() {
    in_time(async || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, "key,value\n2,2\n1,1\n").unwrap();
        let full = Arc::new(Barrier::new(CALLERS as usize + 1));
        let over = Arc::new(Barrier::new(CALLERS as usize + 1));
        for _ in 0..CALLERS {
            let (full, over) = (Arc::clone(&full), Arc::clone(&over));
            tokio::task::spawn_blocking(move || {
                full.wait();
                over.wait();
            });
        }
        full.wait();
        for count in [2, 3] {
            let map: Map = PersistentMap::new(CsvBackend::new(&path)).await.unwrap();
            assert_eq!(map.len(), count);
            map.insert(3, 3).await.unwrap();
            map.verify().await.unwrap();
            map.flush().await.unwrap();
            map.close().await.unwrap();
        }
        over.wait();
    });
}
