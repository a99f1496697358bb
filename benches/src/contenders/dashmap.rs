//! Bare `DashMap`, with the hasher of the standard library: nothing is stored.

use std::hash::RandomState;
use std::path::Path;

use arena::{Outcome, Payload, Store};
use dashmap::DashMap;

pub(crate) struct Bare<V>(DashMap<String, V, RandomState>);

impl<V: Payload> Store<V> for Bare<V> {
    const BLOCKS: bool = false;

    async fn open(_: &Path) -> Outcome<Self> {
        Ok(Bare(DashMap::new()))
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        self.0.insert(key, value);
        Ok(())
    }

    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        if let Some(mut value) = self.0.get_mut(key) {
            change(&mut value);
        }
        Ok(())
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        for (key, value) in entries {
            self.0.insert(key, value);
        }
        Ok(())
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        Ok(self.0.get(key).map(|entry| entry.value().clone()))
    }

    fn read<R>(&self, key: &String, look: impl FnOnce(&V) -> R) -> Outcome<Option<R>> {
        Ok(self.0.get(key).map(|entry| look(entry.value())))
    }
}
