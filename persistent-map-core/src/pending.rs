//! Writes that are accepted and not yet stored: in their order, and each key's latest can be found.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::write::{Encoded, Write};

/// A list this short is searched as fast as it is looked up.
const SHORT: usize = 8;

/// A list of writes. Adding to it asks nothing of the key type; finding in it does.
pub(crate) struct Pending<K, V> {
    writes: Vec<Write<K, V>>,
    /// Where each key's latest write is, once the list is long; with the key's hash.
    latest: HashTable<(u64, usize)>,
    hasher: DefaultHashBuilder,
    /// So many writes are in `latest`.
    indexed: usize,
    bytes: usize,
}

impl<K, V> Pending<K, V> {
    pub(crate) fn new() -> Self {
        Pending {
            writes: Vec::new(),
            latest: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            indexed: 0,
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Bytes that a store has prepared for these writes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn as_slice(&self) -> &[Write<K, V>] {
        &self.writes
    }

    pub(crate) fn into_writes(self) -> Vec<Write<K, V>> {
        self.writes
    }
}

impl<K: Eq + Hash, V> Pending<K, V> {
    /// Adds a write behind all others.
    pub(crate) fn push(&mut self, write: Write<K, V>) {
        self.bytes += prepared_bytes(&write);
        self.writes.push(write);
    }

    /// Adds a write in the place of an earlier one of its key, which will not be stored. Returns what was replaced.
    pub(crate) fn replace(&mut self, write: Write<K, V>) -> Option<Write<K, V>> {
        let Some(place) = self.place_of(write.key()) else {
            self.push(write);
            self.make_searchable();
            return None;
        };
        let old = std::mem::replace(&mut self.writes[place], write);
        self.bytes = self.bytes - prepared_bytes(&old) + prepared_bytes(&self.writes[place]);
        Some(old)
    }

    /// Lets [`latest`](Self::latest) find what has been pushed.
    pub(crate) fn make_searchable(&mut self) {
        if self.writes.len() > SHORT {
            while let Some(write) = self.writes.get(self.indexed) {
                let hash = self.hasher.hash_one(write.key());
                let is_it = |&(_, place): &(u64, usize)| self.writes[place].key() == write.key();
                if let Some((_, place)) = self.latest.find_mut(hash, is_it) {
                    *place = self.indexed;
                } else {
                    let latest = (hash, self.indexed);
                    self.latest.insert_unique(hash, latest, |&(hash, _)| hash);
                }
                self.indexed += 1;
            }
        }
    }

    /// The latest write of `key`.
    pub(crate) fn latest<Q>(&self, key: &Q) -> Option<&Write<K, V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.place_of(key).map(|place| &self.writes[place])
    }

    fn place_of<Q>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if self.writes.len() <= SHORT {
            let is_it = |write: &Write<K, V>| write.key().borrow() == key;
            return self.writes.iter().rposition(is_it);
        }
        let is_it = |&(_, place): &(u64, usize)| self.writes[place].key().borrow() == key;
        let latest = self.latest.find(self.hasher.hash_one(key), is_it);
        latest.map(|&(_, place)| place)
    }
}

pub(crate) fn prepared_bytes<K, V>(write: &Write<K, V>) -> usize {
    write.encoded().map_or(0, Encoded::size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_write_of_a_key_is_found_in_short_and_long_lists() {
        for count in [1, SHORT, SHORT + 1, 100] {
            let mut pending = Pending::new();
            for n in 0..count {
                pending.push(Write::insert(n % 7, n));
            }
            pending.make_searchable();
            pending.push(Write::insert(3, 1000));
            pending.make_searchable();
            assert_eq!(pending.latest(&3).and_then(Write::value), Some(&1000));
            assert!(pending.latest(&77).is_none());
        }
    }

    #[test]
    fn a_replaced_write_leaves_one_for_its_key() {
        let mut pending = Pending::new();
        for round in 0..3 {
            for key in 0..20 {
                let old = pending.replace(Write::insert(key, round));
                assert_eq!(old.is_some(), round > 0);
            }
        }
        assert_eq!(pending.len(), 20);
        assert!(
            pending
                .as_slice()
                .iter()
                .all(|write| write.value() == Some(&2))
        );
    }
}
