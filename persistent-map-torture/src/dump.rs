//! A fresh process that opens a store and says what is in it: the child, and the parent's way to ask it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::oracle::Found;
use crate::process::{self, Ended, Running};
use crate::protocol::{Line, say};
use crate::record::Record;
use crate::runtime;
use crate::store::open;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store
    path: PathBuf,
    /// Stay, with the store open, until killed
    #[arg(long)]
    hold: bool,
}

/// How the process that looks into a store ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Closed,
    Killed,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.hold {
        process::die_with_parent();
    }
    runtime()?.block_on(async {
        let map = open(&args.path).await?;
        say(&Line::Opened);
        for (key, record) in &map {
            say_entry("", &key, &record);
        }
        say(&Line::Done);
        if args.hold {
            process::wait_to_be_killed();
        }
        map.close().await?;
        Ok(())
    })
}

/// Says that `record` is stored under `key`, whose name begins with `prefix` where it is heard.
pub(crate) fn say_entry(prefix: &str, key: &str, record: &Record) {
    if !record.is_intact(key) {
        say(&Line::Broken(format!(
            "key {prefix}{key}: its value is not the one that was stored"
        )));
    }
    say(&Line::Stored {
        key: format!("{prefix}{key}"),
        version: record.version(),
    });
}

/// Has a fresh process open the store at `path` and say what it finds. An open that fails is a violation.
pub(crate) fn look_into(path: &Path, ending: Ending) -> Result<Found, Failure> {
    listen(&mut dump(path)?, ending).map(|(_, found)| found)
}

/// The same, with an end that `strike` brings upon the process while it has the store open.
pub(crate) fn look_until(
    path: &Path,
    strike: impl FnOnce(Running) -> Result<Ended, Failure>,
) -> Result<Found, Failure> {
    let mut command = dump(path)?;
    command.arg("--hold");
    listen_until(&mut command, strike, |_| true).map(|(_, found)| found)
}

fn dump(path: &Path) -> Result<Command, Failure> {
    let mut command = process::myself()?;
    command.arg("dump").arg(path);
    Ok(command)
}

/// Has a process of ours, which knows `--hold`, say what it finds. One that finds nothing is a violation.
pub(crate) fn listen(command: &mut Command, ending: Ending) -> Result<(Vec<Line>, Found), Failure> {
    match ending {
        Ending::Closed => listen_until(command, Running::finish, |dump| dump.status.success()),
        Ending::Killed => listen_until(command.arg("--hold"), Running::kill, |_| true),
    }
}

fn listen_until(
    command: &mut Command,
    end: impl FnOnce(Running) -> Result<Ended, Failure>,
    ends_well: impl FnOnce(&Ended) -> bool,
) -> Result<(Vec<Line>, Found), Failure> {
    let mut dump = Running::start(command)?;
    let complete = dump.wait_for(|line| *line == Line::Done)?;
    let dump = if complete { end(dump)? } else { dump.finish()? };
    if !complete || !ends_well(&dump) {
        return Err(Failure::Violation(format!(
            "the store does not open and close again: {}, {}",
            dump.status,
            dump.stderr.trim_end()
        )));
    }
    let mut found = Found::new();
    for line in &dump.said {
        match line {
            Line::Stored { key, version } => {
                let twice = found.insert(key.clone(), *version).is_some();
                if twice {
                    return Err(Failure::Violation(format!("key {key} is there twice")));
                }
            }
            Line::Broken(what) => return Err(Failure::Violation(what.clone())),
            _ => {}
        }
    }
    Ok((dump.said, found))
}
