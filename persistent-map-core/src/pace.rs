//! How much one save may hold: what the store takes in about the time that a change may wait.
//!
//! A save is everything unsaved up to one moment, so it cannot be cut short. What is accepted for the next one is bounded
//! instead, by what the saves before it have shown. So a crash takes what came in during the delay and during one save, however
//! slow the store is and however fast the writers are.

use std::time::Duration;

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::write_mode::Behind;

/// A save may take so long, even if changes are to wait less: a commit takes its time whatever is in it.
const SHORTEST: Duration = Duration::from_millis(50);

/// What a store is taken to manage in a millisecond, until it has shown: SQLite and CSV files manage about so much.
const ENTRIES_A_MILLISECOND: usize = 200;
const BYTES_A_MILLISECOND: usize = 64 << 10;

/// What a commit may hold in any case: many small ones would cost a slow store more than they gain.
const LEAST_ENTRIES: usize = 1000;
const LEAST_BYTES: usize = 1 << 20;

pub(crate) struct Pace {
    time: Duration,
    entries: Bound,
    bytes: Bound,
}

impl Pace {
    /// `coalesces`: a save is one commit. If not, each entry is one.
    pub(crate) fn new(limits: &Behind, coalesces: bool) -> Self {
        let time = limits.max_delay.max(SHORTEST);
        let milliseconds = usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let bound = |a_millisecond: usize, least: usize, most: usize| Bound {
            now: AtomicUsize::new(milliseconds.saturating_mul(a_millisecond).min(most)),
            least: if coalesces { least.min(most) } else { 1 },
            most,
        };
        Pace {
            time,
            entries: bound(ENTRIES_A_MILLISECOND, LEAST_ENTRIES, limits.max_entries),
            bytes: bound(BYTES_A_MILLISECOND, LEAST_BYTES, limits.max_bytes),
        }
    }

    /// How many entries a save may hold.
    pub(crate) fn entries(&self) -> usize {
        self.entries.now.load(Ordering::Relaxed)
    }

    /// How many bytes of them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.now.load(Ordering::Relaxed)
    }

    /// Learns from a save. Only the saver calls it.
    pub(crate) fn saved(&self, entries: usize, bytes: usize, taken: Duration) {
        self.entries.learn(entries, self.time, taken);
        self.bytes.learn(bytes, self.time, taken);
    }
}

struct Bound {
    now: AtomicUsize,
    least: usize,
    most: usize,
}

impl Bound {
    /// Less as soon as a save has taken too long; more, step by step, if one that was large enough to tell took less. What a
    /// small one has taken is mostly what each commit takes.
    fn learn(&self, amount: usize, time: Duration, taken: Duration) {
        let now = self.now.load(Ordering::Relaxed);
        let in_time = amount as u128 * time.as_nanos() / taken.as_nanos().max(1);
        let in_time = usize::try_from(in_time).unwrap_or(usize::MAX);
        let next = if taken > time {
            in_time.min(now)
        } else if amount >= now / 2 {
            in_time.clamp(now, now.saturating_mul(2))
        } else {
            now
        };
        let next = next.max(self.least).min(self.most);
        self.now.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn pace(limits: Behind) -> Pace {
        Pace::new(&limits.max_bytes(usize::MAX), true)
    }

    #[test]
    fn a_save_holds_what_the_store_takes_in_the_delay() {
        let pace = pace(Behind::new().max_delay(ms(500)).max_entries(1_000_000));
        // 20 entries a millisecond, as many as there may be at a time.
        for _ in 0..10 {
            let entries = pace.entries();
            pace.saved(entries, 0, ms(entries as u64 / 20));
        }
        assert_eq!(pace.entries(), 10_000);
        // The store becomes twenty times as fast.
        for _ in 0..10 {
            let entries = pace.entries();
            pace.saved(entries, 0, ms(entries as u64 / 400));
        }
        assert!(
            (190_000..=200_000).contains(&pace.entries()),
            "{}",
            pace.entries()
        );
    }

    #[test]
    fn one_save_that_took_too_long_is_enough_to_hold_less() {
        let pace = pace(Behind::new().max_delay(ms(100)));
        pace.saved(10_000, 0, ms(1000));
        assert_eq!(pace.entries(), LEAST_ENTRIES);
        pace.saved(1_000_000, 0, ms(50_000));
        assert_eq!(
            pace.entries(),
            LEAST_ENTRIES,
            "a large call says nothing of small ones"
        );
    }

    #[test]
    fn a_small_save_that_was_quick_says_nothing() {
        let pace = pace(Behind::new().max_delay(ms(100)));
        let before = pace.entries();
        pace.saved(10, 0, ms(50));
        pace.saved(10, 0, ms(0));
        assert_eq!(pace.entries(), before);
    }

    #[test]
    fn the_limits_that_are_set_hold_and_a_long_delay_leaves_them_alone() {
        let few = pace(Behind::new().max_delay(ms(1)).max_entries(10));
        assert_eq!(few.entries(), 10);
        few.saved(10, 0, ms(10_000));
        assert_eq!(few.entries(), 10);
        let lazy = Behind::new()
            .max_delay(Duration::MAX)
            .max_entries(5_000_000);
        assert_eq!(pace(lazy).entries(), 5_000_000);
    }

    #[test]
    fn bytes_are_learned_too() {
        let limits = Behind::new().max_delay(ms(100)).max_bytes(1 << 30);
        let pace = Pace::new(&limits, true);
        pace.saved(1, 1 << 30, ms(20_480));
        assert_eq!((pace.bytes(), pace.entries()), (5 << 20, LEAST_ENTRIES));
    }

    #[test]
    fn a_store_that_takes_one_entry_at_a_time_may_be_as_slow_as_it_likes() {
        let pace = Pace::new(&Behind::new().max_delay(ms(100)), false);
        pace.saved(100, 0, ms(10_000));
        assert_eq!(pace.entries(), 1);
    }
}
