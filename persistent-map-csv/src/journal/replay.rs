//! From the frames of a journal to the changes that it holds.

use std::collections::BTreeMap;
use std::io;

use super::frame::{Columns, HEADER, Opening, Place, VERSION, is_torn, read_frame};
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
    let mut unit = 0;
    while replay.good < size {
        let number = (replay.good > 0).then_some(replay.number);
        let place = Place {
            offset: replay.good,
            unit,
        };
        let Some((header, payload)) = read_frame(file, place, size, number)? else {
            if !is_torn(file, place, size, number)? {
                return Err(Fault::Damaged(replay.good));
            }
            replay.torn = size - replay.good;
            break;
        };
        if header.is_first {
            unit = replay.good;
        }
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
                let before = replay.changes.rows.get(key);
                Change::Write {
                    offset,
                    bytes,
                    is_new: before.is_some_and(|change| change.ends_the_old_row()),
                }
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

    /// A journal of three writes, of which the first and the last are many frames, each over many sectors. Returns where each
    /// write begins.
    fn wide(synced: bool) -> (Vec<u8>, [usize; 3]) {
        let columns: Vec<_> = (0..200)
            .map(|number| format!("\"column {number}\""))
            .collect();
        let columns = format!(r#"{{"columns":[{}],"key":0}}"#, columns.join(","));
        let mut row = Vec::new();
        let cells = pack(&vec![Some("1".to_string()); 200]);
        push_change(&mut row, b"a", Some(&cells));
        let mut all = Frames::opening(None, synced).unwrap();
        let mut bytes = Vec::new();
        let mut places = [0; 3];
        for (at, place) in places.iter_mut().enumerate() {
            *place = bytes.len();
            if at != 1 {
                all.push(Kind::Shape, columns.as_bytes()).unwrap();
            }
            all.push(Kind::Writes, &row).unwrap();
            bytes.extend_from_slice(&all.bytes);
            all = Frames::at(all.number, bytes.len() as u64, synced);
        }
        (bytes, places)
    }

    /// `Ok`: the bytes of good frames. `Err`: where it is damaged.
    fn come_to(bytes: &[u8]) -> Result<usize, u64> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_at(0, bytes).unwrap();
        match replay(&mut file) {
            Ok(replay) => Ok(replay.map_or(0, |replay| usize::try_from(replay.good).unwrap())),
            Err(Fault::Damaged(at)) => Err(at),
            Err(Fault::Newer(_) | Fault::Io(_)) => panic!("it cannot be read"),
        }
    }

    fn sectors(of: std::ops::Range<usize>) -> impl Iterator<Item = std::ops::Range<usize>> {
        let end = of.end;
        (of.start / 512..of.end.div_ceil(512))
            .map(move |at| (at * 512).max(of.start)..((at + 1) * 512).min(end))
    }

    /// A power cut leaves any sectors of the last write, and no trace of the others.
    #[test]
    fn any_sectors_of_the_last_write_may_be_missing() {
        for synced in [true, false] {
            let (bytes, [.., last]) = wide(synced);
            let places: Vec<_> = sectors(last..bytes.len()).collect();
            assert!(places.len() > 6, "it is not wide");
            for missing in 1..1_u32 << places.len() {
                let mut cut = bytes.clone();
                for (at, place) in places.iter().enumerate() {
                    if missing >> at & 1 == 1 {
                        cut[place.clone()].fill(0);
                    }
                }
                let good = come_to(&cut).expect("torn, not damaged");
                assert!((last..bytes.len()).contains(&good), "{missing:b}");
            }
            for end in last..bytes.len() {
                assert!(come_to(&bytes[..end]).is_ok_and(|good| good >= last));
            }
        }
    }

    /// A write that another one follows was synced. Whatever of it is lost, it is damage, also if the last write is torn.
    #[test]
    fn what_was_acknowledged_is_never_torn() {
        let (bytes, [_, second, last]) = wide(true);
        let mut tails = vec![bytes.clone()];
        for place in sectors(last..bytes.len()).skip(1) {
            let mut tail = bytes.clone();
            tail[place].fill(0);
            tails.push(tail);
        }
        for tail in &tails {
            for place in sectors(0..last) {
                let mut damaged = tail.clone();
                damaged[place.clone()].fill(0);
                assert!(come_to(&damaged).is_err(), "{place:?} is lost");
            }
            for at in (0..last).step_by(7) {
                let mut damaged = tail.clone();
                damaged[at] ^= 0x10;
                assert!(come_to(&damaged).is_err(), "byte {at} is another one");
            }
        }
        // A whole write that is lost, and one that is known by the rest of a later one only.
        let mut damaged = bytes.clone();
        damaged[second..last].fill(0);
        assert_eq!(come_to(&damaged), Err(second as u64));
        damaged[last..last + 512].fill(0);
        assert_eq!(come_to(&damaged), Err(second as u64));
    }

    /// A flipped bit is no lost sector, in whatever write.
    #[test]
    fn a_flipped_bit_is_damage_with_and_without_syncs() {
        for synced in [true, false] {
            let (bytes, _) = wide(synced);
            for at in (0..bytes.len()).step_by(7) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(come_to(&damaged).is_err(), "byte {at} is another one");
            }
        }
    }

    /// Also where the later write proves nothing.
    #[test]
    fn a_hole_in_a_later_write_does_not_excuse_a_flipped_bit() {
        let (bytes, [_, second, last]) = wide(false);
        let mut torn = bytes.clone();
        torn[last..].fill(0);
        assert_eq!(come_to(&torn), Ok(last));
        for at in (0..last).step_by(7) {
            let mut damaged = torn.clone();
            damaged[at] ^= 0x10;
            assert!(come_to(&damaged).is_err(), "byte {at} is another one");
        }
        torn[second..].fill(0);
        assert_eq!(come_to(&torn), Ok(second));
    }
}
