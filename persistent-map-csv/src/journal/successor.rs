//! A journal that takes the place of a longer one: for a newer table, with the commits that are not in it.

use std::io;
use std::path::Path;

use super::frame::{HEADER, Place, read_frame};
use super::{Frames, Kind, aside};
use crate::disk::{Disk, DiskFile};
use crate::shape::Shape;
use crate::table::Print;

/// Bytes that are collected before they are written.
const PIECE: usize = 256 << 10;

pub(crate) struct Successor {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) number: u64,
    /// Bytes of it.
    pub(super) written: u64,
    synced: bool,
    /// How much of the longer journal is in it or in its table.
    copied: u64,
    /// Where the write begins that the next frame of the longer journal may belong to.
    unit: u64,
}

impl Successor {
    /// Begins it aside of the journal at `path`, of which the first `merged` bytes are in `table`.
    pub(crate) fn begin(
        disk: &dyn Disk,
        path: &Path,
        synced: bool,
        table: Print,
        shape: Option<&Shape>,
        merged: u64,
    ) -> io::Result<Self> {
        let mut frames = Frames::opening(Some(table), synced)?;
        if let Some(shape) = shape {
            frames.push_shape(shape)?;
        }
        let mut file = disk.create(&aside(path), path)?;
        file.write_at(0, &frames.bytes)?;
        Ok(Successor {
            file,
            number: frames.number,
            written: frames.bytes.len() as u64,
            synced,
            copied: merged,
            unit: merged,
        })
    }

    /// Copies the commits of a journal up to `end`. Each is checked when it is read, and gets a checksum for its new
    /// place.
    pub(crate) fn copy(
        &mut self,
        journal: &mut dyn DiskFile,
        number: u64,
        end: u64,
    ) -> io::Result<()> {
        while self.copied < end {
            let mut frames = Frames::at(self.number, self.written, self.synced);
            while self.copied < end && frames.bytes.len() < PIECE {
                let place = Place {
                    offset: self.copied,
                    unit: self.unit,
                };
                let frame = read_frame(journal, place, end, Some(number))?;
                let (header, payload) =
                    frame.ok_or_else(|| io::Error::other("the journal does not read back"))?;
                if header.is_first {
                    self.unit = self.copied;
                }
                self.copied += HEADER as u64 + u64::from(header.length);
                // The changes before these are in one table only.
                if payload.first() != Some(&Kind::Checkpoint.letter()) {
                    frames.push_copy(&payload)?;
                }
            }
            self.file.write_at(self.written, &frames.bytes)?;
            self.written += frames.bytes.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}
