//! From the frames of a journal to the changes that it holds.

use std::collections::BTreeMap;
use std::io;

use super::frame::{Columns, HEADER, Opening, VERSION, is_torn, read_frame};
use super::{Change, Changes};
use crate::disk::DiskFile;
use crate::shape::Shape;
use crate::table::Print;

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
    replay_to(file, size)
}

/// Reads the first `size` bytes of a journal.
pub(crate) fn replay_to(file: &mut dyn DiskFile, size: u64) -> Result<Option<Replay>, Fault> {
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
            columns.get(key)?;
            replay.shape = Some(Shape { columns, key });
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
        b'W' => take_writes(replay, contents, offset)?,
        _ => return None,
    }
    Some(())
}

fn take_writes(replay: &mut Replay, contents: &[u8], offset: u64) -> Option<()> {
    let mut rest = contents;
    while let Some(sign) = rest.split_off_first() {
        let length = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
        let key = rest.split_off(..usize::try_from(length).ok()?)?;
        let change = match sign {
            // Rows without columns would be passed over, and with them what the table has for their keys.
            b'+' if replay.shape.is_some() => {
                let bytes = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
                let offset = offset + (contents.len() - rest.len()) as u64;
                rest.split_off(..usize::try_from(bytes).ok()?)?;
                Change::Write { offset, bytes }
            }
            b'-' => Change::Remove,
            _ => return None,
        };
        replay.changes.rows.insert(key.into(), change);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::{Frames, Kind, pack, push_change};
    use super::*;

    fn is_damaged(add: impl FnOnce(&mut Frames)) -> bool {
        let mut frames = Frames::opening(None, true).unwrap();
        add(&mut frames);
        let mut file = tempfile::tempfile().unwrap();
        file.write_at(0, &frames.bytes).unwrap();
        matches!(replay(&mut file), Err(Fault::Damaged(_)))
    }

    /// They would be passed over without a word.
    #[test]
    fn rows_without_columns_are_damage() {
        let mut row = Vec::new();
        let cells = pack(&vec![None, Some("1".to_string())]);
        push_change(&mut row, b"a", Some(&cells));
        let columns = |key| format!(r#"{{"columns":["key","value"],"key":{key}}}"#);
        for (shape, damaged) in [(None, true), (Some(2), true), (Some(0), false)] {
            let found = is_damaged(|frames| {
                if let Some(key) = shape {
                    frames.push(Kind::Shape, columns(key).as_bytes()).unwrap();
                }
                frames.push(Kind::Writes, &row).unwrap();
            });
            assert_eq!(found, damaged, "{shape:?}");
        }
    }
}
