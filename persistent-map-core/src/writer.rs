//! The write path: one task a map takes the queued calls, commits them in groups, shows them to readers, answers.
//!
//! ```text
//! drain → group → StorageBackend::apply (one commit) → publish to the cache → answer
//! ```
//!
//! Why the order matters:
//! - Commit before publish: a reader never sees what a crash could take back.
//! - Publish before answer: whoever has been answered reads their own write.
//! - One task for all: memory order, store order and the order of answers cannot differ.
//! - The task belongs to the runtime: a caller who stops waiting takes nothing with them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Key, StorageBackend, Value};
use crate::error::{PersistentError, Result};
use crate::panics::contain;
use crate::pending::{Pending, prepared_bytes};
use crate::shared::SharedMap;
use crate::transaction::Operation;
use crate::verify::Comparison;
use crate::write::Write;

/// No call is added to a group with so many writes: enough to make the cost of a commit vanish, few enough to answer soon. A
/// call that is not cut into pieces may bring more.
const MAX_GROUP: usize = 1024;
/// Nor to one with so many prepared bytes (8 MiB).
const MAX_GROUP_BYTES: usize = 8 << 20;

/// A call on its way to the writer.
pub(crate) enum Request<K, V, S> {
    /// One change that depends on nothing, prepared by its caller.
    Write(Write<K, V>, Answer<Option<V>>),
    /// Many of them, to be stored together; answered with how many have found an entry.
    Batch(Vec<Write<K, V>>, Answer<usize>),
    /// Changes that depend on what is there.
    Call(Box<dyn Operation<K, V, S>>),
    Clear(Answer<()>),
    Flush(Answer<()>),
    /// All entries, at one moment.
    Snapshot(Answer<Vec<(K, V)>>),
    /// Whether the store has what memory has, by this comparison of values.
    Verify(fn(&V, &V) -> bool, Answer<u64>),
}

/// Where the result of a call goes. Nobody may be waiting any more.
pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;

pub(crate) struct Writer<K: Key, V: Value, B, S> {
    shared: SharedMap<K, V, B, S>,
    inbox: mpsc::Receiver<Request<K, V, S>>,
    atomic_batches: bool,
}

