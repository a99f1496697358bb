//! Lives of stores whose processes come to harm: workers write and say what they do, harm comes at any moment, and a fresh
//! process finds what the truth, which is kept here, demands. What the harm is, its own proof says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::dump::{Ending, look_into, look_until};
use crate::failure::Failure;
use crate::oracle::{Found, Oracle};
use crate::planted::Planted;
use crate::prefixes::Prefixes;
use crate::process::{self, Ended, Running};
use crate::protocol::Line;
use crate::store::Backend;

/// More versions than a worker uses before it is harmed.
const VERSIONS_OF_A_WORKER: u64 = 1_000_000;

/// What comes to the processes of a store, and where the stores are.
pub(crate) trait Harm {
    /// One time of it, in the figures.
    const NAME: &'static str;
    /// Whether it can take what a process has written.
    const REACHES_STORES: bool;

    /// This proof on the command line, without what all have.
    fn again(&self, times: u64) -> String;

    /// An empty directory for a store. The one before is not needed any more.
    fn room(&mut self) -> Result<PathBuf, Failure>;

    /// Lets it come to a child, and to the store that the child has open.
    fn strike(&mut self, child: Running, rng: &mut fastrand::Rng) -> Result<Struck, Failure>;

    /// Keeps what is there, for people to look at; where it is.
    fn keep(&mut self) -> &Path;
}

/// A child to which harm has come.
pub(crate) struct Struck {
    pub(crate) child: Ended,
    /// Whether the harm explains how it has ended.
    pub(crate) ended_well: bool,
    /// So many lines were heard before the harm. Of those after it the answers tell nothing: they are of a machine that is
    /// no more.
    pub(crate) heard: usize,
}

impl Struck {
    /// Kills a child, whose words are true to the last.
    pub(crate) fn killed(child: Running) -> Result<Self, Failure> {
        let child = child.kill()?;
        Ok(Struck {
            ended_well: child.was_killed(),
            heard: child.said.len(),
            child,
        })
    }
}

#[derive(clap::Args)]
pub(crate) struct Options {
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
    /// How long a worker lives at most, in milliseconds; enough for some commits, and some flushes, unless given. Tables of
    /// CSV are merged a few times in 500
    #[arg(long)]
    life: Option<u64>,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Before its call returns
    Through,
    /// Later, or by a flush
    Behind,
}

impl Mode {
    /// What the command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Through => "through",
            Mode::Behind => "behind",
        }
    }

    /// How long a worker lives at most, in milliseconds: some commits, and some flushes.
    fn life(self) -> u64 {
        match self {
            Mode::Through => 30,
            Mode::Behind => 60,
        }
    }
}

impl Options {
    /// Where the files of a run belong.
    pub(crate) fn parent(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    fn life(&self) -> u64 {
        self.life.unwrap_or(self.mode.life()).max(1)
    }

    /// As they are written on the command line, but for the seed.
    fn again(&self) -> String {
        format!(
            "--mode {} --backend {} --tasks {} --life {}",
            self.mode.name(),
            self.backend.name(),
            self.tasks,
            self.life()
        )
    }
}

#[derive(Default)]
struct Figures {
    stores: u64,
    before_creation: u64,
    while_opening: u64,
    readers: u64,
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

/// A store, and what must be in it.
struct Victim {
    path: PathBuf,
    truth: Truth,
    lives_left: u64,
    is_fresh: bool,
}

/// Lets harm come to stores, so many times.
pub(crate) fn run<H: Harm>(harm: &mut H, times: u64, options: &Options) -> Result<String, Failure> {
    let again = format!("{} {}", harm.again(times), options.again());
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{again}: seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut figures = Figures::default();
    let started = Instant::now();
    let mut current = None;
    for time in 0..times {
        let mut victim = if let Some(victim) = current.take() {
            victim
        } else {
            figures.stores += 1;
            Victim::new(harm, options, &mut rng)?
        };
        if let Err(failure) = victim.live(time, harm, options, &mut rng, &mut figures) {
            let context = format!("{} {time}; again: torture {again} --seed {seed}", H::NAME);
            return Err(failure.at(&context, harm.keep()));
        }
        current = Some(victim).filter(|victim| victim.lives_left > 0);
    }
    let work = figures.work(options.mode);
    let Figures {
        stores,
        before_creation,
        while_opening,
        readers,
        ..
    } = figures;
    let readers = if H::REACHES_STORES {
        format!("{readers} right after all was read, ")
    } else {
        String::new()
    };
    Ok(format!(
        "{again}: ok, seed {seed}, {stores} stores, {while_opening} {name}s while opening and {before_creation} that left no \
         store, {readers}{work}, {} ms a {name}",
        started.elapsed().as_millis() / u128::from(times.max(1)),
        name = H::NAME,
    ))
}

impl Figures {
    fn count(&mut self, line: &Line) {
        match line {
            Line::Attempt { .. } | Line::Operation { .. } => self.calls += 1,
            Line::Move { .. } => {
                self.calls += 1;
                self.transactions += 1;
            }
            Line::Count { .. } => {
                self.calls += 1;
                self.updates += 1;
            }
            Line::Acknowledged { .. } | Line::Counted { .. } => self.acknowledged += 1,
            Line::Flushed(_) => self.flushes += 1,
            _ => {}
        }
    }

