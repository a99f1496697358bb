//! When a write is stored: before it is answered, or later.

use std::time::Duration;

/// When a write is stored.
///
/// ```
/// # use std::time::Duration;
/// # use persistent_map_core::*;
/// # use persistent_map_testkit::Disk;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let backend = Disk::<String, u32>::new().backend();
/// let map = PersistentMap::builder(backend)
///     .write_mode(WriteMode::Behind(Behind::new().max_delay(Duration::from_secs(1))))
///     .open()
///     .await?;
/// map.insert("hits".to_string(), 1).await?; // in memory; stored within about a second
/// map.flush().await?; // stored now
/// map.close().await?; // nothing is left unsaved
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WriteMode {
    /// Before its call returns: `Ok` means stored.
    #[default]
    Through,
    /// Later: `Ok` means accepted in memory, and stored when [`flush`](crate::PersistentMap::flush) or
    /// [`close`](crate::PersistentMap::close) has returned `Ok`, or soon by itself, while the runtime is driven: outside of
    /// `block_on` a current-thread runtime saves nothing. A crash takes what was not stored yet: what came in during
    /// [`max_delay`](Behind::max_delay) and during one save, which takes about as long. What is left is the state of one
    /// moment, without holes.
    Behind(Behind),
}

/// Limits of [`WriteMode::Behind`].
///
/// ```
/// use std::time::Duration;
///
/// use persistent_map_core::{Behind, WriteMode};
///
/// let mode = WriteMode::Behind(
///     Behind::new()
///         .max_delay(Duration::from_secs(1)) // what a crash may take
///         .max_entries(10_000) // at which writers wait
///         .max_bytes(8 << 20)
///         .retry(Duration::from_millis(100), Duration::from_secs(60)), // when the store fails
/// );
/// # assert_ne!(mode, WriteMode::Behind(Behind::new()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub(crate) max_delay: Duration,
    pub(crate) max_entries: usize,
    pub(crate) max_bytes: usize,
    pub(crate) first_retry: Duration,
    pub(crate) last_retry: Duration,
}

impl Behind {
    /// The defaults: saved at the latest 100 milliseconds after the first change, or when 50,000 entries or 32 MiB wait;
    /// writers wait at 100,000 entries or 64 MiB; a store that fails is tried again after 50 milliseconds, and then after
    /// twice as long each time, up to 5 seconds.
    pub const fn new() -> Self {
        Behind {
            max_delay: Duration::from_millis(100),
            max_entries: 100_000,
            max_bytes: 64 << 20,
            first_retry: Duration::from_millis(50),
            last_retry: Duration::from_secs(5),
        }
    }

    /// How long a change may wait for its save, counted from the first one that is not saved. A busy key does not put it
    /// off.
    ///
    /// It is also about how long a save may take (50 milliseconds if that is longer): how much one may hold is learned from
    /// those before it, and writers who are faster than the store wait for room. A longer delay lets longer bursts in at the
    /// speed of memory, and lets a crash take more. At the beginning 200 entries and 64 KiB are taken to need a millisecond; a
    /// single call is never divided.
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = at_most_years(delay);
        self
    }

    /// How many entries may be unsaved (at least 1). An entry that changes twice before its save counts once. A save
    /// begins at half of it, or of what a save may hold; at all of it writers wait, so that there is never one more. Only a
    /// single call that changes many entries may exceed it. Calls that are under way have their place in it.
    #[must_use]
    pub const fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = if entries == 0 { 1 } else { entries };
        self
    }

    /// How many bytes of prepared keys and values may be unsaved (at least 1), for backends that prepare bytes. Applied as
    /// [`max_entries`](Self::max_entries) is, except that how large an entry is shows when it is prepared: those of calls that
    /// are under way when the limit is met come on top.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// How long to wait before a store that has failed is tried again: `first`, then twice as long each time, at most
    /// `last`; after a success the times begin anew. It is given up only when the map is closed, or when the outcome of a try
    /// is unknown: then the map only reads, and what is unsaved is in memory until it goes.
    #[must_use]
    pub const fn retry(mut self, first: Duration, last: Duration) -> Self {
        self.first_retry = at_most_years(first);
        self.last_retry = at_most_years(last);
        self
    }
}

impl Default for Behind {
    fn default() -> Self {
        Self::new()
    }
}

/// A duration that can be added to the time of day: one of decades is as good as for ever.
const fn at_most_years(duration: Duration) -> Duration {
    const MOST: Duration = Duration::from_hours(30 * 365 * 24);
    if duration.as_secs() < MOST.as_secs() {
        duration
    } else {
        MOST
    }
}
