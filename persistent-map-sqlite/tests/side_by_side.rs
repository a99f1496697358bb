//! A table that is read as a whole, by an open or a comparison, does not keep the other maps of its file waiting.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use persistent_map_core::{PersistentMap, Result};
use persistent_map_sqlite::SqliteBackend;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::timeout;

const ROWS: u32 = 30_000;

/// Rows are decoded slowly from now on: one in a thousand takes a tenth of a second.
static SLOW: AtomicBool = AtomicBool::new(false);
static DECODED: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Number(u32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if SLOW.load(Ordering::SeqCst) {
            DECODED.fetch_add(1, Ordering::SeqCst);
            if number.is_multiple_of(1000) {
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(Number(number))
    }
}

type Numbers = PersistentMap<u32, Number, SqliteBackend>;

async fn insert_meanwhile(
    other: &PersistentMap<u32, u32, SqliteBackend>,
    reading: impl Future<Output = Result<Numbers>> + Send + 'static,
) -> Numbers {
    DECODED.store(0, Ordering::SeqCst);
    SLOW.store(true, Ordering::SeqCst);
    let reading = tokio::spawn(reading);
    while DECODED.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for n in 0..3 {
        other.insert(n, n).await.unwrap();
        other.flush().await.unwrap();
    }
    let decoded = DECODED.load(Ordering::SeqCst);
    SLOW.store(false, Ordering::SeqCst);
    assert!(
        decoded < ROWS,
        "all rows were read before three inserts were answered"
    );
    let read = timeout(Duration::from_mins(1), reading).await;
    read.expect("reading ends").unwrap().unwrap()
}

async fn open(db: &SqliteBackend) -> Numbers {
    Numbers::new(db.table("numbers").await.unwrap())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn inserts_of_another_map_are_answered_while_a_table_is_compared_or_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path: &Path = &dir.path().join("app.db");
    let db = SqliteBackend::new(path).await.unwrap();
    let other = PersistentMap::<u32, u32, _>::new(db.table("other").await.unwrap());
    let other = other.await.unwrap();
    let numbers = open(&db).await;
    let entries = (0..ROWS).map(|n| (n, Number(n)));
    numbers.insert_many(entries).await.unwrap();

    let numbers = insert_meanwhile(&other, async move {
        assert_eq!(numbers.verify().await?, u64::from(ROWS));
        Ok(numbers)
    })
    .await;
    numbers.close().await.unwrap();

    let table = db.table("numbers").await.unwrap();
    let numbers = insert_meanwhile(&other, Numbers::new(table)).await;
    assert_eq!(numbers.len(), ROWS as usize);
    assert_eq!(other.verify().await.unwrap(), 3);
    numbers.close().await.unwrap();
    other.close().await.unwrap();
}
