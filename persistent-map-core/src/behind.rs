//! Write-behind: what is accepted is stored later, in the background, and never forgotten.
//!
//! ```text
//! write:  memory ← caller → unsaved          saver:  cut all that is unsaved → StorageBackend::apply (one commit)
//! ```
//!
//! A save takes everything that was accepted up to one moment, so a crash leaves the state of such a moment.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Key, StorageBackend, Value};
use crate::error::{Outcome, PersistentError, Result};
use crate::local::Local;
use crate::panics::contain;
use crate::pending::prepared_bytes;
use crate::shared::SharedMap;
use crate::verify::Comparison;
use crate::write::Write;

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
    /// [`close`](crate::PersistentMap::close) has returned `Ok`, or soon by itself. A crash takes what was not stored yet;
    /// what is left is the state of one moment, without holes.
    Behind(Behind),
}

/// Limits of [`WriteMode::Behind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    max_delay: Duration,
    max_entries: usize,
    max_bytes: usize,
    first_retry: Duration,
    last_retry: Duration,
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
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = at_most_years(delay);
        self
    }

    /// How many entries may be unsaved (at least 1). An entry that changes twice before its save counts once. A save
    /// begins at half of it; at all of it writers wait. One call that changes many entries may exceed it.
    #[must_use]
    pub const fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = if entries == 0 { 1 } else { entries };
        self
    }

    /// How many bytes of prepared keys and values may be unsaved (at least 1), for backends that prepare bytes. Applied as
    /// [`max_entries`](Self::max_entries) is.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// How long to wait before a store that has failed is tried again: `first`, then twice as long each time, at most
    /// `last`. It is never given up.
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

/// What the saver hears. Few at a time: one for each save, and one for each caller who waits.
pub(crate) enum Note<V> {
    /// Something is unsaved, since this moment.
    Unsaved(Instant),
    /// Half of what may be unsaved is.
    Soon,
    Flush(oneshot::Sender<Result<()>>),
    Verify(fn(&V, &V) -> bool, oneshot::Sender<Result<u64>>),
    Close,
}

/// How much is unsaved, and whether the store works. Shared by those who write and the saver.
pub(crate) struct Backlog {
    limits: Behind,
    coalesces: bool,
    entries: AtomicUsize,
    bytes: AtomicUsize,
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
            limits,
            coalesces,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
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

    /// Waits until there is room for one more. Refuses while the store fails.
    pub(crate) async fn room(&self, check: impl Fn() -> Result<()>) -> Result<()> {
        // A task whose calls never wait would keep the saver from its thread for good.
        consume_budget().await;
        check()?;
        if self.has_room() {
            return self.check_storing();
        }
        let mut room = self.room.subscribe();
        loop {
            check()?;
            self.check_storing()?;
            if self.has_room() {
                return Ok(());
            }
            // The sender is in `self`, so it cannot have gone.
            let _ = room.changed().await;
        }
    }

    /// Everything that is accepted and not stored.
    pub(crate) fn unsaved_entries(&self) -> usize {
        self.entries() + self.refused.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.entries() < self.limits.max_entries && self.bytes() < self.limits.max_bytes
    }

