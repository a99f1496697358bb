//! Recorded histories of all calls on single entries, with callers that give up, stores that fail, and reopening: one order
//! of the calls must explain every answer.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use persistent_map_core::{Behind, DynBackend, PersistentMap, WriteMode};
use persistent_map_csv::CsvBackend;
use persistent_map_history::{History, Op, make_random_calls};
use persistent_map_sqlite::SqliteBackend;
use persistent_map_testkit::{Disk, Fault, Faults, drop_after_polls};
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::runtime;

const KEYS: u64 = 3;
const TASKS: usize = 6;
const CALLS: u32 = 40;
const ROUNDS: u64 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many histories to record and check
    #[arg(long, default_value_t = 100)]
    histories: u64,
    /// What the maps are stored in
    #[arg(long, value_enum, default_value_t = Store::Pretended)]
    store: Store,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    /// A disk in memory, with atomic batches or one write at a time
    Pretended,
    Sqlite,
    Csv,
}

struct Figures {
    store: Store,
    seed: u64,
    histories: u64,
    calls: usize,
    failed: usize,
    unanswered: usize,
    elapsed: Duration,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let runtime = runtime()?;
    // Planted panics of stores would fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let mut figures = Figures {
        store: args.store,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        histories: 0,
        calls: 0,
        failed: 0,
        unanswered: 0,
        elapsed: Duration::ZERO,
    };
    for number in 0..args.histories {
        let seed = figures.seed.wrapping_add(number);
        let history = runtime.block_on(record(args.store, seed))?;
        match history.check() {
            Ok(found) => {
                figures.histories += 1;
                figures.calls += found.calls;
                figures.failed += found.failed;
                figures.unanswered += found.unanswered;
            }
            Err(anomaly) => {
                return Err(Failure::Violation(format!(
                    "{anomaly}\n  in history {number}: --store {} --seed {seed} --histories 1",
                    args.store.name()
                )));
            }
        }
    }
    figures.elapsed = started.elapsed();
    Ok(figures.to_string())
}

/// One history: some maps on one store, one after the other.
async fn record(store: Store, seed: u64) -> Result<History, Failure> {
    let mut random = fastrand::Rng::with_seed(seed);
    let behind = random.bool();
    let dir = tempfile::tempdir()?;
    let disk = Disk::new();
    let faults = Faults::new();
    let history = History::new();
    let one_at_a_time = random.bool();
    for round in 0..ROUNDS {
        let backend: DynBackend<u64, u64> = match store {
            Store::Pretended if one_at_a_time => Arc::new(disk.one_at_a_time_backend()),
            Store::Pretended => Arc::new(disk.backend()),
            Store::Sqlite => Arc::new(SqliteBackend::new(file(dir.path(), "db")).await?),
            Store::Csv => Arc::new(CsvBackend::new(file(dir.path(), "csv"))),
        };
        let mode = if behind {
            let limits = Behind::new()
                .max_delay(Duration::from_micros(random.u64(..500)))
                .max_entries(random.usize(1..5))
                .retry(Duration::from_micros(100), Duration::from_millis(1));
            WriteMode::Behind(limits)
        } else {
            WriteMode::Through
        };
        let builder = PersistentMap::builder(faults.wrap(backend)).write_mode(mode);
        let map = builder.queue_capacity(random.usize(1..8)).open().await?;
        history.reopened();
        for key in 0..KEYS {
            let look = history.call(TASKS, key, Op::Get);
            look.returned(map.get(&key));
        }
        // A crash may take what write-behind has not stored, so there the store only refuses.
        let fault = match random.u8(..4) {
            _ if behind => Fault::Refused,
            0 => Fault::Refused,
            1 => Fault::UnknownApplied,
            2 => Fault::UnknownNotApplied,
            _ => Fault::Panic,
        };
        faults.fail_nth(random.u64(1..20), fault);
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (map, history) = (map.clone(), history.clone());
            let seed = seed.wrapping_mul(31).wrapping_add(round) >> 24;
            tasks.spawn(async move {
                make_random_calls(&map, &history, task, CALLS, KEYS, seed).await;
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.map_err(|error| Failure::Trouble(format!("a task: {error}")))?;
        }
        faults.heal();
        drop_after_polls(map.close(), random.usize(..3)).await;
        let closed = map.close().await;
        if behind {
            closed?;
        }
    }
    Ok(history)
}

fn file(dir: &Path, ending: &str) -> std::path::PathBuf {
    dir.join(format!("map.{ending}"))
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Store::Pretended => "pretended",
            Store::Sqlite => "sqlite",
            Store::Csv => "csv",
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "linear {}: seed {}, {} histories, {} calls, {} failed, {} without an answer, one order explains each, {:.1} s",
            self.store.name(),
            self.seed,
            self.histories,
            self.calls,
            self.failed,
            self.unanswered,
            self.elapsed.as_secs_f64()
        )
    }
}