    fn work(&self, mode: Mode) -> String {
        let Figures {
            calls,
            acknowledged,
            transactions,
            updates,
            flushes,
            taken,
            ..
        } = self;
        match mode {
            Mode::Through => format!(
                "{calls} calls, {acknowledged} acknowledged, {transactions} transactions and {updates} updates among them"
            ),
            Mode::Behind => {
                format!("{calls} calls, {taken} of them taken, {flushes} flushes acknowledged")
            }
        }
    }
}

impl Truth {
    fn new(options: &Options, rng: &mut fastrand::Rng) -> Self {
        match options.mode {
            Mode::Through => Truth::Through(Box::default()),
            Mode::Behind => {
                let seed = rng.u64(..);
                let prefixes = Prefixes::new(seed, options.tasks as usize);
                Truth::Behind { seed, prefixes }
            }
        }
    }

    /// Adds to `command` what makes it the child that this is the truth about.
    fn describe(
        &self,
        command: &mut Command,
        time: u64,
        options: &Options,
        planted: Option<Planted>,
        rng: &mut fastrand::Rng,
    ) {
        match self {
            Truth::Through(_) => {
                command.args(["worker", "--shared"]);
                command.args(["--tasks", &options.tasks.to_string()]);
                command.args(["--seed", &rng.u64(..).to_string()]);
                let first_version = 1 + time * VERSIONS_OF_A_WORKER;
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
        if let Some(planted) = planted {
            command.args(["--planted", &planted.name()]);
        }
    }

    fn hear(&mut self, line: &Line) -> Result<(), Failure> {
        if matches!(line, Line::Failed { .. } | Line::Refused { .. }) {
            return Err(Failure::Violation(format!(
                "`{line}`: a call failed, and nothing was wrong with the disk"
            )));
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
    fn new(
        harm: &mut impl Harm,
        options: &Options,
        rng: &mut fastrand::Rng,
    ) -> Result<Self, Failure> {
        Ok(Victim {
            path: harm.room()?.join(options.backend.file_name()),
            truth: Truth::new(options, rng),
            lives_left: rng.u64(1..=20),
            is_fresh: true,
        })
    }

    /// Harm comes once: to a worker, or to a process that reads what was left by a worker that was killed, or by the harm
    /// before.
    fn live<H: Harm>(
        &mut self,
        time: u64,
        harm: &mut H,
        options: &Options,
        rng: &mut fastrand::Rng,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        self.lives_left -= 1;
        let mut chance = rng.fork();
        if H::REACHES_STORES && rng.u8(..4) == 0 {
            if self.is_fresh || rng.u8(..3) > 0 {
                // A worker without syncs may be killed, too, and leaves more that only its reader can make durable.
                let planted = options.planted.or(rng.bool().then_some(Planted::Unsynced));
                self.work(time, options, planted, rng, figures, Struck::killed)?;
            }
            // What was read is certain from then on.
            let found = look_until(&self.path, |reader| {
                harm.strike(reader, &mut chance).map(|struck| struck.child)
            })?;
            self.truth.compare(&found, figures)?;
            figures.readers += 1;
        } else {
            let strike = |worker| harm.strike(worker, &mut chance);
            let has_opened = self.work(time, options, options.planted, rng, figures, strike)?;
            figures.while_opening += u64::from(!has_opened);
            figures.before_creation += u64::from(!self.path.exists());
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

    /// The life of a worker, and what it has said; whether it had opened the store.
    fn work(
        &mut self,
        time: u64,
        options: &Options,
        planted: Option<Planted>,
        rng: &mut fastrand::Rng,
        figures: &mut Figures,
        strike: impl FnOnce(Running) -> Result<Struck, Failure>,
    ) -> Result<bool, Failure> {
        // A store is made once but opened often, so its making gets more than its share.
        let while_opening = rng.u8(..5) == 0 || (self.is_fresh && rng.bool());
        self.is_fresh = false;

        let mut command = process::myself()?;
        self.truth
            .describe(&mut command, time, options, planted, rng);
        command.arg("--path").arg(&self.path);
        let mut worker = Running::start(&mut command)?;
        if while_opening {
            thread::sleep(Duration::from_micros(rng.u64(..10_000)));
        } else {
            worker.wait_for(|line| line.is_answer() || matches!(line, Line::Operation { .. }))?;
            thread::sleep(Duration::from_micros(rng.u64(..1000 * options.life())));
        }
        let ended_before = worker.has_ended()?;
        let Struck {
            child: worker,
            ended_well,
            heard,
        } = strike(worker)?;
        if ended_before || !ended_well {
            return Err(Failure::Violation(format!(
                "the worker ended by itself: {}, {}",
                worker.status,
                worker.stderr.trim_end()
            )));
        }
        let (before, after) = worker.said.split_at(heard);
        for line in before {
            figures.count(line);
            self.truth.hear(line)?;
        }
        for line in after.iter().filter(|line| !line.is_answer()) {
            // Those that are taken are counted in any case.
            if matches!(line, Line::Operation { .. }) {
                figures.count(line);
            }
            self.truth.hear(line)?;
        }
        Ok(worker.said(&Line::Opened))
    }
}
