//! The situations in which calls have hung, or could.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinSet, unconstrained};
use tokio::time::{sleep, timeout};

use super::store::Planted;
use super::watch::Watch;
use super::{ChildArgs, TIMER};
use crate::failure::Failure;
use crate::record::Record;
use crate::store::Map;

pub(super) const KEYS: u64 = 64;
/// Large, so that a reader is nearly always inside.
const LARGE: usize = 64 << 10;
pub(super) const SMALL: usize = 64;
const READERS: usize = 8;
/// Reads that are watched as one: the watch itself must not hold readers apart.
const READS: usize = 100;
/// How long a reader stays inside. Of eight who do nothing else, one is always there, on any number of cores.
const STAY: Duration = Duration::from_millis(1);
const WRITES: u64 = 10;
/// Tokio's own limit of blocking threads.
pub(super) const POOL: usize = 512;
/// Calls of each kind that are given up.
const ABANDONED: usize = 100;
/// So many that a comparison with the store takes its time.
pub(super) const MANY: u64 = 10_000;
const TICK: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Case {
    /// Threads that look at one entry again and again
    Readers,
    /// Threads that look at one entry from inside of another one
    Nested,
    /// Threads that iterate again and again
    Iterators,
    /// Tasks that take one snapshot after another
    Snapshots,
    /// Blocking callers that take each thread of tokio's blocking pool
    FullPool,
    /// The same, with a pool of one thread
    SmallPool,
    /// Calls that were given up, by the hundred
    Abandoned,
    /// One task that only writes, and a timer, on one thread
    Busy,
    /// Nothing happens, then a call
    Idle,
    /// A runtime that is dropped while the map works
    DroppedRuntime,
    /// A map that is used from another runtime than its own
    SecondRuntime,
    /// Initialisers that ask for the key of each other
    Initialisers,
    /// Closures of a map in which its other calls are waited for
    Closures,
    /// A disk whose syncs take long
    SlowDisk,
    /// A process that is stopped and goes on
    Stopped,
}

impl Case {
    /// As it is written on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// A child at work.
pub(super) struct Play<'a> {
    pub(super) args: &'a ChildArgs,
    pub(super) watch: Watch,
}

pub(super) fn play(args: &ChildArgs) -> Result<(), Failure> {
    let play = Play {
        args,
        watch: Watch::start(args.case.name(), Duration::from_secs_f64(args.answer)),
    };
    match args.case {
        Case::Readers => play.beside_readers(|map| {
            map.with(&key(0), stay);
        }),
        Case::Nested => play.beside_readers(|map| {
            map.with(&key(0), |record| {
                stay(record);
                map.with(&key(1), Clone::clone)
            });
        }),
        Case::Iterators => play.beside_readers(|map| {
            map.iter().for_each(drop);
        }),
        Case::Snapshots => threads(2, POOL)?.block_on(play.snapshots()),
        Case::FullPool => threads(2, POOL)?.block_on(play.full_pool(POOL + 88)),
        Case::SmallPool => threads(2, 1)?.block_on(play.full_pool(20)),
        Case::Abandoned => threads(2, POOL)?.block_on(play.abandoned()),
        Case::Busy => one_thread()?.block_on(play.busy()),
        Case::Idle => one_thread()?.block_on(play.idle()),
        Case::DroppedRuntime => play.dropped_runtime(),
        Case::SecondRuntime => play.second_runtime(),
        Case::Initialisers => threads(2, POOL)?.block_on(play.initialisers()),
        Case::Closures => threads(2, POOL)?.block_on(play.closures()),
        Case::SlowDisk | Case::Stopped => threads(2, POOL)?.block_on(play.mixed_work()),
    }?;
    let (longest, call) = play.watch.longest();
    println!("{} {call}", longest.as_micros());
    Ok(())
}

fn stay(_: &Record) {
    thread::sleep(STAY);
}

pub(super) fn key(number: u64) -> String {
    format!("key {number}")
}

pub(super) fn record(number: u64, version: u64, bytes: usize) -> (String, Record) {
    let key = key(number);
    let record = Record::new(&key, version, bytes);
    (key, record)
}

pub(super) fn threads(workers: usize, pool: usize) -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(workers).max_blocking_threads(pool);
    Ok(builder.enable_time().build()?)
}

pub(super) fn one_thread() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_time().build()?)
}

