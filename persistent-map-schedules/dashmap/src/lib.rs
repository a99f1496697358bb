use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::rc::Rc;

use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub struct DashMap<K, V, S> {
    entries: RwLock<Vec<(K, V)>>,
    hasher: S,
}

pub struct Ref<'a, K, V> {
    entries: Rc<RwLockReadGuard<'a, Vec<(K, V)>>>,
    place: usize,
}

pub enum Entry<'a, K, V> {
    Occupied(OccupiedEntry<'a, K, V>),
    Vacant(VacantEntry<'a, K, V>),
}

pub struct OccupiedEntry<'a, K, V> {
    entries: RwLockWriteGuard<'a, Vec<(K, V)>>,
    place: usize,
}

pub struct VacantEntry<'a, K, V> {
    entries: RwLockWriteGuard<'a, Vec<(K, V)>>,
    key: K,
}

impl<K: Eq + Hash, V, S: BuildHasher> DashMap<K, V, S> {
    pub fn with_hasher_and_shard_amount(hasher: S, _: usize) -> Self {
        DashMap {
            entries: RwLock::new(Vec::new()),
            hasher,
        }
    }

    pub fn try_reserve(&mut self, _: usize) -> Result<(), ()> {
        Ok(())
    }

    pub fn hasher(&self) -> &S {
        &self.hasher
    }

    pub fn entry(&self, key: K) -> Entry<'_, K, V> {
        let entries = self.entries.write().unwrap();
        match place(&entries, &key) {
            Some(place) => Entry::Occupied(OccupiedEntry { entries, place }),
            None => Entry::Vacant(VacantEntry { entries, key }),
        }
    }

    pub fn insert(&self, key: K, value: V) -> Option<V> {
        match self.entry(key) {
            Entry::Occupied(mut entry) => Some(entry.insert(value)),
            Entry::Vacant(entry) => {
                entry.insert(value);
                None
            }
        }
    }

    pub fn get<Q>(&self, key: &Q) -> Option<Ref<'_, K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let entries = self.entries.read().unwrap();
        let place = place(&entries, key)?;
        Some(Ref {
            entries: Rc::new(entries),
            place,
        })
    }

    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    pub fn clear(&self) {
        self.entries.write().unwrap().clear();
    }

    pub fn len(&self) -> usize {
        self.entries.read().unwrap().len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Ref<'_, K, V>> {
        let entries = Rc::new(self.entries.read().unwrap());
        (0..entries.len()).map(move |place| Ref {
            entries: Rc::clone(&entries),
            place,
        })
    }
}

impl<K, V> Ref<'_, K, V> {
    pub fn key(&self) -> &K {
        &self.entries[self.place].0
    }

    pub fn value(&self) -> &V {
        &self.entries[self.place].1
    }
}

impl<K, V> OccupiedEntry<'_, K, V> {
    pub fn key(&self) -> &K {
        &self.entries[self.place].0
    }

    pub fn insert(&mut self, value: V) -> V {
        std::mem::replace(&mut self.entries[self.place].1, value)
    }

    pub fn remove(mut self) -> V {
        self.entries.swap_remove(self.place).1
    }
}

impl<K, V> VacantEntry<'_, K, V> {
    pub fn key(&self) -> &K {
        &self.key
    }

    pub fn insert(mut self, value: V) {
        self.entries.push((self.key, value));
    }
}

fn place<K, V, Q>(entries: &[(K, V)], key: &Q) -> Option<usize>
where
    K: Borrow<Q>,
    Q: Eq + ?Sized,
{
    entries.iter().position(|(there, _)| there.borrow() == key)
}
