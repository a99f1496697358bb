//! Merges that wait for a test, on the real disk.

use std::collections::HashMap;
use std::fs;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use persistent_map_core::{Outcome, PersistentMap};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::backend::CsvBackend;
use crate::disk::OsDisk;
use crate::store::BEHIND;

const FLOOR: u64 = 4000;

/// What each test has, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

type Map = PersistentMap<u32, String, CsvBackend>;

/// How far a merge may go, and has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Nowhere,
    /// It has opened the table, and is about to write.
    Writing,
    Ended,
}

/// The real disk, on which merges wait for a test.
#[derive(Debug, Clone)]
struct Held {
    is_panicking: bool,
    /// How far merges may go, and have come.
    stages: Arc<(Mutex<(Stage, Stage)>, Condvar)>,
    /// Merges that have begun and not ended.
    at_work: Arc<AtomicUsize>,
    /// Somebody wrote aside while a merge could.
    has_clashed: Arc<AtomicBool>,
    /// The next sync of a file outside of merges fails.
    fails: Arc<AtomicBool>,
    /// What the test is about to do.
    step: Arc<Mutex<String>>,
}

impl Held {
    fn new() -> Self {
        let stages = Mutex::new((Stage::Nowhere, Stage::Nowhere));
        Held {
            is_panicking: false,
            stages: Arc::new((stages, Condvar::new())),
            at_work: Arc::default(),
            has_clashed: Arc::default(),
            fails: Arc::default(),
            step: Arc::default(),
        }
    }

    fn step(&self, step: &str) {
        *self.step.lock().unwrap() = step.to_string();
    }

    /// Merges may go on from here.
    fn let_go(&self) {
        self.stages.0.lock().unwrap().0 = Stage::Ended;
        self.stages.1.notify_all();
    }

    fn let_go_soon(&self) {
        let held = self.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            held.let_go();
        });
    }

    /// Waits until no merge is at work.
    fn wait_until_idle(&self) {
        while self.at_work.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_come_to(&self, stage: Stage) -> bool {
        self.stages.0.lock().unwrap().1 >= stage
    }

    /// In the thread of a merge: tells that it is here.
    fn come_to(&self, stage: Stage) {
        let mut stages = self.stages.0.lock().unwrap();
        stages.1 = stage;
        if stage == Stage::Writing {
            drop(
                self.stages
                    .1
                    .wait_while(stages, |(may, _)| *may < stage)
                    .unwrap(),
            );
        }
    }
}

impl Disk for Held {
    fn claim(&self, path: &Path) -> Result<Claim> {
        OsDisk.claim(path)
    }

    fn open(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        Ok(OsDisk.open(path)?.map(|file| self.file(file)))
    }

    fn create(&self, path: &Path, like: &Path) -> io::Result<Box<dyn DiskFile>> {
        if is_of_a_merge() {
            self.come_to(Stage::Writing);
        } else if path
            .extension()
            .is_some_and(|end| end == "persistent-map-new")
            && self.at_work.load(Ordering::SeqCst) > 0
        {
            self.has_clashed.store(true, Ordering::SeqCst);
        }
        Ok(self.file(OsDisk.create(path, like)?))
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        OsDisk.identity(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn sync_names(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_names(path)
    }

    fn begin(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>> {
        let held = self.clone();
        let at_work = AtWork::begin(&self.at_work);
        OsDisk.begin(Box::new(move || {
            let _at_work = at_work;
            if held.is_panicking {
                held.come_to(Stage::Ended);
                panic!("on purpose");
            }
            work();
            held.come_to(Stage::Ended);
        }))
    }

    fn close(&self, files: Vec<Box<dyn DiskFile>>) {
        OsDisk.close(files);
    }
}

impl Held {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let fails = Arc::clone(&self.fails);
        Box::new(FailingFile { file, fails })
    }
}

fn is_of_a_merge() -> bool {
    thread::current().name() == Some("persistent-map-csv")
}

/// Counts a merge until it has ended, in whatever way.
struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        AtWork(Arc::clone(count))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct FailingFile {
    file: Box<dyn DiskFile>,
    fails: Arc<AtomicBool>,
}

impl DiskFile for FailingFile {
    fn size(&mut self) -> io::Result<u64> {
        self.file.size()
    }

    fn stamp(&mut self) -> io::Result<Stamp> {
        self.file.stamp()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        if !is_of_a_merge() && self.fails.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("an input/output error"));
        }
        self.file.sync()
    }
}

