//! The entries in memory, and the one place that changes them.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher as _};
use std::num::NonZero;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use dashmap::{DashMap, Entry, SharedValue};

use crate::gate::Gates;
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
    gates: Gates,
    removals: AtomicU64,
}

/// Where a key belongs.
struct Place {
    hash: u64,
    shard: usize,
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone> Cache<K, V, S> {
    pub(crate) fn with_hasher(hasher: S) -> Self {
        let entries = DashMap::with_hasher_and_shard_amount(hasher, *SHARDS);
        Cache {
            gates: Gates::new(entries.shards().len()),
            entries,
            removals: AtomicU64::new(0),
        }
    }

    /// Shows a stored write to readers, and returns the value that it replaced. `seen` is called while the entry is still
    /// locked: whoever reads it from then on sees the change, and whoever has read it before is known to `seen`.
    pub(crate) fn publish(&self, write: Write<K, V>, seen: impl FnOnce(&K)) -> Option<V> {
        let (key, value) = write.into_parts();
        let place = self.place_of(&key);
        let is_it = |(there, _): &(K, SharedValue<V>)| *there == key;
        let table = &self.entries.shards()[place.shard];
        let lock = || table.write();
        let mut table = self.gates.let_in(place.shard, table.try_write(), lock);
        let there = table.get_mut(place.hash, is_it);
        match (there, value) {
            (Some((there, old)), Some(value)) => {
                seen(there);
                Some(std::mem::replace(old.get_mut(), value))
            }
            (None, Some(value)) => {
                seen(&key);
                let entry = (key, SharedValue::new(value));
                table.insert(place.hash, entry, |(key, _)| self.hash_of(key));
                None
            }
            (Some((there, _)), None) => {
                self.removals.fetch_add(1, Ordering::AcqRel);
                seen(there);
                let removed = table.remove_entry(place.hash, is_it);
                // What a key does when it is dropped need not hold readers up.
                drop(table);
                removed.map(|(_, value)| value.into_inner())
            }
            (None, None) => None,
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
        for (shard, table) in self.entries.shards().iter().enumerate() {
            let lock = || table.write();
            self.gates.let_in(shard, table.try_write(), lock).clear();
        }
        // Now, because a key that was looked up half way must not count as looked up after it.
        self.removals.fetch_add(1, Ordering::AcqRel);
    }

    /// A copy of the value of `key`.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.look_up(key, |_, _, value| value.clone())
    }

    /// Runs `read` on the value, under the lock of its shard.
    pub(crate) fn with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.look_up(key, |shard, _, value| {
            let _reading = self.gates.reading(shard);
            read(value)
        })
    }

    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.look_up(key, |_, _, _| ()).is_some()
    }

    /// The key of the entry that `key` speaks of (the two are equal, and may be written differently), and for how long the
    /// answer holds: until [`removals`](Self::removals) is another number.
    pub(crate) fn resident_key(&self, key: &K) -> (Option<K>, u64)
    where
        K: Clone,
    {
        // First, because an entry that is removed meanwhile must not count as looked up after it.
        let removals = self.removals();
        (self.look_up(key, |_, there, _| there.clone()), removals)
    }

    /// How often entries have been removed.
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
        self.look_up(key, |_, key, value| (key.clone(), value.clone()))
    }

    /// A copy of all entries: one point in time if nothing changes the map meanwhile.
    pub(crate) fn all(&self) -> Vec<(K, V)>
    where
        K: Clone,
        V: Clone,
    {
        self.collect(|key, value| (key.clone(), value.clone()))
    }

    pub(crate) fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        self.collect(|key, _| key.clone())
    }

    pub(crate) fn hasher(&self) -> &S {
        self.entries.hasher()
    }

    pub(crate) fn len(&self) -> usize {
        let shards = self.entries.shards().iter().enumerate();
        let lengths = shards.map(|(shard, table)| {
            self.gates.pass(shard);
            table.read().len()
        });
        lengths.sum()
    }

    /// Runs `read` on the number of a shard and the entry there, under its lock.
    fn look_up<Q, R>(&self, key: &Q, read: impl FnOnce(usize, &K, &V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = self.place_of(key);
        self.gates.pass(place.shard);
        let table = self.entries.shards()[place.shard].read();
        let (there, value) = table.get(place.hash, |(there, _)| key == there.borrow())?;
        Some(read(place.shard, there, value.get()))
    }

    /// A gate that is closed meanwhile does not stop it; the next one like it waits.
    fn collect<T>(&self, copy: impl Fn(&K, &V) -> T) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len());
        self.gates.pass_all();
        let _reading = Gates::reading_all();
        let entries = self.entries.iter();
        all.extend(entries.map(|entry| copy(entry.key(), entry.value())));
        all
    }

    fn place_of<Q: Hash + ?Sized>(&self, key: &Q) -> Place {
        let hash = self.hash_of(key);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "as `DashMap` finds a shard"
        )]
        let shard = self.entries.determine_shard(hash as usize);
        Place { hash, shard }
    }

    #[allow(
        clippy::manual_hash_one,
        reason = "as `DashMap` does it: the short way of a hasher may give another number"
    )]
    fn hash_of<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        let mut hasher = self.entries.hasher().build_hasher();
        key.hash(&mut hasher);
        hasher.finish()
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

    thread_local! {
        static ON_CLONE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    }

    /// Does something else while it is copied, once.
    #[derive(PartialEq, Eq, Hash)]
    struct Busy(u64);

    impl Clone for Busy {
        fn clone(&self) -> Self {
            if let Some(act) = ON_CLONE.take() {
                act();
            }
            Busy(self.0)
        }
    }

    #[test]
    fn an_entry_that_goes_while_a_key_is_looked_up_counts_as_gone_after_it() {
        let hasher = BuildHasherDefault::<Plain>::default();
        let cache = Rc::new(Cache::with_hasher(hasher));
        cache.fill(Busy(u64::MIN), ());
        cache.fill(Busy(u64::MAX), ());
        let remove = {
            let cache = Rc::clone(&cache);
            move || {
                cache.publish(Write::remove(Busy(u64::MAX)), |_| {});
            }
        };
        ON_CLONE.set(Some(Box::new(remove)));
        let (key, removals) = cache.resident_key(&Busy(u64::MIN));
        assert!(key.is_some() && !cache.contains(&Busy(u64::MAX)));
        assert_ne!(cache.removals(), removals);
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
                    let (key, removals) = cache.resident_key(&u64::MAX);
                    looked_up.set(key.map(|_| removals));
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
