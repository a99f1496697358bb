//! A store of bytes is a backend for all types: each call reaches it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use persistent_map_core::{
    Bincode, ByteStore, ByteWrite, Capabilities, Format, Location, PersistentMap, Result, RowSink,
    StorageBackend, async_trait,
};

mod support;
use support::limit::limit;

/// Has three rows for good, and remembers what it was asked to do.
#[derive(Default)]
struct Log(Mutex<Vec<&'static str>>);

impl Log {
    fn note(&self, call: &'static str) {
        self.0.lock().unwrap().push(call);
    }
}

#[async_trait]
impl ByteStore for Log {
    type Codec = Bincode;
    fn codec(&self) -> &Bincode {
        &Bincode
    }
    fn location(&self) -> Location {
        Location::default()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
    async fn load(&self, _: &Format, rows: &mut dyn RowSink) -> Result<()> {
        rows.expect(3);
        ByteStore::read_back(self, rows).await?;
        rows.finish()
    }
    async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()> {
        for write in batch {
            self.note(write.value.map_or("delete", |_| "save"));
        }
        Ok(())
    }
    async fn clear(&self) -> Result<()> {
        self.note("clear");
        Ok(())
    }
    async fn read_back(&self, rows: &mut dyn RowSink) -> Result<()> {
        for (number, byte) in (1..).zip(0..3) {
            let _ = rows.row(number, &[byte], &[byte])?;
        }
        Ok(())
    }
    async fn replace(&self, _: &Format, _: &[ByteWrite<'_>]) -> Result<()> {
        self.note("replace");
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        self.note("flush");
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        self.note("close");
        Ok(())
    }
}

#[tokio::test]
async fn each_call_reaches_the_store() {
    let _limit = limit();
    let log = Log::default();
    let backend: &dyn StorageBackend<u8, u8> = &log;
    let all = HashMap::from([(0, 0), (1, 1), (2, 2)]);
    assert_eq!(backend.load_all().await.unwrap(), all);
    backend.save(1, 1).await.unwrap();
    backend.delete(&1).await.unwrap();
    backend.clear().await.unwrap();
    backend.replace(vec![(1, 1)]).await.unwrap();
    backend.flush().await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(
        *log.0.lock().unwrap(),
        ["save", "delete", "clear", "replace", "flush", "close"]
    );
}

#[tokio::test]
async fn an_open_tells_how_far_it_is() {
    let _limit = limit();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let map = PersistentMap::<u8, u8, _>::builder(Log::default())
        .on_progress(move |progress| tell.lock().unwrap().push((progress.loaded, progress.total)))
        .open()
        .await
        .unwrap();
    assert_eq!(map.len(), 3);
    assert_eq!(*told.lock().unwrap(), [(3, Some(3))]);
}