    fn check_storing(&self) -> Result<()> {
        // As many refused ones as there may be unsaved ones are a failure of the store, too.
        let refused = self.refused.load(Ordering::Relaxed);
        if !self.failing.load(Ordering::Acquire) && refused < self.limits.max_entries {
            return Ok(());
        }
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(source) => Err(self.unsaved(source)),
            None => Ok(()),
        }
    }

    fn unsaved(&self, source: &Arc<PersistentError>) -> PersistentError {
        PersistentError::Unsaved {
            entries: self.unsaved_entries() as u64,
            source: Arc::clone(source),
        }
    }

    /// Counts what a lane has gained. The lane is locked.
    pub(crate) fn grown(&self, entries: usize, bytes_before: usize, bytes_now: usize) {
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
        let half_full = self.entries() > self.limits.max_entries / 2
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

    fn saved(&self, entries: usize, bytes: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.send_replace(());
    }

    /// Counts those that the store refuses, and remembers why.
    fn set_refused(&self, refused: usize, why: Option<&PersistentError>) {
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

    fn failed(&self, error: &PersistentError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // The first one, until the store works again.
        failure.get_or_insert_with(|| Arc::new(error.clone()));
        self.failing.store(true, Ordering::Release);
        drop(failure);
        self.room.send_replace(());
    }

    /// The store works again, and refuses an entry if there is such an error.
    fn works(&self, refused: Option<&PersistentError>) {
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

/// Stores what is unsaved, in the background. Belongs to the runtime, as the writer does.
pub(crate) struct Saver<K: Key, V: Value, B, S> {
    shared: SharedMap<K, V, B, S>,
    local: Arc<Local<K, V>>,
    inbox: mpsc::UnboundedReceiver<Note<V>>,
    limits: Behind,
    /// Taken from the lanes and not stored yet, in order.
    carried: Vec<Write<K, V>>,
    /// Refused by a store that takes one write at a time, for what they are. Tried again with each save.
    refused: Vec<(Write<K, V>, PersistentError)>,
    retry_after: Duration,
    ended: bool,
}

impl<K, V, B, S> Saver<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    pub(crate) fn new(
        shared: SharedMap<K, V, B, S>,
        local: Arc<Local<K, V>>,
        limits: Behind,
        inbox: mpsc::UnboundedReceiver<Note<V>>,
    ) -> Self {
        Saver {
            shared,
            local,
            inbox,
            retry_after: limits.first_retry,
            limits,
            carried: Vec::new(),
            refused: Vec::new(),
            ended: false,
        }
    }

    /// Works until the map is closed or its last handle is gone; what was accepted by then is still stored.
    pub(crate) async fn run(mut self) {
        let mut due: Option<Instant> = None;
        loop {
            let note = match due {
                None => self.inbox.recv().await,
                Some(due) => match timeout_at(due, self.inbox.recv()).await {
                    Ok(note) => note,
                    Err(_) => Some(Note::Soon),
                },
            };
            match note {
                Some(Note::Unsaved(since)) => {
                    due.get_or_insert(since + self.limits.max_delay);
                }
                Some(Note::Soon) => {
                    // While the store fails, only time brings it on.
                    let now = Instant::now();
                    if !self.is_failing() || due.is_none_or(|due| due <= now) {
                        due = self.save().await.err().map(|()| self.next_try());
                    }
                }
                Some(Note::Flush(answer)) => {
                    let saved = self.save().await;
                    due = saved.err().map(|()| self.next_try());
                    let result = match self.all_saved() {
                        Ok(()) => self.shared.flush_backend().await,
                        unsaved => unsaved,
                    };
                    let _ = answer.send(result);
                }
                Some(Note::Verify(equal, answer)) => {
                    let result = self.verify(equal).await;
                    due = self.is_failing().then(|| self.next_try());
                    let _ = answer.send(result);
                }
                Some(Note::Close) | None => break,
            }
        }
        self.finish().await;
    }

    fn backlog(&self) -> Option<&Backlog> {
        self.local.backlog()
    }

    fn is_failing(&self) -> bool {
        self.backlog()
            .is_some_and(|backlog| backlog.failing.load(Ordering::Acquire))
    }

    fn next_try(&mut self) -> Instant {
        let wait = self.retry_after;
        self.retry_after = (wait * 2).min(self.limits.last_retry);
        Instant::now() + wait
    }

    /// Stores everything that is unsaved up to now. `Err` if some of it is still to be tried again.
    async fn save(&mut self) -> Result<(), ()> {
        let (writes, _) = self.local.cut(|| ());
        self.carried.extend(writes);
        self.store_carried().await
    }

    async fn store_carried(&mut self) -> Result<(), ()> {
        let result = match self.shared.status.check_sound() {
            Ok(()) if self.carried.is_empty() && self.refused.is_empty() => Ok(()),
            Ok(()) if self.backlog().is_some_and(Backlog::coalesces) => self.store_at_once().await,
            Ok(()) => self.store_in_order().await,
            // Nothing can be stored any more; `close` will tell of it.
            Err(_) => {
                if let Some(backlog) = self.backlog() {
                    backlog.wake_all();
                }
                return Ok(());
            }
        };
        match result {
            Ok(()) => {
                self.retry_after = self.limits.first_retry;
                if let Some(backlog) = self.backlog() {
                    backlog.works(self.refused.first().map(|(_, error)| error));
                }
                Ok(())
            }
            Err(error) => {
                if error.outcome() == Outcome::Unknown {
                    if let Some(backlog) = self.backlog() {
                        backlog.wake_all();
                    }
                    return Ok(());
                }
                if let Some(backlog) = self.backlog() {
                    backlog.failed(&error);
                }
                Err(())
            }
        }
    }

    async fn store_at_once(&mut self) -> Result<()> {
        self.shared.store(&self.carried).await?;
        let bytes = self.carried.iter().map(prepared_bytes).sum();
        let saved = std::mem::take(&mut self.carried);
        if let Some(backlog) = self.backlog() {
            backlog.saved(saved.len(), bytes);
        }
        discard(saved);
        Ok(())
    }

    /// One at a time. A write that the store refuses for what it is does not hold up the others.
    async fn store_in_order(&mut self) -> Result<()> {
        let mut result = Ok(());
        for (write, why) in std::mem::take(&mut self.refused) {
            if result.is_ok() {
                match self.shared.store(std::slice::from_ref(&write)).await {
                    Ok(()) => {
                        discard([write]);
                        continue;
                    }
                    Err(error) if error.is_about_one_entry() => {}
                    Err(error) => result = Err(error),
                }
            }
            self.refused.push((write, why));
        }
        let mut carried = std::mem::take(&mut self.carried).into_iter();
        while result.is_ok()
            && let Some(write) = carried.next()
        {
            let bytes = prepared_bytes(&write);
            match self.shared.store(std::slice::from_ref(&write)).await {
                Ok(()) => {
                    // What it has replaced need not be stored any more.
                    let is_replaced = |refused: &mut (Write<K, V>, _)| same_key(&refused.0, &write);
                    let replaced: Vec<_> = self.refused.extract_if(.., is_replaced).collect();
                    discard(replaced.into_iter().map(|(write, _)| write).chain([write]));
                }
                Err(error) if error.is_about_one_entry() => self.refused.push((write, error)),
                Err(error) => {
                    self.carried.push(write);
                    result = Err(error);
                    break;
                }
            }
            if let Some(backlog) = self.local.backlog() {
                backlog.saved(1, bytes);
            }
        }
        self.carried.extend(carried);
        if let Some(backlog) = self.local.backlog() {
            let why = self.refused.first().map(|(_, error)| error);
            backlog.set_refused(self.refused.len(), why);
        }
        result
    }

    /// An error if anything that was taken up is not stored.
    fn all_saved(&self) -> Result<()> {
        self.shared.status.check_sound()?;
        if let Some(backlog) = self.backlog() {
            backlog.check_storing()?;
            if let Some((_, error)) = self.refused.first() {
                return Err(PersistentError::Unsaved {
                    entries: self.refused.len() as u64,
                    source: Arc::new(error.clone()),
                });
            }
        }
        Ok(())
    }

    async fn verify(&mut self, equal: fn(&V, &V) -> bool) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        let (writes, entries) = self.local.cut(|| shared.cache.all());
        self.carried.extend(writes);
        let _ = self.store_carried().await;
        let saved = self.all_saved();
        let entries = contain("`Hash`, `Eq` or `Drop` of a key or value", || {
            saved.and(entries).map(HashMap::<K, V>::from_iter)
        })??;
        let result = {
            let mut comparison = Comparison::with(&entries, equal);
            self.shared.compare_with_store(&mut comparison).await
        };
        let _ = contain("`Drop` of a key or value", move || drop(entries));
        result
    }

    async fn finish(mut self) {
        // After this nothing is accepted, so the save takes the rest.
        self.local.close();
        let saved = self.save().await;
        let left = self.backlog().map_or(0, Backlog::unsaved_entries);
        let done = match self.all_saved() {
            Err(error @ PersistentError::Unsaved { .. }) => Err(error),
            Err(error) if left > 0 => Err(PersistentError::Unsaved {
                entries: left as u64,
                source: Arc::new(error),
            }),
            other => other.and(saved.map_err(|()| PersistentError::Closed)),
        };
        self.inbox.close();
        self.shared.finish(done).await;
        let end = self.shared.status.ended().await;
        while let Some(note) = self.inbox.recv().await {
            match note {
                Note::Flush(answer) => drop(answer.send(end.clone())),
                Note::Verify(_, answer) => drop(answer.send(Err(PersistentError::Closed))),
                Note::Unsaved(_) | Note::Soon | Note::Close => {}
            }
        }
        self.ended = true;
    }
}

/// A runtime that ends drops its tasks.
impl<K: Key, V: Value, B, S> Drop for Saver<K, V, B, S> {
    fn drop(&mut self) {
        self.local.close();
        let backlog = self.local.backlog();
        let left = backlog.map_or(0, Backlog::unsaved_entries);
        if !self.ended && left > 0 {
            tracing::error!(
                target: "persistent_map",
                entries = left,
                "the runtime has ended before these entries were stored"
            );
        }
        self.shared.abandon();
        if let Some(backlog) = backlog {
            backlog.wake_all();
        }
    }
}

fn same_key<K: Eq, V>(a: &Write<K, V>, b: &Write<K, V>) -> bool {
    contain("`Eq` of a key", || a.key() == b.key()).unwrap_or(false)
}

/// A `Drop` that panics must not end the saver.
fn discard<K, V>(writes: impl IntoIterator<Item = Write<K, V>>) {
    for write in writes {
        let _ = contain("`Drop` of a key or value", move || drop(write));
    }
}
