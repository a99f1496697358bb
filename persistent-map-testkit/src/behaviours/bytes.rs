//! What a [`ByteStore`] promises beyond the contract that all backends have: formats, rows that are set aside, keys of all
//! sizes. A function a line; each panics with a message if it does not hold.

#![allow(
    clippy::missing_panics_doc,
    reason = "to panic is what a behaviour that does not hold is there for; the module says so once"
)]

use std::collections::{BTreeMap, BTreeSet};

use persistent_map_core::{
    ByteStore, ByteWrite, Codec as _, Format, PersistentError, Result, RowSink, RowVerdict,
    Survives,
};

use crate::drop_after_polls;
use crate::fixture::Fixture;
use crate::stage::{IN_A_COPY, Stage, ok};

/// Calls a macro with what it is given and the names of all behaviours of this module.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_byte_behaviour {
    (($($callback:tt)+) $fixture:expr) => {
        $($callback)+! {
            $fixture,
            another_format_is_refused_and_changes_nothing
            a_load_that_failed_leaves_the_format
            a_newer_description_is_taken
            rows_that_are_set_aside_are_not_loaded_again
            a_sink_that_refuses_at_the_end_keeps_all_rows
            load_ends_with_finish_and_read_back_does_not
            read_back_sets_nothing_aside
            replace_records_the_format
            keys_of_all_sizes_are_stored_or_refused
        }
    };
}

/// A store that was written for other types, or with another codec, refuses with `Mismatch`, gives no row, and is as it was.
pub async fn another_format_is_refused_and_changes_nothing<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let Some((stage, backend)) = twenty_stored(fixture).await else {
        return;
    };
    let own = own_format(&backend);
    for other in [
        Format {
            value: "other values".into(),
            ..own.clone()
        },
        Format {
            key: "other keys".into(),
            ..own.clone()
        },
        Format {
            codec: "another codec".into(),
            ..own.clone()
        },
        Format {
            codec: "another codec".into(),
            description: own.description + 1,
            ..own.clone()
        },
    ] {
        let mut sink = Seen::default();
        assert_mismatch(
            "load with another format",
            &backend.load(&other, &mut sink).await,
        );
        assert!(
            sink.rows.is_empty(),
            "rows were given out before the format was compared"
        );
    }
    assert_loads(
        "load after another format was refused,",
        &backend,
        &own,
        &twenty(),
    )
    .await;
    assert_reopens(&stage, backend, &own, &twenty()).await;
}

/// A load that fails keeps no new format: of another version of the descriptions, and with rows that then turn out not to be
/// of its types. What could be opened before can be opened after it, and what could not, not.
pub async fn a_load_that_failed_leaves_the_format<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    for at_the_end in [false, true] {
        let Some((stage, backend)) = twenty_stored(fixture).await else {
            return;
        };
        let own = own_format(&backend);
        let newer = Format {
            description: own.description + 1,
            value: "other values".into(),
            ..own.clone()
        };
        let mut sink = Seen {
            refuse_row: !at_the_end,
            refuse_end: at_the_end,
            ..Seen::default()
        };
        let loaded = backend.load(&newer, &mut sink).await;
        assert!(loaded.is_err(), "load must pass on the error of its sink");
        // What the descriptions say can be compared by those of the same version only.
        let other = Format {
            value: "other values".into(),
            ..own.clone()
        };
        let opened = backend.load(&other, &mut Seen::default()).await;
        assert_mismatch(
            "load with other types, after a load with a newer description had failed,",
            &opened,
        );
        assert_loads("load after a load had failed,", &backend, &own, &twenty()).await;
        assert_reopens(&stage, backend, &own, &twenty()).await;
    }
}

/// Descriptions of another version cannot be compared: the store opens, and keeps the new one.
pub async fn a_newer_description_is_taken<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let Some((stage, backend)) = twenty_stored(fixture).await else {
        return;
    };
    let own = own_format(&backend);
    let newer = Format {
        description: own.description + 1,
        value: "the same, described anew".into(),
        ..own
    };
    assert_loads("load with a newer description", &backend, &newer, &twenty()).await;
    ok("close", backend.close().await);
    drop(backend);
    let backend = stage.open().await;
    let other = Format {
        value: "other values".into(),
        ..newer.clone()
    };
    let opened = backend.load(&other, &mut Seen::default()).await;
    assert_mismatch(
        "load with other types than were recorded at the last one",
        &opened,
    );
    assert_loads(
        "load with the types that were recorded",
        &backend,
        &newer,
        &twenty(),
    )
    .await;
    ok("close", backend.close().await);
}

