//! What the handles of a map and its engine have in common, and the one way from a stored write to its readers.

use std::hash::BuildHasher;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tracing::Instrument as _;

use crate::backend::{Key, StorageBackend, Value};
use crate::cache::Cache;
use crate::error::{Outcome, PersistentError, Result};
use crate::events::{Change, Event, Events, Watched};
use crate::flight::Flights;
use crate::panics::{contain, contain_async};
use crate::pending::{Pending, prepared_bytes};
use crate::reentry::{InClosure, check_may_wait};
use crate::status::Status;
use crate::transaction::{Operation, Transaction};
use crate::verify::Comparison;
use crate::write::Write;

pub(crate) struct Shared<K, V, B, S> {
    pub(crate) cache: Cache<K, V, S>,
    pub(crate) backend: B,
    pub(crate) status: Status,
    pub(crate) events: Events<K, V>,
    pub(crate) flights: Flights<K>,
    /// Where the map was opened.
    pub(crate) runtime: Handle,
    /// There is no store.
    pub(crate) resident: bool,
    /// Where no task of the map releases the store: that it was done. Once, whoever asks; if that caller gives up, the next
    /// one does it.
    pub(crate) released: OnceCell<()>,
}

impl<K, V, B, S> Shared<K, V, B, S>
where
    K: Key,
    V: Value,
    S: BuildHasher + Clone,
{
    /// Shows a stored write to readers, and returns the value that it replaced.
    pub(crate) fn publish(&self, write: Write<K, V>) -> Result<Option<V>> {
        let mut changes = self.changes();
        let old = self.show(write, &mut changes);
        self.announce(changes);
        old
    }

    /// Shows the stored writes of one call, and returns how many of them have found an entry. If one cannot be shown, the
    /// others are.
    pub(crate) fn publish_all(
        &self,
        writes: impl IntoIterator<Item = Write<K, V>>,
    ) -> Result<usize> {
        let mut changes = self.changes();
        let mut found = Ok(0);
        for write in writes {
            match self.show(write, &mut changes) {
                Ok(None) => {}
                Ok(Some(old)) => {
                    found = found.map(|found| found + 1);
                    let _ = contain("`Drop` of a value", move || drop(old));
                }
                Err(error) => found = found.and(Err(error)),
            }
        }
        self.announce(changes);
        found
    }

    /// Shows a stored clear.
    pub(crate) fn publish_clear(&self) -> Result<()> {
        let mut changes = self.changes();
        if let Changes::Heard(list) = &mut changes {
            let removed = contain("`Clone` of a key or value", || {
                let entries = self.cache.all().into_iter();
                entries
                    .map(|(key, value)| Change::new(key, Some(value), None))
                    .collect()
            });
            match removed {
                Ok(removed) => *list = removed,
                Err(_) => changes = Changes::Missed,
            }
        }
        // What it has removed before such a panic is gone, also without a store.
        let cleared = self
            .or_poison("`Drop` of a key or value", || self.cache.clear())
            .map_err(PersistentError::unknown);
        self.events.signal_all();
        self.announce(changes);
        cleared
    }

    /// The caller's task has run `Hash` and `Eq` of this key before, so a panic here is one that comes and goes: the
    /// store has what memory has not, and only opening again can mend that.
    fn show(&self, write: Write<K, V>, changes: &mut Changes<K, V>) -> Result<Option<V>> {
        let copy = match changes {
            Changes::Heard(_) => contain("`Clone` of a key or value", || {
                (write.key().clone(), write.value().cloned())
            })
            .ok(),
            _ => None,
        };
        let old = self.or_poison("`Hash` or `Eq` of a key", || {
            self.cache.publish(write, |key| self.events.signal(key))
        })?;
        if let Changes::Heard(list) = changes {
            let old = contain("`Clone` of a value", || old.clone()).ok();
            match copy.zip(old) {
                Some(((key, new), old)) if old.is_some() || new.is_some() => {
                    list.push(Change::new(key, old, new));
                }
                Some(_) => {}
                None => *changes = Changes::Missed,
            }
        }
        Ok(old)
    }

    /// Where the changes of a call are put.
    fn changes(&self) -> Changes<K, V> {
        if self.events.has_subscribers() {
            Changes::Heard(Vec::new())
        } else {
            Changes::Unheard
        }
    }

    fn announce(&self, changes: Changes<K, V>) {
        let event = match changes {
            Changes::Heard(list) if list.is_empty() => return,
            Changes::Heard(list) => Event::Changed(list.into()),
            // For those who have subscribed meanwhile.
            Changes::Unheard | Changes::Missed => Event::Missed(1),
        };
        self.events.send(event);
    }

    /// Runs what must not fail any more. Where it does, memory and store differ; without a store, nothing has changed.
    pub(crate) fn or_poison<T>(&self, code: &'static str, change: impl FnOnce() -> T) -> Result<T> {
        contain(code, change).map_err(|error| {
            if self.resident {
                return error;
            }
            let error = error.unknown();
            self.status.poison(error.clone());
            error
        })
    }
}

