//! Comparing what is stored with what is in memory.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

use crate::backend::{Key, LoadSink, Value};
use crate::cache::Cache;
use crate::codec::{Bincode, Codec as _};
use crate::error::{PersistentError, Result};
use crate::panics::contain;
use crate::row::CorruptRow;

/// Takes what a store gives back, and counts what differs from memory.
pub(crate) struct Comparison<'a, K, V> {
    expected: &'a (dyn Entries<K, V> + Sync),
    equal: fn(&V, &V) -> bool,
    /// The keys that have come, because a second row of a key could make up for one that is missing.
    seen: HashSet<K>,
    same: u64,
    other: u64,
    unexpected: u64,
}

impl<'a, K: Key, V: Value> Comparison<'a, K, V> {
    pub(crate) fn with(
        expected: &'a (dyn Entries<K, V> + Sync),
        equal: fn(&V, &V) -> bool,
    ) -> Self {
        Comparison {
            expected,
            equal,
            seen: HashSet::new(),
            same: 0,
            other: 0,
            unexpected: 0,
        }
    }

    /// How many entries were compared and found equal.
    pub(crate) fn verdict(&self) -> Result<u64> {
        let expected = self.expected.count();
        let missing = expected.saturating_sub(self.same + self.other);
        if missing + self.other + self.unexpected == 0 {
            return Ok(self.same);
        }
        Err(PersistentError::NotAsWritten {
            missing,
            other: self.other,
            unexpected: self.unexpected,
        })
    }
}

impl<K, V> Drop for Comparison<'_, K, V> {
    fn drop(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        let _ = contain("`Drop` of a key", move || drop(seen));
    }
}

/// The entries that a store should have.
pub(crate) trait Entries<K, V> {
    fn count(&self) -> u64;
    /// Whether the value of `key` pleases `test`; `None` without such an entry.
    fn test(&self, key: &K, test: &mut dyn FnMut(&V) -> bool) -> Option<bool>;
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone> Entries<K, V> for Cache<K, V, S> {
    fn count(&self) -> u64 {
        self.len() as u64
    }

    fn test(&self, key: &K, test: &mut dyn FnMut(&V) -> bool) -> Option<bool> {
        self.with(key, test)
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Entries<K, V> for HashMap<K, V, S> {
    fn count(&self) -> u64 {
        self.len() as u64
    }

    fn test(&self, key: &K, test: &mut dyn FnMut(&V) -> bool) -> Option<bool> {
        self.get(key).map(test)
    }
}

impl<K: Key, V: Value> LoadSink<K, V> for Comparison<'_, K, V> {
    fn expect(&mut self, _: u64) {}

    fn contains(&self, key: &K) -> bool {
        self.seen.contains(key)
    }

    fn entry(&mut self, key: K, value: V) -> Result<()> {
        let equal = self.equal;
        if self.seen.contains(&key) {
            self.unexpected += 1;
            return Ok(());
        }
        let count = match self
            .expected
            .test(&key, &mut |expected| equal(expected, &value))
        {
            Some(true) => &mut self.same,
            Some(false) => &mut self.other,
            None => &mut self.unexpected,
        };
        *count += 1;
        self.seen.insert(key);
        Ok(())
    }

    fn corrupt(&mut self, row: CorruptRow) -> Result<()> {
        Err(PersistentError::Corrupt(Box::new(row)))
    }
}

/// Equal, or written alike: NaN is not equal to itself.
pub(crate) fn equal<V: Value + PartialEq>(a: &V, b: &V) -> bool {
    a == b
        || match (Bincode.encode(a), Bincode.encode(b)) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        }
}
