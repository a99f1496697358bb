//! The entries in memory, and the one place that changes them.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use dashmap::{DashMap, Entry};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::write::Write;

/// Of each map: as many as `DashMap` itself would take. Asked for once, because the answer is read from files.
static SHARDS: LazyLock<usize> = LazyLock::new(|| {
    let threads = available_parallelism().map_or(1, NonZero::get);
    (threads * 4).next_power_of_two()
});

/// What readers see. Guards of the inner map never leave this file.
pub(crate) struct Cache<K, V, S> {
    entries: DashMap<K, V, S>,
    removals: AtomicU64,
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone> Cache<K, V, S> {
    pub(crate) fn with_hasher(hasher: S) -> Self {
        Cache {
            entries: DashMap::with_hasher_and_shard_amount(hasher, *SHARDS),
            removals: AtomicU64::new(0),
        }
    }

    /// Shows a stored write to readers, and returns the value that it replaced. `seen` is called while the entry is still
    /// locked: whoever reads it from then on sees the change, and whoever has read it before is known to `seen`.
    pub(crate) fn publish(&self, write: Write<K, V>, seen: impl FnOnce(&K)) -> Option<V> {
        let (key, value) = write.into_parts();
        match (self.entries.entry(key), value) {
            (Entry::Occupied(mut entry), Some(value)) => {
                seen(entry.key());
                Some(entry.insert(value))
            }
            (Entry::Vacant(entry), Some(value)) => {
                seen(entry.key());
                entry.insert(value);
                None
            }
            (Entry::Occupied(entry), None) => {
                self.removals.fetch_add(1, Ordering::AcqRel);
                seen(entry.key());
                Some(entry.remove())
            }
            (Entry::Vacant(_), None) => None,
        }
    }

    /// Makes room for the first entries. A store may be wrong about their number, so not for any number of them, and it
    /// is no error if there is none.
    pub(crate) fn reserve(&mut self, entries: u64) {
        const MOST: u64 = 1 << 24;
        let of_each_shard = entries.min(MOST).div_ceil(*SHARDS as u64);
        if self.len() == 0 {
            let _ = self
                .entries
                .try_reserve(usize::try_from(of_each_shard).unwrap_or(0));
        }
    }

    /// Puts a stored entry in place at open, unless its key is there already. Returns whether it did.
    pub(crate) fn fill(&self, key: K, value: V) -> bool {
        match self.entries.entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(value);
                true
            }
        }
    }

    /// Shows a committed clear.
    pub(crate) fn clear(&self) {
        self.entries.clear();
        // Now, because a key that was looked up half way must not count as looked up after it.
        self.removals.fetch_add(1, Ordering::AcqRel);
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

    /// How often entries have been removed. Asked before [`resident_key`](Self::resident_key), it tells for how long the
    /// answer holds.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    /// A copy of the entry of `key`.
    pub(crate) fn entry<Q>(&self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q> + Clone,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let entry = self.entries.get(key)?;
        Some((entry.key().clone(), entry.value().clone()))
    }

    /// A copy of all entries: one point in time if nothing changes the map meanwhile.
    pub(crate) fn all(&self) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        let mut all = Vec::with_capacity(self.len());
        all.extend(
            self.entries
                .iter()
                .map(|entry| (entry.key().clone(), entry.value().clone())),
        );
        all
    }

    pub(crate) fn hasher(&self) -> &S {
        self.entries.hasher()
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::{BuildHasherDefault, Hasher};
    use std::rc::Rc;

    use super::*;

    /// The first and the last `u64` are in the first and the last shard.
    #[derive(Default)]
    struct Plain(u64);

    impl Hasher for Plain {
        fn write(&mut self, _: &[u8]) {
            panic!("a key that is no `u64`");
        }
        fn write_u64(&mut self, key: u64) {
            self.0 = key;
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }

    struct OnDrop(Box<dyn Fn()>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    #[test]
    fn a_key_that_was_looked_up_half_way_through_a_clear_is_looked_up_again() {
        let hasher = BuildHasherDefault::<Plain>::default();
        let cache = Rc::new(Cache::with_hasher(hasher));
        let looked_up = Rc::new(Cell::new(None));
        let look_up = {
            let (cache, looked_up) = (Rc::downgrade(&cache), Rc::clone(&looked_up));
            move || {
                if let Some(cache) = cache.upgrade() {
                    let removals = cache.removals();
                    looked_up.set(cache.resident_key(&u64::MAX).map(|_| removals));
                }
            }
        };
        cache.fill(u64::MIN, OnDrop(Box::new(look_up)));
        cache.fill(u64::MAX, OnDrop(Box::new(|| {})));
        cache.clear();
        let removals = looked_up.get().expect("it was there");
        assert_ne!(cache.removals(), removals);
    }
}
