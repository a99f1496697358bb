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
use crate::cache::Cache;
use crate::error::{Outcome, PersistentError, Result};
use crate::panics::{contain, contain_async};
use crate::status::Status;
use crate::write::{Encoded, Write};

/// Writes in one commit at most: enough to make the cost of a commit vanish, few enough to answer soon.
const MAX_GROUP: usize = 1024;
/// Prepared bytes in one commit at most (8 MiB); a single larger write is committed alone.
const MAX_GROUP_BYTES: usize = 8 << 20;

/// What the handles of a map and its writer have in common.
pub(crate) struct Shared<K, V, B, S> {
    pub(crate) cache: Cache<K, V, S>,
    pub(crate) backend: B,
    pub(crate) status: Status,
}

/// A call on its way to the writer.
pub(crate) enum Request<K, V> {
    Write(Write<K, V>, Answer<Option<V>>),
    Clear(Answer<()>),
    Flush(Answer<()>),
}

/// Where the result of a call goes. Nobody may be waiting any more.
pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;

pub(crate) struct Writer<K, V, B, S> {
    shared: Arc<Shared<K, V, B, S>>,
    inbox: mpsc::Receiver<Request<K, V>>,
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
        shared: Arc<Shared<K, V, B, S>>,
        queue_capacity: usize,
    ) -> (mpsc::Sender<Request<K, V>>, Self) {
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

    async fn process(&self, requests: &mut Vec<Request<K, V>>) {
        let mut group = Group::new();
        for request in requests.drain(..) {
            match request {
                Request::Write(write, answer) => {
                    if !group.has_room_for(&write) {
                        self.commit(&mut group).await;
                    }
                    group.push(write, answer);
                }
                Request::Clear(answer) => {
                    self.commit(&mut group).await;
                    let result = self.clear().await;
                    respond(answer, result);
                }
                Request::Flush(answer) => {
                    self.commit(&mut group).await;
                    let result = self.flush().await;
                    respond(answer, result);
                }
            }
        }
        self.commit(&mut group).await;
    }

    /// Commits a group, in one step if the store can, and leaves it empty.
    async fn commit(&self, group: &mut Group<K, V>) {
        let Group {
            writes, answers, ..
        } = std::mem::replace(group, Group::new());
        if self.atomic_batches {
            self.commit_batch(writes, answers).await;
        } else {
            for (write, answer) in writes.into_iter().zip(answers) {
                self.commit_batch(vec![write], vec![answer]).await;
            }
        }
    }

    async fn commit_batch(&self, mut writes: Vec<Write<K, V>>, answers: Vec<Answer<Option<V>>>) {
        if writes.is_empty() {
            return;
        }
        self.resolve_new_keys(&mut writes);
        let stored = match self.shared.status.check_sound() {
            Ok(()) => {
                let apply = async { self.shared.backend.apply(&writes).await };
                self.settle(apply, writes.len()).await
            }
            poisoned => poisoned,
        };
        for (write, answer) in writes.into_iter().zip(answers) {
            match &stored {
                Ok(()) => respond(answer, self.publish(write)),
                Err(error) => {
                    respond(answer, Err(error.clone()));
                    let _ = contain("`Drop` of a key or value", move || drop(write));
                }
            }
        }
    }

    /// A key that was new when its write was prepared may meet an equal one by now: in memory, or earlier in its batch.
    /// Equal keys may be written differently (the paths `a/b` and `a/b/`), and the store goes by what is written.
    fn resolve_new_keys(&self, writes: &mut [Write<K, V>]) {
        let resolved = contain("`Hash`, `Eq` or `Clone` of a key", || {
            let mut first_in_batch: HashMap<&K, usize> = HashMap::new();
            let mut resolved = Vec::new();
            for (index, write) in writes
                .iter()
                .enumerate()
                .filter(|(_, write)| write.key_is_new())
            {
                if let Some(key) = self.shared.cache.resident_key(write.key()) {
                    resolved.push((index, key));
                } else if writes.len() > 1 {
                    let first = *first_in_batch.entry(write.key()).or_insert(index);
                    if first != index {
                        resolved.push((index, writes[first].key().clone()));
                    }
                }
            }
            resolved
        });
        for (index, key) in resolved.unwrap_or_default() {
            let write = &mut writes[index];
            write.resolve_key(Some(key));
            let prepared = contain("`Serialize` of a key or value", || {
                self.shared.backend.prepare(write.key(), write.value())
            });
            // It was prepared once, with a key that is as good.
            if let Ok(Ok(encoded)) = prepared {
                write.set_encoded(encoded);
            }
        }
    }

    /// Awaits what the store is asked to do, for this number of writes. Whatever leaves the outcome unknown poisons the
    /// map.
    async fn settle(&self, change: impl Future<Output = Result<()>>, writes: usize) -> Result<()> {
        let status = &self.shared.status;
        // A backend that panicked may have done anything.
        let result = contain_async("the backend", change)
            .await
            .map_err(|error| match error {
                PersistentError::Panicked { .. } => error.unknown(),
                other => other,
            });
        match &result {
            Ok(()) if writes > 0 => status.committed(writes),
            Ok(()) => {}
            Err(error) => {
                status.failed(error);
                if error.outcome() == Outcome::Unknown {
                    status.poison(error.clone());
                }
            }
        }
        result
    }

    /// Shows a committed write. The caller's task has run `Hash` and `Eq` of this key before, so a panic here is one
    /// that comes and goes: the store has what memory has not, and only opening again can mend that.
    fn publish(&self, write: Write<K, V>) -> Result<Option<V>> {
        self.show("`Hash` or `Eq` of a key", |cache| cache.publish(write))
    }

    fn show<T>(&self, code: &'static str, change: impl FnOnce(&Cache<K, V, S>) -> T) -> Result<T> {
        contain(code, || change(&self.shared.cache)).map_err(|error| {
            let error = error.unknown();
            self.shared.status.poison(error.clone());
            error
        })
    }

    async fn clear(&self) -> Result<()> {
        self.shared.status.check_sound()?;
        if self.atomic_batches {
            self.settle(async { self.shared.backend.clear().await }, 1)
                .await?;
            return self.show("`Drop` of a key or value", Cache::clear);
        }
        let keys = contain("`Clone` of a key", || self.shared.cache.keys())?;
        for (removed, key) in (0..).zip(keys) {
            let write = Write::remove(key);
            let delete = async { self.shared.backend.delete(write.key()).await };
            let gone = match self.settle(delete, 1).await {
                Ok(()) => self.publish(write).map(drop),
                Err(error) => Err(error),
            };
            match gone {
                Err(error) if removed == 0 || error.outcome() == Outcome::Unknown => {
                    return Err(error);
                }
                Err(error) => {
                    return Err(PersistentError::PartlyCleared {
                        removed,
                        source: Arc::new(error),
                    });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        self.shared.status.check_sound()?;
        self.settle(async { self.shared.backend.flush().await }, 0)
            .await
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
        let flushed = self.flush().await;
        let closed =
            contain_async("the backend", async { self.shared.backend.close().await }).await;
        let result = flushed.and(closed);
        match &result {
            Ok(()) => tracing::info!(target: "persistent_map", "map closed"),
            Err(error) => {
                tracing::error!(target: "persistent_map", %error, "map closed with an error");
            }
        }
        self.shared.status.end(result);
    }
}

/// A runtime that ends drops its tasks; whoever waits for the end must hear of it.
impl<K, V, B, S> Drop for Writer<K, V, B, S> {
    fn drop(&mut self) {
        self.shared.status.end(Err(PersistentError::WriterGone));
    }
}

/// Writes that will share a commit, and where their answers go.
struct Group<K, V> {
    writes: Vec<Write<K, V>>,
    answers: Vec<Answer<Option<V>>>,
    bytes: usize,
}

impl<K, V> Group<K, V> {
    fn new() -> Self {
        Group {
            writes: Vec::new(),
            answers: Vec::new(),
            bytes: 0,
        }
    }

    fn has_room_for(&self, write: &Write<K, V>) -> bool {
        self.writes.is_empty()
            || (self.writes.len() < MAX_GROUP
                && self.bytes + prepared_bytes(write) <= MAX_GROUP_BYTES)
    }

    fn push(&mut self, write: Write<K, V>, answer: Answer<Option<V>>) {
        self.bytes += prepared_bytes(&write);
        self.writes.push(write);
        self.answers.push(answer);
    }
}

fn prepared_bytes<K, V>(write: &Write<K, V>) -> usize {
    write.encoded().map_or(0, Encoded::size)
}

/// Hands a result over. If nobody waits, it is dropped here, and a `Drop` that panics must not end the writer.
fn respond<T>(answer: Answer<T>, result: Result<T>) {
    let _ = contain("`Drop` of a value", move || drop(answer.send(result)));
}
