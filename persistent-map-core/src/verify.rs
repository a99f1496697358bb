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
    wanted: &'a (dyn Fn() -> Result<()> + Sync),
    /// The keys that have come, because a second row of a key could make up for one that is missing.
    seen: HashSet<K>,
    same: u64,
    other: u64,
    unexpected: u64,
}

impl<'a, K: Key, V: Value> Comparison<'a, K, V> {
    /// Goes on for as long as it is `wanted`, and then gives that error to the store.
    pub(crate) fn with(
        expected: &'a (dyn Entries<K, V> + Sync),
        equal: fn(&V, &V) -> bool,
        wanted: &'a (dyn Fn() -> Result<()> + Sync),
    ) -> Self {
        Comparison {
            expected,
            equal,
            wanted,
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

    fn entry_if_new(&mut self, key: K, value: V) -> Result<bool> {
        (self.wanted)()?;
        let equal = self.equal;
        if self.seen.contains(&key) {
            return Ok(false);
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
        Ok(true)
    }

    fn entry(&mut self, key: K, value: V) -> Result<()> {
        if !self.entry_if_new(key, value)? {
            self.unexpected += 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Location;

    /// What a comparison of these entries says: `Ok` with how many are equal, or how many are missing, other, unexpected.
    fn compare<const M: usize>(
        memory: [(u8, u8); M],
        stored: &[(u8, u8)],
    ) -> Result<u64, (u64, u64, u64)> {
        let memory = HashMap::<u8, u8>::from(memory);
        let mut comparison = Comparison::with(&memory, equal, &|| Ok(()));
        for (key, value) in stored {
            comparison.entry(*key, *value).unwrap();
        }
        comparison.verdict().map_err(|error| match error {
            PersistentError::NotAsWritten {
                missing,
                other,
                unexpected,
            } => (missing, other, unexpected),
            error => panic!("{error}"),
        })
    }

    #[test]
    fn each_difference_is_counted_and_none_makes_up_for_another() {
        let memory = [(1, 1), (2, 2)];
        assert_eq!(compare(memory, &[(2, 2), (1, 1)]), Ok(2));
        assert_eq!(compare(memory, &[(1, 1)]), Err((1, 0, 0)));
        assert_eq!(compare(memory, &[(1, 1), (2, 9)]), Err((0, 1, 0)));
        assert_eq!(compare(memory, &[(1, 1), (2, 2), (3, 3)]), Err((0, 0, 1)));
        assert_eq!(compare(memory, &[(1, 9)]), Err((1, 1, 0)));
        assert_eq!(compare(memory, &[(1, 1), (3, 3)]), Err((1, 0, 1)));
        assert_eq!(compare(memory, &[(1, 1), (2, 9), (3, 3)]), Err((0, 1, 1)));
        // A second row of a key.
        assert_eq!(compare(memory, &[(1, 1), (1, 1)]), Err((1, 0, 1)));
    }

    #[test]
    fn a_store_hears_of_keys_that_it_has_given_and_of_rows_that_cannot_be_compared() {
        let memory = HashMap::from([(1, 1), (2, 2)]);
        let mut comparison = Comparison::with(&memory, equal, &|| Ok(()));
        assert!(comparison.entry_if_new(1, 1).unwrap());
        assert!(!comparison.entry_if_new(1, 1).unwrap());
        assert!(comparison.entry_if_new(2, 2).unwrap());
        assert_eq!(comparison.verdict().unwrap(), 2);
        let row = CorruptRow::new(Location::default(), 2, &[2], "damaged");
        assert!(comparison.corrupt(row).is_err());
    }
}
