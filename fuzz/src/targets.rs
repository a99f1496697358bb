use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use persistent_map_core::{
    Bincode, Codec, Json, MessagePack, OnCorrupt, PersistentMap, Result, StorageBackend, Value,
};
use persistent_map_csv::CsvBackend;
use persistent_map_sqlite::SqliteBackend;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{equal, frames};

/// Something of everything that a cell or a codec writes in its own way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u32,
    delta: Option<i64>,
    tags: Vec<String>,
    kind: Kind,
    flag: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Named(String),
    Sized { width: u8, height: Option<char> },
}

type Entries<V> = BTreeMap<String, V>;

/// The first byte says which codec, the others are a value of some types. What reads as one is written and read as the
/// same.
pub fn codecs(bytes: &[u8]) {
    let Some((codec, bytes)) = bytes.split_first() else {
        return;
    };
    match codec % 3 {
        0 => all_types(&Bincode, bytes),
        1 => all_types(&MessagePack, bytes),
        _ => all_types(&Json, bytes),
    }
}

fn all_types(codec: &impl Codec, bytes: &[u8]) {
    comes_back::<Item>(codec, bytes);
    comes_back::<Vec<Item>>(codec, bytes);
    comes_back::<BTreeMap<String, Vec<u64>>>(codec, bytes);
    comes_back::<(i8, u128, char, Option<bool>)>(codec, bytes);
    comes_back::<String>(codec, bytes);
}

fn comes_back<T>(codec: &impl Codec, bytes: &[u8])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let Ok(value) = codec.decode::<T>(bytes) else {
        return;
    };
    let written = codec.encode(&value).expect("a form for what was read");
    let back = codec
        .decode::<T>(&written)
        .expect("a value for what was written");
    equal(&value, &back, codec.id());
}

/// A table by itself, for values in their fields and in one cell. One that opens is not touched, and after a write the
/// others of its entries are what they were.
pub fn csv_table(bytes: &[u8]) {
    with_room(|room| {
        table_of(room, bytes, || Item {
            name: "new".to_string(),
            count: 1,
            delta: None,
            tags: Vec::new(),
            kind: Kind::Plain,
            flag: true,
        });
        table_of(room, bytes, || Some("new".to_string()));
        table_of(room, bytes, || 7i64);
    });
}

fn table_of<V: Value + PartialEq + Debug>(room: &Room, bytes: &[u8], new: impl Fn() -> V) {
    room.place(&[("t.csv", bytes)]);
    let found = room.table::<V>(OnCorrupt::Fail, |_| None);
    equal(&room.read("t.csv").as_deref(), &Some(bytes), "the table");
    match found {
        Ok(mut entries) => {
            // A value that has no place in this table is refused, and nothing else happens.
            let written = room.table(OnCorrupt::Fail, |_| Some(("new".to_string(), new())));
            let is_written = written.is_ok();
            if is_written {
                entries.insert("new".to_string(), new());
            }
            let again = room.table::<V>(OnCorrupt::Fail, |_| None);
            equal(&again.expect("an open table"), &entries, "after a write");
        }
        Err(_) => {
            if let Ok(entries) = room.table::<V>(OnCorrupt::Quarantine, |_| None) {
                let again = room.table::<V>(OnCorrupt::Fail, |_| None);
                equal(&again.expect("an open table"), &entries, "without bad rows");
            }
        }
    }
}

/// A journal beside a small table, as frames with the right checksums: each is a byte for its kind, two for its length, and
/// its contents.
pub fn csv_journal(bytes: &[u8]) {
    const TABLE: &[u8] = b"key,name,count,delta,tags,kind,flag\na,A,1,,,Plain,true\nb,B,2,-1,\"[\"\"x\"\"]\",Plain,false\n";
    let opening = format!(
        "T{{\"version\":1,\"table\":{{\"bytes\":{},\"crc\":{}}}}}\n",
        TABLE.len(),
        crc32fast::hash(TABLE)
    );
    let mut payloads = vec![opening.into_bytes()];
    let mut rest = bytes;
    while let Some((kind, after)) = rest.split_first() {
        let (length, after) = after.split_at(after.len().min(2));
        let length = length
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        let (contents, after) = after.split_at(after.len().min(length));
        payloads.push([&[*kind][..], contents, b"\n"].concat());
        rest = after;
    }
    let journal = frames::journal(payloads);
    files(TABLE, &journal);
}