impl Play<'_> {
    pub(super) fn life(&self) -> Duration {
        Duration::from_secs_f64(self.args.seconds)
    }

    pub(super) async fn open(&self) -> Result<Map, Failure> {
        let (args, watch) = (self.args, &self.watch);
        let opened = args.backend.open(&args.dir, args.mode, args.planted);
        let map = watch.call("open", opened).await?;
        let described = map.clone();
        watch.describe_by(move || format!("{:?}", described.stats()));
        Ok(map)
    }

    pub(super) async fn insert(
        &self,
        map: &Map,
        number: u64,
        version: u64,
        bytes: usize,
    ) -> Result<(), Failure> {
        let (key, record) = record(number, version, bytes);
        self.watch.call("insert", map.insert(key, record)).await?;
        Ok(())
    }

    pub(super) async fn fill(&self, map: &Map, entries: u64, bytes: usize) -> Result<(), Failure> {
        let entries = (0..entries).map(|number| record(number, 0, bytes));
        let filled = map.insert_many(entries.collect::<Vec<_>>());
        self.watch.call("insert_many", filled).await?;
        Ok(())
    }

    /// What each case ends with.
    pub(super) async fn close(&self, map: &Map) -> Result<(), Failure> {
        self.watch.call("flush", map.flush()).await?;
        self.watch.call("close", map.close()).await?;
        Ok(())
    }

    /// A store with its map on two threads; others read for as long as it writes.
    fn beside_readers(&self, read: impl Fn(&Map) + Send + Sync) -> Result<(), Failure> {
        let runtime = threads(2, POOL)?;
        let map = runtime.block_on(async {
            let map = self.open().await?;
            self.fill(&map, KEYS, LARGE).await?;
            Ok::<_, Failure>(map)
        })?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        self.watch
                            .blocking("a hundred reads", || (0..READS).for_each(|_| read(&map)));
                    }
                });
            }
            let written = runtime.block_on(self.write_for_a_while(&map));
            over.store(true, Ordering::Relaxed);
            written
        })?;
        runtime.block_on(self.close(&map))
    }

    pub(super) async fn write_for_a_while(&self, map: &Map) -> Result<(), Failure> {
        let _all_together = self.watch.begin(
            "all writes",
            self.life() + Duration::from_secs_f64(self.args.answer),
        );
        let end = Instant::now() + self.life();
        let mut version = 1;
        while Instant::now() < end || version <= WRITES {
            self.insert(map, 0, version, LARGE).await?;
            self.insert(map, version % KEYS, version, LARGE).await?;
            version += 1;
        }
        self.watch.call("remove", map.remove(&key(2))).await?;
        self.watch.call("flush", map.flush()).await?;
        Ok(())
    }

    async fn snapshots(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        self.fill(&map, MANY, SMALL).await?;
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..READERS {
            let (map, watch, over) = (map.clone(), self.watch.clone(), Arc::clone(&over));
            tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    watch.call("snapshot", map.snapshot()).await?;
                }
                Ok::<_, Failure>(())
            });
        }
        let written = self.write_for_a_while(&map).await;
        over.store(true, Ordering::Relaxed);
        written?;
        all(tasks).await?;
        self.close(&map).await
    }

    async fn full_pool(&self, callers: usize) -> Result<(), Failure> {
        let map = self.open().await?;
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (map, watch) = (map.clone(), self.watch.clone());
            tasks.spawn_blocking(move || {
                for version in 0..3 {
                    let (key, record) = record(caller as u64, version, SMALL);
                    let write = || map.blocking().insert(key, record);
                    watch.blocking("blocking().insert", write)?;
                }
                Ok::<_, Failure>(())
            });
        }
        self.insert(&map, 0, 9, SMALL).await?;
        self.watch.call("flush", map.flush()).await?;
        all(tasks).await?;
        self.close(&map).await
    }

    async fn abandoned(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        self.fill(&map, MANY, SMALL).await?;
        for number in 0..ABANDONED as u64 {
            let _ = timeout(TICK, map.verify()).await;
            let _ = timeout(TICK, map.snapshot()).await;
            let _ = timeout(TICK, map.flush()).await;
            let (key, record) = record(number, 1, SMALL);
            let _ = timeout(TICK, map.insert(key, record)).await;
        }
        self.insert(&map, 0, 2, SMALL).await?;
        for _ in 0..ABANDONED {
            let _ = timeout(TICK, map.verify()).await;
        }
        self.watch.call("close", map.close()).await?;
        Ok(())
    }

    async fn busy(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        let (writer, watch) = (map.clone(), self.watch.clone());
        let end = Instant::now() + self.life().max(2 * TIMER);
        let writing = async move {
            let mut version = 0;
            while Instant::now() < end {
                version += 1;
                let (key, record) = record(version % KEYS, version, SMALL);
                watch.call("insert", writer.insert(key, record)).await?;
            }
            Ok::<_, Failure>(())
        };
        let writing = if self.args.planted == Some(Planted::Unconstrained) {
            tokio::spawn(unconstrained(writing))
        } else {
            tokio::spawn(writing)
        };
        while !writing.is_finished() {
            let _late = self.watch.begin("a timer of 1 ms", TIMER);
            sleep(TICK).await;
        }
        writing.await.map_err(task)??;
        self.close(&map).await
    }

    async fn idle(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        self.insert(&map, 0, 0, SMALL).await?;
        sleep(self.life()).await;
        self.insert(&map, 0, 1, SMALL).await?;
        self.watch.call("verify", map.verify()).await?;
        self.close(&map).await
    }

    async fn mixed_work(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        self.fill(&map, KEYS, SMALL).await?;
        let end = Instant::now() + self.life().max(Duration::from_secs(3));
        let mut tasks = JoinSet::new();
        for task in 0..READERS as u64 {
            let (map, watch) = (map.clone(), self.watch.clone());
            tasks.spawn(async move {
                let mut version = 0;
                while Instant::now() < end {
                    version += 1;
                    let (key, record) = record(task, version, SMALL);
                    watch.call("insert", map.insert(key, record)).await?;
                }
                watch.call("verify", map.verify()).await?;
                Ok::<_, Failure>(())
            });
        }
        all(tasks).await?;
        self.close(&map).await
    }
}

pub(super) async fn all(mut tasks: JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(task)??;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn task(error: JoinError) -> Failure {
    Failure::Trouble(format!("a task: {error}"))
}
