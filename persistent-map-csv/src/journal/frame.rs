//! One frame: from contents to bytes, from bytes to contents, and what is wrong with those that are no frame.

use std::io;

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::disk::DiskFile;
use crate::shape::Shape;
use crate::table::Print;

const MAGIC: [u8; 3] = [0xc5, b'P', b'M'];
pub(super) const HEADER: usize = 24;
pub(super) const VERSION: u32 = 1;

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

/// The frames of one commit, or of one step of a checkpoint.
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
        self.push_payload(&payload)
    }

    /// Adds what was in a frame elsewhere.
    pub(super) fn push_payload(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len())
            .map_err(|_| io::Error::other("a commit of more than 4 GiB"))?;
        let header = Header {
            length,
            number: self.number,
            synced: self.synced,
            crc: crc32fast::hash(payload),
        };
        let offset = self.offset + self.bytes.len() as u64;
        self.bytes.extend_from_slice(&header.to_bytes(offset));
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

pub(super) struct Header {
    synced: bool,
    pub(super) length: u32,
    pub(super) number: u64,
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
pub(super) fn read_frame(
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
pub(super) fn is_torn(
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

/// Different for each journal, so that a frame of an older one in the same place of the disk is not taken for one of
/// this.
fn new_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(std::process::id())
}
