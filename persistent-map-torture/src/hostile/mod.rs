//! Files that are not what they were, or never were: each is refused as it stands, or opens with the right values. Nothing
//! panics, aborts or hangs, and memory is claimed for what is there and not for what the bytes say.
//!
//! The parent has a worker write a small store of each kind, and some of them killed. Children damage copies of it and
//! open them, many in a row, because a process for each would take most of the time. A child says what it is about to
//! open, so that the parent knows what has ended it.

mod crafted;
mod damage;
mod store;
mod verdict;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::process::{self, Running};
use crate::protocol::{Line, say};
use crate::runtime;
use store::{Kind, Pristine};
use verdict::Tally;

/// Opens of one child.
const BATCH: u64 = 500;
/// Within which an open, with all that it is compared with, is done.
const PATIENCE: Duration = Duration::from_secs(10);
/// More memory than a child ever needs. It opens files of 1 MiB at most, and one of 1 GiB, which claim to be anything.
#[cfg(target_os = "linux")]
const MOST_MEMORY_KIB: u64 = 192 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many damaged stores to open
    #[arg(long, default_value_t = 2000)]
    corruptions: u64,
    /// Only stores of this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// What decides which store is damaged, and how; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Where to put the stores; the system's directory for temporary files unless given. One in memory is fastest
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct ChildArgs {
    /// The store that is damaged; crafted files unless given
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Where it is
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    seed: u64,
    /// Which of its damages to begin with
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long, default_value_t = BATCH)]
    count: u64,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let started = Instant::now();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut dir = tempfile::Builder::new()
        .prefix("torture-hostile-")
        .tempdir_in(parent)?;
    let again = format!("hostile --seed {seed} --corruptions {}", args.corruptions);
    let done = all(args, seed, dir.path());
    let tally = done.map_err(|failure| {
        dir.disable_cleanup(true);
        failure.at(&again, dir.path())
    })?;
    let figures = Figures {
        seed,
        tally,
        elapsed: started.elapsed(),
    };
    Ok(figures.to_string())
}

fn all(args: &Args, seed: u64, dir: &Path) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if args.kind.is_none() {
        tally.add(&batch(None, dir, seed, 0, 0)?);
    }
    let kinds: Vec<Kind> = args.kind.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
    let of_each = args.corruptions.div_ceil(kinds.len() as u64);
    for kind in kinds {
        store::make(kind, dir, seed)?;
        let mut first = 0;
        while first < of_each {
            let count = BATCH.min(of_each - first);
            tally.add(&batch(Some(kind), dir, seed, first, count)?);
            first += count;
        }
    }
    Ok(tally)
}

/// Has a child open some damaged stores.
fn batch(
    kind: Option<Kind>,
    dir: &Path,
    seed: u64,
    first: u64,
    count: u64,
) -> Result<Tally, Failure> {
    let mut command = process::myself()?;
    command.args(["hostile-child", "--seed", &seed.to_string()]);
    command.args(["--first", &first.to_string(), "--count", &count.to_string()]);
    command.arg("--dir").arg(dir);
    if let Some(kind) = kind {
        command.args(["--kind", kind.name()]);
    }
    let mut child = Running::start(&mut command)?;
    // Line by line, because each has its own time.
    while child.wait_for(|_| true)? {}
    let child = child.finish()?;
    let mut attempt = "the beginning";
    let mut broken = Vec::new();
    for line in &child.said {
        match line {
            Line::Opening(what) => attempt = what,
            Line::Broken(what) => broken.push(format!("{attempt}: {what}")),
            _ => {}
        }
    }
    match child.said.last() {
        Some(Line::Tally(counts)) if broken.is_empty() && child.status.success() => {
            return Ok(Tally::from_counts(counts));
        }
        Some(Line::Tally(_)) => {}
        _ => broken.push(format!(
            "{attempt}: the process that opened it has ended: {}, {}",
            child.status,
            child.stderr.trim_end()
        )),
    }
    Err(Failure::Violation(broken.join("\n  and: ")))
}

/// The child.
pub(crate) fn open_them(args: &ChildArgs) -> Result<(), Failure> {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        *last_panic() = Some(format!("a panic at {}", place.unwrap_or_default()));
    }));
    let runtime = runtime()?;
    let room = tempfile::tempdir_in(&args.dir)?;
    let mut tally = Tally::default();
    match args.kind {
        Some(kind) => {
            let pristine = Pristine::read(kind, &args.dir)?;
            for number in args.first..args.first + args.count {
                let damaged = damage::damage(&pristine, args.seed, number);
                let name = format!("{} {number}: {}", kind.name(), damaged.what);
                attempt(&name, &mut tally, |tally| {
                    let often = number % 4 < 2;
                    let judged = verdict::judge(&pristine, &damaged, room.path(), often, tally);
                    runtime.block_on(judged)
                })?;
            }
        }
        None => {
            for case in crafted::all() {
                let dir = tempfile::tempdir_in(&room)?;
                attempt(&case.name, &mut tally, |tally| {
                    tally.crafted += 1;
                    runtime.block_on((case.run)(dir.path().to_path_buf()))
                })?;
            }
        }
    }
    say(&Line::Tally(tally.counts()));
    Ok(())
}

/// Says what is opened, and which promise it has broken.
fn attempt(
    name: &str,
    tally: &mut Tally,
    open: impl FnOnce(&mut Tally) -> Result<(), Failure>,
) -> Result<(), Failure> {
    say(&Line::Opening(name.to_string()));
    // The peak counts from here. Without this it is that of the whole process, and the bound is a stricter one.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let started = Instant::now();
    let judged = open(tally);
    let judged = match last_panic().take() {
        Some(panic) => Err(Failure::Violation(panic)),
        None => judged,
    };
    match judged.and_then(|()| within_bounds(started.elapsed(), tally)) {
        Err(Failure::Violation(what)) => {
            say(&Line::Broken(what));
            Ok(())
        }
        done => done,
    }
}

fn last_panic() -> std::sync::MutexGuard<'static, Option<String>> {
    static PANIC: Mutex<Option<String>> = Mutex::new(None);
    PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

fn within_bounds(elapsed: Duration, tally: &mut Tally) -> Result<(), Failure> {
    tally.see_time(elapsed);
    if elapsed > PATIENCE {
        return Err(Failure::Violation(format!("it took {elapsed:?}")));
    }
    #[cfg(target_os = "linux")] // Other systems tell it through calls of C only.
    {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
            .ok_or_else(|| Failure::Trouble("no VmHWM in /proc/self/status".into()))?;
        tally.see_memory(peak);
        if peak > MOST_MEMORY_KIB {
            return Err(Failure::Violation(format!("it took {peak} KiB of memory")));
        }
    }
    Ok(())
}

struct Figures {
    seed: u64,
    tally: Tally,
    elapsed: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hostile: seed {}, {}, {:.1} s",
            self.seed,
            self.tally,
            self.elapsed.as_secs_f64()
        )
    }
}
