//! All that is ever done to files, behind one small trait, so that tests can record each operation and make of it every
//! state that a crash could leave.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use persistent_map_core::Result;
use persistent_map_file::{
    LockFile, OpenFile, check_place, create_anew, identity, is_regular_file, open_itself, resolve,
    sync_directory_of,
};

use crate::closed::Closed;

pub(crate) trait Disk: Send + Sync + 'static {
    /// The one name of the file at `path`, locked.
    fn claim(&self, path: &Path) -> Result<Claim>;

    /// A file for reading and writing, if there is one.
    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// A new, empty file in place of whatever was there, with the mode and owner of `like` if that exists.
    fn create(&self, path: &Path, like: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Which file has this name; `None` if there is none. As [`Stamp::file`] of an open one.
    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. It is no error if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in the directory of `path` durable.
    fn sync_names(&self, path: &Path) -> io::Result<()>;

    /// Begins work that goes on beside its caller.
    fn begin(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>>;

    /// Closes files that have lost their names. Their space is given back then, which takes time that nobody shall wait.
    fn close(&self, files: Vec<Box<dyn DiskFile>>);
}

/// Work that goes on beside its caller, and that goes on if this is dropped.
pub(crate) trait Running: Send {
    fn is_finished(&self) -> bool;

    /// Waits for its end, which may be a panic.
    fn wait(self: Box<Self>);
}

pub(crate) trait DiskFile: Send {
    fn size(&mut self) -> io::Result<u64>;

    fn stamp(&mut self) -> io::Result<Stamp>;

    /// Fills the buffer, or as much of it as there is.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all the bytes, or fails with some of them written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    fn truncate(&mut self, size: u64) -> io::Result<()>;

    fn sync(&mut self) -> io::Result<()>;
}

/// Which file it is and when it was written, as far as can be told without reading it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) file: (u64, u64),
    /// The mode and the owner, which a new file is to have, too.
    pub(crate) rights: (u32, u32, u32),
    pub(crate) bytes: u64,
    pub(crate) written: Option<SystemTime>,
}

/// A path that is ours until this is dropped.
pub(crate) struct Claim {
    pub(crate) path: PathBuf,
    pub(crate) lock: Option<LockFile>,
}

impl Claim {
    /// Whether it still keeps others out.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.lock.as_ref().map_or(Ok(()), LockFile::check)
    }

    /// The table as it was closed, as far as that is known.
    pub(crate) fn closed(&self) -> Option<Closed> {
        Closed::from_note(&self.lock.as_ref()?.note()?)
    }

    /// Notes it for the next owner.
    pub(crate) fn note_closed(&self, closed: Option<Closed>) {
        if let Some(lock) = &self.lock {
            lock.leave(closed.map(Closed::note).as_deref());
        }
    }
}

/// The operating system's files.
pub(crate) struct OsDisk;

impl Disk for OsDisk {
    fn claim(&self, path: &Path) -> Result<Claim> {
        let path = resolve(path)?;
        is_regular_file(&path)?;
        // Opening and closing it would take the locks from a database that is open here.
        drop(OpenFile::look(&path)?);
        let claim = Claim {
            lock: Some(LockFile::acquire(&path)?),
            path,
        };
        // Again, now that nobody else is at work.
        is_regular_file(&claim.path)?;
        check_place(&claim.path)?;
        Ok(claim)
    }

    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        Ok(open_itself(path)?.map(|file| Box::new(file) as Box<dyn DiskFile>))
    }

    fn create(&self, path: &Path, like: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(create_anew(path, like)?))
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        match fs::symlink_metadata(path) {
            Ok(named) => Ok(Some(identity(&named))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn sync_names(&self, path: &Path) -> io::Result<()> {
        sync_directory_of(path)
    }

    fn begin(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>> {
        let thread = thread::Builder::new().name("persistent-map-csv".to_string());
        Ok(Box::new(thread.spawn(work)?))
    }

    fn close(&self, files: Vec<Box<dyn DiskFile>>) {
        // Without a thread they are closed here.
        let _ = self.begin(Box::new(move || drop(files)));
    }
}

impl Running for JoinHandle<()> {
    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }

    fn wait(self: Box<Self>) {
        let _ = self.join();
    }
}

impl DiskFile for File {
    fn size(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn stamp(&mut self) -> io::Result<Stamp> {
        let metadata = self.metadata()?;
        Ok(Stamp {
            file: identity(&metadata),
            rights: rights(&metadata),
            bytes: metadata.len(),
            written: metadata.modified().ok(),
        })
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match read_some(self, offset + filled as u64, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(unix)]
fn read_some(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    use std::os::unix::fs::FileExt as _;

    file.read_at(buffer, offset)
}

/// Other systems read where the file stands.
#[cfg(not(unix))]
fn read_some(mut file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    use std::io::Read as _;

    file.seek(SeekFrom::Start(offset))?;
    file.read(buffer)
}

#[cfg(unix)]
fn rights(metadata: &fs::Metadata) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.mode(), metadata.uid(), metadata.gid())
}

#[cfg(not(unix))]
fn rights(_: &fs::Metadata) -> (u32, u32, u32) {
    (0, 0, 0)
}
