//! The child that writes: it says what it is about to do before each call, and what came of it after.

use std::path::PathBuf;

use persistent_map_core::{PersistentError, WriteMode};

use crate::failure::Failure;
use crate::ledger;
use crate::planted::Planted;
use crate::process;
use crate::protocol::{Change, Line, Refusal, say};
use crate::record::{Record, random_size};
use crate::store::{MERGE_SOON, Map, open_with};

/// Failed calls by which a task knows that the disk is full.
const FAILURES_WHEN_FULL: u32 = 3;
/// More calls than any disk of a test takes.
const MOST_CALLS_TO_FILL: u32 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The database
    #[arg(long)]
    path: PathBuf,
    /// Tasks that write at the same time, each to keys of its own
    #[arg(long, default_value_t = 1)]
    tasks: u32,
    /// Keys of a task
    #[arg(long, default_value_t = 8)]
    keys: usize,
    /// Calls of a task; endless unless given
    #[arg(long)]
    ops: Option<u32>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Greater than all versions that an earlier worker has used
    #[arg(long, default_value_t = 1)]
    first_version: u64,
    /// First write until calls fail, then remove this file, and then make the calls of --ops
    #[arg(long)]
    ballast: Option<PathBuf>,
    /// Also make transactions and updates on entries that all tasks share
    #[arg(long)]
    shared: bool,
    /// How large the journal of a table may grow before it is merged, in bytes
    #[arg(long, default_value_t = MERGE_SOON)]
    merge_after: u64,
    /// Close the map at the end, instead of waiting to be killed
    #[arg(long)]
    close: bool,
    /// A bug to have, for a test that it is found
    #[arg(long)]
    planted: Option<Planted>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if !args.close {
        process::die_with_parent();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // One that waits for files, because strace counts the calls of each thread by itself.
        .max_blocking_threads(1)
        .build()?;
    runtime.block_on(work(args))
}

async fn work(args: &Args) -> Result<(), Failure> {
    let (mode, planted) = (WriteMode::Through, args.planted);
    let map = open_with(&args.path, mode, planted, args.merge_after).await?;
    say(&Line::Opened);
    if args.shared {
        make_ledger(&map, args.first_version).await?;
    }
    let mut tasks: Vec<Task> = (0..args.tasks)
        .map(|number| Task::new(number, &map, args))
        .collect();
    if let Some(ballast) = &args.ballast {
        tasks = all(tasks, Task::run_until_full).await?;
        std::fs::remove_file(ballast)?;
        say(&Line::Relieved);
    }
    all(tasks, Task::run).await?;
    if args.close {
        map.close().await?;
        say(&Line::Done);
        return Ok(());
    }
    say(&Line::Done);
    process::wait_to_be_killed();
}

/// Makes the accounts and counters in one step, if they are not there.
async fn make_ledger(map: &Map, version: u64) -> Result<(), Failure> {
    if map.contains_key(ledger::MADE) {
        return Ok(());
    }
    let key = ledger::MADE.to_string();
    say(&Line::Attempt {
        key: key.clone(),
        version,
        change: Change::Put,
    });
    let marker = (key.clone(), version);
    let entries = ledger::made().chain([marker]).map(|(key, version)| {
        let record = Record::new(&key, version, 100);
        (key, record)
    });
    map.insert_many(entries.collect::<Vec<_>>()).await?;
    say(&Line::Acknowledged { key, version });
    Ok(())
}

/// Runs all tasks at the same time.
async fn all<F>(tasks: Vec<Task>, run: impl Fn(Task) -> F) -> Result<Vec<Task>, Failure>
where
    F: Future<Output = Task> + Send + 'static,
{
    let running: Vec<_> = tasks
        .into_iter()
        .map(|task| tokio::spawn(run(task)))
        .collect();
    let mut ended = Vec::new();
    for task in running {
        let task = task.await;
        ended.push(
            task.map_err(|error| Failure::Trouble(format!("a task of the worker: {error}")))?,
        );
    }
    Ok(ended)
}

struct Task {
    map: Map,
    rng: fastrand::Rng,
    /// The keys, and the version that the map must show for each.
    keys: Vec<(String, Option<u64>)>,
    /// The same of the key that all its transactions write.
    moves: (String, Option<u64>),
    next_version: u64,
    shared: bool,
    ops: Option<u32>,
    planted: Option<Planted>,
}

impl Task {
    fn new(number: u32, map: &Map, args: &Args) -> Self {
        let with_version = |key: String| {
            let version = map.with(&key, Record::version);
            (key, version)
        };
        let keys = (0..args.keys).map(|key| key_name(number, key));
        Task {
            map: map.clone(),
            rng: fastrand::Rng::with_seed(args.seed.wrapping_add(u64::from(number))),
            keys: keys.map(with_version).collect(),
            moves: with_version(format!("t{number}-moves")),
            next_version: args.first_version,
            shared: args.shared,
            ops: args.ops,
            planted: args.planted,
        }
    }

    async fn run(mut self) -> Self {
        let mut done = 0;
        while self.ops.is_none_or(|ops| done < ops) {
            let _ = match if self.shared { self.rng.u8(..8) } else { 8 } {
                0 => self.move_amount().await,
                1 => self.count_up().await,
                _ => self.step().await,
            };
            done += 1;
        }
        self
    }

