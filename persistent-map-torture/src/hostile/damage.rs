//! What comes to a file: a byte changes, the end is missing, pieces are lost, zeroed, repeated or come from elsewhere.

use std::fmt;

use super::store::{Files, Pristine};

/// A store with something done to it.
pub(super) struct Damaged {
    pub(super) files: Files,
    pub(super) what: What,
}

pub(super) struct What {
    /// The file that it was done to.
    pub(super) file: String,
    pub(super) how: How,
    at: usize,
    size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// One bit of a byte, or all of them.
    Flipped,
    /// The file ends here.
    Cut,
    /// Other bytes, as many as there were.
    Overwritten,
    Zeroed,
    /// A piece of the file is there once more, and the rest comes after it.
    Repeated,
    /// A piece of the file stands in the place of another one.
    Misplaced,
    /// A piece is gone, and the rest moves up.
    Removed,
    /// Foreign bytes between those that were there.
    Inserted,
}

/// The damage of this number. Every second one is a step of a walk over all bytes of all files, which flips a byte or cuts
/// the file there; walks of any length are spread evenly. The others are taken at random.
pub(super) fn damage(pristine: &Pristine, seed: u64, number: u64) -> Damaged {
    let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut files = pristine.files.clone();
    let (what, bytes) = if number.is_multiple_of(2) {
        step(&pristine.files, number / 2, &mut random)
    } else {
        piece(&pristine.files, &mut random)
    };
    files.insert(what.file.clone(), bytes);
    Damaged { files, what }
}

/// The golden ratio takes a walk to all places before it comes to one again, and never near the last ones.
fn step(files: &Files, number: u64, random: &mut fastrand::Rng) -> (What, Vec<u8>) {
    let all = files.values().map(Vec::len).sum::<usize>() as u64;
    let strides = (all * 618 / 1000..all).find(|stride| gcd(*stride, all) == 1);
    let walked = number % all;
    let mut at = usize::try_from(walked * strides.unwrap_or(1) % all).unwrap_or_default();
    let (name, bytes) = files
        .iter()
        .find(|(_, bytes)| {
            let is_here = at < bytes.len();
            at -= if is_here { 0 } else { bytes.len() };
            is_here
        })
        .expect("a place in one of the files");
    let mut bytes = bytes.clone();
    // Three passes over everything: a bit, the whole byte, the length.
    let how = match (number / all + walked) % 3 {
        0 => {
            bytes[at] ^= 1 << random.u8(..8);
            How::Flipped
        }
        1 => {
            bytes[at] ^= 0xff;
            How::Flipped
        }
        _ => {
            bytes.truncate(at);
            How::Cut
        }
    };
    let what = What {
        file: name.clone(),
        how,
        at,
        size: 1,
    };
    (what, bytes)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A piece of up to a page, or of whole sectors, as disks lose them.
fn piece(files: &Files, random: &mut fastrand::Rng) -> (What, Vec<u8>) {
    let nth = random.usize(..files.len());
    let (name, bytes) = files.iter().nth(nth).expect("one of the files");
    let mut bytes = bytes.clone();
    let length = bytes.len();
    let (mut at, mut size) = if random.bool() {
        (random.usize(..length), random.usize(1..100))
    } else {
        let sector = 512 << random.u32(..4);
        (random.usize(..length) / sector * sector, sector)
    };
    at = at.min(length - 1);
    size = size.min(length - at);
    let other = random.usize(..=length - size);
    let piece = bytes[at..at + size].to_vec();
    let how = match random.u8(..6) {
        0 => {
            // Never the byte that was there, so that all of them are changed.
            for byte in &mut bytes[at..at + size] {
                *byte ^= random.u8(1..);
            }
            How::Overwritten
        }
        1 => {
            bytes[at..at + size].fill(0);
            How::Zeroed
        }
        2 => {
            bytes.splice(other..other, piece);
            How::Repeated
        }
        3 => {
            bytes[other..other + size].copy_from_slice(&piece);
            How::Misplaced
        }
        4 => {
            bytes.drain(at..at + size);
            How::Removed
        }
        _ => {
            let foreign = std::iter::repeat_with(|| random.u8(..)).take(size);
            bytes.splice(at..at, foreign.collect::<Vec<u8>>());
            How::Inserted
        }
    };
    let what = What {
        file: name.clone(),
        how,
        at,
        size,
    };
    (what, bytes)
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let What {
            file,
            how,
            at,
            size,
        } = self;
        write!(f, "{file}, {size} bytes at {at}: {how:?}")
    }
}
