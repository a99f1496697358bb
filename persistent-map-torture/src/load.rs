//! Mixed work of many tasks on a bounded number of entries, for as long as it is wanted: each task knows what its keys
//! may hold, whatever was dropped or done at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use persistent_map_core::PersistentError;
use persistent_map_testkit::drop_after_polls;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::oracle::{Found, Oracle};
use crate::protocol::{Change, Line, Refusal};
use crate::record::{Record, random_size};
use crate::store::Map;
use crate::worker::key_name;

/// Keys of a task.
pub(crate) const KEYS: usize = 100;
/// Two of them are always written together.
const PAIR: [usize; 2] = [0, 1];

/// What all tasks know, from one map on the store to the next.
pub(crate) struct Load {
    tasks: Vec<Task>,
}

impl Load {
    pub(crate) fn new(tasks: u32, seed: u64) -> Self {
        let tasks = (0..tasks).map(|number| Task {
            number,
            rng: fastrand::Rng::with_seed(seed ^ (u64::from(number) << 32)),
            oracle: Oracle::default(),
            next_version: 1,
            calls: 0,
            dropped: 0,
        });
        Load {
            tasks: tasks.collect(),
        }
    }

    /// Lets all tasks work on the map until they are stopped.
    pub(crate) fn start(&mut self, map: &Map) -> Working {
        let stop = Arc::new(AtomicBool::new(false));
        let mut working = JoinSet::new();
        for task in self.tasks.drain(..) {
            working.spawn(task.work(map.clone(), Arc::clone(&stop)));
        }
        Working { stop, working }
    }

    /// Takes the tasks back, each after its last call.
    pub(crate) async fn stop(&mut self, mut working: Working) -> Result<(), Failure> {
        working.stop.store(true, Ordering::Relaxed);
        while let Some(task) = working.working.join_next().await {
            let task = task.map_err(|error| Failure::Trouble(format!("a task: {error}")))?;
            self.tasks.push(task?);
        }
        Ok(())
    }

    /// Compares a map with what the tasks know. From then on what it holds is certain.
    pub(crate) fn compare(&mut self, map: &Map) -> Result<(), Failure> {
        let mut found: HashMap<String, Found> = HashMap::new();
        for (key, record) in map {
            check(&key, &record)?;
            let owner = key.split('-').next().unwrap_or_default().to_string();
            let of_owner = found.entry(owner).or_default();
            of_owner.insert(key, record.version());
        }
        for task in &mut self.tasks {
            let found = found.remove(&format!("t{}", task.number));
            task.oracle.compare(&found.unwrap_or_default())?;
        }
        match found.into_keys().next() {
            None => Ok(()),
            Some(owner) => Err(Failure::Violation(format!("{owner} has never written"))),
        }
    }

    /// The calls of all tasks, and how many of them were dropped.
    pub(crate) fn calls(&self) -> (u64, u64) {
        let calls = self.tasks.iter().map(|task| (task.calls, task.dropped));
        calls.fold((0, 0), |sum, task| (sum.0 + task.0, sum.1 + task.1))
    }
}

/// Tasks at work. Dropping it ends them in the middle of their calls.
pub(crate) struct Working {
    stop: Arc<AtomicBool>,
    working: JoinSet<Result<Task, Failure>>,
}

/// Looks at the whole map from outside of all tasks: nobody ever sees half of a pair.
pub(crate) async fn look_over(map: &Map, tasks: u32) -> Result<(), Failure> {
    let snapshot = map.snapshot().await?;
    for task in 0..tasks {
        let versions = PAIR.map(|key| snapshot.get(&key_name(task, key)).map(Record::version));
        if versions[0] != versions[1] {
            return Err(Failure::Violation(format!(
                "a snapshot has half of a transaction of task {task}: {versions:?}"
            )));
        }
    }
    Ok(())
}

/// Reads the whole store again.
pub(crate) async fn verify(map: &Map) -> Result<(), Failure> {
    match map.verify().await {
        Err(error @ PersistentError::NotAsWritten { .. }) => {
            Err(Failure::Violation(error.to_string()))
        }
        verified => Ok(verified.map(drop)?),
    }
}

fn check(key: &str, record: &Record) -> Result<(), Failure> {
    if record.is_intact(key) {
        return Ok(());
    }
    Err(Failure::Violation(format!(
        "key {key}: its value is not the one that was stored"
    )))
}

struct Task {
    number: u32,
    rng: fastrand::Rng,
    oracle: Oracle,
    next_version: u64,
    calls: u64,
    dropped: u64,
}

