//! The n-th system call fails, for n = 1, 2, 3, ..: an error tells the truth about what became of the change, and what
//! was acknowledged stays.
//!
//! The failures are made by strace, between the process and the kernel: the call is not made and returns the error. So
//! this is what the backend and the map do about an error, not what a file system does to the data.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;
use tempfile::TempDir;

use crate::dump::{Ending, look_into};
use crate::failure::Failure;
use crate::oracle::Oracle;
use crate::planted::Planted;
use crate::process::{self, Ended, Running};
use crate::protocol::{Change, Line, Refusal};
use crate::record::Record;
use crate::store::{Backend, open};
use crate::worker::key_name;

const OPS: u32 = 20;
/// Greater than the versions of the known entries.
const FIRST_VERSION: u64 = 1000;
/// Of a sample one in so many points is tried with a failure that lasts, too; else all.
const LASTING: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What keeps the entries
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// What is going on when a call fails; each in turn unless given
    #[arg(long)]
    scenario: Option<Scenario>,
    /// Calls to fail in each combination of scenario, call and error, evenly spread; all unless given
    #[arg(long)]
    points: Option<usize>,
    /// What the worker does; random unless given
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

/// What is going on when a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A store is made and written to, and its process is killed
    Create,
    /// A store that was closed is opened and written to, and its process is killed
    Write,
    /// A store whose process was killed is opened, written to and closed
    RecoverAndClose,
}

impl Scenario {
    /// As it is written on the command line.
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// System calls that fail, and how. A backend that does not make one has no point there.
const KINDS: [(&str, &str); 9] = [
    ("fsync,fdatasync", "EIO"),
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("pread64", "EIO"),
    ("ftruncate", "EIO"),
    ("openat", "EMFILE"),
    ("write", "EIO"),
    ("write", "ENOSPC"),
    ("rename,renameat,renameat2,unlink,unlinkat", "EIO"),
];

impl Backend {
    /// All files of a store, in its life.
    fn files(self) -> &'static [&'static str] {
        match self {
            Backend::Sqlite => &[
                "app.db",
                "app.db-wal",
                "app.db.lock",
                "app.db.persistent-map-creating",
            ],
            Backend::Csv => &[
                "app.csv",
                "app.csv.journal",
                "app.csv.lock",
                "app.csv.persistent-map-new",
                "app.csv.journal.persistent-map-new",
            ],
        }
    }

    /// The system call that writes to them.
    fn write_call(self) -> &'static str {
        match self {
            Backend::Sqlite => "pwrite64",
            Backend::Csv => "write",
        }
    }
}

#[derive(Default)]
struct Figures {
    points: u64,
    /// Points that no call came to, because calls go to other threads from run to run.
    missed: u64,
    injected: u64,
    refused_to_open: u64,
    failed_to_close: u64,
    not_applied: u64,
    unknown: u64,
    poisoned: u64,
    went_on: u64,
    violations: u64,
}

/// The store and the work that failures are tried on.
struct Trial<'a> {
    backend: Backend,
    scenario: Scenario,
    seed: u64,
    planted: Option<Planted>,
    stores: &'a Stores,
}

/// Directories of stores with the known entries, to be copied.
struct Stores {
    closed: TempDir,
    /// With its log beside it.
    killed: TempDir,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    probe()?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let backend = args.backend.name();
    println!("faults {backend}: seed {seed}");
    let started = Instant::now();
    let stores = Stores::make(args.backend)?;
    let scenarios = match &args.scenario {
        Some(scenario) => std::slice::from_ref(scenario),
        None => Scenario::value_variants(),
    };

