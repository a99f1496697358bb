//! What write-behind has accepted and not stored: how much, and whether there is room for more.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::error::{PersistentError, Result};
use crate::pace::Pace;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::write_mode::Behind;

/// What the saver hears. Few at a time: one for each save, and one for each call that has a place.
pub(crate) enum Note<V> {
    /// Something is unsaved, since this moment.
    Unsaved(Instant),
    /// Half of what may be unsaved is, or of what one save may hold.
    Soon,
    Flush(oneshot::Sender<Result<()>>, Place),
    Verify(fn(&V, &V) -> bool, oneshot::Sender<Result<u64>>, Place),
    Close,
}

/// A place among the notes, for as long as one is there.
pub(crate) type Place = OwnedSemaphorePermit;

/// How much is unsaved, and whether the store works. Shared by those who write and the saver.
pub(crate) struct Backlog {
    limits: Behind,
    coalesces: bool,
    pace: Pace,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// The entries, and the places of calls that may add one.
    claimed: AtomicUsize,
    /// What the saver has taken up of the entries and bytes, and not stored yet. The rest is for the next save.
    carried_entries: AtomicUsize,
    carried_bytes: AtomicUsize,
    /// Entries that the store has refused for what they are. They take no room from others.
    refused: AtomicUsize,
    /// Whether the saver has been told of what is unsaved since the last cut.
    told: AtomicBool,
    told_soon: AtomicBool,
    failing: AtomicBool,
    failure: Mutex<Option<Arc<PersistentError>>>,
    /// Wakes writers who wait for room.
    room: watch::Sender<()>,
}

impl Backlog {
    /// `coalesces`: the store takes all that is unsaved in one commit, so only the latest change of a key need be kept.
    pub(crate) fn new(limits: Behind, coalesces: bool) -> Self {
        Backlog {
            pace: Pace::new(&limits, coalesces),
            limits,
            coalesces,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            claimed: AtomicUsize::new(0),
            carried_entries: AtomicUsize::new(0),
            carried_bytes: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            told_soon: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            failure: Mutex::new(None),
            room: watch::Sender::new(()),
        }
    }

    pub(crate) fn coalesces(&self) -> bool {
        self.coalesces
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until there is room for one more, and keeps it. Refuses while the store fails.
    pub(crate) async fn room(&self, check: impl Fn() -> Result<()>) -> Result<Room<'_>> {
        // A task whose calls never wait would keep the saver from its thread for good.
        consume_budget().await;
        check()?;
        self.check_storing()?;
        if let Some(place) = self.claim() {
            return Ok(place);
        }
        let mut room = self.room.subscribe();
        loop {
            check()?;
            self.check_storing()?;
            if let Some(place) = self.claim() {
                return Ok(place);
            }
            // The sender is in `self`, so it cannot have gone.
            let _ = room.changed().await;
        }
    }

