//! Changing memory in the caller's task: for maps without a store, and for maps whose store follows later.
//!
//! A key belongs to one lane, and a lane is locked while one of its keys changes; whatever concerns all keys locks all
//! lanes. So changes have an order, although nobody waits for a task. Readers never see these locks.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError};

use hashbrown::DefaultHashBuilder;

use crate::backend::{Key, StorageBackend, Value};
use crate::backlog::Backlog;
use crate::error::{PersistentError, Result};
use crate::panics::contain;
use crate::pending::Pending;
use crate::shared::Shared;
use crate::sync::{Mutex, MutexGuard};
use crate::transaction::Operation;
use crate::write::Write;

const LANES: usize = 64;

/// What may panic when a change is noted.
const CODE: &str = "`Hash`, `Eq`, `Clone` or `Serialize` of a key or value";

pub(crate) struct Local<K, V> {
    lanes: Box<[Lane<K, V>]>,
    hasher: DefaultHashBuilder,
    /// What is to be stored later; nothing if there is no store.
    backlog: Option<Arc<Backlog>>,
}

/// Aligned, so that two cores that change different lanes do not share a cache line.
#[repr(align(128))]
struct Lane<K, V>(Mutex<Contents<K, V>>);

struct Contents<K, V> {
    unsaved: Pending<K, V>,
    /// The map is closed. Kept here, so that no change can slip in behind the last save.
    closed: bool,
}

impl<K, V> Local<K, V> {
    /// For a map without a store.
    pub(crate) fn resident() -> Self {
        Local {
            lanes: lanes(LANES),
            hasher: DefaultHashBuilder::default(),
            backlog: None,
        }
    }

    /// For a map whose store follows.
    pub(crate) fn behind(backlog: Arc<Backlog>) -> Self {
        // A store that takes one write at a time must get them in their order, so they have one lane.
        let count = if backlog.coalesces() { LANES } else { 1 };
        Local {
            lanes: lanes(count),
            hasher: DefaultHashBuilder::default(),
            backlog: Some(backlog),
        }
    }

    /// Runs `look` while nothing can change the map.
    pub(crate) fn still<R>(&self, look: impl FnOnce() -> R) -> R {
        let _all = self.lock_all();
        look()
    }

    /// Everything that is not stored yet, up to this moment; and what `look` sees at the same moment.
    pub(crate) fn cut<R>(&self, look: impl FnOnce() -> R) -> (Vec<Write<K, V>>, Result<R>) {
        let mut lanes = self.lock_all();
        let seen = contain("`Clone` of a key or value", look);
        if let Some(backlog) = &self.backlog {
            backlog.is_cut();
        }
        let taken: Vec<_> = lanes
            .iter_mut()
            .map(|lane| std::mem::replace(&mut lane.unsaved, Pending::new()))
            .collect();
        drop(lanes);
        let writes = taken.into_iter().flat_map(Pending::into_writes);
        (writes.collect(), seen)
    }

    /// Accepts nothing more.
    pub(crate) fn close(&self) {
        for lane in &mut self.lock_all() {
            lane.closed = true;
        }
    }

    fn lock_all(&self) -> Vec<MutexGuard<'_, Contents<K, V>>> {
        self.lanes.iter().map(Lane::lock).collect()
    }
}

impl<K: Key, V: Value> Local<K, V> {
    /// Makes one change, which has been prepared.
    pub(crate) fn write<B, S>(
        &self,
        shared: &Shared<K, V, B, S>,
        write: Write<K, V>,
    ) -> Result<Option<V>>
    where
        B: StorageBackend<K, V>,
        S: BuildHasher + Clone,
    {
        let mut lane = self.lanes[self.lane_number(write.key())?].lock();
        lane.check_open()?;
        let write = self.record(shared, &mut lane, write)?;
        shared.publish(write)
    }

    /// Makes the changes of one call in one step. They have been prepared.
    pub(crate) fn write_all<B, S>(
        &self,
        shared: &Shared<K, V, B, S>,
        writes: Vec<Write<K, V>>,
    ) -> Result<usize>
    where
        B: StorageBackend<K, V>,
        S: BuildHasher + Clone,
    {
        let mut lanes = self.lock_all();
        lanes[0].check_open()?;
        self.accept(shared, &mut lanes, writes)
    }

    /// Runs a call that changes `key` alone.
    pub(crate) fn call_on_key<B, S>(
        &self,
        shared: &Shared<K, V, B, S>,
        key: &K,
        operation: &mut dyn Operation<K, V, S>,
    ) -> Result<()>
    where
        B: StorageBackend<K, V>,
        S: BuildHasher + Clone,
    {
        let mut lane = self.lanes[self.lane_number(key)?].lock();
        lane.check_open()?;
        for write in shared.evaluate(None, operation)? {
            let write = self.record(shared, &mut lane, write)?;
            shared.publish(write)?;
        }
        Ok(())
    }

    /// Runs a call that may change all keys.
    pub(crate) fn call_on_all<B, S>(
        &self,
        shared: &Shared<K, V, B, S>,
        operation: &mut dyn Operation<K, V, S>,
    ) -> Result<()>
    where
        B: StorageBackend<K, V>,
        S: BuildHasher + Clone,
    {
        let mut lanes = self.lock_all();
        lanes[0].check_open()?;
        let writes = shared.evaluate(None, operation)?;
        self.accept(shared, &mut lanes, writes).map(drop)
    }

