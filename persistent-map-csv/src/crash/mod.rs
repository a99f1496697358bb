//! Every state that a crash can leave, for random histories of writes: reopened, and compared with what was promised.
//!
//! A recording disk notes each operation on files. After each one the power is cut, in every way in which that can go:
//! of what was written and not synced, each piece may be there, missing, torn or a hole; of the names that were changed
//! and not synced, each may be old or new. The map is opened on what is left, and must have every write that was
//! acknowledged and none that was not attempted; and what it then shows must survive the next cut.

mod disk;
mod history;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::runtime::{Builder, Runtime};

use self::disk::{Bug, Files, Op, Recorder, shorter_journals, variants};
use self::history::{Entries, History, Notes, notes, play};

/// Opens the map on what is left of the files.
fn reopen(runtime: &Runtime, files: Files) -> Result<(Entries, Recorder), String> {
    let disk = Recorder::on(files, None);
    let found = runtime
        .block_on(history::backend(&disk, true).load_entries())
        .map_err(|error| format!("it does not open: {error}"))?;
    Ok((found, disk))
}

/// Cuts the power at every point of a history. Returns how many different states were looked at.
fn cut_everywhere(runtime: &Runtime, history: &History) -> Result<usize, String> {
    let mut seen = HashSet::new();
    for end in history.begun..=history.log.len() {
        let log = &history.log[..end];
        let (acknowledged, attempted) = promised(log);
        for (files, is_kill) in variants(log) {
            // Without sync a power cut may take the latest writes, a kill may not.
            let kept = if history.sync || is_kill {
                &acknowledged[acknowledged.len() - 1..]
            } else {
                &acknowledged[..]
            };
            let mut hasher = DefaultHasher::new();
            (&files, kept, attempted).hash(&mut hasher);
            if !seen.insert(hasher.finish()) {
                continue;
            }
            let allowed = kept
                .iter()
                .chain(&attempted)
                .map(|state| &history.states[*state]);
            check(runtime, &allowed.collect::<Vec<_>>(), files).map_err(|problem| {
                format!("after operation {end} ({:?}): {problem}", log.last())
            })?;
        }
    }
    Ok(seen.len())
}

/// The acknowledged states since the one that was last in the table, and one that was asked for and not yet answered.
fn promised(log: &[Op]) -> (Vec<usize>, Option<usize>) {
    let (mut acknowledged, mut attempted) = (vec![0], None);
    for op in log {
        match op {
            Op::Attempted(state) => attempted = Some(*state),
            Op::Acknowledged => acknowledged.extend(attempted.take()),
            Op::Refused => attempted = None,
            Op::Flushed => drop(acknowledged.drain(..acknowledged.len() - 1)),
            _ => {}
        }
    }
    (acknowledged, attempted)
}

fn check(runtime: &Runtime, allowed: &[&(Entries, Notes)], files: Files) -> Result<(), String> {
    let (found, disk) = reopen(runtime, files)?;
    let found = (found, notes(&disk));
    if !allowed.contains(&&found) {
        return Err(format!("found {found:?}, expected one of {allowed:?}"));
    }
    let beside = disk
        .names()
        .into_iter()
        .find(|name| name.extension().is_none_or(|end| end != "csv"));
    if let Some(beside) = beside {
        return Err(format!("{} is left", beside.display()));
    }
    let (again, disk) = reopen(runtime, disk.durable())?;
    let again = (again, notes(&disk));
    if again != found {
        return Err(format!("shown {found:?}, and after another cut {again:?}"));
    }
    Ok(())
}

/// Returns how many states there were, and what was in journals that took the place of longer ones.
fn explore(runtime: &Runtime, seed: u64, bug: Option<Bug>) -> Result<(usize, Vec<String>), String> {
    let history = runtime.block_on(play(seed, bug))?;
    let states = cut_everywhere(runtime, &history)?;
    Ok((states, shorter_journals(&history.log)))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// `CSV_HISTORIES=2000` looks at more of them.
#[test]
fn every_crash_state_keeps_what_was_acknowledged() {
    let histories = std::env::var("CSV_HISTORIES").ok();
    let histories = histories.and_then(|count| count.parse().ok()).unwrap_or(60);
    let runtime = runtime();
    let (mut states, mut shorter) = (0, Vec::new());
    for seed in 0..histories {
        match explore(&runtime, seed, None) {
            Ok((count, journals)) => {
                states += count;
                shorter.extend(journals);
            }
            Err(problem) => panic!("history {seed}: {problem}"),
        }
    }
    println!("{states} states of {histories} histories");
    println!("merges beside commits: {}", shorter.join(" "));
    assert!(
        states > 10_000,
        "only {states} states: is anything recorded?"
    );
    // After the opening and the columns: rows, a `clear`, other columns.
    for (kind, least) in [("W", 20), ("X", 3), ("SS", 1)] {
        let has_kind = |journal: &&String| {
            let tail = &journal[1..];
            match kind {
                "SS" => tail.matches('S').count() > 1,
                kind => tail.contains(kind),
            }
        };
        let count = shorter.iter().filter(has_kind).count();
        assert!(count >= least, "only {count} merges beside {kind}");
    }
}

#[test]
fn planted_bugs_are_found() {
    let runtime = runtime();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let found = (0..60).find_map(|seed| {
            let problem = explore(&runtime, seed, Some(bug)).err()?;
            Some((seed, problem))
        });
        match found {
            Some((seed, problem)) => println!("{bug:?}: history {seed}: {problem:.200}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
