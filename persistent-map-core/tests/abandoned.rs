//! Work that nobody waits for any more: reads are not done, writes are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use persistent_map_core::{
    Behind, Capabilities, LoadSink, PersistentError, PersistentMap, Result, StorageBackend, Write,
    WriteMode, async_trait,
};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

mod support;
use support::limit::limit;
use support::{soon, until};

/// Takes ten seconds to read back, and counts what it is asked for. Writes need a permit each.
struct Slow {
    writes: Semaphore,
    began: AtomicUsize,
    stored: AtomicUsize,
    flushes: AtomicUsize,
    reads: AtomicUsize,
    rows: AtomicUsize,
}

impl Slow {
    fn new(writes: usize) -> Arc<Self> {
        Arc::new(Slow {
            writes: Semaphore::new(writes),
            began: AtomicUsize::new(0),
            stored: AtomicUsize::new(0),
            flushes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            rows: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl StorageBackend<u32, u32> for Slow {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
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
    async fn apply(&self, batch: &[Write<u32, u32>]) -> Result<()> {
        self.began.fetch_add(1, SeqCst);
        self.writes.acquire().await.unwrap().forget();
        self.stored.fetch_add(batch.len(), SeqCst);
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, SeqCst);
        Ok(())
    }
    async fn read_back(&self, sink: &mut dyn LoadSink<u32, u32>) -> Result<()> {
        self.reads.fetch_add(1, SeqCst);
        for key in 0..1000 {
            self.rows.fetch_add(1, SeqCst);
            sink.entry(key, key)?;
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

type Map = PersistentMap<u32, u32, Arc<Slow>>;

async fn maps(writes: usize) -> [Map; 2] {
    let open = async |mode| {
        let builder = PersistentMap::builder(Slow::new(writes)).write_mode(mode);
        builder.open().await.unwrap()
    };
    let behind = Behind::new().max_delay(Duration::from_millis(1));
    [
        open(WriteMode::Through).await,
        open(WriteMode::Behind(behind)).await,
    ]
}

/// Polls a call once, and drops it.
async fn give_up_at_once<T>(call: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = call => panic!("it does not wait"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_verify_that_was_given_up_holds_nobody_up() {
    let _limit = limit();
    for map in maps(10).await {
        let mut first = Box::pin(map.verify());
        while map.backend().rows.load(SeqCst) == 0 {
            let _ = timeout(Duration::from_millis(1), &mut first).await;
        }
        for _ in 0..50 {
            give_up_at_once(map.verify()).await;
        }
        drop(first);
        soon(map.insert(1, 1)).await.unwrap();
        soon(map.flush()).await.unwrap();
        assert_eq!(map.backend().stored.load(SeqCst), 1);
        soon(map.close()).await.unwrap();
        let (reads, rows) = (&map.backend().reads, &map.backend().rows);
        assert_eq!(reads.load(SeqCst), 1, "what nobody waits for is read");
        assert!(rows.load(SeqCst) < 100, "it is read to its end");
    }
}

#[tokio::test]
async fn a_close_does_not_wait_for_reads_of_the_store() {
    let _limit = limit();
    for map in maps(10).await {
        let verifying: Vec<_> = (0..5)
            .map(|_| {
                let map = map.clone();
                tokio::spawn(async move { map.verify().await })
            })
            .collect();
        until("it reads", || map.backend().rows.load(SeqCst) > 0).await;
        soon(map.close()).await.unwrap();
        for verified in verifying {
            let verified = soon(verified).await.unwrap();
            assert!(
                matches!(verified, Err(PersistentError::Closed)),
                "{verified:?}"
            );
        }
    }
}

#[tokio::test]
async fn of_calls_that_were_given_up_writes_are_done_and_flushes_are_not() {
    let _limit = limit();
    for map in maps(0).await {
        let mut first = Box::pin(map.insert(0, 0));
        let _ = timeout(Duration::from_millis(20), &mut first).await;
        drop(first);
        until("it writes", || map.backend().began.load(SeqCst) > 0).await;
        for n in 1..=10 {
            let _ = timeout(Duration::from_millis(1), map.insert(n, n)).await;
            let _ = timeout(Duration::from_millis(1), map.flush()).await;
            let _ = timeout(Duration::from_millis(1), map.snapshot()).await;
        }
        map.backend().writes.add_permits(100);
        soon(map.flush()).await.unwrap();
        assert_eq!(map.backend().flushes.load(SeqCst), 1, "its own alone");
        assert_eq!((map.len(), map.backend().stored.load(SeqCst)), (11, 11));
        soon(map.close()).await.unwrap();
    }
}
