//! A fresh process that opens a store and says what is in it: the child, and the parent's way to ask it.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::oracle::Found;
use crate::process::{self, Running};
use crate::protocol::{Line, say};
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    runtime.block_on(async {
        let map = open(&args.path).await?;
        say(&Line::Opened);
        for (key, record) in &map {
            if !record.is_intact(&key) {
                say(&Line::Broken(format!(
                    "key {key}: its value is not the one that was stored"
                )));
            }
            say(&Line::Stored {
                key,
                version: record.version(),
            });
        }
        say(&Line::Done);
        if args.hold {
            process::wait_to_be_killed();
        }
        map.close().await?;
        Ok(())
    })
}

/// Has a fresh process open the store at `path` and say what it finds. An open that fails is a violation.
pub(crate) fn look_into(path: &Path, ending: Ending) -> Result<Found, Failure> {
    let mut command = process::myself()?;
    command.arg("dump").arg(path);
    if ending == Ending::Killed {
        command.arg("--hold");
    }
    let mut dump = Running::start(&mut command)?;
    let complete = dump.wait_for(|line| *line == Line::Done)?;
    let dump = match ending {
        Ending::Killed if complete => dump.kill()?,
        _ => dump.finish()?,
    };
    if !complete || (ending == Ending::Closed && !dump.status.success()) {
        return Err(Failure::Violation(format!(
            "the store does not open and close again: {}, {}",
            dump.status,
            dump.stderr.trim_end()
        )));
    }
    let mut found = Found::new();
    for line in dump.said {
        match line {
            Line::Stored { key, version } => {
                let twice = found.insert(key.clone(), version).is_some();
                if twice {
                    return Err(Failure::Violation(format!("key {key} is there twice")));
                }
            }
            Line::Broken(what) => return Err(Failure::Violation(what)),
            _ => {}
        }
    }
    Ok(found)
}
