//! What comes to an owner, and the second starts that follow. What each comes to is in docs/owners.md.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::child::{Kind, now};
use super::round::{Round, beside};
use crate::failure::Failure;
use crate::protocol::Line;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Harm {
    /// Two or three starts at the same moment
    Together,
    /// The lock file is deleted, replaced or moved
    Lock,
    /// The journal or `-wal` is deleted, replaced or moved
    Log,
    /// The journal or `-wal` is cut
    Cut,
    /// The directory is renamed, and another one has its name
    Directory,
    /// The file gets a second name
    HardLink,
    /// A second start by a symbolic link
    Symlink,
    /// A symbolic link that changes between two starts
    Relink,
    /// The process copies its own file, and sqlite3 opens it
    Copy,
    /// SIGKILL while a second one starts
    Kill,
    /// Starts in PID namespaces of their own, with and without the lock file
    Container,
    /// A second start by another mount of the directory
    Mounts,
    /// A second start by a mount of the file alone
    Alone,
    /// Starts in an overlay file system
    Overlay,
}

/// Makes a mount, and goes on as the command that follows.
const BIND: &str = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
const OVERLAY: &str = "mount -t overlay overlay -o \"$1\" \"$2\" && shift 2 && exec \"$@\"";

impl Harm {
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// A command that succeeds where this harm can be brought.
    pub(super) fn probe(self) -> Option<&'static [&'static str]> {
        match self {
            Harm::Copy => Some(&["sqlite3", "-version"]),
            Harm::Container => Some(&[
                "unshare",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "true",
            ]),
            Harm::Mounts | Harm::Alone => {
                Some(&["unshare", "--mount", "sh", "-c", "mount --bind /tmp /tmp"])
            }
            Harm::Overlay => Some(&[
                "unshare",
                "--mount",
                "sh",
                "-c",
                "mount -t tmpfs t /tmp && cd /tmp && mkdir l u w p && \
                 mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w p",
            ]),
            _ => None,
        }
    }

    pub(super) fn bring(self, round: &mut Round) -> Result<(), Failure> {
        match self {
            Harm::Together => together(round),
            Harm::Lock => lock(round, &[]),
            Harm::Log => log(round),
            Harm::Cut => cut(round),
            Harm::Directory => directory(round),
            Harm::HardLink | Harm::Symlink => link(round, self),
            Harm::Relink => relink(round),
            Harm::Copy => copy(round),
            Harm::Kill => kill(round),
            Harm::Container => container(round),
            Harm::Mounts | Harm::Alone => mounted(round, self),
            Harm::Overlay => overlay(round),
        }
    }
}

fn together(round: &mut Round) -> Result<(), Failure> {
    let count = round.rng.usize(2..=3);
    round.expected.harmless = true;
    round.start_together(count)?;
    if round.is_patient {
        for owner in 0..count {
            // It works, or it was refused: then its output has ended.
            round.wait_for(owner, |line| matches!(line, Line::Acknowledged { .. }))?;
        }
    } else {
        round.pause(100);
    }
    Ok(())
}

/// Deletes, replaces or moves a file that the owner has open.
fn take(round: &mut Round, name: &Path) -> Result<(), Failure> {
    let elsewhere = round.scratch("elsewhere");
    let deed = match round.rng.u8(..4) {
        0 | 1 => {
            fs::remove_file(name)?;
            "deleted"
        }
        2 => {
            let is_copy = round.rng.bool();
            if is_copy {
                fs::copy(name, &elsewhere)?;
            } else {
                fs::write(&elsewhere, "")?;
            }
            fs::rename(&elsewhere, name)?;
            if is_copy {
                "replaced by a copy"
            } else {
                "replaced by an empty file"
            }
        }
        _ => {
            fs::rename(name, &elsewhere)?;
            "moved"
        }
    };
    round.deed = format!("{deed} at {}", now());
    Ok(())
}

fn second(round: &mut Round, path: &Path, wrapper: &[&str]) -> Result<(), Failure> {
    let second = round.start(0, path, wrapper)?;
    round.answer(second)
}

