//! Walking over a map that others change.

use std::fmt;
use std::hash::BuildHasher;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::vec;

use crate::backend::{Key, Value};
use crate::shared::Shared;

/// Entries of a map, as clones. From [`PersistentMap::iter`](crate::PersistentMap::iter).
///
/// The keys were collected when the iterator was made; each value is read when its turn comes. No lock is held between
/// two calls of `next`, so the map may be changed, and `next` may be called across an `.await`.
///
/// - A key is seen at most once.
/// - A key that was there from beginning to end is seen.
/// - A key that was removed before its turn is left out; one that was inserted after the start is not seen.
/// - A value is the latest at the moment of `next`: this is not a snapshot of one point in time.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Iter<K, V> {
    map: Arc<dyn LookUp<K, V>>,
    keys: vec::IntoIter<K>,
}

impl<K, V> Iter<K, V> {
    pub(crate) fn new(map: Arc<dyn LookUp<K, V>>) -> Self {
        Iter {
            keys: map.keys().into_iter(),
            map,
        }
    }
}

impl<K, V> Iterator for Iter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        let map = &self.map;
        self.keys
            .find_map(|key| map.value(&key).map(|value| (key, value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.keys.len()))
    }
}

impl<K, V> FusedIterator for Iter<K, V> {}

/// Keys of a map, as clones. From [`PersistentMap::keys`](crate::PersistentMap::keys).
///
/// Collected when the iterator was made: one that is removed meanwhile is still seen, one that is added is not.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Keys<K>(vec::IntoIter<K>);

impl<K> Keys<K> {
    pub(crate) fn new<V>(map: &dyn LookUp<K, V>) -> Self {
        Keys(map.keys().into_iter())
    }
}

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

impl<K> FusedIterator for Keys<K> {}

/// Values of a map, as clones. From [`PersistentMap::values`](crate::PersistentMap::values). Sees what [`Iter`] sees.
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Values<K, V>(pub(crate) Iter<K, V>);

impl<K, V> Iterator for Values<K, V> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        self.0.next().map(|(_, value)| value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> FusedIterator for Values<K, V> {}

macro_rules! debug_without_entries {
    ($($name:ident<$($of:ident),*>: $left:expr;)*) => {$(
        /// How many keys are left: keys and values may be secret.
        impl<$($of),*> fmt::Debug for $name<$($of),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let left: fn(&Self) -> usize = $left;
                f.debug_struct(stringify!($name)).field("keys_left", &left(self)).finish()
            }
        }
    )*};
}

debug_without_entries! {
    Iter<K, V>: |iter| iter.keys.len();
    Keys<K>: |keys| keys.0.len();
    Values<K, V>: |values| values.0.keys.len();
}

/// What an iterator needs of a map, whatever its backend and hasher.
pub(crate) trait LookUp<K, V>: Send + Sync {
    fn keys(&self) -> Vec<K>;
    fn value(&self, key: &K) -> Option<V>;
}

impl<K, V, B, S> LookUp<K, V> for Shared<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync,
    S: BuildHasher + Clone + Send + Sync,
{
    fn keys(&self) -> Vec<K> {
        self.cache.keys()
    }

    fn value(&self, key: &K) -> Option<V> {
        self.cache.get(key)
    }
}
