//! The product, with each of its backends.

use std::marker::PhantomData;
use std::path::Path;

use arena::{Outcome, Payload, Store};
use persistent_map::csv::CsvBackend;
use persistent_map::in_memory::InMemoryBackend;
use persistent_map::sqlite::SqliteBackend;
use persistent_map::{Behind, PersistentMap, StorageBackend, WriteMode};

/// A map as this `Kind` opens it.
pub(crate) struct Product<V: Payload, Kind: Open> {
    map: PersistentMap<String, V, Kind::Backend>,
    kind: PhantomData<Kind>,
}

pub(crate) trait Open: Send + Sync + 'static {
    type Backend: Send + Sync + 'static;

    fn backend(directory: &Path) -> impl Future<Output = Outcome<Self::Backend>> + Send;

    fn write_mode() -> WriteMode {
        WriteMode::Through
    }
}

/// With all its defaults.
pub(crate) struct Sqlite;

/// With all its defaults.
pub(crate) struct Csv;

/// Without a sync at each commit.
pub(crate) struct CsvUnsynced;

/// No store.
pub(crate) struct Memory;

/// SQLite that follows memory, within the default bounds.
pub(crate) struct SqliteBehind;

impl Open for Sqlite {
    type Backend = SqliteBackend;

    async fn backend(directory: &Path) -> Outcome<SqliteBackend> {
        Ok(SqliteBackend::new(directory.join("product.db")).await?)
    }
}

impl Open for SqliteBehind {
    type Backend = SqliteBackend;

    async fn backend(directory: &Path) -> Outcome<SqliteBackend> {
        Sqlite::backend(directory).await
    }

    fn write_mode() -> WriteMode {
        WriteMode::Behind(Behind::new())
    }
}

impl Open for Csv {
    type Backend = CsvBackend;

    async fn backend(directory: &Path) -> Outcome<CsvBackend> {
        Ok(CsvBackend::new(directory.join("product.csv")))
    }
}

impl Open for CsvUnsynced {
    type Backend = CsvBackend;

    async fn backend(directory: &Path) -> Outcome<CsvBackend> {
        Ok(Csv::backend(directory).await?.sync(false))
    }
}

impl Open for Memory {
    type Backend = InMemoryBackend;

    async fn backend(_: &Path) -> Outcome<InMemoryBackend> {
        Ok(InMemoryBackend::new())
    }
}

impl<V, Kind> Store<V> for Product<V, Kind>
where
    V: Payload,
    Kind: Open,
    Kind::Backend: StorageBackend<String, V>,
{
    const BLOCKS: bool = false;

    async fn open(directory: &Path) -> Outcome<Self> {
        let backend = Kind::backend(directory).await?;
        let builder = PersistentMap::builder(backend).write_mode(Kind::write_mode());
        Ok(Product {
            map: builder.open().await?,
            kind: PhantomData,
        })
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        self.map.insert(key, value).await?;
        Ok(())
    }

    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        self.map.update(key, move |value| change(value)).await?;
        Ok(())
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        self.map.insert_many(entries).await?;
        Ok(())
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        Ok(self.map.get(key))
    }

    fn read<R>(&self, key: &String, look: impl FnOnce(&V) -> R) -> Outcome<Option<R>> {
        Ok(self.map.with(key, look))
    }

    async fn flush(&self) -> Outcome<()> {
        Ok(self.map.flush().await?)
    }

    async fn close(self) -> Outcome<()> {
        Ok(self.map.close().await?)
    }
}
