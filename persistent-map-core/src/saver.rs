//! Write-behind: what is accepted is stored later, in the background. It is kept until it is, or the map ends.
//!
//! ```text
//! write:  caller → note as unsaved → publish to the cache       saver:  cut all that is unsaved → StorageBackend::apply
//! ```
//!
//! A save takes everything that was accepted up to one moment, so a crash leaves the state of such a moment. How much that may
//! be is bounded where it is accepted (`pace.rs`).

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Key, StorageBackend, Value};
use crate::backlog::{Backlog, Note};
use crate::error::{PersistentError, Result};
use crate::local::Local;
use crate::message::count;
use crate::panics::contain;
use crate::pending::prepared_bytes;
use crate::shared::SharedMap;
use crate::verify::Comparison;
use crate::write::Write;
use crate::write_mode::Behind;
use crate::writer::Answer;

/// Stores what is unsaved, in the background. Belongs to the runtime, as the writer does.
pub(crate) struct Saver<K: Key, V: Value, B, S> {
    shared: SharedMap<K, V, B, S>,
    local: Arc<Local<K, V>>,
    backlog: Arc<Backlog>,
    inbox: mpsc::UnboundedReceiver<Note<V>>,
    limits: Behind,
    /// Taken from the lanes and not stored yet, in order.
    carried: VecDeque<Cut<K, V>>,
    /// Refused by a store that takes one write at a time, for what they are. Tried again with each save.
    refused: Vec<(Write<K, V>, PersistentError)>,
    retry_after: Duration,
    ended: bool,
}

/// All that was unsaved at one moment.
struct Cut<K, V> {
    writes: Vec<Write<K, V>>,
    bytes: usize,
}

