//! What behaviours are played on: a directory, the store in it, and the comparisons at the end.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use persistent_map_core::{
    CorruptRow, Key, LoadSink, PersistentError, PersistentMap, Result, StorageBackend, Survives,
    Value, Write, WriteMode,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::sample::Sample;

pub(crate) fn key<F: Fixture>(n: u64) -> F::Key {
    F::Key::sample(n)
}

pub(crate) fn value<F: Fixture>(n: u64) -> F::Value {
    F::Value::sample(n)
}

/// The entries of these numbers.
pub(crate) fn entries<F: Fixture>(numbers: impl IntoIterator<Item = (u64, u64)>) -> Entries<F> {
    let pairs = numbers.into_iter();
    pairs.map(|(k, v)| (key::<F>(k), value::<F>(v))).collect()
}

pub(crate) type Entries<F> = HashMap<<F as Fixture>::Key, <F as Fixture>::Value>;
pub(crate) type MapOf<F> =
    PersistentMap<<F as Fixture>::Key, <F as Fixture>::Value, <F as Fixture>::Backend>;

/// A directory, and the store that lives in it.
pub(crate) struct Stage<'a, F> {
    fixture: &'a F,
    dir: TempDir,
}

impl<'a, F: Fixture> Stage<'a, F> {
    pub(crate) fn new(fixture: &'a F) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Stage { fixture, dir }
    }

    /// A backend before its first call.
    pub(crate) async fn open(&self) -> F::Backend {
        ok("open", self.fixture.open(self.dir.path()).await)
    }

    /// A backend that may be written to: `load` comes before anything else.
    pub(crate) async fn loaded(&self) -> F::Backend {
        let backend = self.open().await;
        ok("load", backend.load(&mut Collect::default()).await);
        backend
    }

    /// Opens the store beside whoever has it, and loads it.
    pub(crate) async fn intrude(&self) -> Result<()> {
        let backend = self.fixture.open(self.dir.path()).await?;
        backend.load(&mut Collect::default()).await
    }

    pub(crate) async fn map(&self) -> MapOf<F> {
        ok("opening a map", PersistentMap::new(self.open().await).await)
    }

    pub(crate) async fn map_in(&self, mode: WriteMode) -> MapOf<F> {
        let builder = PersistentMap::builder(self.open().await);
        ok("opening a map", builder.write_mode(mode).open().await)
    }

    /// What the next owner finds.
    pub(crate) async fn reopened(&self) -> Entries<F> {
        self.found_in(self.dir.path()).await
    }

    async fn found_in(&self, dir: &Path) -> Entries<F> {
        let backend = ok("reopen", self.fixture.open(dir).await);
        let entries = ok("load_all", backend.load_all().await);
        ok("close", backend.close().await);
        entries
    }

    /// How long it takes to open and load the store.
    pub(crate) async fn time_to_reopen(&self) -> Duration {
        let started = Instant::now();
        let backend = self.loaded().await;
        let elapsed = started.elapsed();
        ok("close", backend.close().await);
        elapsed
    }

