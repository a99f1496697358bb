//! The journal: each commit is one frame at the end of a file beside the table.
//!
//! A frame is 24 bytes of header (`C5 50 4D` and `4A`, or `55` if frames are not synced; the payload's length, the journal's number, the payload's CRC-32, and a
//! CRC-32 of all that and of the frame's place in the file) and the payload: a letter for its kind, the contents, and a
//! line feed. All numbers are little-endian.
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

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::disk::DiskFile;
use crate::shape::{Cells, Shape};
use crate::table::Print;

const MAGIC: [u8; 3] = [0xc5, b'P', b'M'];
const HEADER: usize = 24;
const VERSION: u32 = 1;

/// The length of a cell that is not there: the table's is kept.
const KEEP: u32 = u32::MAX;

/// What the first frame says.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    version: u32,
    /// The table that the changes are to be made to; none if there was no file.
    table: Option<Print>,
}

#[derive(Serialize, Deserialize)]
struct Columns {
    columns: Vec<String>,
    key: usize,
}

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

/// The frames of one commit, or of one step of a checkpoint.
pub(crate) struct Frames {
    number: u64,
    synced: bool,
    offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Frames {
    pub(crate) fn opening(table: Option<Print>, synced: bool) -> io::Result<Self> {
        let mut frames = Frames {
            number: new_number(),
            synced,
            offset: 0,
            bytes: Vec::new(),
        };
        let opening = Opening {
            version: VERSION,
            table,
        };
        frames.push(Kind::Opening, &serde_json::to_vec(&opening)?)?;
        Ok(frames)
    }

    /// Frames at the end of a journal. `synced` says whether each commit is synced before the next one is written.
    pub(crate) fn at(number: u64, offset: u64, synced: bool) -> Self {
        Frames {
            number,
            synced,
            offset,
            bytes: Vec::new(),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn push(&mut self, kind: Kind, contents: &[u8]) -> io::Result<()> {
        let mut payload = Vec::with_capacity(contents.len() + 2);
        payload.push(kind.letter());
        payload.extend_from_slice(contents);
        payload.push(b'\n');
        let length = u32::try_from(payload.len())
            .map_err(|_| io::Error::other("a commit of more than 4 GiB"))?;
        let header = Header {
            length,
            number: self.number,
            synced: self.synced,
            crc: crc32fast::hash(&payload),
        };
        let offset = self.offset + self.bytes.len() as u64;
        self.bytes.extend_from_slice(&header.to_bytes(offset));
        self.bytes.extend_from_slice(&payload);
        Ok(())
    }

    pub(crate) fn push_shape(&mut self, shape: &Shape) -> io::Result<()> {
        let columns = Columns {
            columns: shape.columns.clone(),
            key: shape.key,
        };
        self.push(Kind::Shape, &serde_json::to_vec(&columns)?)
    }

    pub(crate) fn push_checkpoint(&mut self, table: Print) -> io::Result<()> {
        self.push(Kind::Checkpoint, &serde_json::to_vec(&table)?)
    }
}

/// What a journal comes to.
pub(crate) struct Replay {
    pub(crate) number: u64,
    /// Tables that the changes may be made to: the one they were begun for, and those that a checkpoint has written,
    /// which have a part of them already. Making a change twice does no harm.
    pub(crate) tables: Vec<Option<Print>>,
    pub(crate) shape: Option<Shape>,
    pub(crate) changes: Changes,
    /// Bytes of good frames.
    pub(crate) good: u64,
    /// Bytes of a frame at the end that was never finished.
    pub(crate) torn: u64,
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
    /// A row whose packed cells are at this place in the journal.
    Write {
        offset: u64,
        bytes: u32,
    },
    Remove,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.cleared && self.rows.is_empty()
    }
}

/// Why a journal cannot be replayed.
pub(crate) enum Fault {
    Io(io::Error),
    /// A frame at this place is damaged.
    Damaged(u64),
    Newer(u32),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// Reads a journal. `None` if not even its first frame was finished.
pub(crate) fn replay(file: &mut dyn DiskFile) -> Result<Option<Replay>, Fault> {
    let size = file.size()?;
    let mut replay = Replay {
        number: 0,
        tables: Vec::new(),
        shape: None,
        changes: Changes::default(),
        good: 0,
        torn: 0,
    };
    while replay.good < size {
        let number = (replay.good > 0).then_some(replay.number);
        let Some((header, payload)) = read_frame(file, replay.good, size, number)? else {
            if !is_torn(file, replay.good, size, number)? {
                return Err(Fault::Damaged(replay.good));
            }
            replay.torn = size - replay.good;
            break;
        };
        let contents = replay.good + HEADER as u64 + 1;
        if replay.good > 0 {
            take_frame(&mut replay, &payload, contents).ok_or(Fault::Damaged(replay.good))?;
        } else {
            let opening = read_opening(&payload).ok_or(Fault::Damaged(0))?;
            if opening.version > VERSION {
                return Err(Fault::Newer(opening.version));
            }
            replay.number = header.number;
            replay.tables.push(opening.table);
        }
        replay.good = contents - 1 + u64::from(header.length);
    }
    Ok((replay.good > 0).then_some(replay))
}

/// `None` for contents that make no sense.
fn read_opening(payload: &[u8]) -> Option<Opening> {
    let contents = payload.strip_prefix(b"T")?.strip_suffix(b"\n")?;
    serde_json::from_slice(contents).ok()
}

/// `None` for contents that make no sense.
fn take_frame(replay: &mut Replay, payload: &[u8], offset: u64) -> Option<()> {
    let (kind, contents) = payload.strip_suffix(b"\n")?.split_first()?;
    match kind {
        b'S' => {
            let Columns { columns, key } = serde_json::from_slice(contents).ok()?;
            replay.shape = (key < columns.len()).then_some(Shape { columns, key });
        }
        b'C' => replay
            .tables
            .push(Some(serde_json::from_slice(contents).ok()?)),
        b'X' => {
            replay.changes = Changes {
                cleared: true,
                rows: BTreeMap::new(),
            };
        }
        b'W' => take_writes(&mut replay.changes, contents, offset)?,
        _ => return None,
    }
    Some(())
}

fn take_writes(changes: &mut Changes, contents: &[u8], offset: u64) -> Option<()> {
    let mut rest = contents;
    while let Some(sign) = rest.split_off_first() {
        let length = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
        let key = rest.split_off(..usize::try_from(length).ok()?)?;
        let change = match sign {
            b'+' => {
                let bytes = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
                let offset = offset + (contents.len() - rest.len()) as u64;
                rest.split_off(..usize::try_from(bytes).ok()?)?;
                Change::Write { offset, bytes }
            }
            b'-' => Change::Remove,
            _ => return None,
        };
        changes.rows.insert(key.into(), change);
    }
    Some(())
}

struct Header {
    synced: bool,
    length: u32,
    number: u64,
    crc: u32,
}

impl Header {
    fn to_bytes(&self, offset: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = if self.synced { b'J' } else { b'U' };
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..20]);
        hasher.update(&offset.to_le_bytes());
        bytes[20..].copy_from_slice(&hasher.finalize().to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8], offset: u64) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let header = Header {
            synced: bytes[3] == b'J',
            length: u32::from_le_bytes(*bytes[4..].first_chunk()?),
            number: u64::from_le_bytes(*bytes[8..].first_chunk()?),
            crc: u32::from_le_bytes(*bytes[16..].first_chunk()?),
        };
        (header.to_bytes(offset) == *bytes).then_some(header)
    }
}

