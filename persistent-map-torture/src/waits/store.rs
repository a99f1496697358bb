//! The stores of `waits`, and the bugs that one can have.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum;
use persistent_map_core::{
    Behind, Capabilities, DynBackend, Encoded, LoadSink, PersistentMap, Result, StorageBackend,
    Write, WriteMode, async_trait,
};
use persistent_map_csv::CsvBackend;
use persistent_map_memory::InMemoryBackend;
use persistent_map_sqlite::SqliteBackend;

use crate::failure::Failure;
use crate::harm::Mode;
use crate::record::Record;
use crate::store::{MERGE_SOON, Map};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    Memory,
    Sqlite,
    Csv,
}

/// Bugs that make a call wait for ever, or for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Planted {
    /// A store that needs a thread of tokio's blocking pool for each commit
    Pool,
    /// A store that does not answer one commit
    Silent,
    /// Writes that never give other tasks a turn
    Unconstrained,
}

impl Store {
    /// As it is written on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }

    pub(super) async fn open(
        self,
        dir: &Path,
        mode: Mode,
        planted: Option<Planted>,
    ) -> std::result::Result<Map, Failure> {
        let backend: DynBackend<String, Record> = match self {
            Store::Memory => Arc::new(InMemoryBackend::new()),
            Store::Sqlite => Arc::new(SqliteBackend::builder(dir.join("app.db")).open().await?),
            Store::Csv => {
                let table = CsvBackend::new(dir.join("app.csv"));
                Arc::new(table.merge_after(MERGE_SOON))
            }
        };
        let commits = AtomicU32::new(0);
        let backend: DynBackend<String, Record> = match planted {
            None | Some(Planted::Unconstrained) => backend,
            Some(planted) => Arc::new(Slow {
                inner: backend,
                planted,
                commits,
            }),
        };
        let mode = match mode {
            Mode::Through => WriteMode::Through,
            Mode::Behind => WriteMode::Behind(Behind::new()),
        };
        let builder = PersistentMap::builder(backend).write_mode(mode);
        Ok(builder.open().await?)
    }
}

impl Planted {
    /// As it is written on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// A store with one of the bugs.
struct Slow {
    inner: DynBackend<String, Record>,
    planted: Planted,
    commits: AtomicU32,
}

/// The commit that a silent store does not answer.
const UNANSWERED: u32 = 5;

impl Slow {
    async fn misbehave(&self) {
        let commit = self.commits.fetch_add(1, Ordering::Relaxed);
        match self.planted {
            Planted::Pool => {
                let _ = tokio::task::spawn_blocking(|| ()).await;
            }
            Planted::Silent if commit >= UNANSWERED => std::future::pending().await,
            Planted::Silent | Planted::Unconstrained => {}
        }
    }
}

#[async_trait]
impl StorageBackend<String, Record> for Slow {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn prepare(&self, key: &String, value: Option<&Record>) -> Result<Option<Encoded>> {
        self.inner.prepare(key, value)
    }

    async fn load(&self, sink: &mut dyn LoadSink<String, Record>) -> Result<()> {
        self.inner.load(sink).await
    }

    async fn load_all(&self) -> Result<HashMap<String, Record>> {
        self.inner.load_all().await
    }

    async fn save(&self, key: String, value: Record) -> Result<()> {
        self.misbehave().await;
        self.inner.save(key, value).await
    }

    async fn delete(&self, key: &String) -> Result<()> {
        self.misbehave().await;
        self.inner.delete(key).await
    }

    async fn apply(&self, batch: &[Write<String, Record>]) -> Result<()> {
        self.misbehave().await;
        self.inner.apply(batch).await
    }

    async fn clear(&self) -> Result<()> {
        self.misbehave().await;
        self.inner.clear().await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