/// What the sink sets aside is gone before `load` returns, and stays gone; all else is there, and so is what is written under
/// its keys later. A store that has no place for such rows answers `Unsupported`, and has them all.
pub async fn rows_that_are_set_aside_are_not_loaded_again<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let Some((stage, backend)) = twenty_stored(fixture).await else {
        return;
    };
    let own = own_format(&backend);
    let bad: BTreeSet<Vec<u8>> = [0, 7, 8, 19].into_iter().map(|n| row(n).0).collect();
    let mut sink = Seen {
        set_aside: bad.clone(),
        ..Seen::default()
    };
    match backend.load(&own, &mut sink).await {
        Err(PersistentError::Unsupported { .. }) => {
            return assert_reopens(&stage, backend, &own, &twenty()).await;
        }
        loaded => ok("load that sets rows aside", loaded),
    }
    let mut left = twenty();
    left.retain(|key, _| !bad.contains(key));
    assert_reads_back("read_back after rows were set aside", &backend, &left).await;
    assert_copy(&stage, &own, &left).await;
    ok("close", backend.close().await);
    drop(backend);
    let backend = stage.open().await;
    assert_loads("load after rows were set aside", &backend, &own, &left).await;
    let (key, _) = row(7);
    left.insert(key.clone(), b"new".to_vec());
    store(&backend, &[(key, b"new".to_vec())]).await;
    assert_reopens(&stage, backend, &own, &left).await;
}

/// A sink whose `finish` fails has none of the rows that it was given: all stay where they are.
pub async fn a_sink_that_refuses_at_the_end_keeps_all_rows<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let Some((stage, backend)) = twenty_stored(fixture).await else {
        return;
    };
    let own = own_format(&backend);
    let mut sink = Seen {
        set_aside: twenty().into_keys().collect(),
        refuse_end: true,
        ..Seen::default()
    };
    let loaded = backend.load(&own, &mut sink).await;
    assert!(
        loaded.is_err(),
        "load must pass on what `finish` says, and returned {loaded:?}"
    );
    assert_copy(&stage, &own, &twenty()).await;
    assert_loads("load after `finish` had refused", &backend, &own, &twenty()).await;
    assert_reopens(&stage, backend, &own, &twenty()).await;
}

/// `finish` is called once by `load`, after the last row, also where there is none; never after an error of the sink, and not
/// by `read_back`. Rows are numbered from 1.
pub async fn load_ends_with_finish_and_read_back_does_not<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let stage = Stage::new(fixture);
    let backend = stage.open().await;
    let mut sink = Seen::default();
    ok("load", backend.load(&own_format(&backend), &mut sink).await);
    assert_eq!(
        sink.finished,
        [0],
        "calls of `finish` by load of a new store, after how many rows"
    );
    ok("close", backend.close().await);
    drop(backend);

    let Some((_stage, backend)) = twenty_stored(fixture).await else {
        return;
    };
    let mut sink = Seen {
        refuse_row: true,
        ..Seen::default()
    };
    let loaded = backend.load(&own_format(&backend), &mut sink).await;
    assert!(loaded.is_err(), "load must pass on the error of its sink");
    assert!(
        sink.finished.is_empty(),
        "load called `finish` after its sink had refused a row"
    );
    let mut sink = Seen::default();
    ok("load", backend.load(&own_format(&backend), &mut sink).await);
    assert_eq!(
        sink.finished,
        [20],
        "calls of `finish` by load, after how many rows"
    );
    assert!(
        sink.in_order,
        "rows must be numbered from 1, in the order in which they are read"
    );
    let mut sink = Seen::default();
    ok("read_back", backend.read_back(&mut sink).await);
    assert!(sink.finished.is_empty(), "read_back called `finish`");
    assert!(
        sink.in_order,
        "rows must be numbered from 1, in the order in which they are read"
    );
    ok("close", backend.close().await);
}

/// `read_back` changes nothing, whatever its sink says of a row.
pub async fn read_back_sets_nothing_aside<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let Some((stage, backend)) = twenty_stored(fixture).await else {
        return;
    };
    let own = own_format(&backend);
    assert_loads("load", &backend, &own, &twenty()).await;
    let mut sink = Seen {
        set_aside: twenty().into_keys().collect(),
        ..Seen::default()
    };
    ok("read_back", backend.read_back(&mut sink).await);
    assert_reads_back("a second read_back", &backend, &twenty()).await;
    assert_copy(&stage, &own, &twenty()).await;
    assert_reopens(&stage, backend, &own, &twenty()).await;
}