/// Runs a test in a thread, and fails if it has not ended in time, with where it stands.
fn in_time(test: impl FnOnce(&Held, &Path) + Send + 'static) {
    let ((_dir, path), held) = (table(), Held::new());
    let theirs = held.clone();
    let (done, ended) = channel();
    let running = thread::spawn(move || {
        test(&theirs, &path);
        let _ = done.send(());
    });
    assert_ne!(
        ended.recv_timeout(LIMIT),
        Err(RecvTimeoutError::Timeout),
        "not ended after {LIMIT:?}: {held:?}"
    );
    if let Err(panic) = running.join() {
        resume_unwind(panic);
    }
    assert!(
        !held.has_clashed.load(Ordering::SeqCst),
        "somebody wrote aside while a merge was at work"
    );
}

/// The same for a test in a runtime.
fn in_time_async(test: impl AsyncFnOnce(&Held, &Path) + Send + 'static) {
    in_time(|held, path| runtime().block_on(test(held, path)));
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(4).enable_all().build().unwrap()
}

fn table() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    (dir, path)
}

async fn open(held: &Held, path: &Path) -> Result<Map> {
    let backend = CsvBackend::on(Arc::new(held.clone()), path.to_path_buf());
    PersistentMap::new(backend.merge_after(FLOOR)).await
}

fn value(number: u32) -> String {
    format!("{number}: {}", "text, ".repeat(20))
}

/// Inserts until a merge has come so far. Returns how many entries there are.
async fn insert_until(map: &Map, held: &Held, stage: Stage, first: u32) -> u32 {
    held.step(&format!("inserting until a merge is {stage:?}"));
    let mut number = first;
    while !held.has_come_to(stage) {
        assert!(number < 10_000, "no merge begins, or none ends");
        map.insert(number, value(number)).await.unwrap();
        number += 1;
        tokio::task::yield_now().await;
    }
    number
}

/// How many of the values are in a journal.
fn rows_in(journal: &[u8]) -> usize {
    let text = String::from_utf8_lossy(journal);
    text.matches(&"text, ".repeat(20)).count()
}

fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The owner before may have been dropped, and take its time.
async fn assert_has(path: &Path, count: u32) {
    let map = loop {
        match PersistentMap::<u32, String, _>::new(CsvBackend::new(path)).await {
            Err(PersistentError::InUse { .. }) => {}
            opened => break opened.unwrap(),
        }
    };
    let found: HashMap<_, _> = map.iter().collect();
    assert_eq!(found, (0..count).map(|key| (key, value(key))).collect());
    map.close().await.unwrap();
    assert_eq!(names(path), ["t.csv", "t.csv.lock"]);
}

#[test]
fn commits_go_on_while_a_table_is_written() {
    in_time_async(async |held, path| {
        let map = open(held, path).await.unwrap();
        let begun = insert_until(&map, held, Stage::Writing, 0).await;
        for number in begun..begun + 10 {
            map.insert(number, value(number)).await.unwrap();
        }
        assert!(!path.exists());

        held.let_go();
        let mut count = insert_until(&map, held, Stage::Ended, begun + 10).await;
        held.step("inserting until a commit puts the table in its place");
        while !path.exists() {
            map.insert(count, value(count)).await.unwrap();
            count += 1;
        }
        // How many commits went on beside the merge, and are in the journal, is up to the disk.
        let journal = fs::read(path.with_extension("csv.journal")).unwrap();
        let (left, merged) = (rows_in(&journal), usize::try_from(FLOOR).unwrap() / 200);
        assert!(
            left + merged <= count as usize,
            "of {count} rows, {merged} and more were merged, and {left} are in the journal still"
        );
        drop(map);
        assert_has(path, count).await;
    });
}

