//! The small stores that are damaged, and the states that they had.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use persistent_map_core::{OnCorrupt, OpenReport, PersistentError, PersistentMap, StorageBackend};
use persistent_map_csv::CsvBackend;
use persistent_map_sqlite::SqliteBackend;

use crate::failure::Failure;
use crate::oracle::Found;
use crate::process::{self, Running};
use crate::protocol::{Change, Line};
use crate::record::Record;
use crate::store::{Backend, MERGE_LATER};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A database that was closed
    Database,
    /// A database and its log, left by a process that was killed
    Log,
    /// A table that was closed
    Table,
    /// A table and its journal, left by a process that was killed
    Journal,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Database, Kind::Log, Kind::Table, Kind::Journal];

    /// What the command line calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Database => "database",
            Kind::Log => "log",
            Kind::Table => "table",
            Kind::Journal => "journal",
        }
    }

    pub(super) fn backend(self) -> Backend {
        match self {
            Kind::Database | Kind::Log => Backend::Sqlite,
            Kind::Table | Kind::Journal => Backend::Csv,
        }
    }

    fn was_killed(self) -> bool {
        matches!(self, Kind::Log | Kind::Journal)
    }

    /// Where its store is in `dir`.
    fn home(self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }
}

/// Contents of files, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// A store as its process has left it.
pub(super) struct Pristine {
    pub(super) kind: Kind,
    pub(super) files: Files,
    /// The states that it had since its log or journal was begun, the last one at the end.
    pub(super) states: Vec<Found>,
}

/// Has workers write it. What they say goes beside it, because it tells the states.
pub(super) fn make(kind: Kind, dir: &Path, seed: u64) -> Result<(), Failure> {
    let home = kind.home(dir);
    fs::create_dir(&home)?;
    let path = home.join(kind.backend().file_name());
    let mut said = work(&path, seed, 1, true)?;
    if kind.was_killed() {
        said.push(Line::Begun);
        said.extend(work(&path, seed.wrapping_add(1), 1000, false)?);
    }
    let said: Vec<String> = said.iter().map(Line::to_string).collect();
    fs::write(
        dir.join(kind.name()).with_extension("said"),
        said.join("\n"),
    )?;
    Ok(())
}

fn work(path: &Path, seed: u64, first_version: u64, close: bool) -> Result<Vec<Line>, Failure> {
    let mut command = process::myself()?;
    command.arg("worker").arg("--path").arg(path);
    command.args(["--ops", "12", "--seed", &seed.to_string()]);
    command.args(["--first-version", &first_version.to_string()]);
    command.args(["--merge-after", &MERGE_LATER.to_string()]);
    if close {
        command.arg("--close");
    }
    let mut worker = Running::start(&mut command)?;
    let done = worker.wait_for(|line| *line == Line::Done)?;
    let ended = if close {
        worker.finish()?
    } else {
        worker.kill()?
    };
    if !done {
        return Err(Failure::Trouble(format!("a worker: {}", ended.stderr)));
    }
    Ok(ended.said)
}

impl Pristine {
    pub(super) fn read(kind: Kind, dir: &Path) -> Result<Self, Failure> {
        let said = fs::read_to_string(kind.home(dir).with_extension("said"))?;
        let mut state = Found::new();
        let mut states = Vec::new();
        for line in said.lines() {
            match line.parse().map_err(Failure::Trouble)? {
                // Where the log or journal begins.
                Line::Begun => states.clear(),
                Line::Attempt {
                    key,
                    version,
                    change: Change::Put,
                } => {
                    state.insert(key, version);
                }
                Line::Attempt { key, .. } => {
                    state.remove(&key);
                }
                Line::Acknowledged { .. } => {}
                _ => continue,
            }
            states.push(state.clone());
        }
        let files = without_lock(contents(&kind.home(dir))?);
        let wanted = if kind.was_killed() { 2 } else { 1 };
        if files.len() != wanted || states.is_empty() {
            let names: Vec<&String> = files.keys().collect();
            return Err(Failure::Trouble(format!("a worker left {names:?}")));
        }
        Ok(Pristine {
            kind,
            files,
            states,
        })
    }

    pub(super) fn last(&self) -> &Found {
        &self.states[self.states.len() - 1]
    }

    /// The store's own file. The other one, if there is one, has a longer name.
    pub(super) fn main(&self) -> &'static str {
        self.kind.backend().file_name()
    }
}

/// All files in a directory.
pub(super) fn contents(dir: &Path) -> std::io::Result<Files> {
    fs::read_dir(dir)?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, fs::read(entry.path())?))
        })
        .collect()
}

/// All but the file that names the owner of the others.
pub(super) fn without_lock(mut files: Files) -> Files {
    files.retain(|name, _| Path::new(name).extension() != Some("lock".as_ref()));
    files
}

/// What an open gave.
pub(super) struct Opened {
    pub(super) entries: BTreeMap<String, Record>,
    pub(super) report: OpenReport,
    pub(super) closed: Result<(), PersistentError>,
}

/// Opens a store with the settings that most people have, and closes it.
pub(super) async fn open(
    backend: Backend,
    path: &Path,
    on_corrupt: OnCorrupt,
) -> Result<Opened, PersistentError> {
    let backend: Arc<dyn StorageBackend<String, Record>> = match backend {
        Backend::Sqlite => Arc::new(SqliteBackend::new(path).await?),
        Backend::Csv => Arc::new(CsvBackend::new(path)),
    };
    let builder = PersistentMap::builder(backend).on_corrupt(on_corrupt);
    let (map, report) = builder.open_with_report().await?;
    Ok(Opened {
        entries: map.iter().collect(),
        report,
        closed: map.close().await,
    })
}
