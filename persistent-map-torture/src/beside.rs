//! A map and a `HashMap` side by side: what the one answers must be what the other says, and after an error what the error
//! says.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use persistent_map_core::{
    Behind, DynBackend, PersistentError, PersistentMap, Phase, StorageBackend, WriteMode,
};
use persistent_map_csv::CsvBackend;
use persistent_map_memory::InMemoryBackend;
use persistent_map_sqlite::SqliteBackend;
use persistent_map_testkit::{Disk, Faults};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::model::{Case, Store};
use crate::planted::{Planted, Split};
use crate::steps::{Call, KEYS, Map, State, Step};
use crate::truth::{Contradiction, Truth};

/// More than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Played {
    pub(crate) plays: u64,
    pub(crate) steps: u64,
    /// Writes of the store.
    pub(crate) writes: u64,
    /// Calls that failed.
    pub(crate) failed: u64,
    /// Maps whose outcome was unknown.
    pub(crate) unknown: u64,
    pub(crate) reopened: u64,
}

/// Plays a case to its end, where the map is closed and the store looked at once more.
pub(crate) async fn play(case: &Case) -> Result<Played, Contradiction> {
    let mut pair = Pair::new(case).await?;
    let steps = case.steps.iter().chain([&Step::Close]);
    for (number, step) in (1..).zip(steps) {
        let taken = timeout(PATIENCE, pair.step(step)).await;
        taken
            .unwrap_or_else(|_| Err("it hangs".into()))
            .map_err(|what| format!("step {number}, {step:?}: {what}"))?;
        pair.played.steps += 1;
    }
    pair.played.plays = 1;
    pair.played.writes = pair.faults.writes();
    Ok(pair.played)
}

struct Pair<'a> {
    case: &'a Case,
    dir: TempDir,
    disk: Disk<u64, u64>,
    faults: Faults,
    /// `None` only while it is opened again.
    map: Option<Map>,
    backend: Weak<dyn StorageBackend<u64, u64>>,
    truth: Truth,
    /// The number of the write that fails, and whether those after it do.
    fault: Option<(u64, bool)>,
    /// Before that one was planned another has failed, and not all is stored since.
    has_failed: bool,
    played: Played,
}

impl<'a> Pair<'a> {
    async fn new(case: &'a Case) -> Result<Self, Contradiction> {
        let dir = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let (disk, faults) = (Disk::new(), Faults::new());
        let (map, backend) = open(case, &dir, &disk, &faults).await?;
        Ok(Pair {
            case,
            dir,
            disk,
            faults,
            map: Some(map),
            backend,
            truth: Truth::new(
                case.behind.is_some() && case.store != Store::Memory,
                case.store == Store::OneAtATime,
            ),
            fault: None,
            has_failed: false,
            played: Played::default(),
        })
    }

    fn map(&self) -> Result<&Map, Contradiction> {
        self.map.as_ref().ok_or_else(|| "it is not open".into())
    }

    async fn step(&mut self, step: &Step) -> Result<(), Contradiction> {
        match step {
            Step::Call(call) => self.call(call).await?,
            Step::Flush => {
                let flushed = self.map()?.flush().await;
                self.all_stored(flushed)?;
            }
            Step::Verify => {
                let verified = self.map()?.verify().await;
                if let Ok(count) = &verified
                    && *count != self.truth.memory.len() as u64
                {
                    return Err(format!("{count} entries were compared"));
                }
                self.all_stored(verified.map(drop))?;
            }
            Step::Close => self.close().await?,
            Step::Drop => self.reopen().await?,
            Step::Fail { nth, fault, lasts } => {
                self.heal();
                let at = self.faults.writes() + nth;
                if *lasts {
                    self.faults.fail_from(*nth, *fault);
                } else {
                    self.faults.fail_nth(*nth, *fault);
                }
                self.fault = Some((at, *lasts));
            }
            Step::Heal => self.heal(),
        }
        self.look().await
    }

    async fn call(&mut self, call: &Call) -> Result<(), Contradiction> {
        let before = self.faults.writes();
        let (answer, wanted) = self.truth.ask(call);
        let given = call.make(self.map()?).await;
        let failed = self.failed_since(before);
        match given {
            Ok(given) if given != answer => {
                Err(format!("it answers {given:?}, and not {answer:?}"))
            }
            Ok(_) if failed && !self.truth.behind => {
                Err("the store has failed, and the call answers Ok".into())
            }
            Ok(_) => self.truth.done(call, wanted),
            Err(PersistentError::Unsupported { .. }) if self.truth.is_refusable(call) => Ok(()),
            Err(error) => {
                self.played.failed += 1;
                let by_itself = failed && !self.truth.behind && !self.truth.poisoned;
                let shown = self.map()?.iter().collect();
                self.truth.failed(call, &error, wanted, shown)?;
                if by_itself {
                    return Ok(());
                }
                self.truth.refused(&error, self.may_have_failed())
            }
        }
    }

