//! One owner, whatever comes to the files: second starts while locks, logs and directories are taken away, by links, from
//! containers, and while owners are killed. Nothing is acknowledged that the next owner does not find, no owner acknowledges
//! what it began after the next one had opened the store, and whoever is refused is told who has it. What each way to get two
//! owners comes to is in docs/owners.md.

mod child;
mod harms;
mod round;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::ValueEnum;

pub(crate) use child::{OwnerArgs, own};

use crate::failure::Failure;
use crate::planted::Planted;
use crate::process::{Running, myself};
use child::Kind;
use harms::Harm;
use round::Round;
use verdict::{Figures, judge};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many stores
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// What keeps the entries; all by turns unless given
    #[arg(long, value_enum)]
    backend: Option<Kind>,
    /// What comes to the owners; all by turns unless given
    #[arg(long, value_enum)]
    harm: Option<Harm>,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Where to put the stores; the system's directory for temporary files unless given
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let started = Instant::now();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("owners: seed {seed}");
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let harms = possible(args.harm)?;
    let template = template(&parent)?;
    let kinds: Vec<Kind> = args
        .backend
        .map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let (mut figures, mut by_harm) = (Figures::default(), BTreeMap::<Harm, u64>::new());
    let mut seeds = fastrand::Rng::with_seed(seed);
    for number in 0..args.rounds {
        // Each harm with each backend, before any comes again.
        let turn = usize::try_from(number).unwrap_or(0);
        let harm = harms[turn % harms.len()];
        let kind = kinds[turn / harms.len() % kinds.len()];
        let rng = seeds.fork();
        let planted = args.planted;
        let mut round = Round::new(kind, rng, &parent, template.path().into(), planted)?;
        let held = harm
            .bring(&mut round)
            .and_then(|()| round.end())
            .and_then(|()| judge(&round, &mut figures));
        if let Err(failure) = held {
            let context = format!(
                "round {number}, {} of {} {}; again: owners --rounds {} --seed {seed}{}{}",
                harm.name(),
                kind.name(),
                round.deed,
                number + 1,
                args.backend
                    .map_or_else(String::new, |kind| format!(" --backend {}", kind.name())),
                args.harm
                    .map_or_else(String::new, |harm| format!(" --harm {}", harm.name())),
            );
            round.keep()?;
            return Err(failure.at(&context, round.dir.path()));
        }
        *by_harm.entry(harm).or_default() += 1;
    }
    Ok(said(args, seed, &figures, &by_harm, started))
}

fn said(
    args: &Args,
    seed: u64,
    figures: &Figures,
    by_harm: &BTreeMap<Harm, u64>,
    started: Instant,
) -> String {
    let mut text = format!(
        "owners --rounds {} --seed {seed}: ok, {} owners, {} starts refused ({} by a nameless owner), {} killed before \
         an answer; {} owners told that the store is lost; {} calls acknowledged, {} of them lost with a log that was \
         taken, {} out of reach; {} ms a round;",
        args.rounds,
        figures.owners,
        figures.refused,
        figures.nameless,
        figures.unanswered,
        figures.told,
        figures.acknowledged,
        figures.lost_with_log,
        figures.out_of_reach,
        started.elapsed().as_millis() / u128::from(args.rounds.max(1)),
    );
    for (harm, rounds) in by_harm {
        let _ = write!(text, " {} {rounds}", harm.name());
    }
    text
}

/// The harms that can be brought on this machine. Those that cannot are named past any capture; in CI that is a failure.
fn possible(wanted: Option<Harm>) -> Result<Vec<Harm>, Failure> {
    let wanted = wanted.map_or_else(|| Harm::value_variants().to_vec(), |harm| vec![harm]);
    let (can, cannot): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|harm| harm.probe().is_none_or(succeeds));
    let names: Vec<String> = cannot.iter().map(|harm| harm.name()).collect();
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    if can.is_empty() || (is_ci && !cannot.is_empty()) {
        return Err(Failure::CannotRun(format!(
            "needs root, namespaces, overlay file systems and sqlite3 for: {}",
            names.join(", ")
        )));
    }
    if !names.is_empty() {
        let notice = format!("SKIPPED owners: {}\n", names.join(", "));
        std::io::stderr().write_all(notice.as_bytes())?;
    }
    Ok(can)
}

fn succeeds(command: &[&str]) -> bool {
    let status = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Closed stores of the types of before.
fn template(parent: &Path) -> Result<tempfile::TempDir, Failure> {
    let dir = tempfile::Builder::new()
        .prefix("torture-owners-")
        .tempdir_in(parent)?;
    for kind in [Kind::Csv, Kind::Sqlite] {
        let mut command = myself()?;
        command.args([
            "owner",
            "--before",
            "--id",
            "0",
            "--kind",
            kind.name(),
            "--path",
        ]);
        command.arg(dir.path().join(kind.file_name()));
        command.arg("--orders").arg(dir.path());
        let ended = Running::start(&mut command)?.finish()?;
        if !ended.status.success() {
            return Err(Failure::Trouble(ended.stderr));
        }
    }
    Ok(dir)
}
