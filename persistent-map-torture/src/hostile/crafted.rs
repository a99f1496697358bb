//! Files that somebody made on purpose: their checksums are right, and what they say is not; or they are no stores at all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use persistent_map_core::codec::CodecError;
use persistent_map_core::{
    Bincode, Codec, DynBackend, Json, MessagePack, OnCorrupt, PersistentError, PersistentMap, Value,
};
use persistent_map_csv::CsvBackend;
use persistent_map_fuzz::frames;
use persistent_map_sqlite::SqliteBackend;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::store::{contents, without_lock};
use crate::failure::Failure;
use crate::record::Record;
use crate::store::Backend;

/// A file to make and to open, in a directory of its own.
pub(super) struct Crafted {
    pub(super) name: String,
    pub(super) run: Run,
}

type Run = Box<dyn FnOnce(PathBuf) -> Pin<Box<dyn Future<Output = Result<(), Failure>>>>>;

/// Deeper than any stack, if each level of it were a call.
const DEEP: usize = 1_000_000;
/// What the bytes claim where lengths have 8 bytes.
const HUGE: u64 = 1 << 40;

pub(super) fn all() -> Vec<Crafted> {
    let mut cases = Cases(Vec::new());
    // First, because a process does not give back all the memory that it had.
    endless_row(&mut cases);
    bincode(&mut cases);
    message_pack(&mut cases);
    json(&mut cases);
    other_types(&mut cases);
    foreign(&mut cases);
    tables(&mut cases);
    wide_table(&mut cases);
    rows_of_one_key(&mut cases);
    journals(&mut cases);
    cases.0
}

/// Follows itself as deep as it is told to.
#[derive(Clone, Serialize, Deserialize)]
struct Nested {
    items: Vec<Nested>,
}

fn bincode(cases: &mut Cases) {
    // A length of 8 bytes comes after 253.
    let length = |length: u64| [&[253], &length.to_le_bytes()[..]].concat();
    for claimed in [HUGE, u64::MAX, 1 << 31] {
        let bytes = length(claimed);
        cases.row("String", Bincode, String::new(), &bytes);
        cases.row("Vec<u8>", Bincode, Vec::<u8>::new(), &bytes);
        cases.row("Vec<u64>", Bincode, Vec::<u64>::new(), &bytes);
        cases.row("Vec<Vec<u8>>", Bincode, Vec::<Vec<u8>>::new(), &bytes);
        cases.row("HashMap", Bincode, HashMap::<String, u8>::new(), &bytes);
        cases.row("BTreeMap", Bincode, BTreeMap::<u64, u64>::new(), &bytes);
        let inside = [&[2], &bytes[..], &bytes].concat();
        cases.row("Vec<String>", Bincode, Vec::<String>::new(), &inside);
        cases.row("Record", Bincode, Record::new("", 0, 0), &bytes);
        let padded = [&bytes[..], &vec![b'x'; 1 << 20]].concat();
        cases.row("String of 1 MiB", Bincode, String::new(), &padded);
        cases.row("Vec<u64> of 1 MiB", Bincode, Vec::<u64>::new(), &padded);
    }
    cases.row("Option", Bincode, Some(1u8), &[7]);
    cases.row("char", Bincode, 'a', &[0xff]);
    cases.row("bool", Bincode, true, &[2]);
    cases.row("String, not UTF-8", Bincode, String::new(), &[1, 0xff]);
    cases.row("left over", Bincode, 1u8, &[1, 1]);
    cases.row("nothing", Bincode, 1u64, &[]);
}

fn message_pack(cases: &mut Cases) {
    let nested = || Nested { items: Vec::new() };
    // Strings, bytes, lists and maps with lengths of 4 bytes; bytes with a type.
    for marker in [0xdb, 0xc6, 0xdd, 0xdf, 0xc9] {
        let bytes = [marker, 0xff, 0xff, 0xff, 0xff];
        cases.row("String", MessagePack, String::new(), &bytes);
        cases.row("Vec<u8>", MessagePack, Vec::<u8>::new(), &bytes);
        cases.row("Vec<u64>", MessagePack, Vec::<u64>::new(), &bytes);
        cases.row("HashMap", MessagePack, HashMap::<String, u8>::new(), &bytes);
        cases.row("Record", MessagePack, Record::new("", 0, 0), &bytes);
        let field = [&[0x81, 0xa1, b'x'], &bytes[..]].concat();
        cases.row("unknown field", MessagePack, Record::new("", 0, 0), &field);
    }
    cases.row(
        "lists in lists",
        MessagePack,
        nested(),
        &[0x91].repeat(DEEP),
    );
    let deep = [&[0x81, 0xa1, b'x'], &[0x91].repeat(DEEP)[..]].concat();
    cases.row("unknown deep", MessagePack, Record::new("", 0, 0), &deep);
    cases.row(
        "deep structs",
        MessagePack,
        nested(),
        &b"\x81\xa5items\x91".repeat(DEEP / 8),
    );
}