    let mut figures = Figures::default();
    for &scenario in scenarios {
        let trial = Trial {
            backend: args.backend,
            scenario,
            seed,
            planted: args.planted,
            stores: &stores,
        };
        for (calls, error) in KINDS {
            trial.calls_fail(calls, error, args.points, &mut figures)?;
        }
        trial.disk_dies(args.points, &mut figures)?;
    }
    let Figures {
        points,
        missed,
        injected,
        refused_to_open,
        failed_to_close,
        not_applied,
        unknown,
        poisoned,
        went_on,
        violations,
    } = figures;
    if violations > 0 {
        return Err(Failure::Violation(format!(
            "{violations} of {points} fault points, seed {seed}"
        )));
    }
    Ok(format!(
        "faults {backend}: ok, seed {seed}, {points} fault points ({missed} of them missed), {injected} calls failed: {refused_to_open} opens refused, \
         {failed_to_close} closes failed, {not_applied} writes not applied, {unknown} unknown, {poisoned} refused after \
         it; {went_on} times the same map went on; {:.1} s",
        started.elapsed().as_secs_f32()
    ))
}

/// Whether strace is there and may trace.
fn probe() -> Result<(), Failure> {
    let mut command = strace(Path::new("/dev/null"), "fsync", &[]);
    command.args(["-e", "inject=fsync:error=EIO:when=1", "true"]);
    match command.output() {
        Ok(output) if output.status.success() && output.stderr.is_empty() => Ok(()),
        Ok(output) => Err(Failure::CannotRun(format!(
            "strace may not trace: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        ))),
        Err(error) => Err(Failure::CannotRun(format!("needs strace: {error}"))),
    }
}

/// With `-D` the process that is started is the traced one and strace its grandchild, so a kill kills the traced one.
///
/// Only calls on the given files are counted and fail, so that loading the program and talking to the parent go on.
fn strace(log: &Path, calls: &str, files: &[PathBuf]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-e", "signal=none", "-e"]);
    command.arg(format!("trace={calls}")).arg("-o").arg(log);
    for file in files {
        command.arg("-P").arg(file);
    }
    command
}

/// All files of a store as the kernel names them. The directory is one of them: new names in it are synced through it.
fn files_of(dir: &Path, backend: Backend) -> Result<Vec<PathBuf>, Failure> {
    let dir = fs::canonicalize(dir)?;
    let names = backend.files().iter();
    let files = names.map(|name| dir.join(name)).chain([dir.clone()]);
    Ok(files.collect())
}

impl Stores {
    fn make(backend: Backend) -> Result<Self, Failure> {
        let stores = Stores {
            closed: TempDir::new()?,
            killed: TempDir::new()?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(async {
            let map = open(&stores.closed.path().join(backend.file_name())).await?;
            for (key, version) in known(backend) {
                map.insert(key.clone(), Record::new(&key, version, 100))
                    .await?;
            }
            // The files of a map that is open and idle are those that a kill would leave.
            copy_store(backend, stores.closed.path(), stores.killed.path())?;
            map.close().await?;
            Ok::<(), Failure>(())
        })?;
        Ok(stores)
    }
}

fn copy_store(backend: Backend, from: &Path, to: &Path) -> Result<(), Failure> {
    for name in [backend.file_name(), backend.log_name()] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

/// Entries of the store before anything fails: some pages of SQLite, and a table that twenty calls outgrow, so that it is
/// written anew beside them.
fn known_keys(backend: Backend) -> usize {
    match backend {
        Backend::Sqlite => 50,
        Backend::Csv => 10,
    }
}

/// Keys that the worker writes to: the known ones and new ones.
fn keys(backend: Backend) -> usize {
    known_keys(backend) * 3 / 2
}

fn known(backend: Backend) -> impl Iterator<Item = (String, u64)> {
    (0..known_keys(backend))
        .zip(1..)
        .map(|(key, version)| (key_name(0, key), version))
}

/// `points` of all, evenly spread.
fn spread<T: Copy>(all: &[T], points: Option<usize>) -> Vec<T> {
    match points {
        Some(points) if points < all.len() => (0..points)
            .map(|point| all[point * all.len() / points])
            .collect(),
        _ => all.to_vec(),
    }
}

impl Trial<'_> {
    /// Each call fails once, and some from then on.
    fn calls_fail(
        &self,
        calls: &str,
        error: &str,
        points: Option<usize>,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let last = self.without_faults(calls)?.most_of_a_thread();
        let numbers: Vec<usize> = (1..=last).collect();
        for (index, n) in spread(&numbers, points).into_iter().enumerate() {
            let fault = format!("{calls}:error={error}:when={n}");
            if points.is_none() || index % LASTING == 0 {
                self.with_faults(calls, &[format!("{fault}+")], figures)?;
            }
            self.with_faults(calls, &[fault], figures)?;
        }
        Ok(())
    }

    /// A sync fails, and so does whatever would undo what it left.
    fn disk_dies(&self, points: Option<usize>, figures: &mut Figures) -> Result<(), Failure> {
        let write = self.backend.write_call();
        let calls = format!("fsync,fdatasync,{write}");
        let moments = self.without_faults(&calls)?.syncs_and_writes(write);
        for (syncs, writes) in spread(&moments, points) {
            let faults = [
                format!("fsync,fdatasync:error=EIO:when={syncs}+"),
                format!("{write}:error=EIO:when={}+", writes + 1),
            ];
            self.with_faults(&calls, &faults, figures)?;
        }
        Ok(())
    }

    fn without_faults(&self, calls: &str) -> Result<Log, Failure> {
        self.one_life(calls, &[], &mut Figures::default())
    }

    /// Violations are reported and counted: which points have one tells more than that there is one.
    fn with_faults(
        &self,
        calls: &str,
        faults: &[String],
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        match self.one_life(calls, faults, figures) {
            Err(violation @ Failure::Violation(_)) => {
                eprintln!("{violation}");
                figures.violations += 1;
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// One life of a store, with `calls` traced and `faults` among them.
    fn one_life(
        &self,
        calls: &str,
        faults: &[String],
        figures: &mut Figures,
    ) -> Result<Log, Failure> {
        let mut dir = tempfile::Builder::new()
            .prefix("torture-faults-")
            .tempdir()?;
        self.in_directory(dir.path(), calls, faults, figures)
            .map_err(|failure| {
                dir.disable_cleanup(true);
                let scenario = self.scenario.name();
                let backend = self.backend.name();
                let context = format!(
                    "{scenario}, {}; again: torture faults --backend {backend} --scenario {scenario} --seed {}",
                    faults.join(" "),
                    self.seed
                );
                failure.at(&context, dir.path())
            })
    }

    fn in_directory(
        &self,
        dir: &Path,
        calls: &str,
        faults: &[String],
        figures: &mut Figures,
    ) -> Result<Log, Failure> {
        let path = dir.join(self.backend.file_name());
        let mut oracle = Oracle::default();
        let store = match self.scenario {
            Scenario::Create => None,
            Scenario::Write => Some(&self.stores.closed),
            Scenario::RecoverAndClose => Some(&self.stores.killed),
        };
        if let Some(store) = store {
            copy_store(self.backend, store.path(), dir)?;
            for (key, version) in known(self.backend) {
                oracle.hear(&Line::Attempt {
                    key: key.clone(),
                    version,
                    change: Change::Put,
                })?;
                oracle.hear(&Line::Acknowledged { key, version })?;
            }
        }

        let log = dir.join("strace.log");
        let files = files_of(dir, self.backend)?;
        let worker = self.harmed_worker(&path, strace(&log, calls, &files), faults)?;
        let log = Log::read(&log)?;
        fs::write(dir.join("worker.log"), transcript(&worker))?;
        figures.points += u64::from(!faults.is_empty());
        figures.missed += u64::from(!faults.is_empty() && log.injected == 0);
        figures.injected += log.injected;
        self.check_end(&worker, figures)?;
        check_answers(&worker.said, figures)?;
        for line in &worker.said {
            oracle.hear(line)?;
        }

        // The second look must find what the first one found, after another kill.
        oracle.compare(&look_into(&path, Ending::Killed)?)?;
        oracle.compare(&look_into(&path, Ending::Closed)?)?;
        Ok(log)
    }

    fn harmed_worker(
        &self,
        path: &Path,
        mut command: Command,
        faults: &[String],
    ) -> Result<Ended, Failure> {
        for fault in faults {
            command.arg("-e").arg(format!("inject={fault}"));
        }
        command.arg(process::myself()?.get_program());
        command.arg("worker").arg("--path").arg(path);
        command.args(["--keys", &keys(self.backend).to_string()]);
        command.args(["--ops", &OPS.to_string()]);
        command.args(["--seed", &self.seed.to_string()]);
        command.args(["--first-version", &FIRST_VERSION.to_string()]);
        if self.scenario == Scenario::RecoverAndClose {
            command.arg("--close");
        }
        if let Some(planted) = self.planted {
            command.args(["--planted", &planted.name()]);
        }
        let mut worker = Running::start(&mut command)?;
        if worker.wait_for(|line| *line == Line::Done)?
            && self.scenario != Scenario::RecoverAndClose
        {
            worker.kill()
        } else {
            worker.finish()
        }
    }

    /// An open or a close that meets a failure may fail, but only with an error that says so.
    fn check_end(&self, worker: &Ended, figures: &mut Figures) -> Result<(), Failure> {
        let opened = worker.said(&Line::Opened);
        let done = worker.said(&Line::Done);
        let closes = self.scenario == Scenario::RecoverAndClose;
        let as_expected = match (opened, done) {
            (true, true) if closes => worker.status.success(),
            (true, true) => worker.was_killed(),
            (true, false) if closes => {
                figures.failed_to_close += 1;
                worker.is_clean_error()
            }
            (true, false) => false,
            (false, _) => {
                figures.refused_to_open += 1;
                worker.is_clean_error()
            }
        };
        if as_expected {
            return Ok(());
        }
        Err(Failure::Violation(format!(
            "the process ended badly (opened: {opened}, done: {done}): {}, {}",
            worker.status,
            worker.stderr.trim_end()
        )))
    }
}

/// After an unknown outcome every write is refused, and no write is refused before one.
fn check_answers(said: &[Line], figures: &mut Figures) -> Result<(), Failure> {
    let mut poisoned = false;
    let mut failed = false;
    for line in said {
        let refusal = match line {
            Line::Acknowledged { .. } => None,
            Line::Failed { why, .. } => Some(*why),
            _ => continue,
        };
        if poisoned != (refusal == Some(Refusal::Poisoned)) {
            return Err(Failure::Violation(format!(
                "`{line}` {} an unknown outcome",
                if poisoned { "after" } else { "without" }
            )));
        }
        match refusal {
            None if failed => {
                figures.went_on += 1;
                failed = false;
            }
            None => {}
            Some(Refusal::NotApplied) => {
                figures.not_applied += 1;
                failed = true;
            }
            Some(Refusal::Unknown) => {
                figures.unknown += 1;
                poisoned = true;
            }
            Some(Refusal::Poisoned) => figures.poisoned += 1,
        }
    }
    Ok(())
}

fn transcript(worker: &Ended) -> String {
    let mut lines: Vec<String> = worker.said.iter().map(Line::to_string).collect();
    lines.push(worker.stderr.clone());
    lines.join("\n")
}

/// What strace has seen.
struct Log {
    /// Thread and name of each call, in order.
    calls: Vec<(String, String)>,
    injected: u64,
}

impl Log {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)?;
        let calls = text.lines().filter_map(|line| {
            // "1234  fsync(3) = 0"; a call that is interrupted by another thread's has a second line, "<... resumed>".
            let (before, _) = line.split_once('(')?;
            let (thread, name) = before.split_once(' ')?;
            (!name.contains('<')).then(|| (thread.to_string(), name.trim().to_string()))
        });
        Ok(Log {
            calls: calls.collect(),
            injected: text.matches("(INJECTED)").count() as u64,
        })
    }

    /// The most calls of one name in one thread: strace counts the n of `when=n` for each by itself.
    fn most_of_a_thread(&self) -> usize {
        let mut counts = HashMap::<_, usize>::new();
        for call in &self.calls {
            *counts.entry(call).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    /// For each sync, its number in its thread and that of the writes before it there.
    fn syncs_and_writes(&self, write: &str) -> Vec<(usize, usize)> {
        let mut counts = HashMap::<&str, (usize, usize)>::new();
        let mut moments = Vec::new();
        for (thread, name) in &self.calls {
            let (syncs, writes) = counts.entry(thread).or_default();
            if name == write {
                *writes += 1;
            } else {
                *syncs += 1;
                moments.push((*syncs, *writes));
            }
        }
        moments
    }
}
