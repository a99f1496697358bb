//! A round: a store in a directory of its own, the owners of it, and what they are started with.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::child::{Kind, now};
use crate::failure::Failure;
use crate::planted::Planted;
use crate::process::{Ended, Running, myself};
use crate::protocol::Line;

/// Later than a process needs to start.
const UNTIL_A_START: Duration = Duration::from_millis(25);

pub(super) struct Round {
    pub(super) kind: Kind,
    pub(super) rng: fastrand::Rng,
    pub(super) dir: TempDir,
    /// The directory of the store.
    pub(super) home: PathBuf,
    /// Whether to wait for what a second start answers, which may take half a second.
    pub(super) is_patient: bool,
    pub(super) owners: Vec<Owner>,
    /// The stores that come of it, by number.
    pub(super) places: Vec<Place>,
    pub(super) expected: Expected,
    /// What was done to a file.
    pub(super) deed: String,
    template: PathBuf,
    unsynced: bool,
    planted: Option<Planted>,
}

/// What is demanded of a round besides what is demanded of all.
#[derive(Default)]
pub(super) struct Expected {
    /// Calls of the first one that begin after this time fail.
    pub(super) told_after: Option<u64>,
    /// What was begun before this time may have gone with the log that was taken.
    pub(super) log_lost_at: Option<u64>,
    /// What was under way between these times may be lost: docs/owners.md says that it is out of reach.
    pub(super) out_of_reach: Option<(u64, u64)>,
    /// Two owners are possible: docs/owners.md says so.
    pub(super) unjudged: bool,
    /// Nothing was taken from the owner, so it is told nothing.
    pub(super) harmless: bool,
    /// What a refusal may say instead of who has the file.
    pub(super) refusals: Vec<&'static str>,
    /// What each refusal that says who has the file says besides.
    pub(super) in_container: bool,
}

/// A store, where a fresh process looks for it in the end.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Keys that it had before.
    pub(super) before: HashSet<String>,
}

pub(super) struct Owner {
    pub(super) place: usize,
    running: Option<Running>,
    pub(super) ended: Option<Ended>,
    pub(super) killed: bool,
}