#[test]
fn many_tasks_write_through_many_merges() {
    in_time_async(async |_, path| {
        let map: Map = PersistentMap::new(CsvBackend::new(path).merge_after(FLOOR))
            .await
            .unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let map = map.clone();
                tokio::spawn(async move {
                    for number in (task..2000).step_by(16) {
                        map.insert(number, "replaced".to_string()).await.unwrap();
                        map.insert(number, value(number)).await.unwrap();
                        map.insert(number + 10_000, value(number)).await.unwrap();
                        map.remove(&(number + 10_000)).await.unwrap();
                        if number == 1001 {
                            map.flush().await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        map.verify().await.unwrap();
        drop(map);
        assert_has(path, 2000).await;
    });
}

#[test]
fn a_merge_that_is_slow_is_waited_for() {
    in_time_async(async |held, path| {
        let map = open(held, path).await.unwrap();
        let begun = insert_until(&map, held, Stage::Writing, 0).await;
        let waiting = async {
            for number in begun..200 {
                map.insert(number, value(number)).await.unwrap();
            }
        };
        let journal = path.with_extension("csv.journal");
        let watching = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let bytes = fs::metadata(&journal).unwrap().len();
            held.let_go();
            bytes
        };
        let ((), bytes) = tokio::join!(waiting, watching);
        assert!(bytes <= (BEHIND + 1) * FLOOR, "{bytes} bytes");
        drop(map);
        assert_has(path, 200).await;
    });
}

#[test]
fn flush_does_not_wait_for_a_merge_to_be_complete() {
    in_time_async(async |held, path| {
        let map = open(held, path).await.unwrap();
        let count = insert_until(&map, held, Stage::Writing, 0).await;
        held.let_go_soon();
        map.flush().await.unwrap();
        assert_eq!(names(path), ["t.csv", "t.csv.lock"]);
        assert_eq!(
            fs::read_to_string(path).unwrap().lines().count(),
            count as usize + 1
        );
        map.insert(count, value(count)).await.unwrap();
        drop(map);
        assert_has(path, count + 1).await;
    });
}

/// Its writer may have begun to close the table, which waits for the merge; the end of the runtime waits for neither.
#[test]
fn a_map_that_is_dropped_keeps_its_path_until_its_merge_has_ended() {
    for is_closing in [false, true] {
        in_time(move |held, path| {
            let first = runtime();
            let count = first.block_on(async {
                let map = open(held, path).await.unwrap();
                insert_until(&map, held, Stage::Writing, 0).await
            });
            if is_closing {
                thread::sleep(Duration::from_millis(200));
            }
            held.step("dropping the runtime");
            drop(first);
            runtime().block_on(async {
                held.step("opening while the merge is held");
                let refused = open(held, path).await.unwrap_err();
                assert!(
                    matches!(refused, PersistentError::InUse { .. }),
                    "{refused}"
                );
                held.let_go();
                held.step("opening after the merge was let go");
                assert_has(path, count).await;
            });
        });
    }
}

/// Who goes on after a failed sync needs the files to itself, whether the merge is in the middle of them or has just ended.
#[test]
fn a_commit_whose_sync_fails_ends_the_merge_beside_it() {
    for stage in [Stage::Writing, Stage::Ended] {
        in_time_async(async move |held, path| {
            let map = open(held, path).await.unwrap();
            let mut count = insert_until(&map, held, Stage::Writing, 0).await;
            held.let_go_soon();
            if stage == Stage::Ended {
                held.wait_until_idle();
            }
            held.step("failing");
            held.fails.store(true, Ordering::SeqCst);
            let failed = map.insert(count, value(count)).await.unwrap_err();
            assert_eq!(failed.outcome(), Outcome::NotApplied, "{failed}");
            assert_eq!(held.at_work.load(Ordering::SeqCst), 0);

            held.step("going on");
            let aside = journal::aside(&path.with_extension("csv.journal"));
            assert!(!aside.exists(), "a merge that was given up is there still");
            for _ in 0..5 {
                map.insert(count, value(count)).await.unwrap();
                count += 1;
            }
            map.verify().await.unwrap();
            drop(map);
            assert_has(path, count).await;
        });
    }
}

#[test]
fn a_table_that_is_edited_while_it_is_merged_is_not_overwritten() {
    in_time_async(async |held, path| {
        fs::write(path, "key,value\n0,\n").unwrap();
        let map = open(held, path).await.unwrap();
        insert_until(&map, held, Stage::Writing, 0).await;
        // As editors do it: the merge has the old file open.
        let edited = path.with_extension("edited");
        fs::write(&edited, "key,value\n0,edited\n").unwrap();
        fs::rename(&edited, path).unwrap();
        held.let_go();
        let count = insert_until(&map, held, Stage::Ended, 1000).await;
        thread::sleep(Duration::from_millis(50));
        map.insert(count, value(count)).await.unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text, "key,value\n0,edited\n");
        let refused = map.flush().await.unwrap_err().to_string();
        assert!(refused.contains("changed by somebody else"), "{refused}");
    });
}

#[test]
fn a_panic_in_a_merge_is_a_failed_merge() {
    in_time_async(async |held, path| {
        let mut held = held.clone();
        held.is_panicking = true;
        let held = &held;
        let map = open(held, path).await.unwrap();
        let count = insert_until(&map, held, Stage::Ended, 0).await;
        for number in count..200 {
            map.insert(number, value(number)).await.unwrap();
        }
        map.flush().await.unwrap();
        assert_eq!(names(path), ["t.csv", "t.csv.lock"]);
        drop(map);
        assert_has(path, 200).await;
    });
}
