//! Walking over a map that others change.

use std::hash::BuildHasher;
use std::sync::Arc;

use crate::backend::{Key, Value};
use crate::writer::Shared;

/// Entries of a map, as clones. From [`PersistentMap::iter`](crate::PersistentMap::iter).
///
/// The keys were collected when the iterator was made; each value is read when its turn comes. No lock is held between
/// two calls of `next`, so the map may be changed, and `next` may be called across an `.await`.
///
/// - A key is seen at most once.
/// - A key that was there from beginning to end is seen.
/// - A key that was removed before its turn is left out; one that was inserted after the start is not seen.
/// - A value is the latest at the moment of `next`: this is not a snapshot of one point in time.
pub struct Iter<K, V, B, S> {
    shared: Arc<Shared<K, V, B, S>>,
    keys: std::vec::IntoIter<K>,
}

impl<K: Key, V: Value, B, S: BuildHasher + Clone> Iter<K, V, B, S> {
    pub(crate) fn new(shared: &Arc<Shared<K, V, B, S>>) -> Self {
        Iter {
            keys: shared.cache.keys().into_iter(),
            shared: Arc::clone(shared),
        }
    }
}

impl<K: Key, V: Value, B, S: BuildHasher + Clone> Iterator for Iter<K, V, B, S> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        self.keys
            .by_ref()
            .find_map(|key| Some((self.shared.cache.with(&key, V::clone)?, key)))
            .map(|(value, key)| (key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.keys.len()))
    }
}

/// Keys of a map, as clones. From [`PersistentMap::keys`](crate::PersistentMap::keys).
///
/// Collected when the iterator was made: one that is removed meanwhile is still seen, one that is added is not.
pub struct Keys<K>(pub(crate) std::vec::IntoIter<K>);

impl<K> Iterator for Keys<K> {
    type Item = K;

    fn next(&mut self) -> Option<K> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K> ExactSizeIterator for Keys<K> {}

/// Values of a map, as clones. From [`PersistentMap::values`](crate::PersistentMap::values). Sees what [`Iter`] sees.
pub struct Values<K, V, B, S>(pub(crate) Iter<K, V, B, S>);

impl<K: Key, V: Value, B, S: BuildHasher + Clone> Iterator for Values<K, V, B, S> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        self.0.next().map(|(_, value)| value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