/// What one call has changed, for those who want to hear of it.
enum Changes<K, V> {
    Unheard,
    Heard(Vec<Change<K, V>>),
    /// A key or value could not be cloned.
    Missed,
}

impl<K, V, B, S> Shared<K, V, B, S>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone,
{
    /// Runs the code of a call, on memory and what is `ahead` of it, and prepares what it wants to write.
    pub(crate) fn evaluate(
        &self,
        ahead: Option<&Pending<K, V>>,
        operation: &mut dyn Operation<K, V, S>,
    ) -> Result<Vec<Write<K, V>>> {
        let _inside = InClosure::of(self.number());
        let writes = contain("a closure, or the code of a key or value,", || {
            let mut transaction = Transaction::new(&self.cache, ahead);
            if operation.evaluate(&mut transaction) {
                transaction.into_writes()
            } else {
                Vec::new()
            }
        })?;
        self.prepare(writes)
    }

    pub(crate) fn prepare(&self, writes: Vec<Write<K, V>>) -> Result<Vec<Write<K, V>>> {
        contain("`Serialize` or `Deserialize`", || {
            let writes = writes.into_iter();
            writes
                .map(|write| write.prepared_by(&self.backend))
                .collect()
        })?
    }

    /// Stores writes: all with one commit, or a single one.
    pub(crate) async fn store(&self, writes: &[Write<K, V>]) -> Result<()> {
        let span = tracing::debug_span!(
            target: "persistent_map",
            "commit",
            writes = writes.len(),
            bytes = writes.iter().map(prepared_bytes).sum::<usize>()
        );
        let apply = async { self.backend.apply(writes).await };
        self.settle(apply, writes.len()).instrument(span).await
    }

    /// Awaits what the store is asked to do, for this number of writes. Whatever leaves the outcome unknown poisons the
    /// map.
    pub(crate) async fn settle(
        &self,
        change: impl Future<Output = Result<()>>,
        writes: usize,
    ) -> Result<()> {
        // A backend that panicked may have done anything.
        let result = contain_async("the backend", change)
            .await
            .map_err(|error| match error {
                PersistentError::Panicked { .. } => error.unknown(),
                other => other,
            });
        match &result {
            Ok(()) => {
                self.status.works();
                if writes > 0 {
                    self.status.committed(writes);
                }
            }
            Err(error) => {
                self.status.failed(error);
                self.events.send(Event::Failed(error.clone()));
                if error.outcome() == Outcome::Unknown {
                    self.status.poison(error.clone());
                }
            }
        }
        result
    }

    /// Writes out what the store buffers.
    pub(crate) async fn flush_backend(&self) -> Result<()> {
        self.status.check_sound()?;
        self.settle(async { self.backend.flush().await }, 0).await
    }

    /// Releases the store and ends the map, with the first thing that went wrong.
    pub(crate) async fn finish(&self, done: Result<()>) {
        let flushed = match done {
            Ok(()) => self.flush_backend().await,
            failed => failed,
        };
        let result = flushed.and(self.close_backend().await);
        match &result {
            Ok(()) => tracing::info!(target: "persistent_map", "map closed"),
            Err(error) => {
                tracing::error!(target: "persistent_map", %error, "map closed with an error");
            }
        }
        self.status.end(result);
        self.events.end();
    }

    /// Releases the store where the task has gone, with its runtime, that would have done it.
    pub(crate) async fn release(&self) {
        let close = async || {
            if let Err(error) = self.close_backend().await {
                tracing::error!(target: "persistent_map", %error, "cannot release the store");
            }
        };
        self.released.get_or_init(close).await;
    }

    async fn close_backend(&self) -> Result<()> {
        contain_async("the backend", async { self.backend.close().await }).await
    }

    /// Compares what is stored with the entries of one moment, at which all of them are stored.
    pub(crate) async fn compare_with_store(
        &self,
        comparison: &mut Comparison<'_, K, V>,
    ) -> Result<u64> {
        self.status.check_sound()?;
        contain_async("reading the store back", async {
            self.backend.read_back(comparison).await
        })
        .await?;
        comparison.verdict()
    }
}

impl<K, V, B, S> Shared<K, V, B, S> {
    /// Refuses a call whose map waits for the code that makes it.
    pub(crate) fn check_may_wait(&self) -> Result<()> {
        check_may_wait(self.number())
    }

    /// What tells this map from others.
    fn number(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl<K: Key, V: Value, B, S> Shared<K, V, B, S> {
    /// The runtime has dropped the engine: whoever waits for the end must hear of it.
    pub(crate) fn abandon(&self) {
        self.status.end(Err(PersistentError::WriterGone));
        self.events.end();
    }
}

impl<K, V, B, S> Watched<K, V> for Shared<K, V, B, S>
where
    K: Key,
    V: Value,
    B: Send + Sync,
    S: BuildHasher + Clone + Send + Sync,
{
    fn value(&self, key: &K) -> Option<V> {
        self.cache.get(key)
    }

    fn unwatch(&self, key: &K) {
        self.events.unwatch(key);
    }
}

pub(crate) type SharedMap<K, V, B, S> = Arc<Shared<K, V, B, S>>;
