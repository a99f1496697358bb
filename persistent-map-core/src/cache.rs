//! The entries in memory, and the one place that changes them.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use dashmap::DashMap;

use crate::write::Write;

/// What readers see. Guards of the inner map never leave this file.
pub(crate) struct Cache<K, V, S> {
    entries: DashMap<K, V, S>,
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone> Cache<K, V, S> {
    pub(crate) fn with_hasher(hasher: S) -> Self {
        Cache {
            entries: DashMap::with_hasher(hasher),
        }
    }

    /// Shows a committed write to readers, and returns the value that it replaced.
    pub(crate) fn publish(&self, write: Write<K, V>) -> Option<V> {
        match write.into_parts() {
            (key, Some(value)) => self.entries.insert(key, value),
            (key, None) => self.entries.remove(&key).map(|(_, value)| value),
        }
    }

    /// Puts a stored entry in place at open. Returns false if the key was there already.
    pub(crate) fn fill(&self, key: K, value: V) -> bool {
        self.entries.insert(key, value).is_none()
    }

    /// Shows a committed clear.
    pub(crate) fn clear(&self) {
        self.entries.clear();
    }

    /// Runs `read` on the value, under the lock of its shard.
    pub(crate) fn with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.get(key).map(|entry| read(entry.value()))
    }

    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.contains_key(key)
    }

    /// The key of the entry that `key` speaks of. The two are equal, and may be written differently.
    pub(crate) fn resident_key(&self, key: &K) -> Option<K>
    where
        K: Clone,
    {
        self.entries.get(key).map(|entry| entry.key().clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let mut keys = Vec::with_capacity(self.len());
        keys.extend(self.entries.iter().map(|entry| entry.key().clone()));
        keys
    }
}