/// A table and its journal: two bytes for the length of the first, and both.
pub fn csv_files(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let (table, journal) = bytes.split_at(bytes.len().min(length));
    files(table, journal);
}

/// Two files that open as an entry or another, or are refused and stay. What was read is what the next one reads.
fn files(table: &[u8], journal: &[u8]) {
    with_room(|room| {
        room.place(&[("t.csv", table), ("t.csv.journal", journal)]);
        match room.table::<Item>(OnCorrupt::Fail, |_| None) {
            Err(_) => {
                equal(&room.read("t.csv").as_deref(), &Some(table), "the table");
                let left = room.read("t.csv.journal");
                equal(&left.as_deref(), &Some(journal), "the journal");
            }
            Ok(entries) => {
                assert!(room.read("t.csv.journal").is_none(), "a journal is left");
                let again = room.table::<Item>(OnCorrupt::Fail, |_| None);
                equal(&again.expect("an open table"), &entries, "at the next open");
            }
        }
    });
}

/// A database: either whole, or as changes of a good one, each four bytes for a place and one that stands there. It is
/// refused, or opens with what was stored.
///
/// # Panics
/// If that is not so.
pub fn sqlite_file(bytes: &[u8]) {
    const GOOD: &[u8] = include_bytes!("../../persistent-map-sqlite/tests/golden/players_v1.db");
    static STORED: OnceLock<Entries<Player>> = OnceLock::new();
    let is_whole = bytes.starts_with(b"SQLite format 3\0");
    let mut database = GOOD.to_vec();
    if is_whole {
        database = bytes.to_vec();
    } else {
        for change in bytes.chunks_exact(5) {
            let place = u32::from_be_bytes([change[0], change[1], change[2], change[3]]);
            let place = place as usize % GOOD.len();
            database[place] = change[4];
        }
    }
    with_room(|room| {
        let stored = STORED.get_or_init(|| {
            room.place(&[("t.db", GOOD)]);
            room.database().expect("the good database")
        });
        room.place(&[("t.db", &database)]);
        let found = room.database();
        let again = room.database();
        if let Ok(entries) = &found
            && !is_whole
        {
            equal(entries, stored, "a database with other bytes");
        }
        if let (Ok(entries), Ok(again)) = (found, again) {
            equal(&again, &entries, "at the next open");
        }
    });
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Player {
    name: String,
    score: u32,
}

/// A directory for one store after the other.
struct Room {
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

fn with_room(work: impl FnOnce(&Room)) {
    thread_local! {
        static ROOM: RefCell<Option<Room>> = const { RefCell::new(None) };
    }
    ROOM.with_borrow_mut(|room| work(room.get_or_insert_with(Room::new)));
}

impl Room {
    fn new() -> Self {
        // In memory where there is such a place, because a store asks the disk to keep what it writes.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Room {
            dir: tempfile::tempdir_in(parent).expect("a directory"),
            runtime: runtime.expect("a runtime"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    /// These files and no others.
    fn place(&self, files: &[(&str, &[u8])]) {
        for entry in fs::read_dir(self.dir.path()).expect("a directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("a file to remove");
        }
        for (name, bytes) in files {
            fs::write(self.path(name), bytes).expect("a file to write");
        }
    }

    /// Opens the table, writes what `write` says, and closes it.
    fn table<V: Value>(
        &self,
        on_corrupt: OnCorrupt,
        write: impl FnOnce(&Entries<V>) -> Option<(String, V)>,
    ) -> Result<Entries<V>> {
        let backend = CsvBackend::new(self.path("t.csv")).sync(false);
        self.runtime.block_on(entries(backend, on_corrupt, write))
    }

    fn database(&self) -> Result<Entries<Player>> {
        self.runtime.block_on(async {
            let backend = SqliteBackend::new(self.path("t.db")).await?;
            entries(backend, OnCorrupt::Fail, |_| None).await
        })
    }
}

async fn entries<V: Value, B: StorageBackend<String, V>>(
    backend: B,
    on_corrupt: OnCorrupt,
    write: impl FnOnce(&Entries<V>) -> Option<(String, V)>,
) -> Result<Entries<V>> {
    let builder = PersistentMap::builder(backend).on_corrupt(on_corrupt);
    let map = builder.open().await?;
    let entries: Entries<V> = map.iter().collect();
    let written = match write(&entries) {
        Some((key, value)) => map.insert(key, value).await.map(drop),
        None => Ok(()),
    };
    map.close().await?;
    written.map(|()| entries)
}
