//! An open table and its journal: one commit after the other, and a checkpoint now and then.
//!
//! What holds between any two operations on files: the table is whole; the journal says which tables its changes belong
//! to; everything acknowledged is in the one or the other. A checkpoint goes
//!
//! ```text
//! write the new table aside → sync it → note it in the journal → sync that → rename → sync the directory
//!   → remove the journal → sync the directory
//! ```
//!
//! so that a crash leaves the old table with a journal that fits it, or the new one with a journal that knows it.
//!
//! A checkpoint that nobody waits for is a merge: the new table and the journal's successor are written aside while commits
//! go on (`merge.rs`), and take their places between two commits, in the same order. The journal is not removed then:
//!
//! ```text
//!   → copy what was committed last → sync the successor → rename → sync the directory
//! ```
//!
//! Until then the old journal has everything, and it names both tables. Making a change twice does no harm.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::{refused, with_suffix};

use crate::checkpoint::{self, Plan, Rest, Source, edited};
use crate::closed::Closed;
use crate::disk::{Claim, Disk, DiskFile};
use crate::journal::{self, Changes, Failure, Fault, Frames, Journal, Kind, Packed, Replay, aside};
use crate::merge::{Job, Merge, Merged, clear_up};
use crate::settings::Settings;
use crate::shape::Shape;
use crate::table::{Head, Print, TableReader};

/// A merge that is slower than the commits beside it is waited for when the journal has grown to so many times the size at
/// which it began.
pub(crate) const BEHIND: u64 = 4;

pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    claim: Arc<Claim>,
    settings: Settings,
    table: Option<Table>,
    journal: Option<Journal>,
    /// At work only beside a journal.
    merge: Option<Merge>,
    state: State,
    /// The size of the journal at which the next checkpoint is due.
    due: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The table is being read.
    Opening,
    Ready,
    /// The outcome of a write is unknown, so nothing more may be written.
    Broken,
}

/// The table as it was when it was last read or written.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) print: Print,
    pub(crate) head: Head,
    pub(crate) is_sorted: bool,
}

/// What there is to read.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) reader: Option<TableReader>,
    pub(crate) journal: Option<FoundJournal>,
    /// The table as it was closed, if nothing was begun since.
    pub(crate) closed: Option<Closed>,
}

/// What a journal comes to, and its file, where the rows are.
pub(crate) struct FoundJournal {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) replay: Replay,
}

impl Store {
    /// Looks at the table that is claimed.
    pub(crate) fn at(
        disk: Arc<dyn Disk>,
        claim: Arc<Claim>,
        settings: Settings,
    ) -> Result<(Self, Found)> {
        let mut store = Store {
            disk,
            claim,
            settings,
            table: None,
            journal: None,
            merge: None,
            state: State::Opening,
            due: 0,
        };
        let found = store.look()?;
        Ok((store, found))
    }

    fn path(&self) -> &Path {
        &self.claim.path
    }

    fn journal_path(&self) -> PathBuf {
        with_suffix(self.path(), ".journal")
    }

    /// Once everything was read: takes rows out that cannot be, and makes durable what a crash has left.
    pub(crate) fn recover(
        &mut self,
        table: Option<Table>,
        set_aside: &HashSet<u64>,
        texts: &[Vec<u8>],
    ) -> Result<()> {
        self.table = table;
        self.state = State::Ready;
        self.claim.note_closed(None);
        self.schedule();
        let journal = self.journal_path();
        let mut unfinished = vec![aside(self.path()), aside(&journal)];
        if self.journal.is_none() {
            unfinished.push(journal);
        }
        for unfinished in unfinished {
            self.disk
                .remove(&unfinished)
                .map_err(|error| self.failed("clearing up beside", error))?;
        }
        if !texts.is_empty() {
            self.keep_aside(texts)
                .map_err(|error| self.failed("setting aside rows of", error))?;
        }
        if self.journal.is_none() && set_aside.is_empty() {
            return self
                .sync_all()
                .map_err(|error| self.failed("making durable", error));
        }
        match self.checkpoint_without(set_aside) {
            // Without space for another table the journal will do.
            Err(error)
                if set_aside.is_empty() && self.state == State::Ready && self.journal.is_some() =>
            {
                tracing::warn!(target: "persistent_map", %error, "going on with the journal");
                let synced = self.journal.as_mut().map_or(Ok(()), Journal::sync);
                synced.map_err(|error| self.failed("making durable the journal of", error))
            }
            done => done,
        }
    }