    fn claim(&self) -> Option<Room<'_>> {
        let (entries, bytes) = self.waiting();
        if entries >= self.pace.entries()
            || bytes >= self.pace.bytes()
            || self.bytes() >= self.limits.max_bytes
        {
            return None;
        }
        let one_more = |claimed| (claimed < self.limits.max_entries).then_some(claimed + 1);
        let claimed = self
            .claimed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        claimed.is_ok().then(|| Room(self))
    }

    /// Entries and bytes that the next save will hold.
    fn waiting(&self) -> (usize, usize) {
        let entries = self.carried_entries.load(Ordering::Relaxed);
        let bytes = self.carried_bytes.load(Ordering::Relaxed);
        (
            self.entries().saturating_sub(entries),
            self.bytes().saturating_sub(bytes),
        )
    }

    /// Everything that is accepted and not stored.
    pub(crate) fn unsaved_entries(&self) -> usize {
        self.entries() + self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub(crate) fn check_storing(&self) -> Result<()> {
        // As many refused ones as there may be unsaved ones are a failure of the store, too.
        let refused = self.refused.load(Ordering::Relaxed);
        if !self.failing.load(Ordering::Acquire) && refused < self.limits.max_entries {
            return Ok(());
        }
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(cause) => Err(self.unsaved(cause)),
            None => Ok(()),
        }
    }

    fn unsaved(&self, cause: &Arc<PersistentError>) -> PersistentError {
        PersistentError::Unsaved {
            entries: self.unsaved_entries() as u64,
            cause: Arc::clone(cause),
        }
    }

    /// Counts what a lane has gained. The lane is locked.
    pub(crate) fn grown(&self, entries: usize, bytes_before: usize, bytes_now: usize) {
        self.claimed.fetch_add(entries, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
        if bytes_now >= bytes_before {
            let more = bytes_now - bytes_before;
            self.bytes.fetch_add(more, Ordering::Relaxed);
        } else {
            let less = bytes_before - bytes_now;
            self.bytes.fetch_sub(less, Ordering::Relaxed);
        }
    }

    /// What the saver should be told after a change, if it has not been told.
    pub(crate) fn note<V>(&self) -> Option<Note<V>> {
        let (entries, bytes) = self.waiting();
        let half_full = entries > self.pace.entries() / 2
            || bytes > self.pace.bytes() / 2
            || self.entries() > self.limits.max_entries / 2
            || self.bytes() > self.limits.max_bytes / 2;
        // First, because writers may have to wait from now on, and then nobody else would tell.
        if half_full && !self.told_soon.swap(true, Ordering::AcqRel) {
            return Some(Note::Soon);
        }
        if !self.told.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::AcqRel) {
            return Some(Note::Unsaved(Instant::now()));
        }
        None
    }

    /// All lanes are locked, and are being emptied: the next change is the first one again.
    pub(crate) fn is_cut(&self) {
        self.told.store(false, Ordering::Release);
        self.told_soon.store(false, Ordering::Release);
    }

    /// The saver has taken so much up: there is room for the next save.
    pub(crate) fn carried(&self, entries: usize, bytes: usize) {
        self.carried_entries.fetch_add(entries, Ordering::Relaxed);
        self.carried_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.room.send_replace(());
    }

    /// What the saver had taken up is stored.
    pub(crate) fn saved(&self, entries: usize, bytes: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
        self.claimed.fetch_sub(entries, Ordering::Relaxed);
        self.carried_entries.fetch_sub(entries, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.carried_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.send_replace(());
    }

    /// Learns how long the store takes.
    pub(crate) fn took(&self, entries: usize, bytes: usize, time: Duration) {
        self.pace.saved(entries, bytes, time);
    }

    /// Counts those that the store refuses, and remembers why.
    pub(crate) fn set_refused(&self, refused: usize, why: Option<&PersistentError>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.refused.swap(refused, Ordering::Relaxed);
        match why {
            Some(why) => {
                failure.get_or_insert_with(|| Arc::new(why.clone()));
            }
            None if before > 0 => *failure = None,
            None => {}
        }
        drop(failure);
        self.room.send_replace(());
    }

    pub(crate) fn failed(&self, error: &PersistentError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // The first one, until the store works again.
        failure.get_or_insert_with(|| Arc::new(error.clone()));
        self.failing.store(true, Ordering::Release);
        drop(failure);
        self.room.send_replace(());
    }

    /// The store works again, and refuses an entry if there is such an error.
    pub(crate) fn works(&self, refused: Option<&PersistentError>) {
        if self.failing.swap(false, Ordering::AcqRel) {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = refused.map(|error| Arc::new(error.clone()));
        }
    }

    /// Lets go of everybody who waits for room.
    pub(crate) fn wake_all(&self) {
        self.room.send_replace(());
    }
}

/// Room for one entry, kept for a call until it has counted what it has added, or has added nothing.
pub(crate) struct Room<'a>(&'a Backlog);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let before = self.0.claimed.fetch_sub(1, Ordering::Relaxed);
        // The only one that those who wait may have missed: the last, given back.
        if before == self.0.limits.max_entries {
            self.0.wake_all();
        }
    }
}
