//! The journal: each commit is one frame at the end of a file beside the table.
//!
//! A frame is 24 bytes of header and a payload: a letter for its kind, the contents, and a line feed. The header has four
//! bytes by which it is known (`C5 50 4D 4A`; the last one is `55` where commits are not synced), the payload's length,
//! the journal's number, the payload's CRC-32, and a CRC-32 of all that and of the frame's place in the file. All numbers
//! are little-endian.
//!
//! Frames that are written together are a unit: the opening and the columns before the first rows. All but the first of them
//! have a small letter (`6A`, `75`) as their fourth byte, and the place of the first one in the last checksum. What a power
//! cut leaves of a unit is any of its sectors, so a frame that is whole tells nothing of those before it in its unit. But
//! a unit is written when the one before is synced: a later one that is there proves that the earlier was. (Version 1 has no
//! units; there each frame is one.)
//!
//! | Kind | Contents |
//! |---|---|
//! | `T` | first, and only there: the version, and the table that the changes belong to (its length and CRC-32) |
//! | `S` | the columns, before the first row that has them |
//! | `W` | rows to write and keys to remove |
//! | `X` | all rows are removed |
//! | `C` | a checkpoint is about to give the table's name to a file of this length and CRC-32 |
//!
//! Nothing that a frame begins or ends with is zero, so an all-zero piece of disk (512 bytes or the rest of the file)
//! where a frame should be was never written: a torn frame is told from a damaged one.

mod file;
mod frame;
mod replay;
mod successor;

use std::collections::BTreeMap;
use std::io;

use crate::disk::DiskFile;
use crate::shape::Cells;

pub(crate) use file::{Failure, Journal, aside};
pub(crate) use frame::{Frames, VERSION};
pub(crate) use replay::{Fault, Replay, replay, replay_to};
pub(crate) use successor::Successor;

/// The length of a cell that is not there: the table's is kept.
const KEEP: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Opening,
    Shape,
    Writes,
    Clear,
    Checkpoint,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Kind::Opening => b'T',
            Kind::Shape => b'S',
            Kind::Writes => b'W',
            Kind::Clear => b'X',
            Kind::Checkpoint => b'C',
        }
    }
}

/// Where the packed cells of changed rows are.
pub(crate) trait Packed {
    fn cells_at(&mut self, offset: u64, bytes: u32) -> io::Result<Vec<u8>>;
}

impl Packed for Vec<u8> {
    fn cells_at(&mut self, offset: u64, bytes: u32) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let cells = self.get(start..start + bytes as usize);
        Ok(cells.unwrap_or_default().to_vec())
    }
}

impl Packed for Box<dyn DiskFile> {
    fn cells_at(&mut self, offset: u64, bytes: u32) -> io::Result<Vec<u8>> {
        let mut cells = vec![0; bytes as usize];
        let read = self.read_at(offset, &mut cells)?;
        cells.truncate(read);
        Ok(cells)
    }
}

/// The last change of each key.
#[derive(Default)]
pub(crate) struct Changes {
    /// Rows of the table are gone, whatever their keys.
    pub(crate) cleared: bool,
    pub(crate) rows: BTreeMap<Box<[u8]>, Change>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A row whose packed cells are at this place.
    Write {
        offset: u64,
        bytes: u32,
        /// The row of the table was removed before, and its cells with it.
        is_new: bool,
    },
    Remove,
}

impl Change {
    /// Whether nothing of the table's row is left after it, whatever comes next.
    fn ends_the_old_row(self) -> bool {
        matches!(self, Change::Remove | Change::Write { is_new: true, .. })
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.cleared && self.rows.is_empty()
    }
}

/// Adds a row to write, or a key to remove, to the contents of a frame.
pub(crate) fn push_change(contents: &mut Vec<u8>, key: &[u8], cells: Option<&[u8]>) {
    contents.push(if cells.is_some() { b'+' } else { b'-' });
    for part in [Some(key), cells].into_iter().flatten() {
        contents.extend_from_slice(&length_of(part).to_le_bytes());
        contents.extend_from_slice(part);
    }
}

pub(crate) fn pack(cells: &Cells) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in cells {
        match cell {
            Some(text) => {
                bytes.extend_from_slice(&length_of(text.as_bytes()).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            None => bytes.extend_from_slice(&KEEP.to_le_bytes()),
        }
    }
    bytes
}

/// `None` if the bytes are not cells, which only a mistake of ours can bring about.
pub(crate) fn unpack(mut bytes: &[u8]) -> Option<Cells> {
    let mut cells = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
        cells.push(if length == KEEP {
            None
        } else {
            let text = bytes.split_off(..usize::try_from(length).ok()?)?;
            Some(String::from_utf8(text.to_vec()).ok()?)
        });
    }
    Some(cells)
}

pub(crate) fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(KEEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_from_their_bytes() {
        let cells = vec![Some("a".to_string()), None, Some(String::new())];
        assert_eq!(unpack(&pack(&cells)), Some(cells));
        assert_eq!(unpack(&[1, 0, 0, 0]), None);
    }
}
