//! A store that remembers each commit, and gives way to other tasks in the middle of one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use persistent_map_core::{
    Capabilities, Outcome, PersistentError, Result, StorageBackend, Write, async_trait,
};
use shuttle::future::yield_now;

#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    commits: Vec<Vec<(u8, Option<u64>)>>,
    /// After so many commits, and how.
    failure: Option<(usize, Outcome)>,
    failed: bool,
    closed: bool,
}

impl Store {
    /// Fails once, after so many commits from now on.
    pub fn fail(&self, after: usize, outcome: Outcome) {
        let mut contents = self.lock();
        contents.failure = Some((contents.commits.len() + after, outcome));
    }

    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub fn commits(&self) -> usize {
        self.lock().commits.len()
    }

    /// All changes, in the order of their commits.
    pub fn history(&self) -> Vec<(u8, Option<u64>)> {
        self.lock().commits.concat()
    }

    pub fn history_of(&self, key: u8) -> Vec<Option<u64>> {
        let history = self.history().into_iter();
        history
            .filter(|change| change.0 == key)
            .map(|change| change.1)
            .collect()
    }

    pub fn has_stored(&self, key: u8, value: Option<u64>) -> bool {
        self.history().contains(&(key, value))
    }

    pub fn entries(&self) -> HashMap<u8, u64> {
        self.states().pop().unwrap_or_default()
    }

    /// The entries after each commit.
    pub fn states(&self) -> Vec<HashMap<u8, u64>> {
        let mut entries = HashMap::new();
        let mut states = Vec::new();
        for commit in &self.lock().commits {
            for &(key, value) in commit {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
            states.push(entries.clone());
        }
        states
    }

    // The scheduler need not try what comes between these: nothing else is locked meanwhile.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }
}

pub fn planned() -> PersistentError {
    PersistentError::storage(
        "doing what was planned to fail",
        std::io::Error::other("planned"),
    )
}

#[async_trait]
impl StorageBackend<u8, u64> for Store {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }

    async fn load_all(&self) -> Result<HashMap<u8, u64>> {
        Ok(self.entries())
    }

    async fn save(&self, key: u8, value: u64) -> Result<()> {
        self.apply(&[Write::insert(key, value)]).await
    }

    async fn delete(&self, key: &u8) -> Result<()> {
        self.apply(&[Write::remove(*key)]).await
    }

    async fn apply(&self, batch: &[Write<u8, u64>]) -> Result<()> {
        yield_now().await;
        {
            let mut contents = self.lock();
            if let Some((after, outcome)) = contents.failure
                && contents.commits.len() >= after
            {
                contents.failure = None;
                contents.failed = true;
                return Err(match outcome {
                    Outcome::Unknown => planned().unknown(),
                    _ => planned(),
                });
            }
            let changes = batch
                .iter()
                .map(|write| (*write.key(), write.value().copied()));
            contents.commits.push(changes.collect());
        }
        yield_now().await;
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        yield_now().await;
        self.lock().closed = true;
        Ok(())
    }
}