impl<K, V> Cut<K, V> {
    /// Nothing if there is nothing in it.
    fn of(writes: Vec<Write<K, V>>) -> Option<Self> {
        let bytes = writes.iter().map(prepared_bytes).sum();
        (!writes.is_empty()).then_some(Cut { writes, bytes })
    }
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
        backlog: Arc<Backlog>,
        limits: Behind,
        inbox: mpsc::UnboundedReceiver<Note<V>>,
    ) -> Self {
        Saver {
            shared,
            local,
            backlog,
            inbox,
            retry_after: limits.first_retry,
            limits,
            carried: VecDeque::new(),
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
                    if !self.backlog.is_failing() || due.is_none_or(|due| due <= now) {
                        self.save().await;
                        due = self.next_try();
                    }
                }
                // What nobody waits for any more is not done.
                Some(Note::Flush(answer, _)) if answer.is_closed() => {}
                Some(Note::Flush(answer, _place)) => {
                    self.save().await;
                    due = self.next_try();
                    let result = match self.all_saved() {
                        Ok(()) => self.shared.flush_backend().await,
                        unsaved => unsaved,
                    };
                    let _ = answer.send(result);
                }
                Some(Note::Verify(_, answer, _))
                    if self.shared.status.check_wanted(&answer).is_err() =>
                {
                    let _ = answer.send(Err(PersistentError::Closed));
                }
                Some(Note::Verify(equal, answer, _place)) => {
                    let result = self.verify(equal, &answer).await;
                    due = self.next_try();
                    let _ = answer.send(result);
                }
                Some(Note::Close) | None => break,
            }
        }
        self.finish().await;
    }

    /// When what could not be stored is tried again.
    fn next_try(&mut self) -> Option<Instant> {
        if !self.backlog.is_failing() || self.shared.status.check_sound().is_err() {
            return None;
        }
        let wait = self.retry_after;
        self.retry_after = (wait * 2).min(self.limits.last_retry);
        Some(Instant::now() + wait)
    }

    /// Stores everything that is unsaved up to now, as far as the store takes it.
    async fn save(&mut self) {
        let (writes, _) = self.local.cut(|| ());
        self.carry(writes);
        self.store_carried().await;
    }

    fn carry(&mut self, writes: Vec<Write<K, V>>) {
        let cut = Cut::of(writes);
        let (entries, bytes) = cut
            .as_ref()
            .map_or((0, 0), |cut| (cut.writes.len(), cut.bytes));
        self.backlog.carried(entries, bytes);
        self.carried.extend(cut);
    }

    async fn store_carried(&mut self) {
        let result = match self.shared.status.check_sound() {
            Ok(()) if self.carried.is_empty() && self.refused.is_empty() => Ok(()),
            Ok(()) if self.backlog.coalesces() => self.store_at_once().await,
            Ok(()) => self.store_in_order().await,
            poisoned => poisoned,
        };
        match result {
            Ok(()) => {
                self.retry_after = self.limits.first_retry;
                self.store_works();
                // Others that were stored after it have not made up for it.
                if let Some((_, why)) = self.refused.first() {
                    self.shared.status.fails(why);
                }
            }
            Err(error) => self.backlog.failed(&error),
        }
    }

    /// Each cut with a commit of its own: together they could take longer than one save may.
    async fn store_at_once(&mut self) -> Result<()> {
        while let Some(cut) = self.carried.front() {
            // Not tokio's clock, which a test may stop.
            let begun = std::time::Instant::now();
            self.shared.store(&cut.writes).await?;
            let count = cut.writes.len();
            self.backlog.took(count, cut.bytes, begun.elapsed());
            self.store_works();
            self.backlog.saved(count, cut.bytes);
            discard(
                self.carried
                    .pop_front()
                    .into_iter()
                    .flat_map(|cut| cut.writes),
            );
        }
        Ok(())
    }

    /// One at a time. A write that the store refuses for what it is does not hold up the others.
    async fn store_in_order(&mut self) -> Result<()> {
        let mut result = self.try_refused_again().await;
        let begun = std::time::Instant::now();
        let (mut entries, mut bytes) = (0, 0);
        let cuts = std::mem::take(&mut self.carried).into_iter();
        let mut carried: VecDeque<_> = cuts.flat_map(|cut| cut.writes).collect();
        while result.is_ok()
            && let Some(write) = carried.pop_front()
        {
            let size = prepared_bytes(&write);
            match self.shared.store(std::slice::from_ref(&write)).await {
                Ok(()) => {
                    self.store_works();
                    // What it has replaced need not be stored any more.
                    let is_replaced = |refused: &mut (Write<K, V>, _)| same_key(&refused.0, &write);
                    let replaced: Vec<_> = self.refused.extract_if(.., is_replaced).collect();
                    discard(replaced.into_iter().map(|(write, _)| write).chain([write]));
                }
                Err(error) if error.is_about_one_entry() => {
                    self.refused.push((write, error));
                    self.store_works();
                }
                Err(error) => {
                    carried.push_front(write);
                    result = Err(error);
                    break;
                }
            }
            self.backlog.saved(1, size);
            (entries, bytes) = (entries + 1, bytes + size);
        }
        if entries > 0 {
            self.backlog.took(entries, bytes, begun.elapsed());
        }
        self.carried.extend(Cut::of(carried.into()));
        let why = self.refused.first().map(|(_, error)| error);
        self.backlog.set_refused(self.refused.len(), why);
        result
    }

    /// Until the store fails at one.
    async fn try_refused_again(&mut self) -> Result<()> {
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
        result
    }

    /// Lets callers in again. To be said before what was stored is counted off and dropped: whoever wakes up for the room, or
    /// comes meanwhile, would be refused by a store that works.
    fn store_works(&self) {
        let refused = self.refused.first();
        self.backlog.works(refused.map(|(_, error)| error));
    }

    /// An error if anything that was taken up is not stored.
    fn all_saved(&self) -> Result<()> {
        self.shared.status.check_sound()?;
        self.backlog.check_storing()?;
        match self.refused.first() {
            Some((_, error)) => Err(PersistentError::Unsaved {
                entries: self.refused.len() as u64,
                cause: Arc::new(error.clone()),
            }),
            None => Ok(()),
        }
    }

    async fn verify(&mut self, equal: fn(&V, &V) -> bool, answer: &Answer<u64>) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        let (writes, entries) = self.local.cut(|| shared.cache.all());
        self.carry(writes);
        self.store_carried().await;
        let saved = self.all_saved();
        let entries = contain("`Hash`, `Eq` or `Drop` of a key or value", || {
            saved.and(entries).map(HashMap::<K, V>::from_iter)
        })??;
        let result = {
            let wanted = || self.shared.status.check_wanted(answer);
            let mut comparison = Comparison::with(&entries, equal, &wanted);
            self.shared.compare_with_store(&mut comparison).await
        };
        let _ = contain("`Drop` of a key or value", move || drop(entries));
        result
    }

    async fn finish(mut self) {
        // After this nothing is accepted, so the save takes the rest.
        self.local.close();
        self.save().await;
        let left = self.backlog.unsaved_entries();
        let done = match self.all_saved() {
            Err(error @ PersistentError::Unsaved { .. }) => Err(error),
            Err(error) if left > 0 => Err(PersistentError::Unsaved {
                entries: left as u64,
                cause: Arc::new(error),
            }),
            other => other,
        };
        self.inbox.close();
        self.shared.finish(done).await;
        let end = self.shared.status.ended().await;
        while let Some(note) = self.inbox.recv().await {
            match note {
                Note::Flush(answer, _) => drop(answer.send(end.clone())),
                Note::Verify(_, answer, _) => drop(answer.send(Err(PersistentError::Closed))),
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
        let left = self.backlog.unsaved_entries();
        if !self.ended && left > 0 {
            tracing::error!(
                target: "persistent_map",
                entries = left,
                "the runtime has ended before these entries were stored"
            );
            tell_those_who_do_not_listen(left);
        }
        self.shared.abandon();
        self.backlog.wake_all();
    }
}

/// Entries are lost, and nobody has an answer that says so.
#[allow(
    clippy::print_stderr,
    reason = "without a subscriber of `tracing` it would be told to nobody"
)]
fn tell_those_who_do_not_listen(entries: usize) {
    if !tracing::dispatcher::has_been_set() {
        let entries = count(entries as u64, "entry was", "entries were");
        eprintln!(
            "persistent-map: {entries} not stored, because the runtime has ended. Call `close().await` on the map before that"
        );
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
