//! What several tests use.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::sync::{Arc, Mutex};

use persistent_map_core::{
    Bincode, ByteStore, ByteWrite, Capabilities, Codec, Format, Location, PersistentError, Result,
    RowSink, RowVerdict, async_trait,
};

pub type Rows = Arc<Mutex<Vec<(Vec<u8>, Vec<u8>)>>>;

/// The smallest byte store: a list of rows, shared by all that are opened on it.
pub struct Shelf<C> {
    pub rows: Rows,
    pub codec: C,
}

impl<C: Codec> Shelf<C> {
    pub fn new(codec: C) -> Self {
        Shelf {
            rows: Rows::default(),
            codec,
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
    fn check(&self, _: usize, value_bytes: usize) -> Result<()> {
        if value_bytes <= 100 {
            return Ok(());
        }
        Err(PersistentError::TooLarge {
            part: "value",
            bytes: value_bytes as u64,
            limit: 100,
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
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