    /// Removes everything from a map without a store.
    pub(crate) fn clear<B, S>(&self, shared: &Shared<K, V, B, S>) -> Result<()>
    where
        S: BuildHasher + Clone,
    {
        let lanes = self.lock_all();
        lanes[0].check_open()?;
        shared.publish_clear()
    }

    fn accept<B, S>(
        &self,
        shared: &Shared<K, V, B, S>,
        lanes: &mut [MutexGuard<'_, Contents<K, V>>],
        writes: Vec<Write<K, V>>,
    ) -> Result<usize>
    where
        B: StorageBackend<K, V>,
        S: BuildHasher + Clone,
    {
        let Some(backlog) = &self.backlog else {
            // What the keys' own code does wrong, it does before the first change.
            contain("`Hash` or `Eq` of a key", || {
                for write in &writes {
                    shared.cache.contains(write.key());
                }
            })?;
            return shared.publish_all(writes);
        };
        if writes.len() > 1 && !backlog.coalesces() {
            return Err(PersistentError::no_batches());
        }
        // What fails by itself must fail before the first change is noted.
        let mut numbers = Vec::with_capacity(writes.len());
        for write in &writes {
            numbers.push(self.lane_number(write.key())?);
        }
        let (writes, shown) = contain(CODE, || {
            let mut resolved = Pending::new();
            let mut shown = Vec::with_capacity(writes.len());
            for (mut write, &number) in writes.into_iter().zip(&numbers) {
                resolve_key(shared, &[&resolved, &lanes[number].unsaved], &mut write)?;
                shown.push(write.shown());
                resolved.push(write);
                resolved.make_searchable();
            }
            Ok::<_, PersistentError>((resolved.into_writes(), shown))
        })??;
        for (number, write) in numbers.into_iter().zip(writes) {
            shared.or_poison(CODE, || note(backlog, &mut lanes[number], write))?;
        }
        shared.publish_all(shown)
    }

    /// Notes a change that is to be stored.
    fn record<B, S>(
        &self,
        shared: &Shared<K, V, B, S>,
        lane: &mut Contents<K, V>,
        mut write: Write<K, V>,
    ) -> Result<Write<K, V>>
    where
        B: StorageBackend<K, V>,
        S: BuildHasher + Clone,
    {
        let Some(backlog) = &self.backlog else {
            return Ok(write);
        };
        let shown = contain(CODE, || {
            resolve_key(shared, &[&lane.unsaved], &mut write)?;
            Ok::<_, PersistentError>(write.shown())
        })??;
        shared.or_poison(CODE, || note(backlog, lane, write))?;
        Ok(shown)
    }

    /// By a hasher that is faster than one that must withstand chosen keys: those would only have to wait for each other.
    fn lane_number(&self, key: &K) -> Result<usize> {
        if self.lanes.len() == 1 {
            return Ok(0);
        }
        let hash = contain("`Hash` of a key", || self.hasher.hash_one(key))?;
        Ok((hash >> 58) as usize % self.lanes.len())
    }
}

/// Lets a write go by the key that its entry has by now, or had in what is `unsaved`: equal keys may be written differently,
/// and the store goes by what is written.
pub(crate) fn resolve_key<K, V, B, S>(
    shared: &Shared<K, V, B, S>,
    unsaved: &[&Pending<K, V>],
    write: &mut Write<K, V>,
) -> Result<()>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
    S: BuildHasher + Clone,
{
    if !write.key_may_differ(shared.cache.removals()) {
        return Ok(());
    }
    let (resident, removals) = shared.cache.resident_key(write.key());
    let in_unsaved = || {
        let latest = unsaved
            .iter()
            .find_map(|unsaved| unsaved.latest(write.key()));
        latest.map(|latest| latest.key().clone())
    };
    match resident.or_else(in_unsaved) {
        Some(key) => write.go_by(key, removals, &shared.backend),
        None => Ok(()),
    }
}

/// Puts a write where the next save takes it from.
fn note<K: Key, V>(backlog: &Backlog, lane: &mut Contents<K, V>, write: Write<K, V>) {
    let (entries, bytes) = (lane.unsaved.len(), lane.unsaved.bytes());
    let replaced = if backlog.coalesces() {
        lane.unsaved.replace(write)
    } else {
        lane.unsaved.push(write);
        lane.unsaved.make_searchable();
        None
    };
    backlog.grown(lane.unsaved.len() - entries, bytes, lane.unsaved.bytes());
    let _ = contain("`Drop` of a key or value", move || drop(replaced));
}

fn lanes<K, V>(count: usize) -> Box<[Lane<K, V>]> {
    let empty = || Contents {
        unsaved: Pending::new(),
        closed: false,
    };
    (0..count).map(|_| Lane(Mutex::new(empty()))).collect()
}

impl<K, V> Lane<K, V> {
    fn lock(&self) -> MutexGuard<'_, Contents<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Contents<K, V> {
    fn check_open(&self) -> Result<()> {
        if self.closed {
            return Err(PersistentError::Closed);
        }
        Ok(())
    }
}
