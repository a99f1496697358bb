//! A disk in memory that notes what is done to it, and what a power cut may leave of that.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use persistent_map_core::Result;

use crate::disk::{Claim, Disk, DiskFile, Running, Stamp};

pub(super) const TABLE: &str = "/data/t.csv";
const JOURNAL: &str = "/data/t.csv.journal";
const SHORTER_JOURNAL: &str = "/data/t.csv.journal.persistent-map-new";

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Bytes of a frame before its payload.
const HEADER: usize = 24;

/// Mistakes that are made when nothing else is wrong. All of them can be seen from the disk, so it makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    NoFileSync,
    NoDirectorySync,
    RenameBeforeSync,
    AcknowledgeBeforeAppend,
    TailNotCut,
    /// A shorter journal takes commits before its name is durable.
    ShorterJournalNotNamed,
    /// A shorter journal lacks the commits that are not in the table.
    CommitsLeftOut,
    /// A merged table gets its name before the journal knows it.
    RenameBeforeNote,
}

impl Bug {
    pub(super) const ALL: [Bug; 8] = [
        Bug::NoFileSync,
        Bug::NoDirectorySync,
        Bug::RenameBeforeSync,
        Bug::AcknowledgeBeforeAppend,
        Bug::TailNotCut,
        Bug::ShorterJournalNotNamed,
        Bug::CommitsLeftOut,
        Bug::RenameBeforeNote,
    ];
}

/// What fails next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fail {
    /// The next write, after so many bytes.
    Write(usize),
    /// The next sync of a file.
    Sync,
}

/// Names and their contents.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Create {
        path: PathBuf,
        inode: usize,
    },
    Write {
        inode: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: usize,
        size: usize,
    },
    Sync {
        inode: usize,
    },
    /// What was not synced before may be on the disk or not, and no later sync changes that.
    FailedSync {
        inode: usize,
    },
    Rename {
        inode: usize,
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncNames,
    /// Notes of whoever plays the history: a state is asked for, and is acknowledged or refused; the last acknowledged
    /// one is in the table.
    Attempted(usize),
    Acknowledged,
    Refused,
    Flushed,
}

#[derive(Clone)]
pub(super) struct Recorder(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    inodes: Vec<Vec<u8>>,
    log: Vec<Op>,
    fail: Option<Fail>,
    /// How many writes and syncs go well before.
    fail_after: usize,
    /// A merge that has not begun.
    work: Option<Box<dyn FnOnce() + Send>>,
    bug: Option<Bug>,
    /// Operations that a bug makes late.
    late: Vec<Op>,
}

impl Recorder {
    /// A disk with these files, all of them durable.
    pub(super) fn on(files: Files, bug: Option<Bug>) -> Self {
        let mut state = State {
            bug,
            ..State::default()
        };
        for (path, contents) in files {
            let inode = state.inodes.len();
            state.log.push(Op::Create {
                path: path.clone(),
                inode,
            });
            state.log.push(Op::Write {
                inode,
                offset: 0,
                bytes: contents.clone(),
            });
            state.log.push(Op::Sync { inode });
            state.names.insert(path, inode);
            state.inodes.push(contents);
        }
        state.log.push(Op::SyncNames);
        Recorder(Arc::new(Mutex::new(state)))
    }

    pub(super) fn note(&self, note: Op) {
        self.state().log.push(note);
    }

    pub(super) fn fail_next(&self, fail: Option<Fail>) {
        self.fail_later(0, fail);
    }

    pub(super) fn fail_later(&self, after: usize, fail: Option<Fail>) {
        let mut state = self.state();
        (state.fail, state.fail_after) = (fail, after);
    }

    /// Does what has been begun beside the caller, to its end. Returns whether there was anything.
    pub(super) fn work(&self) -> bool {
        let work = self.state().work.take();
        work.map(|work| work()).is_some()
    }