/// `replace` leaves the new rows and the new format, with one commit; or it is refused and changes nothing.
pub async fn replace_records_the_format<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    // Dropped after so many polls, and at last not at all.
    for polls in (0..10).chain([usize::MAX]) {
        let Some((stage, backend)) = twenty_stored(fixture).await else {
            return;
        };
        let own = own_format(&backend);
        assert_loads("load", &backend, &own, &twenty()).await;
        let newer = Format {
            value: "newer values".into(),
            ..own.clone()
        };
        let rows: Entries = (10..15).map(|n| (row(n).0, b"newer".to_vec())).collect();
        let writes: Vec<ByteWrite<'_>> =
            rows.iter().map(|(key, value)| insert(key, value)).collect();
        match drop_after_polls(backend.replace(&newer, &writes), polls).await {
            Some(Err(error @ PersistentError::Unsupported { .. })) => {
                drop(error);
                return assert_reopens(&stage, backend, &own, &twenty()).await;
            }
            Some(replaced) => {
                ok("replace", replaced);
                assert_copy(&stage, &newer, &rows).await;
            }
            None => {}
        }
        ok("close", backend.close().await);
        drop(backend);
        let backend = stage.open().await;
        let mut sink = Seen::default();
        match backend.load(&newer, &mut sink).await {
            Err(PersistentError::Mismatch { .. }) if polls < usize::MAX => {
                assert_loads(
                    "load after a replace that was not done",
                    &backend,
                    &own,
                    &twenty(),
                )
                .await;
            }
            loaded => {
                ok("load with the format of the last replace", loaded);
                sink.assert_are("load after a replace", &rows);
            }
        }
        ok("close", backend.close().await);
        drop(backend);
        if polls == usize::MAX {
            let opened = stage.open().await.load(&own, &mut Seen::default()).await;
            assert_mismatch("load with the format from before a replace", &opened);
        }
    }
}

/// What `check` takes is stored and comes back: a key without bytes, keys that begin alike, the largest key that is taken, and
/// values from nothing to the largest that is taken (of up to a few MiB).
pub async fn keys_of_all_sizes_are_stored_or_refused<F>(fixture: &F)
where
    F: Fixture<Backend: ByteStore>,
{
    let stage = Stage::new(fixture);
    let backend = stage.open().await;
    let own = own_format(&backend);
    assert_loads("load of a new store", &backend, &own, &Entries::new()).await;
    let largest_key = largest(1 << 20, |bytes| backend.check(bytes, 1).is_ok());
    let largest_value = largest(4 << 20, |bytes| backend.check(1, bytes).is_ok());
    let mut rows: Entries = [
        0,
        1,
        254,
        255,
        256,
        257,
        65_535,
        65_536,
        largest_key.saturating_sub(1),
        largest_key,
    ]
    .into_iter()
    .map(|bytes| (vec![b'k'; bytes], b"value".to_vec()))
    .chain((0..=255).map(|byte| (vec![byte], vec![byte])))
    .chain((0..4).map(|zeros| ([&b"a"[..], &vec![0; zeros]].concat(), b"zeros".to_vec())))
    .chain([
        (vec![0xff; 3], Vec::new()),
        (b"large".to_vec(), vec![b'v'; largest_value]),
    ])
    .collect();
    rows.retain(|key, value| backend.check(key.len(), value.len()).is_ok());
    for (key, value) in &rows {
        let stored = backend.apply(&[insert(key, value)]).await;
        if let Err(error) = stored {
            let (key, value) = (key.len(), value.len());
            panic!(
                "`check` took a key of {key} bytes with a value of {value}, and apply refused it: {error}. (A key may \
                 have no bytes: put one before each if the store minds.)"
            );
        }
    }
    assert_reads_back("read_back of keys of all sizes", &backend, &rows).await;
    if backend.capabilities().survives != Survives::Nothing {
        assert_reopens(&stage, backend, &own, &rows).await;
    }
}

