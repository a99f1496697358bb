//! SIGKILL at any moment: what was acknowledged is there, what was removed stays gone, and the store opens. If the store
//! follows memory, it holds a moment of the past, not before the last flush.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::dump::{Ending, look_into};
use crate::failure::Failure;
use crate::oracle::{Found, Oracle};
use crate::planted::Planted;
use crate::prefixes::Prefixes;
use crate::process::{self, Running};
use crate::protocol::Line;
use crate::store::Backend;

/// More versions than a worker uses before it is killed.
const VERSIONS_OF_A_WORKER: u64 = 1_000_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many workers to kill
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Tasks of each worker
    #[arg(long, default_value_t = 64)]
    tasks: u32,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Where to put the stores; the system's directory for temporary files unless given
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What keeps the entries
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// When a write is stored
    #[arg(long, value_enum, default_value_t = Mode::Through)]
    mode: Mode,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Before its call returns
    Through,
    /// Later, or by a flush
    Behind,
}

impl Mode {
    /// How long a worker lives at most, in microseconds: some commits, and some flushes.
    fn life_us(self) -> u64 {
        match self {
            Mode::Through => 30_000,
            Mode::Behind => 60_000,
        }
    }
}

impl Args {
    /// This proof on the command line, but for the seed.
    fn again(&self) -> String {
        let mode = match self.mode {
            Mode::Through => "through",
            Mode::Behind => "behind",
        };
        format!(
            "kill --mode {mode} --backend {} --kills {} --tasks {}",
            self.backend.name(),
            self.kills,
            self.tasks
        )
    }
}

#[derive(Default)]
struct Figures {
    stores: u64,
    before_creation: u64,
    while_opening: u64,
    calls: u64,
    acknowledged: u64,
    transactions: u64,
    updates: u64,
    flushes: u64,
    taken: u64,
}

/// What must be in a store.
enum Truth {
    Through(Box<Oracle>),
    Behind { seed: u64, prefixes: Prefixes },
}

/// A directory with a store, and what must be in it.
struct Victim {
    dir: TempDir,
    path: PathBuf,
    truth: Truth,
    kills_left: u64,
    is_fresh: bool,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("kill: seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut figures = Figures::default();
    let started = Instant::now();
    let mut current = None;
    for kill in 0..args.kills {
        let mut victim = if let Some(victim) = current.take() {
            victim
        } else {
            figures.stores += 1;
            Victim::new(args, &mut rng)?
        };
        if let Err(failure) = victim.kill_once(kill, args, &mut rng, &mut figures) {
            victim.dir.disable_cleanup(true);
            let context = format!("kill {kill}; again: torture {} --seed {seed}", args.again());
            return Err(failure.at(&context, victim.dir.path()));
        }
        if victim.kills_left > 0 {
            current = Some(victim);
        }
    }
    let Figures {
        stores,
        before_creation,
        while_opening,
        calls,
        acknowledged,
        transactions,
        updates,
        flushes,
        taken,
    } = figures;
    let work = match args.mode {
        Mode::Through => format!(
            "{calls} calls, {acknowledged} acknowledged, {transactions} transactions and {updates} updates among them"
        ),
        Mode::Behind => {
            format!("{calls} calls, {taken} of them taken by kills, {flushes} flushes acknowledged")
        }
    };
    Ok(format!(
        "{}: ok, seed {seed}, {stores} stores, {while_opening} killed while opening ({before_creation} before there was a \
         store), {work}, {} ms a kill",
        args.again(),
        started.elapsed().as_millis() / u128::from(args.kills.max(1)),
    ))
}

impl Truth {
    fn new(args: &Args, rng: &mut fastrand::Rng) -> Self {
        match args.mode {
            Mode::Through => Truth::Through(Box::default()),
            Mode::Behind => {
                let seed = rng.u64(..);
                let prefixes = Prefixes::new(seed, args.tasks as usize);
                Truth::Behind { seed, prefixes }
            }
        }
    }