    pub(super) fn table(&self) -> Vec<u8> {
        let state = self.state();
        let table = state.names.get(Path::new(TABLE));
        table.map_or_else(Vec::new, |inode| state.inodes[*inode].clone())
    }

    pub(super) fn names(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn log(&self) -> Vec<Op> {
        let mut state = self.state();
        state.catch_up();
        state.log.clone()
    }

    /// What a power cut leaves for certain.
    pub(super) fn durable(&self) -> Files {
        let log = self.log();
        let pending = Pending::of(&log);
        files(&pending.names, &pending.contents)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Whether it is now that this fails.
    fn failure(&mut self, is_of_this: impl FnOnce(Fail) -> bool) -> Option<Fail> {
        let fail = self.fail.filter(|fail| is_of_this(*fail))?;
        if self.fail_after > 0 {
            self.fail_after -= 1;
            return None;
        }
        self.fail = None;
        Some(fail)
    }

    fn record(&mut self, op: Op) {
        let journal = self.names.get(Path::new(JOURNAL)).copied();
        match (self.bug, &op) {
            (Some(Bug::NoFileSync), Op::Sync { .. })
            | (Some(Bug::NoDirectorySync), Op::SyncNames) => {}
            (Some(Bug::RenameBeforeSync), Op::Sync { inode }) if Some(*inode) != journal => {
                self.late.push(op);
            }
            (Some(Bug::RenameBeforeSync), Op::Rename { .. } | Op::Remove { .. }) => {
                self.log.push(op);
                // Late enough for the cut to come between.
                if self
                    .log
                    .iter()
                    .rev()
                    .take_while(|op| !matches!(op, Op::SyncNames))
                    .count()
                    > 1
                {
                    return;
                }
                self.catch_up();
            }
            (Some(Bug::AcknowledgeBeforeAppend), Op::Write { inode, .. })
                if Some(*inode) == journal =>
            {
                self.catch_up();
                self.late.push(op);
            }
            (Some(Bug::AcknowledgeBeforeAppend), Op::Sync { inode }) if Some(*inode) == journal => {
                self.late.push(op);
            }
            (Some(Bug::AcknowledgeBeforeAppend), _) => {
                self.catch_up();
                self.log.push(op);
            }
            (Some(Bug::ShorterJournalNotNamed), Op::SyncNames)
                if shorter_journal(&self.log).is_some() => {}
            (Some(Bug::RenameBeforeNote), Op::Sync { inode })
                if Some(*inode) == journal && self.is_merged_table_noted() =>
            {
                self.late.push(op);
            }
            (Some(Bug::RenameBeforeNote), Op::SyncNames) => {
                let is_named = matches!(self.log.last(), Some(Op::Rename { .. }));
                self.log.push(op);
                if is_named {
                    self.catch_up();
                }
            }
            _ => self.log.push(op),
        }
    }

    /// The last write was the note, and there is a shorter journal.
    fn is_merged_table_noted(&self) -> bool {
        let is_note = |bytes: &[u8]| bytes.get(HEADER) == Some(&b'C');
        self.names.contains_key(Path::new(SHORTER_JOURNAL))
            && matches!(self.log.last(), Some(Op::Write { bytes, .. }) if is_note(bytes))
    }

    fn catch_up(&mut self) {
        let mut late = std::mem::take(&mut self.late);
        self.log.append(&mut late);
    }
}

impl Disk for Recorder {
    fn claim(&self, path: &Path) -> Result<Claim> {
        Ok(Claim {
            path: path.to_path_buf(),
            lock: None,
        })
    }

    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        let inode = self.state().names.get(path).copied();
        Ok(inode.map(|inode| self.file(inode)))
    }

    fn create(&self, path: &Path, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.remove(path)?;
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Vec::new());
        state.names.insert(path.to_path_buf(), inode);
        let path = path.to_path_buf();
        state.record(Op::Create { path, inode });
        drop(state);
        Ok(self.file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), inode);
        state.record(Op::Rename {
            inode,
            from: from.to_path_buf(),
            to: to.to_path_buf(),
        });
        Ok(())
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        let inode = self.state().names.get(path).copied();
        Ok(inode.map(|inode| (0, inode as u64)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.names.remove(path).is_some() {
            let path = path.to_path_buf();
            state.record(Op::Remove { path });
        }
        Ok(())
    }

    fn sync_names(&self, _: &Path) -> io::Result<()> {
        self.state().record(Op::SyncNames);
        Ok(())
    }

    /// Always in the same order: when the history comes to it, or somebody waits.
    fn begin(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>> {
        self.state().work = Some(work);
        Ok(Box::new(Begun(self.clone())))
    }

    fn close(&self, files: Vec<Box<dyn DiskFile>>) {
        drop(files);
    }
}

impl Recorder {
    fn file(&self, inode: usize) -> Box<dyn DiskFile> {
        let disk = self.clone();
        Box::new(RecordedFile { disk, inode })
    }
}

struct Begun(Recorder);

impl Running for Begun {
    fn is_finished(&self) -> bool {
        self.0.state().work.is_none()
    }

    fn wait(self: Box<Self>) {}
}

/// A path that is given up is locked until its thread has ended.
impl Drop for Begun {
    fn drop(&mut self) {
        self.0.work();
    }
}

struct RecordedFile {
    disk: Recorder,
    inode: usize,
}

impl DiskFile for RecordedFile {
    fn size(&mut self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].len() as u64)
    }

