//! The value that is stored: it knows whose it is, and whether it is whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    key: String,
    version: u64,
    filler: String,
    /// Of our own, because the store's checksum is one of the things under test.
    checksum: u32,
}

impl Record {
    pub(crate) fn new(key: &str, version: u64, filler_bytes: usize) -> Self {
        let pattern = format!("{key}={version};");
        let mut filler = pattern.repeat(filler_bytes / pattern.len() + 1);
        filler.truncate(filler_bytes);
        Record {
            checksum: checksum(key, version, &filler),
            key: key.to_string(),
            version,
            filler,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether these cells, by their columns, say the same.
    pub(crate) fn is_written(&self, cells: &BTreeMap<String, String>) -> bool {
        let cell = |column| cells.get(column).map(String::as_str).unwrap_or_default();
        let number = |column| {
            let text = cell(column);
            let whole = match text.split_once('.') {
                Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
                _ => text,
            };
            whole.parse::<u64>().ok()
        };
        cell("key") == self.key
            && cell("filler") == self.filler
            && number("version") == Some(self.version)
            && number("checksum") == Some(self.checksum.into())
    }

    /// Whether it is the whole value of `key`.
    pub(crate) fn is_intact(&self, key: &str) -> bool {
        self.key == key && self.checksum == checksum(key, self.version, &self.filler)
    }
}

fn checksum(key: &str, version: u64, filler: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&version.to_le_bytes());
    hasher.update(filler.as_bytes());
    hasher.finalize()
}

/// Mostly about 100 bytes, as real values are; some as large as a page; a few so large that a write of one can be torn in
/// many places.
pub(crate) fn random_size(rng: &mut fastrand::Rng) -> usize {
    match rng.u8(..100) {
        0..90 => rng.usize(60..140),
        90..98 => rng.usize(140..8 << 10),
        _ => rng.usize(8 << 10..=64 << 10),
    }
}