    /// Adds to `command` what makes it the child that this is the truth about.
    fn describe(&self, command: &mut Command, kill: u64, args: &Args, rng: &mut fastrand::Rng) {
        match self {
            Truth::Through(_) => {
                command.args(["worker", "--shared"]);
                command.args(["--tasks", &args.tasks.to_string()]);
                command.args(["--seed", &rng.u64(..).to_string()]);
                let first_version = 1 + kill * VERSIONS_OF_A_WORKER;
                command.args(["--first-version", &first_version.to_string()]);
            }
            Truth::Behind { seed, prefixes } => {
                command.args(["behind", "--seed", &seed.to_string()]);
                for stored in prefixes.stored() {
                    command.args(["--stored", &stored.to_string()]);
                }
                // From so few that writers wait for the store all the time, to so many that only time begins a save.
                let entries = 1_u32 << rng.u32(2..14);
                command.args(["--entries", &entries.to_string()]);
                command.args(["--delay-ms", &rng.u8(1..=8).to_string()]);
                command.args(["--pause-ms", &rng.u8(..=1).to_string()]);
            }
        }
        if let Some(planted) = args.planted {
            command.args(["--planted", &planted.name()]);
        }
    }

    fn hear(&mut self, line: &Line, figures: &mut Figures) -> Result<(), Failure> {
        match line {
            Line::Attempt { .. } | Line::Operation { .. } => figures.calls += 1,
            Line::Move { .. } => {
                figures.calls += 1;
                figures.transactions += 1;
            }
            Line::Count { .. } => {
                figures.calls += 1;
                figures.updates += 1;
            }
            Line::Acknowledged { .. } | Line::Counted { .. } => figures.acknowledged += 1,
            Line::Flushed(_) => figures.flushes += 1,
            Line::Failed { key, why, .. } => {
                return Err(Failure::Violation(format!(
                    "key {key}: a write failed ({why:?}), and nothing was wrong with the disk"
                )));
            }
            _ => {}
        }
        match self {
            Truth::Through(oracle) => oracle.hear(line),
            Truth::Behind { prefixes, .. } => prefixes.hear(line),
        }
    }

    fn compare(&mut self, found: &Found, figures: &mut Figures) -> Result<(), Failure> {
        match self {
            Truth::Through(oracle) => oracle.compare(found),
            Truth::Behind { prefixes, .. } => {
                figures.taken += prefixes.compare(found)?;
                Ok(())
            }
        }
    }
}

impl Victim {
    fn new(args: &Args, rng: &mut fastrand::Rng) -> Result<Self, Failure> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("torture-kill-");
        let dir = match &args.dir {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        Ok(Victim {
            path: dir.path().join(args.backend.file_name()),
            dir,
            truth: Truth::new(args, rng),
            kills_left: rng.u64(1..=20),
            is_fresh: true,
        })
    }

    fn kill_once(
        &mut self,
        kill: u64,
        args: &Args,
        rng: &mut fastrand::Rng,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        self.kills_left -= 1;
        // A store is made once but opened often, so its making gets more than its share.
        let while_opening = rng.u8(..5) == 0 || (self.is_fresh && rng.bool());
        self.is_fresh = false;

        let mut command = process::myself()?;
        self.truth.describe(&mut command, kill, args, rng);
        command.arg("--path").arg(&self.path);
        let mut worker = Running::start(&mut command)?;
        if while_opening {
            thread::sleep(Duration::from_micros(rng.u64(..10_000)));
        } else {
            worker.wait_for(|line| {
                matches!(
                    line,
                    Line::Acknowledged { .. } | Line::Failed { .. } | Line::Operation { .. }
                )
            })?;
            thread::sleep(Duration::from_micros(rng.u64(..args.mode.life_us())));
        }
        let worker = worker.kill()?;

        if !worker.was_killed() {
            return Err(Failure::Violation(format!(
                "the worker ended before it was killed: {}, {}",
                worker.status,
                worker.stderr.trim_end()
            )));
        }
        figures.while_opening += u64::from(!worker.said(&Line::Opened));
        figures.before_creation += u64::from(!self.path.exists());
        for line in &worker.said {
            self.truth.hear(line, figures)?;
        }
        // The next worker finds a store that was closed, or one that was killed again.
        let ending = if rng.bool() {
            Ending::Closed
        } else {
            Ending::Killed
        };
        let found = look_into(&self.path, ending)?;
        self.truth.compare(&found, figures)
    }
}
