//! A checkpoint that is written while commits go on: by a thread with files of its own, aside, up to where whoever has the
//! store takes over.
//!
//! What was in the journal when it began comes into the new table, and what was committed since into a new journal beside
//! it. Nothing gets a name here.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use persistent_map_core::{PersistentError, Result};

use crate::checkpoint::{self, Plan, Rest, Source};
use crate::disk::{Claim, Disk, DiskFile, Running, Stamp};
use crate::journal::{self, Successor, aside};
use crate::settings::Settings;
use crate::store::{Table, damaged};
use crate::table::TableReader;

/// How much of a new table waits to be synced. A commit beside it would wait for all of that.
const UNSYNCED: u64 = 4 << 20;

/// How much of the journal may be left to copy while commits wait.
const LEFT: u64 = 128 << 10;

/// How often to come after commits that go on meanwhile.
const ROUNDS: usize = 8;

/// A merge on its way. Dropped, it ends soon, and the path stays claimed until it has.
pub(crate) struct Merge {
    job: Arc<Job>,
    progress: Arc<Progress>,
    running: Option<Box<dyn Running>>,
    result: Receiver<Result<Merged>>,
}

/// What a merge works on, and how far it shall go.
pub(crate) struct Job {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) claim: Arc<Claim>,
    pub(crate) settings: Settings,
    pub(crate) table: Option<Table>,
    pub(crate) journal: PathBuf,
    /// The journal's number, and where it ended when the merge began.
    pub(crate) number: u64,
    pub(crate) end: u64,
}

/// What is complete and durable aside.
pub(crate) struct Merged {
    pub(crate) table: Table,
    /// What the old table was before it was read.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) successor: Successor,
}

struct Progress {
    stop: AtomicBool,
    /// Bytes of good frames in the journal.
    good: AtomicU64,
}

impl Merge {
    pub(crate) fn begin(job: Job) -> io::Result<Self> {
        let progress = Arc::new(Progress {
            stop: AtomicBool::new(false),
            good: AtomicU64::new(job.end),
        });
        let (sender, result) = channel();
        let job = Arc::new(job);
        let (task, shared) = (Arc::clone(&job), Arc::clone(&progress));
        let work = move || {
            let merged = task.run(&shared);
            if merged.is_err() || shared.is_stopped() {
                task.clear_up();
            }
            let _ = sender.send(merged);
            // The lock goes with it, so this comes last.
            drop(task);
        };
        let running = job.disk.begin(Box::new(work))?;
        Ok(Merge {
            job,
            progress,
            running: Some(running),
            result,
        })
    }

    /// Tells it how long the journal has become.
    pub(crate) fn reached(&self, good: u64) {
        self.progress.good.store(good, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.running
            .as_ref()
            .is_none_or(|running| running.is_finished())
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Merged> {
        self.wait();
        self.result.try_recv().unwrap_or_else(|_| {
            let error = io::Error::other("the thread that did it has panicked");
            Err(PersistentError::storage("merging a table", error))
        })
    }

    /// Ends it, whatever it has come to.
    pub(crate) fn give_up(mut self) {
        self.progress.stop.store(true, Ordering::Release);
        self.wait();
        self.job.clear_up();
    }

    fn wait(&mut self) {
        if let Some(running) = self.running.take() {
            running.wait();
        }
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Release);
    }
}

impl Progress {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl Job {
    fn run(&self, progress: &Arc<Progress>) -> Result<Merged> {
        let path = &self.claim.path;
        let mut journal = self.open(&self.journal, progress)?;
        let replay = journal::replay_to(&mut *journal, self.end)
            .map_err(|fault| damaged(&self.journal, fault))?
            .filter(|replay| replay.number == self.number && replay.good == self.end)
            .ok_or_else(|| {
                let error = io::Error::other("somebody else has changed it");
                failed("reading", &self.journal, error)
            })?;
        let (mut stamp, mut source) = (None, None);
        if let Some(table) = &self.table {
            let mut file = self.open(path, progress)?;
            stamp = Some(
                file.stamp()
                    .map_err(|error| failed("reading", path, error))?,
            );
            let reader = TableReader::open(path, file, &self.settings)?;
            source = Some(Source { reader, table });
        }
        let shape = replay
            .shape
            .as_ref()
            .or(self.table.as_ref().map(|table| &table.head.shape))
            .ok_or_else(|| {
                let error = io::Error::other("there are no columns yet");
                failed("writing", path, error)
            })?;
        let file = self
            .disk
            .create(&aside(path), path)
            .map_err(|error| failed("writing", path, error))?;
        let plan = Plan {
            shape,
            changes: replay.changes,
            cells: Some(&mut journal),
            rest: Rest::Stays {
                except: &HashSet::new(),
            },
        };
        let file = Watched::boxed(file, progress);
        let table = checkpoint::write(file, path, source, plan, &self.settings)?;
        let successor = Successor::begin(
            &*self.disk,
            &self.journal,
            self.settings.sync,
            table.print,
            replay.shape.as_ref(),
            self.end,
        )
        .and_then(|successor| self.come_after(successor, &mut *journal, progress))
        .map_err(|error| failed("writing the journal of", path, error))?;
        Ok(Merged {
            table,
            stamp,
            successor,
        })
    }

    /// Copies what was committed since.
    fn come_after(
        &self,
        mut successor: Successor,
        journal: &mut dyn DiskFile,
        progress: &Progress,
    ) -> io::Result<Successor> {
        for _ in 0..ROUNDS {
            let good = progress.good.load(Ordering::Acquire);
            successor.copy(journal, self.number, good)?;
            successor.sync()?;
            if progress.good.load(Ordering::Acquire) - good <= LEFT {
                break;
            }
        }
        Ok(successor)
    }

    fn open(&self, path: &Path, progress: &Arc<Progress>) -> Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path).and_then(|file| {
            let file = file.ok_or(ErrorKind::NotFound)?;
            Ok(Watched::boxed(file, progress))
        });
        file.map_err(|error| failed("reading", path, error))
    }

    fn clear_up(&self) {
        clear_up(&*self.disk, &self.claim.path, &self.journal);
    }
}

/// Removes what a merge has written aside.
pub(crate) fn clear_up(disk: &dyn Disk, table: &Path, journal: &Path) {
    for path in [table, journal] {
        let _ = disk.remove(&aside(path));
    }
}

/// A file for as long as the merge is wanted, and of which not much is unsynced.
struct Watched {
    file: Box<dyn DiskFile>,
    progress: Arc<Progress>,
    unsynced: u64,
}

impl Watched {
    fn boxed(file: Box<dyn DiskFile>, progress: &Arc<Progress>) -> Box<dyn DiskFile> {
        Box::new(Watched {
            file,
            progress: Arc::clone(progress),
            unsynced: 0,
        })
    }

    fn check(&self) -> io::Result<()> {
        if self.progress.is_stopped() {
            return Err(io::Error::other("it is not wanted any more"));
        }
        Ok(())
    }
}

impl DiskFile for Watched {
    fn size(&mut self) -> io::Result<u64> {
        self.file.size()
    }

    fn stamp(&mut self) -> io::Result<Stamp> {
        self.file.stamp()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write_at(offset, bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= UNSYNCED {
            self.sync()?;
        }
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.file.sync()?;
        self.unsynced = 0;
        Ok(())
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> PersistentError {
    PersistentError::storage(format!("{doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests;