    async fn run_until_full(mut self) -> Self {
        let mut failures = 0;
        for _ in 0..MOST_CALLS_TO_FILL {
            let Err(error) = self.step().await else {
                continue;
            };
            if !error.is_storage_full() {
                say(&Line::Broken(format!("not told as a full disk: {error}")));
            }
            failures += 1;
            if failures == FAILURES_WHEN_FULL {
                break;
            }
        }
        self
    }

    /// Moves an amount from one account to another, which other tasks do as well.
    async fn move_amount(&mut self) -> Result<(), PersistentError> {
        let (key, shown) = self.moves.clone();
        let version = self.next_version;
        self.next_version += 1;
        let (from, to) = ledger::two_accounts(&mut self.rng);
        let amount = self.rng.u64(1..1000);
        say(&Line::Move {
            key: key.clone(),
            version,
            from: from.clone(),
            to: to.clone(),
            amount,
        });
        let moves = key.clone();
        let mut sizes = self.rng.fork();
        let result = self.map.transaction(move |transaction| {
            let balance = |account: &str| transaction.with(account, Record::version).unwrap_or(0);
            let taken = balance(&from).wrapping_sub(amount);
            let given = balance(&to).wrapping_add(amount);
            let mut replaced = None;
            for (key, version) in [(&from, taken), (&to, given), (&moves, version)] {
                let record = Record::new(key, version, random_size(&mut sizes));
                replaced = transaction.insert(key.clone(), record);
            }
            Ok::<_, PersistentError>(replaced.as_ref().map(Record::version))
        });
        match result.await {
            Ok(replaced) if replaced == shown => {
                self.moves.1 = Some(version);
                say(&Line::Acknowledged { key, version });
                Ok(())
            }
            Ok(replaced) => {
                say(&Line::Broken(format!(
                    "key {key}: version {version} replaced {replaced:?}, but the map had {shown:?}"
                )));
                Ok(())
            }
            Err(error) => {
                let why = Refusal::of(&error);
                say(&Line::Failed { key, version, why });
                Err(error)
            }
        }
    }

    /// Adds one to a counter, which other tasks do as well.
    async fn count_up(&mut self) -> Result<(), PersistentError> {
        let key = ledger::one_counter(&mut self.rng);
        say(&Line::Count { key: key.clone() });
        let (counter, size) = (key.clone(), random_size(&mut self.rng));
        let result = self.map.update(&key, move |record| {
            *record = Record::new(&counter, record.version() + 1, size);
            record.version()
        });
        match result.await {
            Ok(Some(count)) => say(&Line::Counted { key, count }),
            Ok(None) => say(&Line::Broken(format!("{key} is gone"))),
            Err(error) => say(&Line::Refused {
                call: key,
                why: Refusal::of(&error),
            }),
        }
        Ok(())
    }

    /// One call, and whether it went well.
    async fn step(&mut self) -> Result<(), PersistentError> {
        let index = self.rng.usize(..self.keys.len());
        let (key, shown) = self.keys[index].clone();
        let version = self.next_version;
        self.next_version += 1;
        let change = if self.rng.u8(..10) == 0 {
            Change::Remove
        } else {
            Change::Put
        };
        let acknowledged = Line::Acknowledged {
            key: key.clone(),
            version,
        };

        say(&Line::Attempt {
            key: key.clone(),
            version,
            change,
        });
        if self.planted == Some(Planted::AckEarly) {
            say(&acknowledged);
        }
        let (result, wanted) = match change {
            Change::Put => {
                let record = Record::new(&key, version, random_size(&mut self.rng));
                (self.map.insert(key.clone(), record).await, Some(version))
            }
            Change::Remove => (self.map.remove(&key).await, None),
        };
        if let Ok(replaced) = &result {
            self.keys[index].1 = wanted;
            let replaced = replaced.as_ref().map(Record::version);
            if replaced != shown {
                say(&Line::Broken(format!(
                    "key {key}: version {version} replaced {replaced:?}, but the map had {shown:?}"
                )));
            }
        }
        let expected = self.keys[index].1;
        let shown = self.map.with(&key, Record::version);
        if shown != expected {
            say(&Line::Broken(format!(
                "key {key}: after version {version} ({}) the map shows {shown:?}, not {expected:?}",
                outcome(&result)
            )));
        }
        match &result {
            Ok(_) if self.planted == Some(Planted::DenyStored) => say(&Line::Failed {
                key,
                version,
                why: Refusal::NotApplied,
            }),
            Err(error) if self.planted != Some(Planted::AckFailed) => say(&Line::Failed {
                key,
                version,
                why: Refusal::of(error),
            }),
            _ => say(&acknowledged),
        }
        result.map(drop)
    }
}

/// The name of a key of a worker's task.
pub(crate) fn key_name(task: u32, key: usize) -> String {
    format!("t{task}-{key}")
}

fn outcome<T>(result: &Result<T, PersistentError>) -> String {
    match result {
        Ok(_) => "stored".to_string(),
        Err(error) => error.to_string(),
    }
}
