//! Rows of one key: which of them stays.
//!
//! A table may be larger than the memory for all its keys, and as a rule has none twice. So the keys are not kept: once two
//! rows meet, the table is read again for their hashes, and a third time for the rows whose hashes came twice.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

/// The keys that may be there twice.
#[derive(Default)]
pub(crate) struct Suspects {
    hasher: RandomState,
    once: HashSet<u64>,
    twice: HashSet<u64>,
}

impl Suspects {
    pub(crate) fn see(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        if !self.once.insert(hash) {
            self.twice.insert(hash);
        }
    }

    /// All keys have been seen.
    pub(crate) fn end(&mut self) {
        self.once = HashSet::new();
    }

    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.twice.contains(&self.hasher.hash_one(key))
    }
}

/// Rows that have the key of another one, which stays.
#[derive(Default)]
pub(crate) struct Duplicates {
    /// The line of the one that stays, by the place of the other.
    stays: HashMap<u64, u64>,
}

/// Where a row is.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) offset: u64,
}

impl Duplicates {
    /// Of the rows of each key, which are in the order of the file, the first stays, or the last.
    pub(crate) fn among(rows: impl IntoIterator<Item = Vec<Position>>, last_stays: bool) -> Self {
        let mut stays = HashMap::new();
        for mut rows in rows {
            let kept = if last_stays {
                rows.pop()
            } else {
                (!rows.is_empty()).then(|| rows.remove(0))
            };
            if let Some(kept) = kept {
                stays.extend(rows.iter().map(|row| (row.offset, kept.line)));
            }
        }
        Duplicates { stays }
    }

    /// The line of the row that stays instead of the one at this place.
    pub(crate) fn instead_of(&self, offset: u64) -> Option<u64> {
        self.stays.get(&offset).copied()
    }
}