/// The largest number up to `limit` that pleases, where smaller ones do as well.
fn largest(limit: usize, pleases: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (0, limit + 1);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if pleases(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn own_format<B: ByteStore>(backend: &B) -> Format {
    Format {
        description: 1,
        codec: backend.codec().id().to_string(),
        key: "keys of the kit".to_string(),
        value: "values of the kit".to_string(),
    }
}

/// Neither sorted by number, nor by length.
fn row(n: u8) -> (Vec<u8>, Vec<u8>) {
    let key = [b"key ", &vec![n ^ 0x55; usize::from(n % 3) + 1][..]].concat();
    (key, vec![n; usize::from(n) * 10])
}

fn twenty() -> Entries {
    (0..20).map(row).collect()
}

fn insert<'a>(key: &'a [u8], value: &'a [u8]) -> ByteWrite<'a> {
    ByteWrite {
        key,
        value: Some(value),
    }
}

async fn store<B: ByteStore>(backend: &B, rows: &[(Vec<u8>, Vec<u8>)]) {
    let writes: Vec<ByteWrite<'_>> = rows.iter().map(|(key, value)| insert(key, value)).collect();
    let size = if backend.capabilities().atomic_batches {
        writes.len()
    } else {
        1
    };
    for batch in writes.chunks(size) {
        ok("apply", backend.apply(batch).await);
    }
}

/// A store with twenty rows, before it is loaded anew; `None` if it survives nothing.
async fn twenty_stored<F>(fixture: &F) -> Option<(Stage<'_, F>, F::Backend)>
where
    F: Fixture<Backend: ByteStore>,
{
    let stage = Stage::new(fixture);
    let backend = stage.open().await;
    let own = own_format(&backend);
    assert_loads("load of a new store", &backend, &own, &Entries::new()).await;
    let rows: Vec<_> = twenty().into_iter().collect();
    store(&backend, &rows).await;
    let volatile = backend.capabilities().survives == Survives::Nothing;
    ok("close", backend.close().await);
    drop(backend);
    if volatile {
        return None;
    }
    let backend = stage.open().await;
    Some((stage, backend))
}

async fn assert_loads<B: ByteStore>(what: &str, backend: &B, format: &Format, expected: &Entries) {
    let mut sink = Seen::default();
    ok(what, backend.load(format, &mut sink).await);
    sink.assert_are(what, expected);
}

async fn assert_reads_back<B: ByteStore>(what: &str, backend: &B, expected: &Entries) {
    let mut sink = Seen::default();
    ok(what, backend.read_back(&mut sink).await);
    sink.assert_are(what, expected);
}

async fn assert_copy<F>(stage: &Stage<'_, F>, format: &Format, expected: &Entries)
where
    F: Fixture<Backend: ByteStore>,
{
    let (_dir, backend) = stage.copied().await;
    assert_loads(IN_A_COPY, &backend, format, expected).await;
    ok("close", backend.close().await);
}

async fn assert_reopens<F>(
    stage: &Stage<'_, F>,
    backend: F::Backend,
    format: &Format,
    expected: &Entries,
) where
    F: Fixture<Backend: ByteStore>,
{
    ok("close", backend.close().await);
    drop(backend);
    let backend = stage.open().await;
    assert_loads(
        "load of the store, closed and opened again,",
        &backend,
        format,
        expected,
    )
    .await;
    ok("close", backend.close().await);
}

fn assert_mismatch(what: &str, result: &Result<()>) {
    assert!(
        matches!(result, Err(PersistentError::Mismatch { .. })),
        "{what} must answer Mismatch, and returned {result:?}"
    );
}

/// Collects rows, and may refuse them or have them set aside.
struct Seen {
    rows: Entries,
    set_aside: BTreeSet<Vec<u8>>,
    refuse_row: bool,
    refuse_end: bool,
    /// How many rows had come at each call of `finish`.
    finished: Vec<u64>,
    came: u64,
    in_order: bool,
    problem: Option<String>,
}

impl Default for Seen {
    fn default() -> Self {
        Seen {
            rows: Entries::new(),
            set_aside: BTreeSet::new(),
            refuse_row: false,
            refuse_end: false,
            finished: Vec::new(),
            came: 0,
            in_order: true,
            problem: None,
        }
    }
}

impl Seen {
    fn assert_are(&self, what: &str, expected: &Entries) {
        assert!(
            self.problem.is_none(),
            "{what} {}",
            self.problem.as_deref().unwrap_or_default()
        );
        for (key, value) in expected {
            let shown = Key(key);
            match self.rows.get(key) {
                None => panic!("{what} lacks the row of {shown}"),
                Some(found) => assert!(found == value, "{what} has another value for {shown}"),
            }
        }
        for key in self.rows.keys() {
            let shown = Key(key);
            assert!(
                expected.contains_key(key),
                "{what} has the row of {shown}, which should be gone"
            );
        }
    }
}

/// Its first bytes, and how many there are.
struct Key<'a>(&'a [u8]);

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(12)];
        write!(f, "the key of {} bytes ({shown:02x?})", self.0.len())
    }
}

impl RowSink for Seen {
    fn expect(&mut self, _: u64) {}

    fn row(&mut self, number: u64, key: &[u8], value: &[u8]) -> Result<RowVerdict> {
        if self.refuse_row {
            return Err(PersistentError::storage("loading", "the sink has refused"));
        }
        self.came += 1;
        self.in_order &= number == self.came;
        if self.rows.insert(key.to_vec(), value.to_vec()).is_some() {
            self.problem = Some(format!("gave {} twice", Key(key)));
        }
        Ok(if self.set_aside.contains(key) {
            RowVerdict::SetAside
        } else {
            RowVerdict::Loaded
        })
    }

    fn damaged(&mut self, number: u64, _: &[u8], reason: &str) -> Result<()> {
        self.problem = Some(format!("found row {number} damaged: {reason}"));
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.finished.push(self.came);
        if self.refuse_end {
            return Err(PersistentError::storage("loading", "the sink has refused"));
        }
        Ok(())
    }
}