fn lock(round: &mut Round, wrapper: &[&str]) -> Result<(), Failure> {
    let path = round.path();
    round.first(&path, wrapper)?;
    take(round, &beside(&path, ".lock"))?;
    round.expected.told_after = Some(now());
    // SQLite's own lock, which names nobody.
    round.expected.refusals.push("another SQLite connection");
    // The first one merges and removes the log as it closes, under the eyes of the second.
    round.expected.refusals.push("accept_missing_wal");
    second(round, &path, wrapper)
}

fn log_of(round: &Round) -> PathBuf {
    let suffix = if round.kind == Kind::Csv {
        ".journal"
    } else {
        "-wal"
    };
    beside(&round.path(), suffix)
}

fn log(round: &mut Round) -> Result<(), Failure> {
    let path = round.path();
    round.first(&path, &[])?;
    let log = log_of(round);
    // A table that is merged has no journal until the next write.
    while let Err(failure) = take(round, &log) {
        wait_for_log(round, failure)?;
    }
    log_is_lost(round);
    // A table may just have been merged from memory, and then it goes on.
    if round.kind != Kind::Csv {
        round.expected.told_after = round.expected.log_lost_at;
    }
    second(round, &path, &[])
}

fn cut(round: &mut Round) -> Result<(), Failure> {
    let path = round.path();
    round.first(&path, &[])?;
    let log = loop {
        match fs::OpenOptions::new().write(true).open(log_of(round)) {
            Ok(log) => break log,
            Err(error) => wait_for_log(round, error.into())?,
        }
    };
    let length = log.metadata()?.len();
    let length = if round.rng.bool() {
        0
    } else {
        round.rng.u64(..=length)
    };
    log.set_len(length)?;
    round.deed = format!("cut to {length} at {}", now());
    round.expected.unjudged = true;
    second(round, &path, &[])
}

/// Waits for the next write, while the owner lives.
fn wait_for_log(round: &mut Round, failure: Failure) -> Result<(), Failure> {
    let comes = round.wait_for(0, |line| matches!(line, Line::Acknowledged { .. }))?;
    if comes { Ok(()) } else { Err(failure) }
}

/// What was in it may be lost, and a next start may say so.
fn log_is_lost(round: &mut Round) {
    round.expected.log_lost_at = Some(now());
    round.expected.refusals.push("accept_missing_wal");
}

fn directory(round: &mut Round) -> Result<(), Failure> {
    let path = round.path();
    round.first(&path, &[])?;
    let moved = round.scratch("moved");
    fs::rename(&round.home, &moved)?;
    round.expected.told_after = Some(now());
    fs::create_dir(&round.home)?;
    round.places[0].path = moved.join(round.kind.file_name());
    let of_before = round.rng.bool();
    let new = round.place(&path, of_before)?;
    let second = round.start(new, &path, &[])?;
    if round.rng.bool() {
        let moved = round.places[0].path.clone();
        let third = round.start(0, &moved, &[])?;
        round.answer(third)?;
    }
    round.answer(second)
}

fn link(round: &mut Round, harm: Harm) -> Result<(), Failure> {
    let path = round.path();
    let link = if round.rng.bool() {
        round.home.join("link")
    } else {
        round.scratch("link")
    };
    let link = link.with_extension(path.extension().unwrap_or_default());
    round.make()?;
    round.first(&path, &[])?;
    round.expected.harmless = true;
    if harm == Harm::Symlink {
        symlink(&path, &link)?;
        return second(round, &link, &[]);
    }
    round.expected.refusals.push("2 names");
    fs::hard_link(&path, &link)?;
    let inode = |path: &Path| fs::metadata(path).ok().map(|file| file.ino());
    // A table that is merged is another file from then on, and the link is what it was before.
    let other = round.place(&link, false)?;
    let second = if round.rng.bool() {
        round.start(0, &path, &[])?
    } else {
        round.start(other, &link, &[])?
    };
    round.answer(second)?;
    round.end()?;
    if inode(&path) == inode(&link) {
        round.owners[second].place = 0;
        round.places.truncate(other);
        fs::remove_file(&link)?;
    }
    Ok(())
}

