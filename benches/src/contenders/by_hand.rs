//! What one writes with rusqlite in an hour: a connection in WAL with `synchronous = FULL` under a lock, and a `DashMap`
//! that is changed after the commit.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arena::{Outcome, Payload, Store};
use dashmap::DashMap;
use rusqlite::Connection;

pub(crate) struct ByHand<V> {
    map: DashMap<String, V>,
    sqlite: Mutex<Connection>,
}

const INSERT: &str = "INSERT INTO entries (key, value) VALUES (?1, ?2) \
                      ON CONFLICT (key) DO UPDATE SET value = excluded.value";

impl<V: Payload> ByHand<V> {
    fn sqlite(&self) -> MutexGuard<'_, Connection> {
        self.sqlite.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory follows under the lock, or two tasks on one key might leave one value in memory and the other on disk.
    fn store(&self, sqlite: &Connection, key: String, value: V) -> Outcome<()> {
        let mut insert = sqlite.prepare_cached(INSERT)?;
        insert.execute((key.as_bytes(), &*value.to_bytes()?))?;
        self.map.insert(key, value);
        Ok(())
    }
}

impl<V: Payload> Store<V> for ByHand<V> {
    const BLOCKS: bool = true;

    async fn open(directory: &Path) -> Outcome<Self> {
        let sqlite = Connection::open(directory.join("by-hand.db"))?;
        sqlite.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",
        )?;
        let map = DashMap::new();
        {
            let mut select = sqlite.prepare("SELECT key, value FROM entries")?;
            let mut rows = select.query(())?;
            while let Some(row) = rows.next()? {
                let key = std::str::from_utf8(row.get_ref(0)?.as_blob()?)?;
                let value = V::from_bytes(row.get_ref(1)?.as_blob()?)?;
                map.insert(key.to_owned(), value);
            }
        }
        Ok(ByHand {
            map,
            sqlite: Mutex::new(sqlite),
        })
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        self.store(&self.sqlite(), key, value)
    }

    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        let sqlite = self.sqlite();
        let value = self.map.get(key).map(|entry| entry.value().clone());
        if let Some(mut value) = value {
            change(&mut value);
            self.store(&sqlite, key.to_owned(), value)?;
        }
        Ok(())
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        let mut sqlite = self.sqlite();
        let transaction = sqlite.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (key, value) in &entries {
                insert.execute((key.as_bytes(), &*value.to_bytes()?))?;
            }
        }
        transaction.commit()?;
        for (key, value) in entries {
            self.map.insert(key, value);
        }
        Ok(())
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        Ok(self.map.get(key).map(|entry| entry.value().clone()))
    }

    fn read<R>(&self, key: &String, look: impl FnOnce(&V) -> R) -> Outcome<Option<R>> {
        Ok(self.map.get(key).map(|entry| look(entry.value())))
    }
}