    fn stamp(&mut self) -> io::Result<Stamp> {
        Ok(Stamp {
            file: (0, self.inode as u64),
            rights: (0, 0, 0),
            bytes: self.size()?,
            written: None,
        })
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let contents = &state.inodes[self.inode];
        let start = usize::try_from(offset).unwrap().min(contents.len());
        let read = buffer.len().min(contents.len() - start);
        buffer[..read].copy_from_slice(&contents[start..start + read]);
        Ok(read)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let is_shorter = state.names.get(Path::new(SHORTER_JOURNAL)) == Some(&self.inode);
        if state.bug == Some(Bug::CommitsLeftOut) && is_shorter && offset > 0 {
            return Ok(());
        }
        let fits = match state.failure(|fail| matches!(fail, Fail::Write(_))) {
            Some(Fail::Write(fits)) => Some(fits.min(bytes.len().saturating_sub(1))),
            _ => None,
        };
        let bytes = &bytes[..fits.unwrap_or(bytes.len())];
        let offset = usize::try_from(offset).unwrap();
        let op = Op::Write {
            inode: self.inode,
            offset,
            bytes: bytes.to_vec(),
        };
        apply(&mut state.inodes[self.inode], &op);
        state.record(op);
        fits.map_or(Ok(()), |_| Err(ErrorKind::StorageFull.into()))
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.bug != Some(Bug::TailNotCut) {
            let size = usize::try_from(size).unwrap();
            let op = Op::Truncate {
                inode: self.inode,
                size,
            };
            apply(&mut state.inodes[self.inode], &op);
            state.record(op);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let inode = self.inode;
        if state.failure(|fail| fail == Fail::Sync).is_some() {
            state.record(Op::FailedSync { inode });
            return Err(io::Error::other("an input/output error"));
        }
        state.record(Op::Sync { inode });
        Ok(())
    }
}

fn apply(contents: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { offset, bytes, .. } => {
            let end = offset + bytes.len();
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[*offset..end].copy_from_slice(bytes);
        }
        Op::Truncate { size, .. } => contents.resize(*size, 0),
        _ => {}
    }
}