fn relink(round: &mut Round) -> Result<(), Failure> {
    let (one, two) = (round.path(), round.home.join("two"));
    fs::create_dir(&two)?;
    let two = two.join(round.kind.file_name());
    let other = round.place(&two, true)?;
    let link = round.scratch("link").join(round.kind.file_name());
    fs::create_dir(round.scratch("link"))?;
    round.make()?;
    symlink(&one, &link)?;
    round.first(&link, &[])?;
    round.expected.harmless = true;
    fs::remove_file(&link)?;
    symlink(&two, &link)?;
    let second = round.start(other, &link, &[])?;
    round.answer(second)
}

fn copy(round: &mut Round) -> Result<(), Failure> {
    let path = round.path();
    round.make()?;
    round.first(&path, &[])?;
    round.order("copy", 0)?;
    round.wait_for(0, |line| matches!(line, Line::Copied | Line::Told(_)))?;
    if round.kind == Kind::Csv {
        round.expected.harmless = true;
    } else {
        let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|log| log.ino());
        let log = log_of(round);
        let (before, begun) = (identity(&log), now());
        let _ = Command::new("timeout")
            .args(["20", "sqlite3"])
            .arg(&path)
            .arg("SELECT count(*) FROM sqlite_master")
            .output()?;
        if identity(&log) != before {
            round.expected.told_after = Some(now());
        }
        // A program that closes removes the `-shm` first and the `-wal` after that: a commit between the two finds all in
        // order, and goes with the log.
        round.expected.out_of_reach = Some((begun, now()));
        round.expected.refusals.push("accept_missing_wal");
    }
    second(round, &path, &[])
}

fn kill(round: &mut Round) -> Result<(), Failure> {
    let path = round.path();
    round.first(&path, &[])?;
    round.expected.harmless = true;
    let second = round.start(0, &path, &[])?;
    round.pause(40);
    round.kill(0)?;
    round.answer(second)
}

fn container(round: &mut Round) -> Result<(), Failure> {
    let wrapper = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if round.rng.bool() {
        // Both are process 1.
        return lock(round, &wrapper);
    }
    let path = round.path();
    let first: &[&str] = if round.rng.bool() { &wrapper } else { &[] };
    round.first(&path, first)?;
    round.expected.harmless = true;
    round.expected.in_container = true;
    second(round, &path, &wrapper)
}

fn mounted(round: &mut Round, harm: Harm) -> Result<(), Failure> {
    let path = round.path();
    round.make()?;
    round.first(&path, &[])?;
    round.expected.harmless = true;
    let point = round.scratch("point");
    let home = round.home.clone();
    fs::create_dir(&point)?;
    let inside = point.join(round.kind.file_name());
    let (from, to) = if harm == Harm::Alone {
        fs::write(&inside, "")?;
        round.expected.refusals.push("mounted by itself");
        (&path, &inside)
    } else {
        (&home, &point)
    };
    let words = [from.to_string_lossy(), to.to_string_lossy()];
    let wrapper = [
        "unshare", "--mount", "sh", "-c", BIND, "sh", &words[0], &words[1],
    ];
    second(round, &inside, &wrapper)
}

fn overlay(round: &mut Round) -> Result<(), Failure> {
    let [lower, work, point] = ["lower", "work", "point"].map(|name| round.scratch(name));
    for dir in [&lower, &work, &point] {
        fs::create_dir(dir)?;
    }
    let inside = point.join(round.kind.file_name());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        round.home.display(),
        work.display()
    );
    let mount = point.to_string_lossy();
    let wrapper = [
        "unshare", "--mount", "sh", "-c", OVERLAY, "sh", &options, &mount,
    ];
    round.first(&inside, &wrapper)?;
    if round.rng.u8(..4) == 0 {
        round.expected.unjudged = true;
        let path = round.path();
        return second(round, &path, &[]);
    }
    round.expected.harmless = true;
    let first = round.id_of(0).to_string();
    second(round, &inside, &["nsenter", "--mount", "--target", &first])
}
