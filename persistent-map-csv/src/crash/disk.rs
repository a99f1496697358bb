//! A disk in memory that notes what is done to it, and what a power cut may leave of that.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use persistent_map_core::Result;

use crate::disk::{Claim, Disk, DiskFile};

/// Mistakes that are made when nothing else is wrong. All of them can be seen from the disk, so it makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    NoFileSync,
    NoDirectorySync,
    RenameBeforeSync,
    AcknowledgeBeforeAppend,
    TailNotCut,
}

impl Bug {
    pub(super) const ALL: [Bug; 5] = [
        Bug::NoFileSync,
        Bug::NoDirectorySync,
        Bug::RenameBeforeSync,
        Bug::AcknowledgeBeforeAppend,
        Bug::TailNotCut,
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
        self.state().fail = fail;
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
    fn record(&mut self, op: Op) {
        let is_journal = |path: &Path| path.extension().is_some_and(|end| end == "journal");
        let journal = self
            .names
            .iter()
            .find(|(path, _)| is_journal(path))
            .map(|(_, inode)| *inode);
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
            _ => self.log.push(op),
        }
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
        let mut state = self.state();
        let existing = state.names.get(path).copied();
        let inode = existing.unwrap_or(state.inodes.len());
        if existing.is_some() {
            state.inodes[inode].clear();
            state.record(Op::Truncate { inode, size: 0 });
        } else {
            state.inodes.push(Vec::new());
            state.names.insert(path.to_path_buf(), inode);
            let path = path.to_path_buf();
            state.record(Op::Create { path, inode });
        }
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
}

impl Recorder {
    fn file(&self, inode: usize) -> Box<dyn DiskFile> {
        let disk = self.clone();
        Box::new(RecordedFile { disk, inode })
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
        let fits = match state.fail {
            Some(Fail::Write(fits)) => {
                state.fail = None;
                Some(fits.min(bytes.len().saturating_sub(1)))
            }
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
        if state.fail == Some(Fail::Sync) {
            state.fail = None;
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

/// The contents with the first of the writes, the next one torn; or with all of them but the sectors of one; last of all,
/// with all.
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
            choices.push(without_sectors(durable, &complete, offset..offset + size));
        }
        apply(&mut contents, op);
    }
    choices.push(complete);
    choices
}

/// A disk writes sectors as a whole, in any order: those of one write are as they were.
fn without_sectors(durable: &[u8], complete: &[u8], written: Range<usize>) -> Vec<u8> {
    const SECTOR: usize = 512;
    let first = written.start / SECTOR * SECTOR;
    let end = written.end.next_multiple_of(SECTOR).min(complete.len());
    let mut contents = complete.to_vec();
    for (at, byte) in contents.iter_mut().enumerate().take(end).skip(first) {
        *byte = durable.get(at).copied().unwrap_or(0);
    }
    contents
}