/// The journal that has taken the place of a longer one with the last operation.
fn shorter_journal(log: &[Op]) -> Option<usize> {
    let (last, before) = log.split_last()?;
    let inode = match last {
        Op::Rename { inode, to, .. } if to == Path::new(JOURNAL) => *inode,
        _ => return None,
    };
    // The other reason for a new journal is a failed sync.
    let follows_a_table = before.iter().rev().find_map(|op| match op {
        Op::Rename { to, .. } => Some(to == Path::new(TABLE)),
        Op::FailedSync { .. } => Some(false),
        _ => None,
    });
    (follows_a_table == Some(true)).then_some(inode)
}

/// The kinds of the frames in each journal that has taken the place of a longer one.
pub(super) fn shorter_journals(log: &[Op]) -> Vec<String> {
    let ends = (1..=log.len()).map(|end| &log[..end]);
    ends.filter_map(|log| Some((log, shorter_journal(log)?)))
        .map(|(log, inode)| {
            let mut contents = Vec::new();
            let of_it = log.iter().filter(|op| match op {
                Op::Write { inode: of, .. } | Op::Truncate { inode: of, .. } => *of == inode,
                _ => false,
            });
            of_it.for_each(|op| apply(&mut contents, op));
            let (mut kinds, mut rest) = (String::new(), &contents[..]);
            while rest.len() > HEADER {
                kinds.push(char::from(rest[HEADER]));
                let length = u32::from_le_bytes(rest[4..8].try_into().unwrap());
                rest = &rest[HEADER + length as usize..];
            }
            kinds
        })
        .collect()
}

/// What is on the disk for certain, and what may or may not be.
struct Pending {
    names: BTreeMap<PathBuf, usize>,
    contents: BTreeMap<usize, Vec<u8>>,
    name_ops: Vec<Op>,
    /// By inode; and how many of them will never be certain, because their sync has failed.
    writes: BTreeMap<usize, (Vec<Op>, usize)>,
}

impl Pending {
    fn of(log: &[Op]) -> Self {
        let mut pending = Pending {
            names: BTreeMap::new(),
            contents: BTreeMap::new(),
            name_ops: Vec::new(),
            writes: BTreeMap::new(),
        };
        for op in log {
            match op {
                Op::Create { inode, .. } => {
                    pending.contents.insert(*inode, Vec::new());
                    pending.name_ops.push(op.clone());
                }
                Op::Write { inode, .. } | Op::Truncate { inode, .. } => {
                    pending.writes.entry(*inode).or_default().0.push(op.clone());
                }
                Op::Sync { inode } => {
                    let (writes, doubtful) = pending.writes.entry(*inode).or_default();
                    // The order of what is in doubt and what is not is kept only if there is no doubt.
                    if *doubtful == 0 {
                        let contents = pending.contents.entry(*inode).or_default();
                        writes.drain(..).for_each(|op| apply(contents, &op));
                    }
                }
                Op::FailedSync { inode } => {
                    let (writes, doubtful) = pending.writes.entry(*inode).or_default();
                    *doubtful = writes.len();
                }
                Op::Rename { .. } | Op::Remove { .. } => pending.name_ops.push(op.clone()),
                Op::SyncNames => {
                    for op in std::mem::take(&mut pending.name_ops) {
                        rename(&mut pending.names, &op);
                    }
                }
                Op::Attempted(_) | Op::Acknowledged | Op::Refused | Op::Flushed => {}
            }
        }
        pending
    }
}

fn files(names: &BTreeMap<PathBuf, usize>, contents: &BTreeMap<usize, Vec<u8>>) -> Files {
    names
        .iter()
        .map(|(path, inode)| (path.clone(), contents[inode].clone()))
        .collect()
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, op: &Op) {
    match op {
        Op::Create { path, inode } => {
            names.insert(path.clone(), *inode);
        }
        Op::Rename { inode, from, to } => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        Op::Remove { path } => {
            names.remove(path);
        }
        _ => {}
    }
}

