//! Sets of small numbers.

/// A set of numbers, a bit each.
#[derive(Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn insert(&mut self, bit: usize) {
        let word = bit / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (bit % 64);
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, bit: usize) -> bool {
        let was_there = self.contains(bit);
        if was_there {
            self.0[bit / 64] &= !(1 << (bit % 64));
        }
        was_there
    }

    pub(super) fn contains(&self, bit: usize) -> bool {
        let word = self.0.get(bit / 64);
        word.is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    /// The words from this one to the last that is not zero.
    pub(super) fn from(&self, word: usize) -> &[u64] {
        let end = self.0.iter().rposition(|word| *word != 0);
        let end = end.map_or(0, |last| last + 1);
        self.0.get(word..end).unwrap_or_default()
    }

    /// Adds words that were taken [`from`](Self::from) this one.
    pub(super) fn add(&mut self, word: usize, words: &[u64]) {
        let end = word + words.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        for (into, from) in self.0[word..].iter_mut().zip(words) {
            *into |= from;
        }
    }
}

/// Whether all that is in the one is in the other.
pub(super) fn is_subset(fewer: &[u64], more: &[u64]) -> bool {
    fewer.len() <= more.len()
        && fewer
            .iter()
            .zip(more)
            .all(|(fewer, more)| fewer & !more == 0)
}
