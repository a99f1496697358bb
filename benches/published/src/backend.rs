//! The backends of 0.1.3.

use std::path::Path;

use arena::{Outcome, Payload};
use persistent_map::StorageBackend;
use persistent_map::csv::CsvBackend;
use persistent_map::in_memory::InMemoryBackend;
use persistent_map::sqlite::SqliteBackend;
use tokio_rusqlite::{Connection, params};

pub(crate) trait Backend<V: Payload>:
    StorageBackend<String, V> + Send + Sync + 'static
{
    /// Whether [`fill`](Self::fill) does anything.
    const CAN_FILL: bool = false;

    fn open(directory: &Path) -> impl Future<Output = Outcome<Self>> + Send
    where
        Self: Sized;

    /// Adds rows that the next open will find. The map itself stores one at a time, for which a million of them would take
    /// a quarter of an hour.
    fn fill(&self, _: Vec<(String, V)>) -> impl Future<Output = Outcome<()>> + Send {
        async { Err("this backend cannot be filled".into()) }
    }
}

impl<V: Payload> Backend<V> for SqliteBackend {
    const CAN_FILL: bool = true;

    async fn open(directory: &Path) -> Outcome<Self> {
        let path = directory.join("published.db");
        let path = path.to_str().ok_or("it takes paths in UTF-8 only")?;
        Ok(SqliteBackend::new(path).await?)
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        let path = self.db_path().await?;
        let rows = entries
            .into_iter()
            .map(|(key, value)| Ok((key, serde_json::to_string(&value)?)))
            .collect::<Outcome<Vec<_>>>()?;
        let connection = Connection::open(path).await?;
        let filled = connection.call(move |sqlite| {
            let transaction = sqlite.transaction()?;
            {
                let sql = "INSERT INTO kv (key, value) VALUES (?1, ?2)";
                let mut insert = transaction.prepare(sql)?;
                for (key, value) in rows {
                    insert.execute(params![key, value])?;
                }
            }
            Ok(transaction.commit()?)
        });
        Ok(filled.await?)
    }
}

impl<V: Payload> Backend<V> for CsvBackend {
    async fn open(directory: &Path) -> Outcome<Self> {
        Ok(CsvBackend::new(directory.join("published.csv")))
    }
}

impl<V: Payload> Backend<V> for InMemoryBackend {
    async fn open(_: &Path) -> Outcome<Self> {
        Ok(InMemoryBackend::new())
    }
}