    /// One commit: a frame, and its sync.
    pub(crate) fn append(
        &mut self,
        kind: Kind,
        contents: &[u8],
        shape: Option<&Shape>,
    ) -> Result<()> {
        self.check_usable()?;
        self.write_frames(self.settings.sync, shape, |frames| {
            frames.push(kind, contents)
        })?;
        self.check_names()?;
        if let Err(error) = self.merge_if_due() {
            // The commit is in the journal; only the table is behind, and there will be another try.
            tracing::warn!(target: "persistent_map", %error, "the table could not be written");
            let bytes = self.journal.as_ref().map_or(0, Journal::bytes);
            self.due = self.due.max(bytes).saturating_mul(2);
        }
        Ok(())
    }

    /// Brings the table up to date and removes the journal.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        self.checkpoint_without(&HashSet::new())
    }

    pub(crate) fn close(mut self) -> Result<()> {
        if self.state != State::Ready {
            return Ok(());
        }
        self.checkpoint()?;
        self.claim.note_closed(self.closed());
        Ok(())
    }

    /// The table as it is left. None if it cannot be told.
    fn closed(&self) -> Option<Closed> {
        let mut file = self.disk.open(self.path()).ok()??;
        Closed::of(self.table.as_ref()?.print, &mut *file).ok()
    }

    /// Makes these rows the table, in place of all there are, in one step: by the rename.
    pub(crate) fn replace(
        &mut self,
        shape: Option<&Shape>,
        changes: Changes,
        cells: &mut Vec<u8>,
    ) -> Result<()> {
        // A journal belongs to the rows that go, and so does what is left of one that was given up: brought back by a
        // crash, it would take the new table for an edited one.
        self.checkpoint()?;
        let journal = self.journal_path();
        self.disk
            .remove(&journal)
            .and_then(|()| self.disk.sync_names(&journal))
            .map_err(|error| self.failed("removing the journal of", error))?;
        let table = self.table.as_ref();
        let Some(shape) = shape.or(table.map(|table| &table.head.shape)).cloned() else {
            return Ok(());
        };
        self.replace_table(Plan {
            shape: &shape,
            changes,
            cells: Some(cells),
            rest: Rest::Goes,
        })?;
        self.schedule();
        Ok(())
    }

    /// A second reader of the table.
    pub(crate) fn reader(&self) -> Result<TableReader> {
        let reader = self.first_reader()?;
        reader.ok_or_else(|| refused(self.path(), "the file is gone", RESTORE, None))
    }

    /// What is on the disk now, for another look at it. Changes nothing.
    pub(crate) fn look_again(&self) -> Result<Found> {
        let reader = match self.table {
            Some(_) => Some(self.reader()?),
            None => self.first_reader()?,
        };
        let path = self.journal_path();
        let journal = match self.open(&path)? {
            Some(file) => FoundJournal::read(file, &path)?,
            None => None,
        };
        Ok(Found {
            path: self.path().to_path_buf(),
            reader,
            journal,
            closed: None,
        })
    }

    fn look(&mut self) -> Result<Found> {
        let path = self.journal_path();
        let journal = self.open(&path)?;
        // A journal knows its table itself.
        let closed = self.claim.closed().filter(|_| journal.is_none());
        if let Some(closed) = &closed
            && let Some(mut file) = self.open(self.path())?
        {
            closed.check_not_cut(self.path(), &mut *file)?;
        }
        let mut found = Found {
            path: self.path().to_path_buf(),
            reader: self.first_reader()?,
            journal: None,
            closed,
        };
        let Some(file) = journal else {
            return Ok(found);
        };
        found.journal = FoundJournal::read(file, &path)?;
        if let Some(FoundJournal { replay, .. }) = &found.journal {
            if replay.torn > 0 {
                tracing::warn!(
                    target: "persistent_map", path = %path.display(), bytes = replay.torn,
                    "the last write was cut short before it was acknowledged; it is removed"
                );
            }
            // A file of its own, because whoever reads the rows takes the first one with it.
            let file = self
                .open(&path)?
                .ok_or_else(|| unusable(&path, ErrorKind::NotFound.into()))?;
            let disk = Arc::clone(&self.disk);
            self.journal = Some(Journal::found(disk, path, file, replay));
        } else {
            tracing::warn!(
                target: "persistent_map", path = %path.display(),
                "the journal was cut short before its first write was acknowledged; it is removed"
            );
        }
        Ok(found)
    }

    fn first_reader(&self) -> Result<Option<TableReader>> {
        self.open(self.path())?
            .map(|file| TableReader::open(self.path(), file, &self.settings))
            .transpose()
    }

    fn open(&self, path: &Path) -> Result<Option<Box<dyn DiskFile>>> {
        self.disk.open(path).map_err(|error| unusable(path, error))
    }

    /// Begins a merge, or puts in place what one has come to.
    fn merge_if_due(&mut self) -> Result<()> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let bytes = journal.bytes();
        let Some(merge) = &self.merge else {
            return if bytes < self.due {
                Ok(())
            } else if journal.shape().is_none() && self.table.is_none() {
                // There is no table to write.
                self.checkpoint()
            } else {
                self.begin_merge(journal.number(), bytes)
            };
        };
        merge.reached(bytes);
        let is_late = bytes >= self.due.saturating_mul(BEHIND);
        let Some(merge) = self.merge.take_if(|merge| is_late || merge.is_finished()) else {
            return Ok(());
        };
        let installed = merge
            .finish()
            .and_then(|merged| self.install(merged, bytes));
        installed.inspect_err(|_| clear_up(&*self.disk, self.path(), &self.journal_path()))
    }

    fn begin_merge(&mut self, number: u64, end: u64) -> Result<()> {
        let job = Job {
            disk: Arc::clone(&self.disk),
            claim: Arc::clone(&self.claim),
            settings: self.settings.clone(),
            table: self.table.clone(),
            journal: self.journal_path(),
            number,
            end,
        };
        let merge = Merge::begin(job).map_err(|error| self.failed("writing", error))?;
        self.merge = Some(merge);
        Ok(())
    }

    /// Gives what a merge has written its names, now that the journal's commits end at `end`.
    fn install(&mut self, merged: Merged, end: u64) -> Result<()> {
        let Merged {
            table,
            stamp,
            successor,
        } = merged;
        let mut old = self.open(self.path())?;
        let now = old.as_mut().map(|file| file.stamp()).transpose();
        if now.map_err(|error| self.failed("reading", error))? != stamp {
            return Err(edited(self.path()));
        }
        self.give_name_to(table)?;
        self.schedule();
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let shortened = journal.shorten(successor, end);
        let longer = shortened.map_err(|error| self.failed("shortening the journal of", error))?;
        self.disk.close(old.into_iter().chain([longer]).collect());
        let named = self.journal.as_mut().map_or(Ok(()), Journal::sync_name);
        named.map_err(|error| {
            // What is committed now is in both journals. What came next would be in one, and the name might be the other's.
            self.state = State::Broken;
            self.failed("shortening the journal of", error)
        })
    }

    /// Ends a merge, for whoever needs the files to themselves.
    fn settle(&mut self) {
        let _ = self.merge.take().map(Merge::give_up);
    }

    fn checkpoint_without(&mut self, set_aside: &HashSet<u64>) -> Result<()> {
        self.check_usable()?;
        self.settle();
        let (changes, shape) = match &mut self.journal {
            Some(journal) => {
                let replay = journal
                    .replay()
                    .map_err(|fault| damaged(&self.journal_path(), fault))?;
                (replay.changes, replay.shape)
            }
            None => (Changes::default(), None),
        };
        let shape = shape.or_else(|| self.table.as_ref().map(|table| table.head.shape.clone()));
        if let Some(shape) = shape
            && !(changes.is_empty() && set_aside.is_empty())
        {
            self.replace_table(Plan {
                shape: &shape,
                changes,
                cells: None,
                rest: Rest::Stays { except: set_aside },
            })?;
        }
        self.retire_journal()
            .map_err(|error| self.failed("removing the journal of", error))?;
        self.schedule();
        self.check_names()
    }

    /// The cells of the changes are in the journal unless the plan has them.
    fn replace_table(&mut self, plan: Plan<'_>) -> Result<()> {
        let aside = aside(self.path());
        let written = self.write_aside(&aside, plan);
        let replaced = written.and_then(|table| self.give_name_to(table));
        replaced.inspect_err(|_| {
            let _ = self.disk.remove(&aside);
        })
    }

    /// Makes the new table that is complete aside the table.
    fn give_name_to(&mut self, table: Table) -> Result<()> {
        let path = self.path().to_path_buf();
        if self.journal.is_some() {
            let print = table.print;
            // Always synced: a table that no journal knows would be taken for an edited one.
            self.write_frames(true, None, |frames| frames.push_checkpoint(print))?;
            let named = self.journal.as_mut().map_or(Ok(()), Journal::sync_name);
            named.map_err(|error| self.failed("writing to", error))?;
        }
        // It may have taken long to write, and may be another owner's place by now.
        let claimed = self.claim.check();
        claimed.map_err(|error| self.failed("replacing", error).unknown())?;
        let renamed = self.disk.rename(&aside(&path), &path);
        renamed.map_err(|error| self.cannot_replace(error))?;
        self.table = Some(table);
        let synced = self.disk.sync_names(&path);
        synced.map_err(|error| {
            let error = self.failed("replacing", error);
            if self.journal.is_some() {
                return error;
            }
            // Without a journal, nothing but the name says which table it is.
            self.state = State::Broken;
            error.unknown()
        })
    }

    fn write_aside(&mut self, aside: &Path, plan: Plan<'_>) -> Result<Table> {
        let source = match &self.table {
            Some(table) => Some(Source {
                reader: self.reader()?,
                table,
            }),
            None => None,
        };
        let file = self
            .disk
            .create(aside, self.path())
            .map_err(|error| self.failed("writing", error))?;
        let path = self.path().to_path_buf();
        let cells: Option<&mut dyn Packed> = match (plan.cells, &mut self.journal) {
            (Some(cells), _) => Some(cells),
            (None, Some(journal)) => Some(journal),
            (None, None) => None,
        };
        let plan = Plan { cells, ..plan };
        checkpoint::write(file, &path, source, plan, &self.settings)
    }

    /// Appends to the journal, or begins it. An error means that the frames are not there, or is marked unknown.
    fn write_frames(
        &mut self,
        sync: bool,
        shape: Option<&Shape>,
        fill: impl FnOnce(&mut Frames) -> io::Result<()>,
    ) -> Result<()> {
        let table = self.table.as_ref().map(|table| table.print);
        let mut frames = match &self.journal {
            Some(journal) => Ok(journal.frames(self.settings.sync)),
            None => Frames::opening(table, self.settings.sync),
        }
        .map_err(|error| self.failed("writing to", error))?;
        let known = self.journal.as_ref().and_then(Journal::shape);
        let news = shape.filter(|shape| Some(*shape) != known).cloned();
        news.as_ref()
            .map_or(Ok(()), |shape| frames.push_shape(shape))
            .and_then(|()| fill(&mut frames))
            .map_err(|error| self.failed("writing to", error))?;
        let written = if let Some(journal) = &mut self.journal {
            let merge = &mut self.merge;
            journal.extend(&frames, sync, || {
                let _ = merge.take().map(Merge::give_up);
            })
        } else {
            let (disk, path) = (Arc::clone(&self.disk), self.journal_path());
            Journal::begin(disk, path, self.path(), &frames, sync)
                .map(|journal| self.journal = Some(journal))
        };
        written.map_err(|failure| self.failed_commit(failure))?;
        if let (Some(journal), Some(news)) = (&mut self.journal, news) {
            journal.knows(news);
        }
        Ok(())
    }

    fn retire_journal(&mut self) -> io::Result<()> {
        if self.journal.is_none() {
            return Ok(());
        }
        let path = self.journal_path();
        self.disk.remove(&path)?;
        self.journal = None;
        self.disk.sync_names(&path)
    }

    /// Whoever wrote the table last may not have synced it.
    fn sync_all(&mut self) -> io::Result<()> {
        if self.settings.sync
            && let Some(mut file) = self.disk.open(self.path())?
        {
            file.sync()?;
            self.disk.sync_names(self.path())?;
        }
        Ok(())
    }

    /// Rows that cannot be read go to a table beside this one.
    fn keep_aside(&mut self, texts: &[Vec<u8>]) -> io::Result<()> {
        let path = with_suffix(self.path(), ".quarantine.csv");
        let mut file = match self.disk.open(&path)? {
            Some(file) => file,
            None => self.disk.create(&path, self.path())?,
        };
        let mut end = file.size()?;
        let header = self.table.as_ref().map(|table| table.head.text.clone());
        let header = header.filter(|_| end == 0);
        for text in header.iter().chain(texts) {
            file.write_at(end, text)?;
            end += text.len() as u64;
            if !text.ends_with(b"\n") {
                file.write_at(end, b"\n")?;
                end += 1;
            }
        }
        file.sync()?;
        self.disk.sync_names(&path)
    }

    fn schedule(&mut self) {
        let table = self.table.as_ref().map_or(0, |table| table.print.bytes);
        self.due = table.max(self.settings.merge_after);
    }

    fn check_usable(&mut self) -> Result<()> {
        match self.state {
            State::Ready => self.check_names(),
            State::Opening => Err(self.failed("writing to", io::Error::other("it is not loaded"))),
            State::Broken => {
                let earlier = io::Error::other("an earlier write failed");
                Err(self.failed("writing to", earlier).unknown())
            }
        }
    }

    /// Whether the lock and the journal are still what has their names. If the lock is not, another owner may be at work;
    /// if the journal is not, nobody will ever find what is in it. Asked after each commit as well as before, because what is
    /// acknowledged must be what the next owner finds.
    fn check_names(&mut self) -> Result<()> {
        let checked = self.claim.check().and_then(|()| self.check_journal());
        checked.map_err(|error| {
            self.state = State::Broken;
            self.failed("writing to", error).unknown()
        })
    }

    fn check_journal(&mut self) -> io::Result<()> {
        let path = self.journal_path();
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        // Other errors do not tell.
        let has_name = self.disk.identity(&path).map_or(Ok(true), |named| {
            Ok::<_, io::Error>(named == Some(journal.identity()?))
        })?;
        if has_name {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::NotFound,
            "the `.journal` file beside it was deleted, moved or replaced while it was open, and the writes in it are lost. \
             All entries are in memory: `copy` the map to a new store",
        ))
    }

    fn failed_commit(&mut self, failure: Failure) -> PersistentError {
        let error = self.failed("writing to", failure.error);
        if failure.is_gone {
            return error;
        }
        self.state = State::Broken;
        error.unknown()
    }

    fn failed(&self, doing: &str, error: io::Error) -> PersistentError {
        PersistentError::storage(format!("{doing} {}", self.path().display()), error)
    }

    fn cannot_replace(&self, error: io::Error) -> PersistentError {
        if error.kind() == ErrorKind::ResourceBusy {
            return refused(
                self.path(),
                if self.journal.is_some() {
                    "it cannot be replaced, because it is mounted by itself. All writes are safe in the journal beside it"
                } else {
                    "it cannot be replaced, because it is mounted by itself"
                },
                "Mount the directory that the file is in instead of the file alone",
                Some(error),
            );
        }
        self.failed("replacing", error)
    }
}

