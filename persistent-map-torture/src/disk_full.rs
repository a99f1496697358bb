//! A disk that fills up, and is relieved while the map stays open: nothing of a write that failed is kept, in memory or
//! in the store, and the same map writes again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use crate::disk::{Disk, FileSystem};
use crate::dump::{Ending, look_into};
use crate::failure::Failure;
use crate::oracle::Oracle;
use crate::planted::Planted;
use crate::process::{self, Ended, Running};
use crate::protocol::{Line, Refusal};
use crate::store::{Backend, MERGE_LATER};

const DISK_BYTES: u64 = 8 << 20;
/// What the store may fill before the disk is full: from too little to be made, to less than SQLite's log grows to.
const ROOM: std::ops::Range<u64> = 0..3 << 20;
/// One in so many disks has so little room that the store may not even be made.
const TINY: (u32, std::ops::Range<u64>) = (4, 0..48 << 10);
/// Calls of all tasks after the relief.
const OPS_AFTER: u32 = 64;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Disks to fill
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// How much room there is, and what is written; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// What keeps the entries
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(Default)]
struct Figures {
    refused_to_open: u64,
    acknowledged: u64,
    failed: u64,
    after_relief: u64,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("diskfull: seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut figures = Figures::default();
    let started = Instant::now();
    for round in 0..args.rounds {
        let mut disk = Disk::new(FileSystem::Ext4, DISK_BYTES, &std::env::temp_dir())?;
        let life = Life {
            room: if round % TINY.0 == 3 {
                rng.u64(TINY.1)
            } else {
                rng.u64(ROOM)
            },
            // One task: each write fails by itself. More: whole groups fail.
            tasks: if rng.bool() { 1 } else { 16 },
            ending: if rng.bool() {
                Ending::Killed
            } else {
                Ending::Closed
            },
            seed: rng.u64(..),
            backend: args.backend,
            planted: args.planted,
        };
        life.on(disk.mount_point(), &mut figures)
            .map_err(|failure| {
                let context = format!(
                    "round {round}; again: torture diskfull --rounds {} --seed {seed}",
                    args.rounds
                );
                failure.at(&context, disk.keep())
            })?;
    }
    if figures.failed == 0 {
        return Err(Failure::Trouble("no disk became full".into()));
    }
    let Figures {
        refused_to_open,
        acknowledged,
        failed,
        after_relief,
    } = figures;
    Ok(format!(
        "diskfull: ok, seed {seed}, {} disks, {refused_to_open} too full for a store, {acknowledged} writes \
         acknowledged, {failed} failed and not applied, {after_relief} acknowledged by the same map after the relief, {:.1} s",
        args.rounds,
        started.elapsed().as_secs_f32()
    ))
}

/// One life of a store on a disk that becomes full.
struct Life {
    room: u64,
    tasks: u32,
    ending: Ending,
    seed: u64,
    backend: Backend,
    planted: Option<Planted>,
}

impl Life {
    fn on(&self, disk: &Path, figures: &mut Figures) -> Result<(), Failure> {
        let path = disk.join(self.backend.file_name());
        let ballast = disk.join("ballast");
        leave_room(&ballast, self.room)?;
        let worker = self.worker(&path, &ballast)?;

        if worker.said(&Line::Done) {
            check_answers(&worker, figures)?;
        } else if worker.is_clean_error() && !worker.said(&Line::Opened) {
            figures.refused_to_open += 1;
            fs::remove_file(&ballast)?;
        } else {
            return Err(Failure::Violation(format!(
                "the process ended badly: {}, {}",
                worker.status,
                worker.stderr.trim_end()
            )));
        }
        let mut oracle = Oracle::default();
        for line in &worker.said {
            oracle.hear(line)?;
        }
        oracle.compare(&look_into(&path, Ending::Killed)?)?;
        oracle.compare(&look_into(&path, Ending::Closed)?)
    }

    /// Writes until the disk is full, takes the ballast away, and writes again: all with one open map.
    fn worker(&self, path: &Path, ballast: &Path) -> Result<Ended, Failure> {
        let mut command = process::myself()?;
        command.arg("worker").arg("--path").arg(path);
        command.arg("--ballast").arg(ballast);
        // A table that is merged all the time would never fill a disk.
        command.args(["--merge-after", &MERGE_LATER.to_string()]);
        command.args(["--tasks", &self.tasks.to_string(), "--keys", "64"]);
        command.args(["--ops", &(OPS_AFTER / self.tasks).to_string()]);
        command.args(["--seed", &self.seed.to_string()]);
        if self.ending == Ending::Closed {
            command.arg("--close");
        }
        if let Some(planted) = self.planted {
            command.args(["--planted", &planted.name()]);
        }
        let mut worker = Running::start(&mut command)?;
        let done = worker.wait_for(|line| *line == Line::Done)?;
        match self.ending {
            Ending::Killed if done => worker.kill(),
            _ => worker.finish(),
        }
    }
}

/// A full disk fails writes with a certain outcome; after the relief none fails.
fn check_answers(worker: &Ended, figures: &mut Figures) -> Result<(), Failure> {
    let mut relieved = false;
    for line in &worker.said {
        match line {
            Line::Relieved => relieved = true,
            Line::Acknowledged { .. } => {
                figures.acknowledged += 1;
                figures.after_relief += u64::from(relieved);
            }
            Line::Failed { why, .. } if *why != Refusal::NotApplied || relieved => {
                return Err(Failure::Violation(format!(
                    "`{line}` {} the disk was relieved",
                    if relieved { "after" } else { "before" }
                )));
            }
            Line::Failed { .. } => figures.failed += 1,
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file that leaves `room` bytes of its disk, or a little less.
fn leave_room(ballast: &Path, room: u64) -> Result<(), Failure> {
    let mut file = File::create(ballast)?;
    let block = vec![1; 64 << 10];
    while file.write_all(&block).is_ok() {}
    let full = file.metadata()?.len();
    file.set_len(full.saturating_sub(room))?;
    file.sync_all()?;
    Ok(())
}
