//! What a snapshot sees of a map that a panic has poisoned while it was showing what is stored.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use persistent_map_core::{
    Capabilities, PersistentError, PersistentMap, Phase, Result, StorageBackend, Write, async_trait,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

mod support;
use support::limit::limit;
use support::{soon, until};

static IS_STORED: AtomicBool = AtomicBool::new(false);
static IS_STUCK: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);

/// Once the batch is stored, the second one panics when it is shown, and the third one takes its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Name(u32);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if IS_STORED.load(SeqCst) && !GO_ON.load(SeqCst) {
            assert_ne!(self.0, 2, "planted");
            if self.0 == 3 {
                IS_STUCK.store(true, SeqCst);
                while !GO_ON.load(SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        self.0.hash(state);
    }
}

struct Store;

#[async_trait]
impl StorageBackend<Name, u32> for Store {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }
    async fn load_all(&self) -> Result<HashMap<Name, u32>> {
        Ok(HashMap::new())
    }
    async fn save(&self, _: Name, _: u32) -> Result<()> {
        Ok(())
    }
    async fn delete(&self, _: &Name) -> Result<()> {
        Ok(())
    }
    async fn apply(&self, _: &[Write<Name, u32>]) -> Result<()> {
        IS_STORED.store(true, SeqCst);
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_snapshot_waits_until_what_is_stored_has_been_shown() {
    let _limit = limit();
    let map = PersistentMap::new(Store).await.unwrap();
    let batch = (1..=3).map(|n| (Name(n), n)).collect::<Vec<_>>();
    let write = tokio::spawn({
        let map = map.clone();
        async move { map.insert_many(batch).await }
    });
    until("the third one is being shown", || IS_STUCK.load(SeqCst)).await;
    assert_eq!(map.stats().phase, Phase::Poisoned);
    let snapshot = tokio::spawn({
        let map = map.clone();
        async move { map.snapshot().await }
    });
    sleep(Duration::from_millis(200)).await;
    let was_early = snapshot.is_finished();
    GO_ON.store(true, SeqCst);
    let snapshot = soon(snapshot).await.unwrap().unwrap();
    assert!(!was_early, "it was taken in the middle: {snapshot:?}");
    let refused = soon(write).await.unwrap();
    assert!(
        matches!(refused, Err(PersistentError::Panicked { .. })),
        "{refused:?}"
    );
    assert!(snapshot.contains_key(&Name(1)) && snapshot.contains_key(&Name(3)));
    let again = soon(map.snapshot()).await.unwrap();
    assert_eq!(again, snapshot);
    let _ = soon(map.close()).await;
    assert_eq!(soon(map.snapshot()).await.unwrap(), snapshot);
}
