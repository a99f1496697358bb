//! The journal's file: begun, extended, and given up in a way that leaves no doubt about what is in it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Fault, Frames, Packed, Replay, Successor, replay};
use crate::disk::{Disk, DiskFile};
use crate::shape::Shape;

pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    number: u64,
    /// Bytes of good frames.
    good: u64,
    /// There is something after them that could not be cut off.
    has_tail: bool,
    /// Its name is known to be durable.
    is_named: bool,
    /// The columns that it knows of.
    shape: Option<Shape>,
}

/// A failed commit.
pub(crate) struct Failure {
    pub(crate) error: io::Error,
    /// The frames are not in the journal, now or after a crash. If not, nobody can tell.
    pub(crate) is_gone: bool,
}

impl Journal {
    /// The journal that was found at `path`.
    pub(crate) fn found(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        file: Box<dyn DiskFile>,
        replay: &Replay,
    ) -> Self {
        Journal {
            disk,
            path,
            file,
            number: replay.number,
            good: replay.good,
            has_tail: replay.torn > 0,
            is_named: false,
            shape: replay.shape.clone(),
        }
    }

    /// A new journal at `path` with its first commit, in a file with the mode of `like`.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        like: &Path,
        frames: &Frames,
        sync: bool,
    ) -> Result<Self, Failure> {
        let write = || {
            let mut file = disk.create(&path, like)?;
            file.write_at(0, &frames.bytes)?;
            Ok(file)
        };
        let mut file: Box<dyn DiskFile> = write().map_err(|error| {
            // What may be left of it is not the whole commit, and means nothing.
            let _ = disk.remove(&path);
            Failure {
                error,
                is_gone: true,
            }
        })?;
        if sync && let Err(error) = file.sync().and_then(|()| disk.sync_names(&path)) {
            drop(file);
            let gone = disk.remove(&path).and_then(|()| disk.sync_names(&path));
            return Err(Failure {
                error,
                is_gone: gone.is_ok(),
            });
        }
        Ok(Journal {
            number: frames.number,
            good: frames.bytes.len() as u64,
            has_tail: false,
            is_named: sync,
            shape: None,
            disk,
            path,
            file,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of good frames.
    pub(crate) fn bytes(&self) -> u64 {
        self.good
    }

    /// Which file it is in.
    pub(crate) fn identity(&mut self) -> io::Result<(u64, u64)> {
        Ok(self.file.stamp()?.file)
    }

    pub(crate) fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    /// Remembers the columns that the last commit told it.
    pub(crate) fn knows(&mut self, shape: Shape) {
        self.shape = Some(shape);
    }

    /// Empty frames for the next commit.
    pub(crate) fn frames(&self, synced: bool) -> Frames {
        Frames::at(self.number, self.good, synced)
    }

    /// Adds a commit. `settle` is called before a file is written aside.
    pub(crate) fn extend(
        &mut self,
        frames: &Frames,
        sync: bool,
        settle: impl FnOnce(),
    ) -> Result<(), Failure> {
        self.append(&frames.bytes).map_err(|error| Failure {
            error,
            is_gone: true,
        })?;
        if sync && let Err(error) = self.file.sync() {
            // What is on the disk now is unknown, and asking again would not tell. A new journal without the commit
            // would.
            settle();
            let rotated = self.rotate();
            return Err(Failure {
                error,
                is_gone: rotated.is_ok(),
            });
        }
        self.good += frames.bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn replay(&mut self) -> Result<Replay, Fault> {
        match replay(&mut *self.file)? {
            Some(replay) if replay.good == self.good => Ok(replay),
            _ => Err(io::Error::other("somebody else has changed it").into()),
        }
    }

    /// Makes everything in it durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.cut_tail()?;
        self.file.sync()?;
        self.sync_name()
    }

    /// Makes its name durable: an older journal must not come back under it.
    pub(crate) fn sync_name(&mut self) -> io::Result<()> {
        if !self.is_named {
            self.disk.sync_names(&self.path)?;
            self.is_named = true;
        }
        Ok(())
    }

    /// Goes on in a shorter file, with the commits up to `end`; those after it are none. That its name is not known to be
    /// durable is left to the caller. Returns the longer file; an error leaves everything as it was.
    pub(crate) fn shorten(
        &mut self,
        mut successor: Successor,
        end: u64,
    ) -> io::Result<Box<dyn DiskFile>> {
        successor.copy(&mut *self.file, self.number, end)?;
        successor.sync()?;
        self.disk.rename(&aside(&self.path), &self.path)?;
        self.number = successor.number;
        self.good = successor.written;
        self.has_tail = false;
        self.is_named = false;
        Ok(std::mem::replace(&mut self.file, successor.file))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.cut_tail()?;
        self.file.write_at(self.good, bytes).inspect_err(|_| {
            self.has_tail = true;
            // If it cannot be cut off now, it is before the next frame.
            let _ = self.cut_tail();
        })
    }

    fn cut_tail(&mut self) -> io::Result<()> {
        if self.has_tail {
            self.file.truncate(self.good)?;
            self.has_tail = false;
        }
        Ok(())
    }

    /// The same journal in a new file, up to the last good frame.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = aside(&self.path);
        let mut file = self.disk.create(&aside, &self.path)?;
        let mut buffer = vec![0; 256 << 10];
        let mut copied = 0;
        while copied < self.good {
            let rest = usize::try_from(self.good - copied).unwrap_or(usize::MAX);
            let piece = rest.min(buffer.len());
            let read = self.file.read_at(copied, &mut buffer[..piece])?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            file.write_at(copied, &buffer[..read])?;
            copied += read as u64;
        }
        // The old file's pages may not be what they were.
        match replay(&mut *file) {
            Ok(Some(replay)) if replay.good == self.good => {}
            _ => return Err(io::Error::other("the journal does not read back")),
        }
        file.sync()?;
        self.disk.rename(&aside, &self.path)?;
        self.disk.sync_names(&self.path)?;
        self.file = file;
        self.has_tail = false;
        self.is_named = true;
        Ok(())
    }
}

impl Packed for Journal {
    fn cells_at(&mut self, offset: u64, bytes: u32) -> io::Result<Vec<u8>> {
        self.file.cells_at(offset, bytes)
    }
}

/// Where a file is written before it gets the name `path`.
pub(crate) fn aside(path: &Path) -> PathBuf {
    persistent_map_file::with_suffix(path, ".persistent-map-new")
}
