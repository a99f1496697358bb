//! The child whose store follows memory: it says which operation it is about to do, and what was flushed.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use persistent_map_core::{Behind, PersistentError, Transaction, WriteMode};

use crate::failure::Failure;
use crate::planted::Planted;
use crate::process;
use crate::protocol::{Line, Refusal, say};
use crate::record::{Record, random_size};
use crate::runtime;
use crate::sequence::{Call, Operation, Sequence};
use crate::store::{MERGE_SOON, Map, open_with};

/// Between two flushes, at most.
const PAUSE: std::ops::Range<u64> = 0..10_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(long)]
    path: PathBuf,
    /// What the tasks do
    #[arg(long)]
    seed: u64,
    /// How many operations of its sequence a task finds stored; once for each task
    #[arg(long)]
    stored: Vec<u64>,
    /// The longest that an operation waits to be stored
    #[arg(long)]
    delay_ms: u64,
    /// The most entries that wait
    #[arg(long)]
    entries: usize,
    /// Between two operations of a task
    #[arg(long)]
    pause_ms: u64,
    #[arg(long)]
    planted: Option<Planted>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    process::die_with_parent();
    runtime()?.block_on(work(args))
}

async fn work(args: &Args) -> Result<(), Failure> {
    let limits = Behind::new()
        .max_delay(Duration::from_millis(args.delay_ms))
        .max_entries(args.entries);
    let map = open_with(
        &args.path,
        WriteMode::Behind(limits),
        args.planted,
        MERGE_SOON,
    )
    .await?;
    say(&Line::Opened);
    let done: Arc<[AtomicU64]> = args.stored.iter().copied().map(AtomicU64::new).collect();
    let tasks = args.stored.len();
    let pause = Duration::from_millis(args.pause_ms);
    for (task, &stored) in args.stored.iter().enumerate() {
        let (map, done) = (map.clone(), Arc::clone(&done));
        let sequence = Sequence::new(args.seed, task, tasks);
        tokio::spawn(async move {
            for number in stored + 1.. {
                say(&Line::Operation { task, number });
                if let Err(error) = perform(&map, sequence.operation(number)).await {
                    let why = Refusal::of(&error);
                    let call = format!("{task}/{number}");
                    say(&Line::Refused { call, why });
                    return;
                }
                done[task].store(number, Ordering::Release);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        });
    }
    let mut rng = fastrand::Rng::with_seed(args.seed);
    loop {
        tokio::time::sleep(Duration::from_micros(rng.u64(PAUSE))).await;
        let numbers = done.iter().map(|number| number.load(Ordering::Acquire));
        let flushed = Line::Flushed(numbers.collect());
        if args.planted == Some(Planted::AckEarly) {
            say(&flushed);
        }
        map.flush().await?;
        say(&flushed);
    }
}

async fn perform(map: &Map, mut operation: Operation) -> Result<(), PersistentError> {
    let mut sizes = operation.rng.fork();
    let number = operation.number;
    let mut record = move |key: &str, number| Record::new(key, number, random_size(&mut sizes));
    match &operation.call {
        Call::Insert(key) => map.insert(key.clone(), record(key, number)).await.map(drop),
        Call::Remove(key) => map.remove(key).await.map(drop),
        Call::Update(key) => {
            let own = key.clone();
            let add = move |old: &mut Record| {
                *old = record(&own, old.version().wrapping_add(number));
            };
            map.update(key, add).await.map(drop)
        }
        Call::InsertMany(keys) => {
            let last = operation.last_key();
            let keys = keys.iter().chain([&last]);
            let entries = keys.map(|key| (key.clone(), record(key, number)));
            map.insert_many(entries).await.map(drop)
        }
        Call::RemoveMany(keys) => map.remove_many(keys.iter().cloned()).await.map(drop),
        Call::Transaction(..) => {
            let commit = move |transaction: &mut Transaction<'_, String, Record>| {
                change(transaction, &operation, &mut record);
                Ok::<_, PersistentError>(())
            };
            map.transaction(commit).await
        }
        Call::GivenUp(..) => {
            let give_up = move |transaction: &mut Transaction<'_, String, Record>| {
                change(transaction, &operation, &mut record);
                Err::<Infallible, _>(GivenUp::OnPurpose)
            };
            match map.transaction(give_up).await {
                Ok(never) => match never {},
                Err(GivenUp::OnPurpose) => Ok(()),
                Err(GivenUp::Failed(error)) => Err(error),
            }
        }
    }
}

fn change(
    transaction: &mut Transaction<'_, String, Record>,
    operation: &Operation,
    record: &mut impl FnMut(&str, u64) -> Record,
) {
    let changes = operation.changes(|key| transaction.with(key, Record::version));
    for (key, number) in changes {
        match number {
            Some(number) => drop(transaction.insert(key.clone(), record(&key, number))),
            None => drop(transaction.remove(&key)),
        }
    }
}

/// Why a transaction has ended in an error.
enum GivenUp {
    OnPurpose,
    Failed(PersistentError),
}

impl From<PersistentError> for GivenUp {
    fn from(error: PersistentError) -> Self {
        GivenUp::Failed(error)
    }
}
