//! Journals of tables with whatever in their frames: the checksums are right, so that what is in them is looked at.

/// The four bytes by which a frame is known, of a journal that syncs each commit.
const MAGIC: [u8; 4] = *b"\xc5PMJ";

/// A journal whose frames have these payloads, each with its kind, its contents and the line feed.
///
/// ```
/// let opening = br#"T{"version":1,"table":null}"#;
/// let journal = persistent_map_fuzz::frames::journal([[&opening[..], b"\n"].concat()]);
/// assert_eq!(journal.len(), 24 + opening.len() + 1);
/// ```
pub fn journal<P: AsRef<[u8]>>(payloads: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        let payload = payload.as_ref();
        push(&mut bytes, payload, payload.len());
    }
    bytes
}

/// Adds a frame to a journal, whose header says that its payload has this length.
pub fn push(journal: &mut Vec<u8>, payload: &[u8], length: usize) {
    const NUMBER: u64 = 7;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    header.extend_from_slice(&NUMBER.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let mut place = crc32fast::Hasher::new();
    place.update(&header);
    place.update(&(journal.len() as u64).to_le_bytes());
    header.extend_from_slice(&place.finalize().to_le_bytes());
    journal.extend_from_slice(&header);
    journal.extend_from_slice(payload);
}

/// A length and the bytes, as keys and cells are written in a frame.
pub fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], bytes].concat()
}
