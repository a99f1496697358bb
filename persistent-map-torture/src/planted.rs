//! Bugs to have, for tests that they are found.

use std::collections::HashMap;
use std::sync::Arc;

use clap::ValueEnum;
use persistent_map_core::{
    Capabilities, Encoded, Key, LoadSink, Result, StorageBackend, Value, Write, async_trait,
};

/// Bugs in a worker, or in its store, that stand for the same bugs in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planted {
    /// Acknowledges before the call: a map that says Ok before the commit
    AckEarly,
    /// Acknowledges what failed: a map that swallows errors
    AckFailed,
    /// Says of what was stored that it was not: a map whose failed commits come back
    DenyStored,
    /// Stores what belongs together with two commits
    SplitCommit,
    /// Settings that promise less than the default: a store that does not sync what it acknowledges
    Unsynced,
}

impl Planted {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// A store that commits the first half of what it is given, and then the rest.
pub(crate) struct Split<B>(pub(crate) B);

#[async_trait]
impl<K: Key, V: Value> StorageBackend<K, V> for Split<Arc<dyn StorageBackend<K, V>>> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        self.0.prepare(key, value)
    }

    async fn load(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        self.0.load(sink).await
    }

    async fn load_all(&self) -> Result<HashMap<K, V>> {
        self.0.load_all().await
    }

    async fn save(&self, key: K, value: V) -> Result<()> {
        self.0.save(key, value).await
    }

    async fn delete(&self, key: &K) -> Result<()> {
        self.0.delete(key).await
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        let (first, rest) = batch.split_at(batch.len() / 2);
        if !first.is_empty() {
            self.0.apply(first).await?;
        }
        self.0.apply(rest).await
    }

    async fn clear(&self) -> Result<()> {
        self.0.clear().await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