fn json(cases: &mut Cases) {
    let nested = || Nested { items: Vec::new() };
    let record = || Record::new("", 0, 0);
    cases.row("lists in lists", Json, nested(), &b"[".repeat(DEEP));
    cases.row(
        "deep structs",
        Json,
        nested(),
        &br#"{"items":["#.repeat(DEEP / 10),
    );
    let deep = [br#"{"x":"#, &b"[".repeat(DEEP)[..]].concat();
    cases.row("unknown deep", Json, record(), &deep);
    cases.row("long number", Json, 1u64, &b"9".repeat(DEEP));
    cases.row("exponent", Json, 1.0f64, b"1e99999999999999999999");
    cases.row("not UTF-8", Json, String::new(), b"\"\xff\"");
    cases.row("half a pair", Json, String::new(), br#""\ud800""#);
    cases.row("no end", Json, String::new(), b"\"");
}

/// Stores of ours, opened with another codec or as another type.
fn other_types(cases: &mut Cases) {
    async fn refuses<V: Value, C: Codec + Clone>(dir: PathBuf, codec: C) -> Result<(), Failure> {
        let path = dir.join(Backend::Sqlite.file_name());
        let map = PersistentMap::new(SqliteBackend::new(&path).await?).await?;
        map.insert("a".to_string(), "1".to_string()).await?;
        map.close().await?;
        let open = async || {
            let backend = SqliteBackend::builder(&path).codec(codec.clone());
            PersistentMap::<String, V, _>::builder(backend.open().await?)
                .on_corrupt(OnCorrupt::Quarantine)
                .open()
                .await
                .map(drop)
        };
        is_refused(&dir, open).await
    }
    cases.add("Bincode opened as JSON", |dir| {
        refuses::<String, _>(dir, Json)
    });
    cases.add("Bincode opened as MessagePack", |dir| {
        refuses::<String, _>(dir, MessagePack)
    });
    cases.add("String opened as u64", |dir| {
        refuses::<u64, _>(dir, Bincode)
    });
    cases.add("String opened as bytes", |dir| {
        refuses::<Vec<u8>, _>(dir, Bincode)
    });
    cases.add("String opened as Option", |dir| {
        refuses::<Option<String>, _>(dir, Bincode)
    });
    // One codec's bytes under the name of another.
    let record = Record::new("key", 1, 10);
    let bytes = [
        Bincode.encode(&record).unwrap_or_default(),
        Json.encode(&record).unwrap_or_default(),
        MessagePack.encode(&record).unwrap_or_default(),
    ];
    cases.row("of Bincode", Json, Record::new("", 0, 0), &bytes[0]);
    cases.row("of Bincode", MessagePack, Record::new("", 0, 0), &bytes[0]);
    cases.row("of JSON", Bincode, Record::new("", 0, 0), &bytes[1]);
    cases.row("of JSON", MessagePack, Record::new("", 0, 0), &bytes[1]);
    cases.row("of MessagePack", Bincode, Record::new("", 0, 0), &bytes[2]);
    cases.row("of MessagePack", Json, Record::new("", 0, 0), &bytes[2]);
}

/// Files of other programs and of other versions, under the names of ours.
fn foreign(cases: &mut Cases) {
    let mut database = b"SQLite format 3\0".to_vec();
    database.resize(4096, 0);
    let with = |at: usize, number: u32| {
        let mut bytes = database.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    let newer = {
        let mut bytes = with(68, u32::from_be_bytes(*b"PMAP"));
        bytes[60..64].copy_from_slice(&2u32.to_be_bytes());
        bytes
    };
    let files: [(&str, Vec<u8>); 8] = [
        ("empty", Vec::new()),
        (
            "a picture",
            [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &[0; 200][..]].concat(),
        ),
        ("compressed", [&[0x1f, 0x8b, 8, 0], &[7; 200][..]].concat()),
        (
            "a program",
            [b"\x7fELF\x02\x01\x01", &[0; 200][..]].concat(),
        ),
        ("a letter", b"Dear diary,\n".repeat(100)),
        ("a database of nobody", database.clone()),
        ("a database of another program", with(68, 0x4750_4b47)),
        ("a newer database", newer),
    ];
    for (name, bytes) in files {
        for backend in [Backend::Sqlite, Backend::Csv] {
            let bytes = bytes.clone();
            cases.file(
                format!("{name} as {}", backend.name()),
                backend,
                &[("", bytes)],
            );
        }
    }
    // All is right in these but the number in the header: nothing else would keep them from being opened.
    for (name, at, number) in [
        ("ours, marked as of another program", 68, *b"GPKG"),
        ("ours, marked as newer", 60, 2u32.to_be_bytes()),
    ] {
        cases.add(name, move |dir| async move {
            let path = dir.join(Backend::Sqlite.file_name());
            let nothing = Nested { items: Vec::new() };
            insert(SqliteBackend::builder(&path), "a", nothing).await?;
            let mut bytes = fs::read(&path)?;
            bytes[at..at + 4].copy_from_slice(&number);
            fs::write(&path, bytes)?;
            let open = async || {
                let opened = open_nested(Backend::Sqlite, &path, OnCorrupt::Quarantine).await;
                opened.map(drop)
            };
            is_refused(&dir, open).await
        });
    }
}

/// A quotation mark that is never closed makes one row of all that follows.
fn endless_row(cases: &mut Cases) {
    cases.add("a row of 1 GiB", |dir| async move {
        let path = dir.join(Backend::Csv.file_name());
        fs::write(&path, "key,items\na,\"")?;
        fs::OpenOptions::new()
            .append(true)
            .open(&path)?
            .set_len(1 << 30)?;
        match open_nested(Backend::Csv, &path, OnCorrupt::Fail).await {
            Err(_) if fs::metadata(&path)?.len() == 1 << 30 => Ok(()),
            _ => Err(Failure::Violation("it was opened or cut".into())),
        }
    });
}

fn tables(cases: &mut Cases) {
    let deep = "[".repeat(DEEP);
    let wide: Vec<String> = (0..100_000).map(|n| format!("c{n}")).collect();
    for (name, text) in [
        ("a deep cell", format!("key,items\na,\"{deep}\"\n")),
        ("deep structs", {
            let deep = r#"[{""items"":"#.repeat(DEEP / 10);
            format!("key,items\na,\"{deep}\"\n")
        }),
        ("many columns", format!("key,{}\na\n", wide.join(","))),
        (
            "a quotation mark",
            format!("key,items\na,\"{}", "x".repeat(DEEP)),
        ),
        ("no line", "key,".repeat(DEEP / 4)),
        ("zeros", "key,items\na,\0".to_string()),
    ] {
        cases.file(name.to_string(), Backend::Csv, &[("", text.into_bytes())]);
    }
}

/// Of many rows of one key one is taken, if the others may be set aside.
fn rows_of_one_key(cases: &mut Cases) {
    const ROWS: usize = DEEP / 100;
    cases.add("many rows of one key", |dir| async move {
        let path = dir.join(Backend::Csv.file_name());
        fs::write(&path, format!("key,items\n{}", "a,[]\n".repeat(ROWS)))?;
        let open = async |on_corrupt| open_nested(Backend::Csv, &path, on_corrupt).await;
        is_refused(&dir, async || open(OnCorrupt::Fail).await.map(drop)).await?;
        match open(OnCorrupt::Quarantine).await? {
            (1, aside) if aside == ROWS - 1 => Ok(()),
            found => Err(Failure::Violation(format!("{found:?}"))),
        }
    });
}

/// Each of many columns is carried over to the table that is written in place of this one.
fn wide_table(cases: &mut Cases) {
    cases.add("many columns, written to", |dir| async move {
        let path = dir.join(Backend::Csv.file_name());
        let wide = |cells: &str| format!(",{cells}").repeat(100_000);
        let columns: Vec<String> = (0..100_000).map(|n| format!("c{n}")).collect();
        let header = format!("key,items,{}", columns.join(","));
        fs::write(&path, format!("{header}\na,[]{}\n", wide("x")))?;
        let backend = CsvBackend::new(&path).keep_extra_columns(true);
        let map = PersistentMap::new(backend).await?;
        map.insert("b".to_string(), Nested { items: Vec::new() })
            .await?;
        map.close().await?;
        let rows = format!("a,[]{}\nb,[]{}\n", wide("x"), wide(""));
        if fs::read_to_string(&path)? == format!("{header}\n{rows}") {
            return Ok(());
        }
        Err(Failure::Violation("its cells are others".into()))
    });
}

fn journals(cases: &mut Cases) {
    const NEW: &[u8] = b"T{\"version\":1,\"table\":null}\n";
    const SHAPE: &[u8] = b"S{\"columns\":[\"key\",\"items\"],\"key\":0}\n";
    const KEEP: &[u8] = &[0xff; 4];
    let write = |key: &[u8], cells: &[u8]| {
        let [key, cells] = [frames::counted(key), frames::counted(cells)];
        [&b"W+"[..], &key, &cells, b"\n"].concat()
    };
    let deep = frames::counted("[".repeat(DEEP).as_bytes());
    let good = write(b"a", &[KEEP, &frames::counted(b"[]")].concat());
    let [longer, deeper, fewer, more] = [
        write(b"a", &[KEEP, &[0xfe, 0xff, 0xff, 0xff]].concat()),
        write(b"a", &[KEEP, &deep].concat()),
        write(b"a", KEEP),
        write(b"a", &KEEP.repeat(3)),
    ];
    let no_text = write(b"\xff", &[KEEP, &frames::counted(b"[]")].concat());
    let deep_shape = [b"S{\"columns\":", &b"[".repeat(DEEP)[..], b"\n"].concat();
    let bad: &[(&str, &[&[u8]])] = &[
        (
            "of a newer version",
            &[b"T{\"version\":3,\"table\":null}\n"],
        ),
        ("without a version", &[b"T{}\n"]),
        ("begun twice", &[NEW, NEW]),
        ("with an unknown frame", &[NEW, b"Z\n"]),
        ("with an empty frame", &[NEW, b"\n"]),
        ("without columns", &[NEW, b"S{\"columns\":[],\"key\":0}\n"]),
        ("with deep columns", &[NEW, &deep_shape]),
        (
            "whose key has no column",
            &[
                NEW,
                b"S{\"columns\":[\"key\",\"items\"],\"key\":2}\n",
                &good,
            ],
        ),
        ("with a row before the columns", &[NEW, &good]),
        (
            "with a key of 4 GiB",
            &[NEW, SHAPE, b"W+\xff\xff\xff\xffa\n"],
        ),
        (
            "with cells of 4 GiB",
            &[NEW, SHAPE, b"W+\x01\0\0\0a\xff\xff\xff\xff\n"],
        ),
        ("with a cell of 4 GiB", &[NEW, SHAPE, &longer]),
        ("with a deep cell", &[NEW, SHAPE, &deeper]),
        ("with too few cells", &[NEW, SHAPE, &fewer]),
        ("with too many cells", &[NEW, SHAPE, &more]),
        ("with a key that is no text", &[NEW, SHAPE, &no_text]),
        ("with half a change", &[NEW, SHAPE, b"W+\n"]),
        ("with a checkpoint of nothing", &[NEW, b"C[]\n"]),
        (
            "of another table",
            &[
                b"T{\"version\":1,\"table\":{\"bytes\":9,\"crc\":9}}\n",
                SHAPE,
                &good,
            ],
        ),
    ];
    for (name, payloads) in bad {
        let bytes = frames::journal(*payloads);
        cases.file(
            format!("a journal {name}"),
            Backend::Csv,
            &[(".journal", bytes)],
        );
    }
    let mut bytes = frames::journal([NEW, SHAPE, &good]);
    frames::push(&mut bytes, b"W+", u32::MAX as usize);
    cases.add(
        "a frame of 4 GiB, as if it were cut short",
        |dir| async move {
            let path = dir.join(Backend::Csv.file_name());
            fs::write(path.with_extension("csv.journal"), &bytes)?;
            let (entries, _) = open_nested(Backend::Csv, &path, OnCorrupt::Fail).await?;
            match entries {
                1 => Ok(()),
                _ => Err(Failure::Violation("the frame before it is lost".into())),
            }
        },
    );
}

struct Cases(Vec<Crafted>);

impl Cases {
    fn add<F>(&mut self, name: impl Into<String>, run: impl FnOnce(PathBuf) -> F + 'static)
    where
        F: Future<Output = Result<(), Failure>> + 'static,
    {
        self.0.push(Crafted {
            name: name.into(),
            run: Box::new(|dir| Box::pin(run(dir))),
        });
    }

    /// Bytes in a row of a database, under the right checksum and beside a good row: an error, or set aside alone.
    fn row<V: Value, C: Codec + Clone>(&mut self, name: &str, codec: C, value: V, hostile: &[u8]) {
        let name = format!("{name} in {}, {} bytes", codec.id(), hostile.len());
        let hostile = hostile.to_vec();
        self.add(name, |dir| async move {
            let path = dir.join(Backend::Sqlite.file_name());
            let impostor = Impostor {
                honest: codec
                    .encode(&value)
                    .map_err(|error| Failure::Trouble(error.to_string()))?,
                codec: codec.clone(),
                hostile,
            };
            let good = SqliteBackend::builder(&path).codec(codec.clone());
            insert(good, "good", value.clone()).await?;
            insert(SqliteBackend::builder(&path).codec(impostor), "bad", value).await?;

            let open = async |on_corrupt| {
                let backend = SqliteBackend::builder(&path).codec(codec.clone());
                let builder = PersistentMap::<String, V, _>::builder(backend.open().await?);
                let (map, report) = builder.on_corrupt(on_corrupt).open_with_report().await?;
                map.close().await?;
                Ok::<_, PersistentError>((
                    map.contains_key("good"),
                    map.len(),
                    report.quarantined.len(),
                ))
            };
            match open(OnCorrupt::Fail).await {
                Err(PersistentError::Corrupt(_)) => {}
                Err(error) => return Err(Failure::Violation(format!("another error: {error}"))),
                Ok(_) => return Err(Failure::Violation("it was opened".into())),
            }
            match open(OnCorrupt::Quarantine).await? {
                (true, 1, 1) => Ok(()),
                found => Err(Failure::Violation(format!("{found:?}"))),
            }
        });
    }

    /// Files that are refused, whatever is to be done with bad rows, and stay as they are. Names are added to the store's.
    fn file(&mut self, name: String, backend: Backend, files: &[(&'static str, Vec<u8>)]) {
        let files = files.to_vec();
        self.add(name, move |dir| async move {
            let path = dir.join(backend.file_name());
            for (suffix, bytes) in &files {
                let name = format!("{}{suffix}", backend.file_name());
                fs::write(dir.join(name), bytes)?;
            }
            for on_corrupt in [OnCorrupt::Fail, OnCorrupt::Quarantine] {
                is_refused(&dir, async || {
                    open_nested(backend, &path, on_corrupt).await.map(drop)
                })
                .await?;
            }
            Ok(())
        });
    }
}

async fn insert<V: Value, C: Codec + Clone>(
    backend: persistent_map_sqlite::SqliteBuilder<C>,
    key: &str,
    value: V,
) -> Result<(), PersistentError> {
    let map = PersistentMap::new(backend.open().await?).await?;
    map.insert(key.to_string(), value).await?;
    map.close().await
}

/// How many entries there are, and how many rows were set aside.
async fn open_nested(
    backend: Backend,
    path: &Path,
    on_corrupt: OnCorrupt,
) -> Result<(usize, usize), PersistentError> {
    let backend: DynBackend<String, Nested> = match backend {
        Backend::Sqlite => Arc::new(SqliteBackend::new(path).await?),
        Backend::Csv => Arc::new(CsvBackend::new(path)),
    };
    let builder = PersistentMap::builder(backend).on_corrupt(on_corrupt);
    let (map, report) = builder.open_with_report().await?;
    map.close().await?;
    Ok((map.len(), report.quarantined.len()))
}

async fn is_refused(
    dir: &Path,
    open: impl AsyncFnOnce() -> Result<(), PersistentError>,
) -> Result<(), Failure> {
    let before = without_lock(contents(dir)?);
    if open().await.is_ok() {
        return Err(Failure::Violation("it was opened".into()));
    }
    if without_lock(contents(dir)?) != before {
        return Err(Failure::Violation("it was refused, and changed".into()));
    }
    Ok(())
}

/// A codec that goes by the name of another one and writes hostile bytes in place of one value.
#[derive(Clone)]
struct Impostor<C> {
    codec: C,
    honest: Vec<u8>,
    hostile: Vec<u8>,
}

impl<C: Codec> Codec for Impostor<C> {
    fn id(&self) -> &'static str {
        self.codec.id()
    }

    fn encode_into<T: Serialize + ?Sized>(
        &self,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let encoded = self.codec.encode(value)?;
        bytes.extend_from_slice(if encoded == self.honest {
            &self.hostile
        } else {
            &encoded
        });
        Ok(())
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
        self.codec.decode(if bytes == self.hostile {
            &self.honest
        } else {
            bytes
        })
    }

    fn fingerprint<T: DeserializeOwned>(&self) -> String {
        self.codec.fingerprint::<T>()
    }
}
