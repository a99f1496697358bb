use std::hash::{BuildHasher, Hash};
use std::rc::Rc;

use shuttle::sync::{RwLock as Lock, RwLockReadGuard, RwLockWriteGuard};

/// With one shard: who takes its lock is what schedules are about.
pub struct DashMap<K, V, S> {
    shards: [RwLock<Table<(K, SharedValue<V>)>>; 1],
    hasher: S,
}

pub struct RwLock<T>(Lock<T>);

/// What `hashbrown::raw::RawTable` does, without hashing.
pub struct Table<T>(Vec<T>);

pub struct SharedValue<V>(V);

pub struct Ref<'a, K, V> {
    entries: Rc<RwLockReadGuard<'a, Table<(K, SharedValue<V>)>>>,
    place: usize,
}

pub enum Entry<'a, K, V> {
    Occupied(OccupiedEntry),
    Vacant(VacantEntry<'a, K, V>),
}

pub struct OccupiedEntry;

pub struct VacantEntry<'a, K, V> {
    entries: RwLockWriteGuard<'a, Table<(K, SharedValue<V>)>>,
    key: K,
}

impl<K: Eq + Hash, V, S: BuildHasher> DashMap<K, V, S> {
    pub fn with_hasher_and_shard_amount(hasher: S, _: usize) -> Self {
        DashMap {
            shards: [RwLock(Lock::new(Table(Vec::new())))],
            hasher,
        }
    }

    pub fn try_reserve(&mut self, _: usize) -> Result<(), ()> {
        Ok(())
    }

    pub fn hasher(&self) -> &S {
        &self.hasher
    }

    pub fn shards(&self) -> &[RwLock<Table<(K, SharedValue<V>)>>] {
        &self.shards
    }

    pub fn determine_shard(&self, _: usize) -> usize {
        0
    }

    pub fn entry(&self, key: K) -> Entry<'_, K, V> {
        let entries = self.shards[0].write();
        match entries.get(0, |(there, _)| *there == key) {
            Some(_) => Entry::Occupied(OccupiedEntry),
            None => Entry::Vacant(VacantEntry { entries, key }),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Ref<'_, K, V>> {
        let entries = Rc::new(self.shards[0].read());
        (0..entries.len()).map(move |place| Ref {
            entries: Rc::clone(&entries),
            place,
        })
    }
}

impl<T> RwLock<T> {
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }

    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.0.try_write().ok()
    }
}

impl<T> Table<T> {
    pub fn get(&self, _: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.place(is_it).map(|place| &self.0[place])
    }

    pub fn get_mut(&mut self, _: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.place(is_it).map(|place| &mut self.0[place])
    }

    pub fn insert(&mut self, _: u64, entry: T, _: impl Fn(&T) -> u64) {
        self.0.push(entry);
    }

    pub fn remove_entry(&mut self, _: u64, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        self.place(is_it).map(|place| self.0.swap_remove(place))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn place(&self, is_it: impl FnMut(&T) -> bool) -> Option<usize> {
        self.0.iter().position(is_it)
    }
}

impl<V> SharedValue<V> {
    pub fn new(value: V) -> Self {
        SharedValue(value)
    }

    pub fn get(&self) -> &V {
        &self.0
    }

    pub fn get_mut(&mut self) -> &mut V {
        &mut self.0
    }

    pub fn into_inner(self) -> V {
        self.0
    }
}

impl<K, V> Ref<'_, K, V> {
    pub fn key(&self) -> &K {
        &self.entries.0[self.place].0
    }

    pub fn value(&self) -> &V {
        self.entries.0[self.place].1.get()
    }
}

impl<K, V> VacantEntry<'_, K, V> {
    pub fn insert(mut self, value: V) {
        self.entries.0.push((self.key, SharedValue(value)));
    }
}