    /// The same for a store whose owner may still be closing.
    pub(crate) async fn reopened_when_free(&self) -> Entries<F> {
        for _ in 0..50 {
            if let Ok(backend) = self.fixture.open(self.dir.path()).await {
                let entries = backend.load_all().await;
                let closed = backend.close().await;
                if let (Ok(entries), Ok(())) = (entries, closed) {
                    return entries;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the store of a dropped map was not given back within 5 seconds");
    }

    /// A backend on a copy of the files, made now.
    pub(crate) async fn copied(&self) -> (TempDir, F::Backend) {
        let (dir, image) = self.crashed();
        let backend = ok(
            "opening a copy of the files",
            self.fixture.open(&image).await,
        );
        (dir, backend)
    }

    fn crashed(&self) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let image = dir.path().join("image");
        let copied = self.fixture.crash(self.dir.path(), &image);
        copied.expect("a copy of the store");
        (dir, image)
    }

    pub(crate) async fn crash_and_expect(
        &self,
        backend: &F::Backend,
        expected: impl IntoIterator<Item = (u64, u64)>,
    ) {
        let (_dir, image) = self.crashed();
        let found = self.found_in(&image).await;
        assert_holds::<F>(IN_A_COPY, backend, &found, expected);
    }

    pub(crate) async fn close_and_expect(
        &self,
        backend: F::Backend,
        expected: impl IntoIterator<Item = (u64, u64)>,
    ) {
        ok("close", backend.close().await);
        assert_holds::<F>(REOPENED, &backend, &self.reopened().await, expected);
    }

    /// What would be left if the process were killed now.
    pub(crate) async fn crash_image(&self) -> Entries<F> {
        let (_dir, image) = self.crashed();
        self.found_in(&image).await
    }

    pub(crate) async fn crash_and_compare(&self, map: &MapOf<F>) {
        let (_dir, image) = self.crashed();
        assert_as_in_memory::<F>(IN_A_COPY, map, &self.found_in(&image).await);
    }

    pub(crate) async fn close_and_compare(&self, map: MapOf<F>) {
        ok("close", map.close().await);
        self.compare_reopened(&map).await;
    }

    pub(crate) async fn compare_reopened(&self, map: &MapOf<F>) {
        assert_as_in_memory::<F>(REOPENED, map, &self.reopened().await);
    }
}

/// Said of a crash image.
pub(crate) const IN_A_COPY: &str =
    "the store, in a copy of its files made right after the last call had answered `Ok`,";
const REOPENED: &str = "the store, closed and opened again,";

/// Compares with pairs of key and value numbers; a store that survives nothing must be empty.
pub(crate) fn assert_stored<F: Fixture>(
    backend: &F::Backend,
    found: &Entries<F>,
    expected: impl IntoIterator<Item = (u64, u64)>,
) {
    assert_holds::<F>(REOPENED, backend, found, expected);
}

fn assert_holds<F: Fixture>(
    what: &str,
    backend: &F::Backend,
    found: &Entries<F>,
    expected: impl IntoIterator<Item = (u64, u64)>,
) {
    let expected: Entries<F> = if backend.capabilities().survives == Survives::Nothing {
        HashMap::new()
    } else {
        entries::<F>(expected)
    };
    assert_same(what, found, &expected);
}

/// How many entries `verify` has compared, or which of them differ.
pub(crate) async fn verified<F: Fixture>(map: &MapOf<F>) -> u64 {
    told_apart::<F, _>("verify", map, map.verify().await).await
}

/// What a call gave that compares the map with its store. If they differ, the message names an entry.
pub(crate) async fn told_apart<F: Fixture, T>(doing: &str, map: &MapOf<F>, result: Result<T>) -> T {
    if let Err(PersistentError::NotAsWritten { .. }) = result {
        let mut sink = Collect::default();
        ok("read_back", map.backend().read_back(&mut sink).await);
        sink.assert_clean("read_back");
        let what = format!("read_back, compared with memory after {doing} had failed,");
        assert_same(&what, &sink.entries, &map.iter().collect());
    }
    ok(doing, result)
}

fn assert_as_in_memory<F: Fixture>(what: &str, map: &MapOf<F>, found: &Entries<F>) {
    let memory: Entries<F> = if map.capabilities().survives == Survives::Nothing {
        HashMap::new()
    } else {
        map.iter().collect()
    };
    assert_same(&format!("{what} compared with memory,"), found, &memory);
}

/// Collects what a backend loads, and may refuse.
pub(crate) struct Collect<K, V> {
    pub(crate) entries: HashMap<K, V>,
    pub(crate) twice: Option<K>,
    pub(crate) corrupt: Vec<CorruptRow>,
    pub(crate) expected: Option<u64>,
    pub(crate) refuse_after: Option<usize>,
    pub(crate) refuse_at_the_end: bool,
    /// How many entries had come at each call of `finish`.
    pub(crate) finished: Vec<usize>,
}

impl<K: std::fmt::Debug, V> Collect<K, V> {
    /// No key twice, and no row that cannot be read.
    pub(crate) fn assert_clean(&self, doing: &str) {
        let (twice, corrupt) = (&self.twice, &self.corrupt);
        assert!(twice.is_none(), "{doing} gave the key {twice:?} twice");
        assert!(
            corrupt.is_empty(),
            "{doing} found good rows corrupt: {corrupt:?}"
        );
    }
}

impl<K, V> Default for Collect<K, V> {
    fn default() -> Self {
        Collect {
            entries: HashMap::new(),
            twice: None,
            corrupt: Vec::new(),
            expected: None,
            refuse_after: None,
            refuse_at_the_end: false,
            finished: Vec::new(),
        }
    }
}

impl<K, V> LoadSink<K, V> for Collect<K, V>
where
    K: Eq + Hash + Clone + Send,
    V: Send,
{
    fn expect(&mut self, entries: u64) {
        self.expected = Some(entries);
    }

    fn entry_if_new(&mut self, key: K, value: V) -> Result<bool> {
        if self.refuse_after == Some(self.entries.len()) {
            return Err(PersistentError::storage("loading", "the sink has refused"));
        }
        if self.entries.contains_key(&key) {
            return Ok(false);
        }
        self.entries.insert(key, value);
        Ok(true)
    }

    fn entry(&mut self, key: K, value: V) -> Result<()> {
        if !self.entry_if_new(key.clone(), value)? {
            self.twice = Some(key);
        }
        Ok(())
    }

    fn corrupt(&mut self, row: CorruptRow) -> Result<()> {
        self.corrupt.push(row);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.finished.push(self.entries.len());
        if self.refuse_at_the_end {
            return Err(PersistentError::storage("loading", "the sink has refused"));
        }
        Ok(())
    }
}

pub(crate) fn prepared<K, V, B>(backend: &B, write: Write<K, V>) -> Write<K, V>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
{
    ok("prepare", write.prepared_by(backend))
}

pub(crate) fn ok<T>(doing: &str, result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{doing} failed: {error}"),
    }
}

pub(crate) fn assert_unsupported(doing: &str, result: &Result<()>) {
    assert!(
        matches!(result, Err(PersistentError::Unsupported { .. })),
        "{doing} must answer Unsupported, and returned {result:?}"
    );
}

/// Names the first difference, not both maps.
pub(crate) fn assert_same<K, V>(what: &str, found: &HashMap<K, V>, expected: &HashMap<K, V>)
where
    K: Eq + Hash + std::fmt::Debug,
    V: PartialEq,
{
    for (key, value) in expected {
        match found.get(key) {
            None => panic!("{what} lacks the key {key:?}"),
            Some(other) => assert!(
                other == value,
                "{what} has another value for the key {key:?}"
            ),
        }
    }
    for key in found.keys() {
        assert!(
            expected.contains_key(key),
            "{what} has the key {key:?}, which should be gone"
        );
    }
}

pub(crate) async fn join(mut tasks: JoinSet<()>) {
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
