//! fjall: a log-structured merge tree. Each write is followed by `PersistMode::SyncData`, without which it would be in the
//! buffers of the system only.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use arena::{Outcome, Payload, Store};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

pub(crate) struct Fjall {
    database: Database,
    entries: Keyspace,
    /// It has no read-modify-write without its transactions, which cost more.
    update: Mutex<()>,
}

impl Fjall {
    fn insert<V: Payload>(&self, key: &str, value: &V) -> Outcome<()> {
        self.entries.insert(key.as_bytes(), &*value.to_bytes()?)?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }
}

impl<V: Payload> Store<V> for Fjall {
    const BLOCKS: bool = true;

    async fn open(directory: &Path) -> Outcome<Self> {
        let database = Database::builder(directory.join("fjall")).open()?;
        let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
        Ok(Fjall {
            database,
            entries,
            update: Mutex::new(()),
        })
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        Fjall::insert(self, &key, &value)
    }

    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        let guard = self.update.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = self.entries.get(key.as_bytes())? {
            let mut value = V::from_bytes(&bytes)?;
            change(&mut value);
            self.entries.insert(key.as_bytes(), &*value.to_bytes()?)?;
        }
        drop(guard);
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (key, value) in &entries {
            batch.insert(&self.entries, key.as_bytes(), &*value.to_bytes()?);
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        let found = self.entries.get(key.as_bytes())?;
        found.map(|bytes| V::from_bytes(&bytes)).transpose()
    }
}
