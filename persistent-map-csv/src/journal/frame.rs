//! One frame: from contents to bytes, from bytes to contents, and what is wrong with those that are no frame.

use std::io;

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::disk::DiskFile;
use crate::shape::Shape;
use crate::table::Print;

const MAGIC: [u8; 3] = [0xc5, b'P', b'M'];
pub(super) const HEADER: usize = 24;
/// Frames of version 1 do not say which of them were written together, and each counts as a write of its own.
pub(crate) const VERSION: u32 = 2;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// What the first frame says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    pub(super) version: u32,
    /// The table that the changes are to be made to; none if there was no file.
    pub(super) table: Option<Print>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Columns {
    pub(super) columns: Vec<String>,
    pub(super) key: usize,
}

/// The frames of one commit, or of one step of a checkpoint: what is written together.
pub(crate) struct Frames {
    pub(super) number: u64,
    synced: bool,
    offset: u64,
    pub(super) bytes: Vec<u8>,
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
    pub(super) fn at(number: u64, offset: u64, synced: bool) -> Self {
        Frames {
            number,
            synced,
            offset,
            bytes: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, kind: Kind, contents: &[u8]) -> io::Result<()> {
        let mut payload = Vec::with_capacity(contents.len() + 2);
        payload.push(kind.letter());
        payload.extend_from_slice(contents);
        payload.push(b'\n');
        self.push_payload(&payload, self.bytes.is_empty())
    }

    /// Adds what was in a frame elsewhere, as a write of its own: this one is synced before anybody depends on it.
    pub(super) fn push_copy(&mut self, payload: &[u8]) -> io::Result<()> {
        self.push_payload(payload, true)
    }

    fn push_payload(&mut self, payload: &[u8], is_first: bool) -> io::Result<()> {
        let length = u32::try_from(payload.len())
            .map_err(|_| io::Error::other("a commit of more than 4 GiB"))?;
        let header = Header {
            length,
            number: self.number,
            synced: self.synced,
            is_first,
            crc: crc32fast::hash(payload),
        };
        let place = Place {
            offset: self.offset + self.bytes.len() as u64,
            unit: self.offset,
        };
        self.bytes.extend_from_slice(&header.to_bytes(place));
        self.bytes.extend_from_slice(payload);
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

/// Where a frame is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// Where the frame begins that was written first with it.
    pub(super) unit: u64,
}

pub(super) struct Header {
    synced: bool,
    /// The first frame of those that were written together.
    pub(super) is_first: bool,
    pub(super) length: u32,
    pub(super) number: u64,
    crc: u32,
}

impl Header {
    fn to_bytes(&self, place: Place) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = match (self.synced, self.is_first) {
            (true, true) => b'J',
            (false, true) => b'U',
            (true, false) => b'j',
            (false, false) => b'u',
        };
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..20]);
        hasher.update(&place.offset.to_le_bytes());
        if !self.is_first {
            hasher.update(&place.unit.to_le_bytes());
        }
        bytes[20..].copy_from_slice(&hasher.finalize().to_le_bytes());
        bytes
    }

    /// What the bytes say, unchecked.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        Some(Header {
            synced: bytes[3].eq_ignore_ascii_case(&b'J'),
            is_first: bytes[3].is_ascii_uppercase(),
            length: u32::from_le_bytes(*bytes[4..].first_chunk()?),
            number: u64::from_le_bytes(*bytes[8..].first_chunk()?),
            crc: u32::from_le_bytes(*bytes[16..].first_chunk()?),
        })
    }

    fn from_bytes(bytes: &[u8], place: Place) -> Option<Self> {
        let header = Header::parse(bytes)?;
        bytes.starts_with(&header.to_bytes(place)).then_some(header)
    }

    fn is_of(&self, number: Option<u64>) -> bool {
        number.is_none_or(|number| number == self.number)
    }
}

/// The frame at this place, if it is whole. Nothing is read before it is known to be there.
pub(super) fn read_frame(
    file: &mut dyn DiskFile,
    place: Place,
    size: u64,
    number: Option<u64>,
) -> io::Result<Option<(Header, Vec<u8>)>> {
    let mut header = [0; HEADER];
    let read = file.read_at(place.offset, &mut header)?;
    let header = Header::from_bytes(&header[..read], place);
    let Some(header) = header.filter(|header| header.is_of(number)) else {
        return Ok(None);
    };
    if u64::from(header.length) > size - place.offset - HEADER as u64 {
        return Ok(None);
    }
    let mut payload = vec![0; usize::try_from(header.length).unwrap_or(0)];
    let read = file.read_at(place.offset + HEADER as u64, &mut payload)?;
    let whole = read == payload.len() && crc32fast::hash(&payload) == header.crc;
    Ok(whole.then_some((header, payload)))
}

/// Whether the frame at this place, which is not whole, is of a write that was cut short, and not a damaged one. (A whole
/// sector of the last write that is lost after it was acknowledged cannot be told from one that was never written.)
pub(super) fn is_torn(
    file: &mut dyn DiskFile,
    place: Place,
    size: u64,
    number: Option<u64>,
) -> io::Result<bool> {
    let mut rest = vec![0; usize::try_from(size - place.offset).map_err(io::Error::other)?];
    file.read_at(place.offset, &mut rest)?;
    let header = Header::from_bytes(&rest, place).filter(|header| header.is_of(number));
    let end = header.map(|header| HEADER + header.length as usize);
    let is_cut = has_hole(&rest, place.offset, end) || rest.len() < end.unwrap_or(HEADER);
    // With a sync after each write, one that was never finished has none after it. Without, the system may have written the
    // later one first.
    Ok(is_cut && !was_synced(&rest, place, number))
}

/// Whether a sector of the frame that the bytes begin with was never written. If not even its header can be read, that must
/// be why.
fn has_hole(rest: &[u8], offset: u64, end: Option<usize>) -> bool {
    let frame = &rest[..rest.len().min(end.unwrap_or(rest.len()))];
    let first = SECTOR - usize::try_from(offset % SECTOR as u64).unwrap_or(0);
    let (first, others) = frame.split_at(first.min(frame.len()));
    let of_header = HEADER.saturating_sub(first.len()).div_ceil(SECTOR);
    let count = if end.is_some() { usize::MAX } else { of_header };
    let mut sectors = others.chunks(SECTOR).take(count);
    let is_hole = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    is_hole(first) || sectors.any(is_hole)
}

/// Whether a later write than that of the bytes' first frame was begun after that was synced. The header of a frame says it,
/// also if the rest was lost in its turn.
fn was_synced(rest: &[u8], place: Place, number: Option<u64>) -> bool {
    (1..rest.len()).any(|at| {
        let bytes = &rest[at..];
        let header = Header::parse(bytes).filter(|_| bytes.starts_with(&MAGIC));
        let Some(header) = header.filter(|header| header.synced && header.is_of(number)) else {
            return false;
        };
        let offset = place.offset + at as u64;
        let is_of = |unit| Header::from_bytes(bytes, Place { offset, unit }).is_some();
        // Of the write that is not whole are those that begin where it does.
        if header.is_first {
            is_of(offset)
        } else {
            (place.offset + 1..offset).any(is_of)
        }
    })
}

/// Different for each journal, so that a frame of an older one in the same place of the disk is not taken for one of
/// this.
fn new_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(std::process::id())
}
