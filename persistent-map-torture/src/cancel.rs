//! Every call of a map dropped at any of its polls: each is done or not, memory is what the store is, and the map goes on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use persistent_map_core::{
    Behind, DynBackend, PersistentError, PersistentMap, StorageBackend, Watch, WriteMode,
};
use persistent_map_testkit::{Disk, drop_after_polls};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::runtime;

const KEYS: u64 = 8;
const TASKS: u64 = 64;
/// Drops on one map, which is then looked at and closed.
const DROPS_OF_A_MAP: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many futures to drop
    #[arg(long, default_value_t = 20_000)]
    drops: u64,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
}

struct Figures {
    seed: u64,
    maps: u64,
    drops: u64,
    /// Futures that were done before they could be dropped.
    finished: u64,
    elapsed: Duration,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let runtime = runtime()?;
    let started = Instant::now();
    let mut figures = Figures {
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        maps: 0,
        drops: 0,
        finished: 0,
        elapsed: Duration::ZERO,
    };
    while figures.drops < args.drops {
        let seed = figures.seed.wrapping_add(figures.maps);
        let drops = DROPS_OF_A_MAP.min(args.drops - figures.drops);
        let finished = runtime
            .block_on(torment(seed, figures.maps, drops))
            .map_err(|failure| failure.of_map(figures.maps, seed))?;
        figures.maps += 1;
        figures.drops += drops;
        figures.finished += finished;
    }
    figures.elapsed = started.elapsed();
    Ok(figures.to_string())
}

/// Drops this many futures of one map, and returns how many of them were done by then.
async fn torment(seed: u64, kind: u64, drops: u64) -> Result<u64, Failure> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Disk::new();
    let mode = if kind.is_multiple_of(2) {
        WriteMode::Through
    } else {
        let limits = Behind::new().max_delay(Duration::from_millis(1));
        WriteMode::Behind(limits.max_entries(random.usize(1..10)))
    };
    let backend: DynBackend<u64, u64> = if kind % 4 < 2 {
        Arc::new(disk.backend())
    } else {
        Arc::new(disk.one_at_a_time_backend())
    };
    let builder = PersistentMap::builder(backend).write_mode(mode);
    let map = builder.queue_capacity(random.usize(1..6)).open().await?;
    let left = Arc::new(AtomicU64::new(drops));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (map, left) = (map.clone(), Arc::clone(&left));
        let mut random = fastrand::Rng::with_seed(seed ^ (task << 32));
        tasks.spawn(async move {
            let mut finished = 0;
            let mut watch = map.watch(0);
            let take = |left: u64| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                finished += u64::from(call_and_drop(&map, &mut watch, &mut random).await);
            }
            finished
        });
    }
    let mut finished = 0;
    while let Some(task) = tasks.join_next().await {
        finished += task.map_err(|error| Failure::Trouble(format!("a task: {error}")))?;
    }

    let answers = timeout(PATIENCE, async {
        map.insert(KEYS, 1).await?;
        map.flush().await?;
        map.snapshot().await
    });
    let Ok(memory) = answers.await else {
        return Err(Failure::Violation(
            "the map does not answer any more".into(),
        ));
    };
    if memory? != disk.entries() {
        return Err(Failure::Violation("memory and store differ".into()));
    }
    drop_after_polls(map.close(), random.usize(..3)).await;
    match timeout(PATIENCE, map.close()).await {
        Ok(closed) => closed?,
        Err(_) => return Err(Failure::Violation("the map does not close".into())),
    }
    Ok(finished)
}

/// Makes a call, drops it after some polls, and tells whether it was done by then.
async fn call_and_drop<B: StorageBackend<u64, u64>>(
    map: &PersistentMap<u64, u64, B>,
    watch: &mut Watch<u64, u64>,
    random: &mut fastrand::Rng,
) -> bool {
    let polls = random.usize(..5);
    let (key, value) = (random.u64(..KEYS), random.u64(..));
    macro_rules! dropped {
        ($call:expr) => {
            drop_after_polls($call, polls).await.is_some()
        };
    }
    match random.u8(..18) {
        0 | 1 => dropped!(map.insert(key, value)),
        2 => dropped!(map.update_or_insert(key, value, |value| *value = value.wrapping_add(1))),
        3 => dropped!(map.remove(&key)),
        4 => dropped!(map.update(&key, |value| *value = value.wrapping_add(1))),
        5 => dropped!(map.compute(key, move |old| old.xor(Some(value)))),
        6 => dropped!(map.insert_if_absent(key, value)),
        7 => dropped!(map.compare_and_swap(key, map.get(&key), Some(value))),
        8 => dropped!(map.remove_if(&key, |value| value.is_multiple_of(2))),
        9 => dropped!(map.get_or_insert_with(key, || async {
            tokio::task::yield_now().await;
            value
        })),
        10 => dropped!(map.insert_many((0..KEYS).map(|key| (key, value)))),
        11 => dropped!(map.remove_many(0..KEYS / 2)),
        12 => dropped!(map.retain(move |other, _| *other != key)),
        13 => dropped!(map.transaction(move |tx| {
            let old = tx.insert(key, value);
            tx.remove(&((key + 1) % KEYS));
            Ok::<_, PersistentError>(old)
        })),
        14 => dropped!(map.snapshot()),
        15 => dropped!(map.flush()),
        16 => dropped!(watch.changed()),
        _ if polls == 4 => dropped!(map.clear()),
        _ => {
            let mut events = map.subscribe();
            dropped!(events.recv())
        }
    }
}

impl Failure {
    fn of_map(self, map: u64, seed: u64) -> Self {
        match self {
            Failure::Violation(text) => {
                Failure::Violation(format!("{text}\n  in: map {map}, whose seed is {seed}"))
            }
            other => other,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cancel: seed {}, {} maps, {} futures dropped ({} of them done by then), no map that does not answer, {:.1} s",
            self.seed,
            self.maps,
            self.drops,
            self.finished,
            self.elapsed.as_secs_f64()
        )
    }
}
