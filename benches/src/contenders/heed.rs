//! heed: LMDB, a copy-on-write B-tree in mapped memory. Each commit is synced, which is its default.

use std::path::Path;

use arena::{Outcome, Payload, Store};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RwTxn};

/// Its handles borrow the environment, so that lives as long as the process.
pub(crate) struct Heed {
    environment: &'static Env,
    entries: Database<'static, Bytes, Bytes>,
}

/// Address space, not memory: more than any trial needs.
const MAP_SIZE: usize = 16 << 30;

impl Heed {
    fn put<V: Payload>(&self, transaction: &mut RwTxn<'_>, key: &str, value: &V) -> Outcome<()> {
        let value = value.to_bytes()?;
        Ok(self.entries.put(transaction, key.as_bytes(), &value)?)
    }
}

impl<V: Payload> Store<V> for Heed {
    const BLOCKS: bool = true;

    async fn open(directory: &Path) -> Outcome<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_SIZE).max_readers(256);
        #[expect(
            unsafe_code,
            reason = "sound as long as nobody else changes the file, and the directory is this process's own"
        )]
        // SAFETY: the reason above.
        let environment = unsafe { options.open(directory) }?;
        let environment: &'static Env = Box::leak(Box::new(environment));
        let entries = environment
            .create_databases_and_commit(environment.write_txn()?, |databases, transaction| {
                let entries = databases.create_database(transaction, None)?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(entries))
            })?
            .unwrap_commit();
        Ok(Heed {
            environment,
            entries,
        })
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        let mut transaction = self.environment.write_txn()?;
        self.put(&mut transaction, &key, &value)?;
        Ok(transaction.commit()?)
    }

    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        let mut transaction = self.environment.write_txn()?;
        let found = self.entries.get(&transaction, key.as_bytes())?;
        if let Some(mut value) = found.map(V::from_bytes).transpose()? {
            change(&mut value);
            self.put(&mut transaction, key, &value)?;
        }
        Ok(transaction.commit()?)
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        let mut transaction = self.environment.write_txn()?;
        for (key, value) in &entries {
            self.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        let transaction = self.environment.read_txn()?;
        let found = self.entries.get(&transaction, key.as_bytes())?;
        found.map(V::from_bytes).transpose()
    }
}
