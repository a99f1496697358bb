//! What several tests use.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use persistent_map_core::{
    Behind, Bincode, ByteStore, ByteWrite, Capabilities, Codec, Format, Key, Location,
    PersistentError, PersistentMap, Result, RowSink, RowVerdict, StorageBackend, Value, WriteMode,
    async_trait,
};
use persistent_map_testkit::{Disk, DiskBackend};
use tokio::time::{sleep, timeout};

pub mod limit;
pub mod panicky;

/// A backend over `disk`, with batches or without.
pub fn backend_of<K: Key, V: Value>(disk: &Disk<K, V>, atomic_batches: bool) -> DiskBackend<K, V> {
    if atomic_batches {
        disk.backend()
    } else {
        disk.one_at_a_time_backend()
    }
}

/// A map whose store follows.
pub async fn behind<K: Key, V: Value, B: StorageBackend<K, V>>(
    backend: B,
    limits: Behind,
) -> PersistentMap<K, V, B> {
    let builder = PersistentMap::builder(backend).write_mode(WriteMode::Behind(limits));
    builder.open().await.unwrap()
}

/// Never by itself within a test.
pub fn lazy() -> Behind {
    Behind::new().max_delay(Duration::from_hours(1))
}

/// What should not hang.
pub async fn soon<T>(call: impl Future<Output = T>) -> T {
    let answer = timeout(Duration::from_secs(5), call).await;
    answer.expect("no answer within 5 seconds")
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "not within 5 seconds: {what}"
        );
        sleep(Duration::from_millis(1)).await;
    }
}

pub type Rows = Arc<Mutex<Vec<(Vec<u8>, Vec<u8>)>>>;

/// The smallest byte store: a list of rows, shared by all that are opened on it.
pub struct Shelf<C> {
    pub rows: Rows,
    pub codec: C,
    /// The most bytes of an entry.
    pub limit: usize,
}

impl<C: Codec> Shelf<C> {
    pub fn new(codec: C) -> Self {
        Shelf {
            rows: Rows::default(),
            codec,
            limit: 100,
        }
    }

    pub fn rows(&self) -> Rows {
        Arc::clone(&self.rows)
    }
}

impl Shelf<Bincode> {
    pub fn bincode() -> Self {
        Shelf::new(Bincode)
    }

    /// Another store with these rows.
    pub fn on(rows: &Rows) -> Self {
        Shelf {
            rows: Arc::clone(rows),
            codec: Bincode,
            limit: 100,
        }
    }
}

#[async_trait]
impl<C: Codec> ByteStore for Shelf<C> {
    type Codec = C;
    fn codec(&self) -> &C {
        &self.codec
    }
    fn location(&self) -> Location {
        Location {
            file: Some("shelf".into()),
            table: None,
        }
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }
    fn check(&self, key_bytes: usize, value_bytes: usize) -> Result<()> {
        let bytes = key_bytes + value_bytes;
        if bytes <= self.limit {
            return Ok(());
        }
        Err(PersistentError::TooLarge {
            part: "entry",
            bytes: bytes as u64,
            limit: self.limit as u64,
        })
    }
    async fn load(&self, _: &Format, sink: &mut dyn RowSink) -> Result<()> {
        let rows = self.rows.lock().unwrap().clone();
        let mut kept = Vec::new();
        for (number, (key, value)) in (1..).zip(rows) {
            if sink.row(number, &key, &value)? == RowVerdict::Loaded {
                kept.push((key, value));
            }
        }
        sink.finish()?;
        *self.rows.lock().unwrap() = kept;
        Ok(())
    }
    async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()> {
        let mut rows = self.rows.lock().unwrap();
        for write in batch {
            rows.retain(|(key, _)| key != write.key);
            if let Some(value) = write.value {
                rows.push((write.key.to_vec(), value.to_vec()));
            }
        }
        Ok(())
    }
    async fn clear(&self) -> Result<()> {
        self.rows.lock().unwrap().clear();
        Ok(())
    }
    async fn read_back(&self, sink: &mut dyn RowSink) -> Result<()> {
        let rows = self.rows.lock().unwrap().clone();
        for (number, (key, value)) in (1..).zip(rows) {
            let _ = sink.row(number, &key, &value)?;
        }
        Ok(())
    }
    async fn replace(&self, _: &Format, rows: &[ByteWrite<'_>]) -> Result<()> {
        let row = |write: &ByteWrite<'_>| (write.key.to_vec(), write.value.unwrap().to_vec());
        *self.rows.lock().unwrap() = rows.iter().map(row).collect();
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