/// All that a power cut may leave after these operations, and whether it is what a kill of the process leaves.
pub(super) fn variants(log: &[Op]) -> Vec<(Files, bool)> {
    let pending = Pending::of(log);
    let mut disks = vec![(pending.contents.clone(), true)];
    let has_name = |inode: &usize| {
        let names = pending.names.values().copied();
        let to_come = pending.name_ops.iter().filter_map(|op| match op {
            Op::Create { inode, .. } | Op::Rename { inode, .. } => Some(*inode),
            _ => None,
        });
        names.chain(to_come).any(|named| named == *inode)
    };
    for (inode, (writes, _)) in pending.writes.iter().filter(|(inode, _)| has_name(inode)) {
        let choices = torn(&pending.contents[inode], writes);
        disks = disks
            .iter()
            .flat_map(|(contents, is_kill)| {
                let last = choices.len() - 1;
                choices.iter().enumerate().map(move |(at, choice)| {
                    let mut contents = contents.clone();
                    contents.insert(*inode, choice.clone());
                    (contents, *is_kill && at == last)
                })
            })
            .collect();
    }
    let count = pending.name_ops.len();
    // In any order if they are few, else in their own.
    let choices: Vec<usize> = if count <= 4 {
        (0..1 << count).collect()
    } else {
        (0..=count).map(|first| (1 << first) - 1).collect()
    };
    let mut all = Vec::new();
    for subset in choices {
        let mut names = pending.names.clone();
        for (at, op) in pending.name_ops.iter().enumerate() {
            if subset >> at & 1 == 1 {
                rename(&mut names, op);
            }
        }
        let is_complete = subset + 1 == 1 << count;
        for (contents, is_kill) in &disks {
            all.push((files(&names, contents), *is_kill && is_complete));
        }
    }
    all
}

/// The contents with the first of the writes, the next one torn; or with all of them but sectors of one: all, each by itself,
/// all but that; last of all, with all.
fn torn(durable: &[u8], writes: &[Op]) -> Vec<Vec<u8>> {
    let mut complete = durable.to_vec();
    for op in writes {
        apply(&mut complete, op);
    }
    let mut choices = Vec::new();
    let mut contents = durable.to_vec();
    for op in writes {
        choices.push(contents.clone());
        if let Op::Write {
            inode,
            offset,
            bytes,
        } = op
        {
            let (inode, offset, size) = (*inode, *offset, bytes.len());
            let mut piece = |bytes: Vec<u8>| {
                let mut contents = contents.clone();
                apply(
                    &mut contents,
                    &Op::Write {
                        inode,
                        offset,
                        bytes,
                    },
                );
                choices.push(contents);
            };
            for kept in [1.min(size), size / 2, size.saturating_sub(1)] {
                piece(bytes[..kept].to_vec());
            }
            // The size is there and the bytes are not.
            piece(vec![0; size]);
            let sectors = offset / SECTOR..(offset + size).div_ceil(SECTOR);
            let missing = |is_missing: &dyn Fn(usize) -> bool| {
                without_sectors(
                    durable,
                    &complete,
                    sectors.clone().filter(|at| is_missing(*at)),
                )
            };
            choices.push(missing(&|_| true));
            if sectors.len() > 1 {
                for one in sectors.clone() {
                    choices.push(missing(&|at| at == one));
                    choices.push(missing(&|at| at != one));
                }
            }
        }
        apply(&mut contents, op);
    }
    choices.push(complete);
    choices
}

/// A disk writes sectors as a whole, in any order: these are as they were.
fn without_sectors(
    durable: &[u8],
    complete: &[u8],
    missing: impl Iterator<Item = usize>,
) -> Vec<u8> {
    let mut contents = complete.to_vec();
    for sector in missing {
        let bytes = contents.iter_mut().enumerate();
        for (at, byte) in bytes.skip(sector * SECTOR).take(SECTOR) {
            *byte = durable.get(at).copied().unwrap_or(0);
        }
    }
    contents
}
