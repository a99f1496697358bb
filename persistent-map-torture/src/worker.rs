//! The child that writes: it says what it is about to do before each call, and what came of it after.

use std::path::PathBuf;

use clap::ValueEnum;
use persistent_map_core::{Outcome, PersistentError};

use crate::failure::Failure;
use crate::process;
use crate::protocol::{Change, Line, Refusal, say};
use crate::record::{Record, random_size};
use crate::store::{Map, open};

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
    /// Close the map at the end, instead of waiting to be killed
    #[arg(long)]
    close: bool,
    /// A bug to have, for a test that it is found
    #[arg(long)]
    planted: Option<Planted>,
}

/// Bugs in a worker that stand for the same bugs in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planted {
    /// Acknowledges before the call: a map that says Ok before the commit
    AckEarly,
    /// Acknowledges what failed: a map that swallows errors
    AckFailed,
    /// Says of what was stored that it was not: a map whose failed commits come back
    DenyStored,
}

impl Planted {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if !args.close {
        process::die_with_parent();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    runtime.block_on(work(args))
}

async fn work(args: &Args) -> Result<(), Failure> {
    let map = open(&args.path).await?;
    say(&Line::Opened);
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
    next_version: u64,
    ops: Option<u32>,
    planted: Option<Planted>,
}

impl Task {
    fn new(number: u32, map: &Map, args: &Args) -> Self {
        let keys = (0..args.keys)
            .map(|key| key_name(number, key))
            .map(|key| {
                let version = map.with(&key, Record::version);
                (key, version)
            })
            .collect();
        Task {
            map: map.clone(),
            rng: fastrand::Rng::with_seed(args.seed.wrapping_add(u64::from(number))),
            keys,
            next_version: args.first_version,
            ops: args.ops,
            planted: args.planted,
        }
    }

    async fn run(mut self) -> Self {
        let mut done = 0;
        while self.ops.is_none_or(|ops| done < ops) {
            let _ = self.step().await;
            done += 1;
        }
        self
    }

    async fn run_until_full(mut self) -> Self {
        let mut failures = 0;
        for _ in 0..MOST_CALLS_TO_FILL {
            failures += u32::from(self.step().await.is_err());
            if failures == FAILURES_WHEN_FULL {
                break;
            }
        }
        self
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
                why: refusal(error),
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

fn refusal(error: &PersistentError) -> Refusal {
    match error {
        PersistentError::Poisoned { .. } => Refusal::Poisoned,
        error if error.outcome() == Outcome::NotApplied => Refusal::NotApplied,
        _ => Refusal::Unknown,
    }
}

fn outcome<T>(result: &Result<T, PersistentError>) -> String {
    match result {
        Ok(_) => "stored".to_string(),
        Err(error) => error.to_string(),
    }
}
