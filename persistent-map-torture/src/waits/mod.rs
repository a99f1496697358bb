//! Nobody waits for ever: in the situations in which maps have hung, every call answers within a stated bound.
//!
//! Each case is a child with a watch on all its calls (`watch.rs`). The child ends itself when a bound is passed, and says
//! which call waits, since when and for what; the parent ends a child that does not even do that.

mod cases;
mod late;
mod reentry;
mod runtimes;
mod store;
mod watch;

use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::failure::Failure;
use crate::harm::Mode;
use crate::process::myself;

use cases::Case;
use store::{Planted, Store};

/// Within this each call of a map answers, however many others read, wait or have been given up, while the disk answers.
/// Stated in docs/reliability.md, too.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);
/// Within this a timer fires beside a task of its thread that only writes. Stated in docs/reliability.md, too.
pub(crate) const TIMER: Duration = Duration::from_secs(2);
/// How late a child may be that has said why it ends, or should have.
const GRACE: Duration = Duration::from_secs(45);
/// How long a stopped process stands still.
const STOPPED: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What keeps the entries
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    backend: Store,
    /// When a write is stored
    #[arg(long, value_enum, default_value_t = Mode::Through)]
    mode: Mode,
    /// How long a case goes on that has no end of its own
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Within so many seconds each call must answer
    #[arg(long, default_value_t = ANSWER.as_secs_f64())]
    answer: f64,
    /// How often each case is tried
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Only these cases
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Try the other cases, too, after one has failed
    #[arg(long)]
    keep_going: bool,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(clap::Args)]
pub(crate) struct ChildArgs {
    #[arg(long)]
    case: Case,
    #[arg(long)]
    backend: Store,
    #[arg(long)]
    mode: Mode,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    answer: f64,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    planted: Option<Planted>,
    /// An empty directory
    #[arg(long)]
    dir: std::path::PathBuf,
}

#[derive(Default)]
struct Figures {
    cases: u64,
    skipped: u64,
    /// The longest that any call has waited.
    longest: Duration,
    longest_call: String,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("waits: seed {seed}");
    let started = Instant::now();
    let mut figures = Figures::default();
    let mut broken = Vec::new();
    for round in 0..args.rounds {
        for case in args.chosen() {
            match args.attempt(case, seed.wrapping_add(round), &mut figures) {
                Ok(()) => {}
                Err(Failure::Violation(text)) if args.keep_going => broken.push(text),
                Err(failure) => return Err(failure),
            }
        }
    }
    if !broken.is_empty() {
        return Err(Failure::Violation(broken.join("\nVIOLATION: ")));
    }
    Ok(format!(
        "waits: seed {seed}, {figures}, {:.1} s",
        started.elapsed().as_secs_f64()
    ))
}

/// Plays one case, and says how long its slowest call has waited.
pub(crate) fn child(args: &ChildArgs) -> Result<(), Failure> {
    crate::process::die_with_parent();
    cases::play(args)
}

impl Args {
    fn chosen(&self) -> Vec<Case> {
        if self.cases.is_empty() {
            return Case::value_variants().to_vec();
        }
        self.cases.clone()
    }

    fn attempt(&self, case: Case, seed: u64, figures: &mut Figures) -> Result<(), Failure> {
        if case == Case::SlowDisk && (self.backend == Store::Memory || !may_trace()) {
            figures.skipped += 1;
            return Ok(());
        }
        let mut dir = tempfile::Builder::new()
            .prefix("torture-waits-")
            .tempdir()?;
        let context = format!(
            "waits --case {} --backend {} --mode {} --seconds {} --seed {seed}",
            case.name(),
            self.backend.name(),
            self.mode.name(),
            self.seconds
        );
        let mut command = program(case, dir.path())?;
        command.args(["waits-child", "--case", &case.name()]);
        command.args([
            "--backend",
            &self.backend.name(),
            "--mode",
            self.mode.name(),
        ]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(["--answer", &self.answer.to_string()]);
        command.args(["--seed", &seed.to_string()]);
        if let Some(planted) = self.planted {
            command.args(["--planted", &planted.name()]);
        }
        command.arg("--dir").arg(dir.path());
        let outcome = listen(&mut command, self.limit(), case == Case::Stopped);
        let said = outcome.map_err(|failure| {
            dir.disable_cleanup(true);
            failure.at(&context, dir.path())
        })?;
        figures.take_in(case, &said)
    }

    /// By then a child has ended that can.
    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.seconds + 3.0 * self.answer) + GRACE
    }
}

/// What runs the child: itself, or strace that holds back each sync.
fn program(case: Case, dir: &Path) -> Result<Command, Failure> {
    let itself = myself()?;
    if case != Case::SlowDisk {
        return Ok(itself);
    }
    let mut strace = slow_syncs(&dir.join("strace.log"));
    strace.arg(itself.get_program());
    Ok(strace)
}

/// With `-D` the child is the process that is started, and a kill reaches it.
fn slow_syncs(log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-e", "signal=none"]);
    strace.args(["-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", "inject=fsync,fdatasync:delay_enter=200000"]);
    strace.arg("-o").arg(log);
    strace
}

fn may_trace() -> bool {
    let log = std::env::temp_dir().join(format!("torture-waits-probe-{}", std::process::id()));
    let tried = slow_syncs(&log).arg("true").output();
    let _ = std::fs::remove_file(log);
    tried.is_ok_and(|output| output.status.success() && output.stderr.is_empty())
}

/// Waits for the child, no longer than `limit`, and returns what it said.
fn listen(command: &mut Command, limit: Duration, stop: bool) -> Result<String, Failure> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if stop {
        stand_still(&child)?;
    }
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::Violation(format!(
                "the process has not ended after {limit:?}, nor said which call it waits for"
            )));
        }
        thread::sleep(POLL);
    }
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr)
        .trim_end()
        .to_string();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(1) => {
            let text = stderr.trim_start_matches("VIOLATION: ");
            Err(Failure::Violation(text.to_string()))
        }
        _ => Err(Failure::Trouble(format!("{}: {stderr}", output.status))),
    }
}

/// SIGSTOP while the child works, then SIGCONT. Where there are no signals nothing happens.
fn stand_still(child: &Child) -> Result<(), Failure> {
    if !cfg!(unix) {
        return Ok(());
    }
    for signal in ["-STOP", "-CONT"] {
        thread::sleep(STOPPED);
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).output()?;
        if !sent.status.success() {
            let why = String::from_utf8_lossy(&sent.stderr).into_owned();
            return Err(Failure::Trouble(format!("kill {signal}: {why}")));
        }
    }
    Ok(())
}

impl Figures {
    fn take_in(&mut self, case: Case, said: &str) -> Result<(), Failure> {
        let Some((micros, call)) = said.trim().split_once(' ') else {
            let text = format!("the case {} ended without a word", case.name());
            return Err(Failure::Trouble(text));
        };
        let longest = Duration::from_micros(micros.parse().unwrap_or_default());
        self.cases += 1;
        if longest > self.longest {
            self.longest = longest;
            self.longest_call = format!("{call} in {}", case.name());
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cases ({} skipped), the longest wait {:.3} s ({})",
            self.cases,
            self.skipped,
            self.longest.as_secs_f64(),
            self.longest_call
        )
    }
}