impl Task {
    async fn work(mut self, map: Map, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        while !stop.load(Ordering::Relaxed) {
            self.step(&map).await?;
            self.calls += 1;
        }
        Ok(self)
    }

    /// One call, or one of each of a few that belong together.
    async fn step(&mut self, map: &Map) -> Result<(), Failure> {
        let key = key_name(self.number, self.rng.usize(PAIR.len()..KEYS));
        let version = self.next_version;
        self.next_version += 1;
        let record = Record::new(&key, version, random_size(&mut self.rng));
        let patience = (self.rng.u8(..8) == 0).then(|| self.rng.usize(..4));
        match self.rng.u8(..16) {
            0..=3 => {
                self.look(map, &key)?;
                tokio::task::yield_now().await;
            }
            4..=7 => {
                self.attempt(&key, version, Change::Put)?;
                let call = map.insert(key.clone(), record);
                self.settle(map, &[key], version, waited(call, patience).await)?;
            }
            8 => {
                self.attempt(&key, version, Change::Remove)?;
                let call = map.remove(&key);
                self.settle(
                    map,
                    std::slice::from_ref(&key),
                    version,
                    waited(call, patience).await,
                )?;
            }
            9 | 10 => {
                self.attempt(&key, version, Change::Put)?;
                let call = map.update(&key, move |old| *old = record.clone());
                match waited(call, patience).await {
                    // There was nothing to change.
                    Some(Ok(None)) => self.oracle.hear(&Line::Failed {
                        key,
                        version,
                        why: Refusal::NotApplied,
                    })?,
                    result => self.settle(map, &[key], version, result)?,
                }
            }
            11 => {
                self.attempt(&key, version, Change::Put)?;
                let call = map.compute(key.clone(), move |_| Some(record.clone()));
                self.settle(map, &[key], version, waited(call, patience).await)?;
            }
            12 => {
                let keys = PAIR.map(|key| key_name(self.number, key));
                for key in &keys {
                    self.attempt(key, version, Change::Put)?;
                }
                let both = keys.clone();
                let call = map.transaction(move |transaction| {
                    for key in &both {
                        transaction.insert(key.clone(), Record::new(key, version, 100));
                    }
                    Ok::<_, PersistentError>(())
                });
                self.settle(map, &keys, version, waited(call, patience).await)?;
            }
            13 => {
                let keys: Vec<String> = (self.rng.usize(PAIR.len()..KEYS)..KEYS)
                    .step_by(7)
                    .map(|key| key_name(self.number, key))
                    .collect();
                for key in &keys {
                    self.attempt(key, version, Change::Put)?;
                }
                let entries = keys.iter();
                let entries: Vec<_> = entries
                    .map(|key| (key.clone(), Record::new(key, version, 100)))
                    .collect();
                let call = map.insert_many(entries);
                self.settle(map, &keys, version, waited(call, patience).await)?;
            }
            14 => {
                let mut events = map.subscribe();
                drop_after_polls(events.recv(), 2).await;
            }
            _ => {
                // Every other one is of a key that nobody has, and will not be watched again.
                let other = key_name(self.number, KEYS + usize::try_from(version).unwrap_or(KEYS));
                let key = if self.rng.bool() { key } else { other };
                let mut watch = map.watch(key);
                drop_after_polls(watch.changed(), 2).await;
            }
        }
        Ok(())
    }

    fn attempt(&mut self, key: &str, version: u64, change: Change) -> Result<(), Failure> {
        self.oracle.hear(&Line::Attempt {
            key: key.to_string(),
            version,
            change,
        })
    }

    /// Takes in what came of a call, `None` if it was dropped, and looks at its keys.
    fn settle<T>(
        &mut self,
        map: &Map,
        keys: &[String],
        version: u64,
        result: Option<Result<T, PersistentError>>,
    ) -> Result<(), Failure> {
        let done = result.transpose()?.is_some();
        self.dropped += u64::from(!done);
        for key in keys {
            if done {
                self.oracle.hear(&Line::Acknowledged {
                    key: key.clone(),
                    version,
                })?;
            }
            self.look(map, key)?;
        }
        Ok(())
    }

    /// Reads a key of its own.
    fn look(&self, map: &Map, key: &str) -> Result<(), Failure> {
        let read = |record: &Record| check(key, record).map(|()| record.version());
        let found = map.with(key, read).transpose()?;
        self.oracle.allows(key, found)
    }
}

/// The answer of a call, unless patience with it ends.
async fn waited<T>(call: impl Future<Output = T>, patience: Option<usize>) -> Option<T> {
    match patience {
        Some(polls) => drop_after_polls(call, polls).await,
        None => Some(call.await),
    }
}
