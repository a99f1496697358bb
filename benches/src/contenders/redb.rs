//! redb: a copy-on-write B-tree in one file. Each commit is durable, which is its default.

use std::path::Path;

use arena::{Outcome, Payload, Store};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("entries");

pub(crate) struct Redb(Database);

impl Redb {
    /// Runs `change` on the table, and commits.
    fn commit(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Outcome<()>,
    ) -> Outcome<()> {
        let transaction = self.0.begin_write()?;
        change(&mut transaction.open_table(TABLE)?)?;
        Ok(transaction.commit()?)
    }
}

impl<V: Payload> Store<V> for Redb {
    const BLOCKS: bool = true;

    async fn open(directory: &Path) -> Outcome<Self> {
        let redb = Redb(Database::create(directory.join("entries.redb"))?);
        redb.commit(|_| Ok(()))?;
        Ok(redb)
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        self.commit(|table| {
            table.insert(key.as_bytes(), &*value.to_bytes()?)?;
            Ok(())
        })
    }

    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        self.commit(|table| {
            let found = table.get(key.as_bytes())?;
            let value = found.map(|bytes| V::from_bytes(bytes.value()));
            if let Some(mut value) = value.transpose()? {
                change(&mut value);
                table.insert(key.as_bytes(), &*value.to_bytes()?)?;
            }
            Ok(())
        })
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        self.commit(|table| {
            for (key, value) in &entries {
                table.insert(key.as_bytes(), &*value.to_bytes()?)?;
            }
            Ok(())
        })
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let found = table.get(key.as_bytes())?;
        found.map(|bytes| V::from_bytes(bytes.value())).transpose()
    }
}