impl<K, V, B, S> Writer<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    /// A writer and its queue. The writer does nothing until [`run`](Self::run) is polled.
    pub(crate) fn pair(
        shared: SharedMap<K, V, B, S>,
        queue_capacity: usize,
    ) -> (mpsc::Sender<Request<K, V, S>>, Self) {
        let (queue, inbox) = mpsc::channel(queue_capacity);
        let atomic_batches = shared.backend.capabilities().atomic_batches;
        let writer = Writer {
            shared,
            inbox,
            atomic_batches,
        };
        (queue, writer)
    }

    /// Works until the map is closed or its last handle is gone; what was queued by then is still done.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut closing = pin!(shared.status.close_requested());
        let mut requests = Vec::new();
        // A request to close does not go through the queue: there might be no place, with those who hold one asleep.
        while poll_fn(|context| {
            if closing.as_mut().poll(context).is_ready() {
                return Poll::Ready(0);
            }
            self.inbox.poll_recv_many(context, &mut requests, MAX_GROUP)
        })
        .await
            > 0
        {
            self.process(&mut requests).await;
        }
        self.finish().await;
    }

    async fn process(&self, requests: &mut Vec<Request<K, V, S>>) {
        let mut group = Group::new();
        for request in requests.drain(..) {
            match request {
                Request::Write(write, answer) => {
                    if !group.has_room_for(1, prepared_bytes(&write)) {
                        self.commit(&mut group).await;
                    }
                    group.push([write], Then::Old(answer));
                }
                Request::Batch(writes, answer) => {
                    if !group.has_room_for(writes.len(), writes.iter().map(prepared_bytes).sum()) {
                        self.commit(&mut group).await;
                    }
                    group.push(writes, Then::Count(answer));
                }
                Request::Call(call) => self.evaluate(call, &mut group).await,
                Request::Clear(answer) => {
                    self.commit(&mut group).await;
                    let result = self.clear().await;
                    respond(answer, result);
                }
                // What nobody waits for any more is not done.
                Request::Flush(answer) if answer.is_closed() => {}
                Request::Flush(answer) => {
                    self.commit(&mut group).await;
                    let result = self.shared.flush_backend().await;
                    respond(answer, result);
                }
                // Nor what would keep a close waiting. The caller of a snapshot takes it when the map has ended.
                Request::Snapshot(answer) if self.is_unwanted(&answer) => {
                    respond(answer, Err(PersistentError::Closed));
                }
                Request::Verify(_, answer) if self.is_unwanted(&answer) => {
                    respond(answer, Err(PersistentError::Closed));
                }
                Request::Snapshot(answer) => {
                    self.commit(&mut group).await;
                    let result = contain("`Clone` of a key or value", || self.shared.cache.all());
                    respond(answer, result);
                }
                Request::Verify(equal, answer) => {
                    self.commit(&mut group).await;
                    let wanted = || self.shared.status.check_wanted(&answer);
                    let mut comparison = Comparison::with(&self.shared.cache, equal, &wanted);
                    let result = self.shared.compare_with_store(&mut comparison).await;
                    drop(comparison);
                    respond(answer, result);
                }
            }
        }
        self.commit(&mut group).await;
    }

    fn is_unwanted<T>(&self, answer: &Answer<T>) -> bool {
        self.shared.status.check_wanted(answer).is_err()
    }

    /// Runs a call on memory and the group before it, and lets it share the group's fate: what it has read is only true
    /// if the group is stored.
    async fn evaluate(&self, mut call: Box<dyn Operation<K, V, S>>, group: &mut Group<K, V, S>) {
        // Elsewhere each write of a group may fail by itself.
        if !self.atomic_batches || !group.has_room_for(1, 0) {
            self.commit(group).await;
        }
        let searchable = contain("`Hash` or `Clone` of a key", || {
            group.writes.make_searchable();
        });
        let writes = searchable.and_then(|()| {
            let writes = self.shared.evaluate(Some(&group.writes), &mut *call)?;
            if writes.len() > 1 && !self.atomic_batches {
                let _ = contain("`Drop` of a key or value", move || drop(writes));
                return Err(PersistentError::no_batches());
            }
            Ok(writes)
        });
        let (writes, own) = match writes {
            Ok(writes) => (writes, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        group.push(writes, Then::Answer(call, own));
        if !self.atomic_batches {
            self.commit(group).await;
        }
    }

    /// Commits a group, in one step if the store can, and leaves it empty.
    async fn commit(&self, group: &mut Group<K, V, S>) {
        let Group { writes, calls } = std::mem::replace(group, Group::new());
        let writes = writes.into_writes();
        if self.atomic_batches {
            self.commit_batch(writes, calls).await;
        } else {
            let mut writes = writes.into_iter();
            for (count, then) in calls {
                let writes = writes.by_ref().take(count).collect();
                self.commit_batch(writes, vec![(count, then)]).await;
            }
        }
    }

    async fn commit_batch(&self, mut writes: Vec<Write<K, V>>, calls: Vec<(usize, Then<K, V, S>)>) {
        let ready = self.shared.status.check_sound();
        let stored = match ready.and_then(|()| self.resolve_keys(&mut writes)) {
            Ok(()) if writes.is_empty() => Ok(()),
            Ok(()) => self.shared.store(&writes).await,
            refused => refused,
        };
        let mut writes = writes.into_iter();
        for (count, then) in calls {
            let writes = writes.by_ref().take(count);
            match (&stored, then) {
                (Ok(()), Then::Old(answer)) => {
                    let mut old = Ok(None);
                    for write in writes {
                        old = self.shared.publish(write);
                    }
                    respond(answer, old);
                }
                (Ok(()), Then::Count(answer)) => {
                    respond(answer, self.shared.publish_all(writes));
                }
                (Ok(()), Then::Answer(call, own)) => {
                    let shown = self.shared.publish_all(writes).map(drop);
                    answer_call(call, shown.and(own));
                }
                (Err(error), then) => {
                    for write in writes {
                        let _ = contain("`Drop` of a key or value", move || drop(write));
                    }
                    match then {
                        Then::Old(answer) => respond(answer, Err(error.clone())),
                        Then::Count(answer) => respond(answer, Err(error.clone())),
                        Then::Answer(call, _) => answer_call(call, Err(error.clone())),
                    }
                }
            }
        }
    }

    /// A key that was new when its write was prepared may meet an equal one by now: in memory, or earlier in its batch. And
    /// an entry that was removed since may be back. Equal keys may be written differently (the paths `a/b` and `a/b/`), and
    /// the store goes by what is written.
    fn resolve_keys(&self, writes: &mut [Write<K, V>]) -> Result<()> {
        // Nobody but this task removes entries.
        let removals = self.shared.cache.removals();
        contain("`Hash`, `Eq`, `Clone` or `Serialize` of a key", || {
            let mut first_in_batch: HashMap<&K, usize> = HashMap::new();
            let mut resolved = Vec::new();
            for (index, write) in writes
                .iter()
                .enumerate()
                .filter(|(_, write)| write.key_may_differ(removals))
            {
                if let (Some(key), _) = self.shared.cache.resident_key(write.key()) {
                    resolved.push((index, key));
                } else if writes.len() > 1 {
                    let first = *first_in_batch.entry(write.key()).or_insert(index);
                    if first != index {
                        resolved.push((index, writes[first].key().clone()));
                    }
                }
            }
            resolved.into_iter().try_for_each(|(index, key)| {
                writes[index].go_by(key, removals, &self.shared.backend)
            })
        })?
    }

    async fn clear(&self) -> Result<()> {
        self.shared.status.check_sound()?;
        if self.atomic_batches {
            let clear = async { self.shared.backend.clear().await };
            self.shared.settle(clear, 1).await?;
            return self.shared.publish_clear();
        }
        let keys = contain("`Clone` of a key", || self.shared.cache.keys())?;
        for (removed, key) in (0..).zip(keys) {
            let write = Write::remove(key);
            let delete = async { self.shared.backend.delete(write.key()).await };
            let gone = match self.shared.settle(delete, 1).await {
                Ok(()) => self.shared.publish(write).map(drop),
                Err(error) => Err(error),
            };
            gone.map_err(|error| error.after_removing(removed))?;
        }
        Ok(())
    }

    /// Does what was accepted, brings the store to rest, and says how it ended.
    async fn finish(mut self) {
        // A place that somebody holds and does not use must not keep the map open, so this does not wait for the queue to
        // end; who comes too late watches for the end of the map as well as for an answer.
        self.inbox.close();
        let mut requests = Vec::new();
        while let Ok(request) = self.inbox.try_recv() {
            requests.push(request);
        }
        self.process(&mut requests).await;
        self.shared.finish(Ok(())).await;
    }
}

/// A runtime that ends drops its tasks; whoever waits for the end must hear of it.
impl<K: Key, V: Value, B, S> Drop for Writer<K, V, B, S> {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// Writes that will share a commit, and the calls that they belong to, each with the number of its writes.
struct Group<K, V, S> {
    writes: Pending<K, V>,
    calls: Vec<(usize, Then<K, V, S>)>,
}

/// What a call is answered with when its writes are stored.
enum Then<K, V, S> {
    /// The value that its one write has replaced.
    Old(Answer<Option<V>>),
    /// How many of its writes have found an entry.
    Count(Answer<usize>),
    /// What it has decided, unless it has failed by itself.
    Answer(Box<dyn Operation<K, V, S>>, Result<()>),
}

impl<K: Key, V, S> Group<K, V, S> {
    fn new() -> Self {
        Group {
            writes: Pending::new(),
            calls: Vec::new(),
        }
    }

    fn has_room_for(&self, writes: usize, bytes: usize) -> bool {
        self.calls.is_empty()
            || (self.writes.len() + writes <= MAX_GROUP
                && self.writes.bytes() + bytes <= MAX_GROUP_BYTES)
    }

    fn push(&mut self, writes: impl IntoIterator<Item = Write<K, V>>, then: Then<K, V, S>) {
        let before = self.writes.len();
        for write in writes {
            self.writes.push(write);
        }
        self.calls.push((self.writes.len() - before, then));
    }
}

/// Hands a result over. If nobody waits, it is dropped here, and a `Drop` that panics must not end the writer.
fn respond<T>(answer: Answer<T>, result: Result<T>) {
    let _ = contain("`Drop` of a value", move || drop(answer.send(result)));
}

fn answer_call<K, V, S>(call: Box<dyn Operation<K, V, S>>, stored: Result<()>) {
    let _ = contain("`Drop` of a value", move || call.answer(stored));
}