/// The frame at `offset`, if it is whole. Nothing is read before it is known to be there.
fn read_frame(
    file: &mut dyn DiskFile,
    offset: u64,
    size: u64,
    number: Option<u64>,
) -> io::Result<Option<(Header, Vec<u8>)>> {
    let mut header = [0; HEADER];
    let read = file.read_at(offset, &mut header)?;
    let Some(header) = Header::from_bytes(&header[..read], offset) else {
        return Ok(None);
    };
    let fits = u64::from(header.length) <= size - offset - HEADER as u64;
    if !fits || number.is_some_and(|number| number != header.number) {
        return Ok(None);
    }
    let mut payload = vec![0; usize::try_from(header.length).unwrap_or(0)];
    let read = file.read_at(offset + HEADER as u64, &mut payload)?;
    let whole = read == payload.len() && crc32fast::hash(&payload) == header.crc;
    Ok(whole.then_some((header, payload)))
}

/// Whether the bytes from `offset` on are a frame whose write was cut short, and not a damaged one.
fn is_torn(
    file: &mut dyn DiskFile,
    offset: u64,
    size: u64,
    number: Option<u64>,
) -> io::Result<bool> {
    const SECTOR: u64 = 512;
    let mut rest = vec![0; usize::try_from(size - offset).map_err(io::Error::other)?];
    file.read_at(offset, &mut rest)?;

    let first_sector = usize::try_from(SECTOR - offset % SECTOR).unwrap_or(0);
    let (first, others) = rest.split_at(first_sector.min(rest.len()));
    let is_hole = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    let has_hole = is_hole(first) || others.chunks(512).any(is_hole);
    let ends_early = match Header::from_bytes(&rest, offset) {
        Some(header) => rest.len() < HEADER + header.length as usize,
        None => rest.len() < HEADER,
    };

    for at in 1..rest.len() {
        if rest[at..].starts_with(&MAGIC)
            && let Some((later, _)) = read_frame(file, offset + at as u64, size, number)?
        {
            // With a sync after each frame, one that was never finished has none after it. Without, the system may have
            // written the later one first.
            return Ok(has_hole && !later.synced);
        }
    }
    Ok(has_hole || ends_early)
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(KEEP)
}

/// Different for each journal, so that a frame of an older one in the same place of the disk is not taken for one of
/// this.
fn new_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(std::process::id())
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