    /// Takes in the answer of what stores all that is accepted.
    fn all_stored(&mut self, answer: Result<(), PersistentError>) -> Result<(), Contradiction> {
        if let Err(error) = answer {
            self.played.failed += 1;
            return self.truth.refused(&error, self.may_have_failed());
        }
        if self.truth.poisoned {
            return Err("it answers Ok after an unknown outcome".into());
        }
        self.truth.all_stored();
        self.has_failed = false;
        self.fault
            .take_if(|(at, lasts)| !*lasts && *at <= self.faults.writes());
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Contradiction> {
        let closed = self.map()?.close().await;
        self.all_stored(closed)?;
        match self.map()?.insert(0, 0).await {
            Err(PersistentError::Closed | PersistentError::Poisoned { .. }) => {}
            other => return Err(format!("a closed map answers {other:?}")),
        }
        self.look().await?;
        self.reopen().await
    }

    /// Drops the map, and opens the store once nobody has it any more.
    async fn reopen(&mut self) -> Result<(), Contradiction> {
        self.map = None;
        while self.backend.strong_count() > 0 {
            sleep(Duration::from_micros(200)).await;
        }
        // What was accepted is stored all the same, unless that failed.
        if !self.truth.poisoned && !self.may_have_failed() {
            self.truth.all_stored();
        }
        if self.case.store == Store::Memory {
            self.truth.all_gone();
        }
        self.faults.heal();
        (self.fault, self.has_failed) = (None, false);
        self.played.reopened += 1;
        self.played.unknown += u64::from(self.truth.poisoned);
        let (map, backend) = open(self.case, &self.dir, &self.disk, &self.faults).await?;
        let found = map.iter().collect();
        (self.map, self.backend) = (Some(map), backend);
        self.truth.found(found)
    }

    fn heal(&mut self) {
        self.has_failed = self.may_have_failed();
        self.faults.heal();
        self.fault = None;
    }

    /// Compares all that can be read.
    async fn look(&mut self) -> Result<(), Contradiction> {
        if self.map()?.stats().phase == Phase::Poisoned && !self.truth.poisoned {
            if !self.truth.behind || !self.may_have_failed() {
                return Err("it is poisoned without reason".into());
            }
            self.truth.poisoned = true;
        }
        let map = self.map()?;
        let shown: State = map.iter().collect();
        if shown != self.truth.memory {
            return Err(format!(
                "it shows {shown:?}, and not {:?}",
                self.truth.memory
            ));
        }
        let snapshot = map.snapshot().await;
        let snapshot = snapshot.map_err(|error| format!("no snapshot: {error}"))?;
        let keys: HashSet<u64> = map.keys().collect();
        let mut values: Vec<u64> = map.values().collect();
        let mut expected: Vec<u64> = self.truth.memory.values().copied().collect();
        values.sort_unstable();
        expected.sort_unstable();
        let agree = snapshot == self.truth.memory
            && keys == self.truth.memory.keys().copied().collect()
            && values == expected
            && map.len() == self.truth.memory.len()
            && map.is_empty() == self.truth.memory.is_empty()
            && (0..KEYS).all(|key| {
                let value = self.truth.memory.get(&key).copied();
                map.get(&key) == value
                    && map.with(&key, |value| *value) == value
                    && map.contains_key(&key) == value.is_some()
            });
        if agree {
            return Ok(());
        }
        Err(format!("not all reads see {:?}", self.truth.memory))
    }

    /// Whether a write has failed since the store had begun so many.
    fn failed_since(&self, before: u64) -> bool {
        let now = self.faults.writes();
        self.fault
            .is_some_and(|(at, lasts)| at <= now && (at > before || lasts && now > before))
    }

    /// Whether a write has failed that may still be told of.
    fn may_have_failed(&self) -> bool {
        self.has_failed || self.fault.is_some_and(|(at, _)| at <= self.faults.writes())
    }
}

impl Played {
    pub(crate) fn and(self, other: Self) -> Self {
        Played {
            plays: self.plays + other.plays,
            steps: self.steps + other.steps,
            writes: self.writes + other.writes,
            failed: self.failed + other.failed,
            unknown: self.unknown + other.unknown,
            reopened: self.reopened + other.reopened,
        }
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} plays, {} steps, {} writes of stores, {} calls failed, {} outcomes unknown, {} times opened again",
            self.plays, self.steps, self.writes, self.failed, self.unknown, self.reopened
        )
    }
}

async fn open(
    case: &Case,
    dir: &TempDir,
    disk: &Disk<u64, u64>,
    faults: &Faults,
) -> Result<(Map, Weak<dyn StorageBackend<u64, u64>>), Contradiction> {
    let path = |name| dir.path().join(name);
    let fail = |error: PersistentError| format!("it does not open: {error}");
    let backend: DynBackend<u64, u64> = match case.store {
        Store::Memory => Arc::new(InMemoryBackend::new()),
        Store::Pretended => Arc::new(faults.wrap(disk.backend())),
        Store::OneAtATime => Arc::new(faults.wrap(disk.one_at_a_time_backend())),
        Store::Sqlite => {
            let backend = SqliteBackend::new(path("map.db")).await.map_err(fail)?;
            Arc::new(faults.wrap(backend))
        }
        Store::Csv => Arc::new(faults.wrap(CsvBackend::new(path("map.csv")))),
    };
    let backend: DynBackend<u64, u64> = match case.planted {
        Some(Planted::SplitCommit) => Arc::new(Split(backend)),
        _ => backend,
    };
    let seen = Arc::downgrade(&backend);
    let mode = match case.behind {
        None => WriteMode::Through,
        Some((delay, entries)) => WriteMode::Behind(
            Behind::new()
                .max_delay(Duration::from_millis(delay))
                .max_entries(entries)
                .retry(Duration::from_micros(100), Duration::from_millis(1)),
        ),
    };
    let builder = PersistentMap::builder(backend).write_mode(mode);
    let map = builder.queue_capacity(case.queue_capacity).open().await;
    Ok((map.map_err(fail)?, seen))
}
