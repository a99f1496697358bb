//! A disk that fills up, and is relieved while the map stays open: nothing of a write that failed is kept, in memory or
//! in the store, and the same map writes again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::dump::{Ending, look_into};
use crate::failure::Failure;
use crate::oracle::Oracle;
use crate::process::{self, Ended, Running};
use crate::protocol::{Line, Refusal};

const DISK_BYTES: u64 = 8 << 20;
/// What the store may fill before the disk is full: less than SQLite's log grows to, up to enough for log and table.
const ROOM: std::ops::Range<u64> = 500 << 10..3 << 20;
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
}

#[derive(Default)]
struct Figures {
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
        let mut disk = Disk::mount()?;
        // One task: each write fails by itself. More: whole groups fail.
        let tasks = if round % 2 == 0 { 1 } else { 16 };
        let ending = if round % 4 < 2 {
            Ending::Killed
        } else {
            Ending::Closed
        };
        fill(&disk, tasks, ending, &mut rng, &mut figures).map_err(|failure| {
            disk.dir.disable_cleanup(true);
            let context = format!(
                "round {round}; again: torture diskfull --rounds {} --seed {seed}",
                args.rounds
            );
            failure.at(&context, &disk.image)
        })?;
    }
    let Figures {
        acknowledged,
        failed,
        after_relief,
    } = figures;
    Ok(format!(
        "diskfull: ok, seed {seed}, {} disks, {acknowledged} writes acknowledged, {failed} failed and not applied, \
         {after_relief} acknowledged by the same map after the relief, {:.1} s",
        args.rounds,
        started.elapsed().as_secs_f32()
    ))
}

/// One life of a store on a disk that becomes full.
fn fill(
    disk: &Disk,
    tasks: u32,
    ending: Ending,
    rng: &mut fastrand::Rng,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let path = disk.mount_point.join("app.db");
    let ballast = disk.mount_point.join("ballast");
    leave_room(&ballast, rng.u64(ROOM))?;

    let mut command = process::myself()?;
    command.arg("worker").arg("--path").arg(&path);
    command.arg("--ballast").arg(&ballast);
    command.args(["--tasks", &tasks.to_string(), "--keys", "64"]);
    command.args(["--ops", &(OPS_AFTER / tasks).to_string()]);
    command.args(["--seed", &rng.u64(..).to_string()]);
    if ending == Ending::Closed {
        command.arg("--close");
    }
    let mut worker = Running::start(&mut command)?;
    let done = worker.wait_for(|line| *line == Line::Done)?;
    let worker = match ending {
        Ending::Killed if done => worker.kill()?,
        _ => worker.finish()?,
    };
    if !done {
        return Err(Failure::Violation(format!(
            "the process ended badly: {}, {}",
            worker.status,
            worker.stderr.trim_end()
        )));
    }

    check_answers(&worker, figures)?;
    let mut oracle = Oracle::default();
    for line in &worker.said {
        oracle.hear(line)?;
    }
    oracle.compare(&look_into(&path, Ending::Killed)?)?;
    oracle.compare(&look_into(&path, Ending::Closed)?)
}

/// A full disk fails writes with a certain outcome; after the relief none fails.
fn check_answers(worker: &Ended, figures: &mut Figures) -> Result<(), Failure> {
    let mut relieved = false;
    let mut failed = 0;
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
            Line::Failed { .. } => failed += 1,
            _ => {}
        }
    }
    figures.failed += failed;
    if failed == 0 {
        return Err(Failure::Trouble("the disk did not become full".into()));
    }
    Ok(())
}

/// A small ext4 file system in a file. Dropping it unmounts it.
struct Disk {
    mount_point: PathBuf,
    image: PathBuf,
    dir: TempDir,
}

impl Disk {
    fn mount() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("torture-disk-").tempdir()?;
        let image = dir.path().join("disk.img");
        let mount_point = dir.path().join("mnt");
        fs::create_dir(&mount_point)?;
        File::create(&image)?.set_len(DISK_BYTES)?;
        // Without blocks that are kept for root, who runs this.
        system(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0"])
                .arg(&image),
        )?;
        system(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &mount_point]),
        )?;
        Ok(Disk {
            mount_point,
            image,
            dir,
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = system(Command::new("umount").arg(&self.mount_point));
        if unmounted.is_err() {
            // A process still has it open; the file system goes when that process does.
            let _ = system(Command::new("umount").arg("--lazy").arg(&self.mount_point));
        }
    }
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

/// Runs a command of the system that only root may run with success.
fn system(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().display().to_string();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Failure::CannotRun(format!(
            "needs root and loop mounts: {name}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        ))),
        Err(error) => Err(Failure::CannotRun(format!("needs {name}: {error}"))),
    }
}
