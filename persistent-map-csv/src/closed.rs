//! What is noted of a table when it is closed, in the lock file that stays beside it: to tell at the next open that it was
//! cut short, and that it was edited.
//!
//! A journal does that while there is one. The note is for the time between, and nothing depends on it: without one, every
//! table is what it says.

use std::io;
use std::path::Path;

use persistent_map_core::{PersistentError, Result};
use persistent_map_file::refused;

use crate::disk::DiskFile;
use crate::table::Print;

/// A table as it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) print: Print,
    /// Its last line had an end.
    ends_line: bool,
}

impl Closed {
    pub(crate) fn of(print: Print, file: &mut dyn DiskFile) -> io::Result<Self> {
        Ok(Closed {
            print,
            ends_line: ends_line(file)?,
        })
    }

    pub(crate) fn note(self) -> String {
        let Print { bytes, crc } = self.print;
        let end = if self.ends_line { LINE } else { OPEN };
        format!("{BEGINNING}{bytes} bytes, checksum {crc:08x}, {end}")
    }

    pub(crate) fn from_note(note: &str) -> Option<Self> {
        let (bytes, rest) = note
            .strip_prefix(BEGINNING)?
            .split_once(" bytes, checksum ")?;
        let (crc, end) = rest.split_once(", ")?;
        let print = Print {
            bytes: bytes.parse().ok()?,
            crc: u32::from_str_radix(crc, 16).ok()?,
        };
        let ends_line = end == LINE;
        (ends_line || end == OPEN).then_some(Closed { print, ends_line })
    }

    /// Whether a table can be one that was edited since. A shorter one whose last line lacks its end is one of which a part
    /// is missing: the last cell may be, and its row would be read all the same.
    pub(crate) fn check_not_cut(&self, path: &Path, file: &mut dyn DiskFile) -> Result<()> {
        let looked = file.size().and_then(|size| Ok((size, ends_line(file)?)));
        let (size, ends_line) = looked.map_err(|error| {
            PersistentError::storage(format!("reading {}", path.display()), error)
        })?;
        if !self.ends_line || ends_line || size >= self.print.bytes {
            return Ok(());
        }
        let reason = format!(
            "it was cut short: when it was closed it had {} bytes, now it has {size}, and {}",
            self.print.bytes,
            if size == 0 {
                "nothing is left"
            } else {
                "its last line has no end"
            }
        );
        let advice = if size == 0 {
            "Restore the table from a backup. If it was emptied on purpose, delete it"
        } else {
            "Restore the whole table, from a backup or from where it was copied. If it was edited, look at its last line, and \
             put a line end after it"
        };
        Err(refused(path, reason, advice, None))
    }
}

const BEGINNING: &str = "closed with ";
const LINE: &str = "the last line has an end";
const OPEN: &str = "the last line has no end";

fn ends_line(file: &mut dyn DiskFile) -> io::Result<bool> {
    let Some(last) = file.size()?.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    Ok(file.read_at(last, &mut byte)? == 1 && matches!(byte, [b'\n' | b'\r']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let print = Print {
            bytes: 1234,
            crc: 0xab,
        };
        for ends_line in [false, true] {
            let closed = Closed { print, ends_line };
            assert_eq!(Closed::from_note(&closed.note()), Some(closed));
        }
        assert_eq!(Closed::from_note("closed with some bytes"), None);
    }
}
