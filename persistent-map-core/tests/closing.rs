//! What is on its way when a map is closed: stored, or refused, never lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use persistent_map_core::{Behind, Bincode, PersistentError, PersistentMap, WriteMode};
use persistent_map_testkit::Faults;
use serde::{Deserialize, Serialize, Serializer};

mod support;

static IS_WRITTEN: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes its time to be serialized.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Slow(u32);

impl Serialize for Slow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        IS_WRITTEN.store(true, Ordering::SeqCst);
        wait_for(&GO_ON);
        serializer.serialize_newtype_struct("Slow", &self.0)
    }
}

/// It has passed all checks when the map is closed, and goes on while the last save is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_behind_the_last_save_is_refused() {
    let shelf = support::Shelf::new(Bincode);
    let rows = shelf.rows();
    let faults = Faults::new();
    let builder = PersistentMap::builder(faults.wrap(shelf));
    let lazy = Behind::new().max_delay(Duration::from_hours(1));
    let builder = builder.write_mode(WriteMode::Behind(lazy));
    let map = builder.open().await.unwrap();
    GO_ON.store(true, Ordering::SeqCst);
    map.insert(1, Slow(1)).await.unwrap();

    GO_ON.store(false, Ordering::SeqCst);
    IS_WRITTEN.store(false, Ordering::SeqCst);
    let late = thread::spawn({
        let blocking = map.blocking();
        move || blocking.insert(2, Slow(2))
    });
    wait_for(&IS_WRITTEN);
    faults.pause();
    let close = tokio::spawn({
        let map = map.clone();
        async move { map.close().await }
    });
    while faults.writes() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    GO_ON.store(true, Ordering::SeqCst);
    let late = late.join().unwrap();
    faults.resume();
    close.await.unwrap().unwrap();
    assert!(matches!(late, Err(PersistentError::Closed)), "{late:?}");
    assert_eq!((map.len(), rows.lock().unwrap().len()), (1, 1));
}