impl Round {
    /// A store that is not there, or one of the types of before from `template`; with or without a lock file.
    pub(super) fn new(
        kind: Kind,
        mut rng: fastrand::Rng,
        parent: &Path,
        template: PathBuf,
        planted: Option<Planted>,
    ) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("torture-owners-")
            .tempdir_in(parent)?;
        let home = dir.path().join("home");
        fs::create_dir(&home)?;
        fs::create_dir(dir.path().join("orders"))?;
        let mut round = Round {
            kind,
            dir,
            home,
            is_patient: rng.u8(..8) == 0,
            unsynced: rng.bool(),
            rng,
            owners: Vec::new(),
            places: Vec::new(),
            expected: Expected::default(),
            deed: String::new(),
            template,
            planted,
        };
        let path = round.path();
        let before = round.rng.bool();
        round.place(&path, before)?;
        let lock = beside(&path, ".lock");
        match round.rng.u8(..3) {
            0 => fs::write(lock, "")?,
            1 => fs::write(
                lock,
                "process 1 (stale), user 0, host gone\ntoken 1 pid-namespace 1 boot 1\n",
            )?,
            _ => {}
        }
        Ok(round)
    }

    /// The store, as it is called at first.
    pub(super) fn path(&self) -> PathBuf {
        self.home.join(self.kind.file_name())
    }

    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One more store.
    pub(super) fn place(&mut self, path: &Path, of_before: bool) -> Result<usize, Failure> {
        self.places.push(Place {
            path: path.to_path_buf(),
            before: HashSet::new(),
        });
        let place = self.places.len() - 1;
        if of_before {
            self.fill(place)?;
        }
        Ok(place)
    }

    /// Gives a store the entries of before.
    pub(super) fn fill(&mut self, place: usize) -> Result<(), Failure> {
        let place = &mut self.places[place];
        fs::copy(self.template.join(self.kind.file_name()), &place.path)?;
        place.before = (0..3).map(|number| format!("before-{number}")).collect();
        Ok(())
    }

    /// Makes the first store, for what needs a file: a table is made by its first merge.
    pub(super) fn make(&mut self) -> Result<(), Failure> {
        if self.places[0].path.exists() {
            return Ok(());
        }
        self.fill(0)
    }

    fn command(&self, path: &Path, id: usize) -> Result<Command, Failure> {
        let mut command = myself()?;
        command.args(["owner", "--kind", self.kind.name(), "--path"]);
        command
            .arg(path)
            .arg("--orders")
            .arg(self.scratch("orders"));
        command.args(["--id", &id.to_string()]);
        Ok(command)
    }

    /// Starts an owner of `path`, which is the store `place`; with the words of `wrapper` before its command.
    pub(super) fn start(
        &mut self,
        place: usize,
        path: &Path,
        wrapper: &[&str],
    ) -> Result<usize, Failure> {
        self.start_at(place, path, wrapper, 0)
    }

    fn start_at(
        &mut self,
        place: usize,
        path: &Path,
        wrapper: &[&str],
        at: u64,
    ) -> Result<usize, Failure> {
        let id = self.owners.len();
        let mut command = self.command(path, id)?;
        command.args(["--at", &at.to_string()]);
        if self.unsynced {
            command.arg("--unsynced");
        }
        if let Some(planted) = self.planted {
            command.args(["--planted", &planted.name()]);
        }
        if let [program, words @ ..] = wrapper {
            let mut outer = Command::new(program);
            outer.args(words).arg(command.get_program());
            outer.args(command.get_args());
            command = outer;
        }
        self.owners.push(Owner {
            place,
            running: Some(Running::start(&mut command)?),
            ended: None,
            killed: false,
        });
        Ok(id)
    }

    /// Starts some at the same moment.
    pub(super) fn start_together(&mut self, count: usize) -> Result<(), Failure> {
        let wait = u64::try_from(UNTIL_A_START.as_nanos()).unwrap_or(0);
        let (at, path) = (now() + wait, self.path());
        for _ in 0..count {
            self.start_at(0, &path, &[], at)?;
        }
        Ok(())
    }

    /// Waits until one has acknowledged something; false if it has ended without.
    pub(super) fn wait_for(
        &mut self,
        owner: usize,
        wanted: impl Fn(&Line) -> bool,
    ) -> Result<bool, Failure> {
        match &mut self.owners[owner].running {
            Some(running) => running.wait_for(wanted),
            None => Ok(false),
        }
    }

    /// Starts the first one, and lets it work for a while.
    pub(super) fn first(&mut self, path: &Path, wrapper: &[&str]) -> Result<(), Failure> {
        let first = self.start(0, path, wrapper)?;
        if !self.wait_for(first, |line| matches!(line, Line::Acknowledged { .. }))? {
            let running = self.owners[first].running.take();
            let ended = running.map(Running::finish).transpose()?;
            let why = ended.map_or_else(String::new, |ended| ended.stderr);
            return Err(Failure::Violation(format!(
                "the first start was refused: {}",
                why.trim_end()
            )));
        }
        self.pause(10);
        Ok(())
    }

    /// Lets a later start come to an answer, or to its middle.
    pub(super) fn answer(&mut self, owner: usize) -> Result<(), Failure> {
        if self.is_patient {
            self.wait_for(owner, |line| matches!(line, Line::Acknowledged { .. }))?;
        } else {
            self.pause(40);
        }
        self.pause(10);
        Ok(())
    }

    pub(super) fn pause(&mut self, most: u64) {
        thread::sleep(Duration::from_micros(self.rng.u64(..1000 * most)));
    }

    pub(super) fn id_of(&self, owner: usize) -> u32 {
        let running = self.owners[owner].running.as_ref();
        running.map_or(0, Running::id)
    }

    pub(super) fn order(&self, what: &str, owner: usize) -> Result<(), Failure> {
        let order = self.scratch("orders").join(format!("{what}-{owner}"));
        Ok(fs::write(order, "")?)
    }

    pub(super) fn kill(&mut self, owner: usize) -> Result<(), Failure> {
        if let Some(running) = self.owners[owner].running.take() {
            let ended = running.kill()?;
            self.owners[owner].killed = !ended.said(&Line::Done) && !is_answer(&ended);
            self.owners[owner].ended = Some(ended);
        }
        Ok(())
    }

    /// Ends all that still run, in any order, some of them in order and some by SIGKILL.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let mut order: Vec<usize> = (0..self.owners.len()).collect();
        self.rng.shuffle(&mut order);
        for owner in order {
            // One that waits for an answer is mostly killed, because that would take half a second.
            let is_waiting = !self.is_patient && owner > 0;
            if self.rng.bool() || (is_waiting && self.rng.u8(..4) > 0) {
                self.kill(owner)?;
                continue;
            }
            self.order("stop", owner)?;
            if let Some(running) = self.owners[owner].running.take() {
                self.owners[owner].ended = Some(running.finish()?);
            }
            self.pause(2);
        }
        Ok(())
    }

    /// Leaves the directory, with what its owners have said.
    pub(super) fn keep(&mut self) -> Result<(), Failure> {
        self.dir.disable_cleanup(true);
        for owner in 0..self.owners.len() {
            self.kill(owner)?;
        }
        for (number, owner) in self.owners.iter().enumerate() {
            let Some(ended) = &owner.ended else { continue };
            let mut said: Vec<String> = ended.said.iter().map(ToString::to_string).collect();
            said.push(ended.stderr.clone());
            fs::write(self.scratch(&format!("said-{number}")), said.join("\n"))?;
        }
        Ok(())
    }

    /// What a fresh process finds in the store `place`.
    pub(super) fn look(&self, place: usize) -> Result<HashSet<String>, Failure> {
        let look = |accept: bool| -> Result<Ended, Failure> {
            let mut command = self.command(&self.places[place].path, 999)?;
            command.arg("--look");
            if accept {
                command.arg("--accept-missing-wal");
            }
            Running::start(&mut command)?.finish()
        };
        let mut ended = look(false)?;
        // The advice, where another program has merged the log, and where the log is known to be lost.
        if ended.stderr.contains("accept_missing_wal") {
            ended = look(true)?;
        }
        if !ended.said(&Line::Done) {
            return Err(Failure::Violation(format!(
                "the store does not open in the end: {}, {}",
                ended.status,
                ended.stderr.trim_end()
            )));
        }
        Ok(stored(&ended.said))
    }
}

/// Whether it ended by itself with an error.
fn is_answer(ended: &Ended) -> bool {
    ended.status.code() == Some(Failure::TROUBLE.into())
}

pub(super) fn stored(said: &[Line]) -> HashSet<String> {
    let keys = said.iter().filter_map(|line| match line {
        Line::Stored { key, .. } => Some(key.clone()),
        _ => None,
    });
    keys.collect()
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