impl FoundJournal {
    /// `None` if not even its first frame was finished.
    fn read(mut file: Box<dyn DiskFile>, path: &Path) -> Result<Option<Self>> {
        let replay = journal::replay(&mut *file).map_err(|fault| damaged(path, fault))?;
        Ok(replay.map(|replay| FoundJournal { file, replay }))
    }
}

fn unusable(path: &Path, error: io::Error) -> PersistentError {
    persistent_map_file::unusable(
        path,
        "it cannot be opened for reading and writing",
        "Check the permissions of the file and of its directory",
        error,
    )
}

/// Whether the file system has room for the longest name beside the table. A merge would be too late to find out.
pub(crate) fn check_name(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.open(&aside(&with_suffix(path, ".journal"))) {
        Err(error) if error.kind() == ErrorKind::InvalidFilename => Err(refused(
            path,
            "its name is too long: the files beside it, which a merge needs, have names that are longer by 27 bytes",
            "Give it a shorter name, of at most 228 bytes on most file systems",
            Some(error),
        )),
        _ => Ok(()),
    }
}

pub(crate) fn damaged(path: &Path, fault: Fault) -> PersistentError {
    match fault {
        Fault::Io(error) => PersistentError::storage(format!("reading {}", path.display()), error),
        Fault::Damaged(at) => refused(
            path,
            format!("the journal is damaged at byte {at}, and that is not the trace of a crash"),
            RESTORE,
            None,
        ),
        Fault::Newer(version) => refused(
            path,
            format!(
                "the journal has version {version}, and this version of persistent-map reads up to {}",
                journal::VERSION
            ),
            "Update persistent-map",
            None,
        ),
    }
}

/// What to do about a table and a journal that do not fit.
pub(crate) const RESTORE: &str = "Restore the table and its `.journal` file from a backup, both or neither. Without one: \
    move the `.journal` file away to open the table as it is, without the writes in it";
