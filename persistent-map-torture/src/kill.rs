//! SIGKILL at any moment: what was acknowledged is there, what was removed stays gone, and the store opens.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::dump::{Ending, look_into};
use crate::failure::Failure;
use crate::oracle::Oracle;
use crate::process::{self, Running};
use crate::protocol::Line;
use crate::store::Backend;
use crate::worker::Planted;

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
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(Default)]
struct Figures {
    stores: u64,
    before_creation: u64,
    while_opening: u64,
    attempts: u64,
    acknowledged: u64,
}

/// A directory with a store, and what must be in it.
struct Victim {
    dir: TempDir,
    path: PathBuf,
    oracle: Oracle,
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
            let context = format!(
                "kill {kill}; again: torture kill --backend {} --kills {} --tasks {} --seed {seed}",
                args.backend.name(),
                args.kills,
                args.tasks
            );
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
        attempts,
        acknowledged,
    } = figures;
    Ok(format!(
        "kill: ok, {}, seed {seed}, {} kills of {} tasks in {stores} stores, {while_opening} while opening \
         ({before_creation} before there was a store), {attempts} calls, {acknowledged} acknowledged, {} ms a kill",
        args.backend.name(),
        args.kills,
        args.tasks,
        started.elapsed().as_millis() / u128::from(args.kills.max(1)),
    ))
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
            oracle: Oracle::default(),
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
        command.arg("worker").arg("--path").arg(&self.path);
        command.args(["--tasks", &args.tasks.to_string()]);
        command.args(["--seed", &rng.u64(..).to_string()]);
        let first_version = 1 + kill * VERSIONS_OF_A_WORKER;
        command.args(["--first-version", &first_version.to_string()]);
        if let Some(planted) = args.planted {
            command.args(["--planted", &planted.name()]);
        }
        let mut worker = Running::start(&mut command)?;
        if while_opening {
            thread::sleep(Duration::from_micros(rng.u64(..10_000)));
        } else {
            worker
                .wait_for(|line| matches!(line, Line::Acknowledged { .. } | Line::Failed { .. }))?;
            thread::sleep(Duration::from_micros(rng.u64(..30_000)));
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
            self.oracle.hear(line)?;
            match line {
                Line::Attempt { .. } => figures.attempts += 1,
                Line::Acknowledged { .. } => figures.acknowledged += 1,
                Line::Failed { key, why, .. } => {
                    return Err(Failure::Violation(format!(
                        "key {key}: a write failed ({why:?}), and nothing was wrong with the disk"
                    )));
                }
                _ => {}
            }
        }
        // The next worker finds a store that was closed, or one that was killed again.
        let ending = if rng.bool() {
            Ending::Closed
        } else {
            Ending::Killed
        };
        self.oracle.compare(&look_into(&self.path, ending)?)
    }
}
