//! `cost`: counts the instructions of each path through the map, and compares them with those of earlier.
//!
//! Instructions do not depend on what else the machine does, as time does. They are counted as so many times those of a
//! bare `DashMap` in the same run, which takes out most of what a compiler or an allocator changes. `check` does that for
//! all works by `valgrind`, and fails if one costs more than `instructions.json` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::builder::PossibleValue;
use clap::{Parser, Subcommand, ValueEnum};
use cost::Work;
use serde_json::json;

#[derive(Parser)]
#[command(
    name = "cost",
    about = "Counts the instructions of each path through the map"
)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Compares with what is written down (needs valgrind)
    Check {
        /// Writes down what it finds
        #[arg(long)]
        update: bool,
    },
    /// Does one work
    Perform { work: Work, times: usize },
}

/// How much more may be put down to the compiler and the libraries.
const TOLERANCE: f64 = 1.08;
/// Reads are what the map is for, and few instructions.
const TOLERANCE_OF_READS: f64 = 1.02;
/// Counted at both, so that what is done once falls out.
const TIMES: [usize; 2] = [2_000, 4_000];

type Ratios = BTreeMap<Work, f64>;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Verb::Perform { work, times } => perform(work, times).map(|()| true),
        Verb::Check { update } => check(update),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn perform(work: Work, times: usize) -> Result<(), String> {
    // One thread, for the same work each time.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build();
    runtime
        .map_err(|error| error.to_string())?
        .block_on(work.perform(times));
    Ok(())
}

fn check(update: bool) -> Result<bool, String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let known: Ratios = if update {
        Ratios::new()
    } else {
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
    };
    let mut counts = BTreeMap::new();
    let making = instructions(Work::MakeEntries)?;
    for &work in Work::value_variants() {
        if work != Work::MakeEntries {
            let own = if work.makes_entries() { making } else { 0.0 };
            counts.insert(work, instructions(work)? - own);
        }
    }
    let mut found = Ratios::new();
    let mut all_well = true;
    println!(
        "instructions an entry, and as so many times those of its reference (at most {TOLERANCE} times what is written \
         down, for reads {TOLERANCE_OF_READS})"
    );
    for (work, count) in &counts {
        if work.reference() == *work {
            println!("  {work:?}: {count:.0}");
            continue;
        }
        let ratio = (count / counts[&work.reference()] * 1000.0).round() / 1000.0;
        let verdict = match known.get(work) {
            _ if update => String::new(),
            Some(known) if ratio <= known * tolerance(*work) => format!("(written down: {known})"),
            Some(known) => {
                all_well = false;
                format!("(written down: {known}) COSTS MORE")
            }
            None => {
                all_well = false;
                "IS NOT WRITTEN DOWN".to_string()
            }
        };
        println!(
            "  {work:?}: {count:.0}, {ratio} times {:?} {verdict}",
            work.reference()
        );
        found.insert(*work, ratio);
    }
    if update {
        let text =
            serde_json::to_string_pretty(&json!(found)).map_err(|error| error.to_string())?;
        fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    } else if !all_well {
        println!(
            "If that is what it should cost, write it down: cargo run --release -p cost -- check --update"
        );
    }
    Ok(all_well)
}

fn tolerance(work: Work) -> f64 {
    match work.reference() {
        Work::DashmapGet => TOLERANCE_OF_READS,
        _ => TOLERANCE,
    }
}

/// Instructions of one more time.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn instructions(work: Work) -> Result<f64, String> {
    let [few, many] = TIMES;
    let more = count(work, many)? - count(work, few)?;
    Ok(more as f64 / (many - few) as f64)
}

fn count(work: Work, times: usize) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let name = work.to_possible_value();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .arg("perform")
        .args(name.iter().map(PossibleValue::get_name))
        .arg(times.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}): install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("{work:?} by valgrind: {said}"))
}
