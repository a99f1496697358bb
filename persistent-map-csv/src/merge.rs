//! A checkpoint that is written while commits go on: by a thread with files of its own, aside, up to where whoever has the
//! store takes over.
//!
//! What was in the journal when it began comes into the new table, and what was committed since into a new journal beside
//! it. Nothing gets a name here.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use persistent_map_core::{PersistentError, Result};

use crate::checkpoint::{self, Plan, Rest, Source};
use crate::disk::{Claim, Disk, DiskFile, Running, Stamp};
use crate::journal::{self, Successor, aside};
use crate::settings::Settings;
use crate::store::{Table, damaged};
use crate::table::TableReader;

/// How much of a new table waits to be synced. A commit beside it would wait for all of that.
const UNSYNCED: u64 = 4 << 20;

/// How much of the journal may be left to copy while commits wait.
const LEFT: u64 = 128 << 10;

/// How often to come after commits that go on meanwhile.
const ROUNDS: usize = 8;

/// A merge on its way. Dropped, it ends soon, and the path stays claimed until it has.
pub(crate) struct Merge {
    job: Arc<Job>,
    progress: Arc<Progress>,
    running: Option<Box<dyn Running>>,
    result: Receiver<Result<Merged>>,
}

/// What a merge works on, and how far it shall go.
pub(crate) struct Job {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) claim: Arc<Claim>,
    pub(crate) settings: Settings,
    pub(crate) table: Option<Table>,
    pub(crate) journal: PathBuf,
    /// The journal's number, and where it ended when the merge began.
    pub(crate) number: u64,
    pub(crate) end: u64,
}

/// What is complete and durable aside.
pub(crate) struct Merged {
    pub(crate) table: Table,
    /// What the old table was before it was read.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) successor: Successor,
}

struct Progress {
    stop: AtomicBool,
    /// Bytes of good frames in the journal.
    good: AtomicU64,
}

impl Merge {
    pub(crate) fn begin(job: Job) -> io::Result<Self> {
        let progress = Arc::new(Progress {
            stop: AtomicBool::new(false),
            good: AtomicU64::new(job.end),
        });
        let (sender, result) = channel();
        let job = Arc::new(job);
        let (task, shared) = (Arc::clone(&job), Arc::clone(&progress));
        let work = move || {
            let merged = task.run(&shared);
            if merged.is_err() || shared.is_stopped() {
                task.clear_up();
            }
            let _ = sender.send(merged);
            // The lock goes with it, so this comes last.
            drop(task);
        };
        let running = job.disk.begin(Box::new(work))?;
        Ok(Merge {
            job,
            progress,
            running: Some(running),
            result,
        })
    }

    /// Tells it how long the journal has become.
    pub(crate) fn reached(&self, good: u64) {
        self.progress.good.store(good, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.running
            .as_ref()
            .is_none_or(|running| running.is_finished())
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Merged> {
        self.wait();
        self.result.try_recv().unwrap_or_else(|_| {
            let error = io::Error::other("the thread that did it has panicked");
            Err(PersistentError::storage("merging a table", error))
        })
    }

    /// Ends it, whatever it has come to.
    pub(crate) fn give_up(mut self) {
        self.progress.stop.store(true, Ordering::Release);
        self.wait();
        self.job.clear_up();
    }

    fn wait(&mut self) {
        if let Some(running) = self.running.take() {
            running.wait();
        }
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Release);
    }
}

impl Progress {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl Job {
    fn run(&self, progress: &Arc<Progress>) -> Result<Merged> {
        let path = &self.claim.path;
        let mut journal = self.open(&self.journal, progress)?;
        let replay = journal::replay_to(&mut *journal, self.end)
            .map_err(|fault| damaged(&self.journal, fault))?
            .filter(|replay| replay.number == self.number && replay.good == self.end)
            .ok_or_else(|| {
                let error = io::Error::other("somebody else has changed it");
                failed("reading", &self.journal, error)
            })?;
        let (mut stamp, mut source) = (None, None);
        if let Some(table) = &self.table {
            let mut file = self.open(path, progress)?;
            stamp = Some(
                file.stamp()
                    .map_err(|error| failed("reading", path, error))?,
            );
            let reader = TableReader::open(path, file, &self.settings)?;
            source = Some(Source { reader, table });
        }
        let shape = replay
            .shape
            .as_ref()
            .or(self.table.as_ref().map(|table| &table.head.shape))
            .ok_or_else(|| {
                let error = io::Error::other("there are no columns yet");
                failed("writing", path, error)
            })?;
        let file = self
            .disk
            .create(&aside(path), path)
            .map_err(|error| failed("writing", path, error))?;
        let plan = Plan {
            shape,
            changes: replay.changes,
            cells: Some(&mut journal),
            rest: Rest::Stays {
                except: &HashSet::new(),
            },
        };
        let file = Watched::boxed(file, progress);
        let table = checkpoint::write(file, path, source, plan, &self.settings)?;
        let successor = Successor::begin(
            &*self.disk,
            &self.journal,
            self.settings.sync,
            table.print,
            replay.shape.as_ref(),
            self.end,
        )
        .and_then(|successor| self.come_after(successor, &mut *journal, progress))
        .map_err(|error| failed("writing the journal of", path, error))?;
        Ok(Merged {
            table,
            stamp,
            successor,
        })
    }

    /// Copies what was committed since.
    fn come_after(
        &self,
        mut successor: Successor,
        journal: &mut dyn DiskFile,
        progress: &Progress,
    ) -> io::Result<Successor> {
        for _ in 0..ROUNDS {
            let good = progress.good.load(Ordering::Acquire);
            successor.copy(journal, self.number, good)?;
            successor.sync()?;
            if progress.good.load(Ordering::Acquire) - good <= LEFT {
                break;
            }
        }
        Ok(successor)
    }

    fn open(&self, path: &Path, progress: &Arc<Progress>) -> Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path).and_then(|file| {
            let file = file.ok_or(ErrorKind::NotFound)?;
            Ok(Watched::boxed(file, progress))
        });
        file.map_err(|error| failed("reading", path, error))
    }

    fn clear_up(&self) {
        clear_up(&*self.disk, &self.claim.path, &self.journal);
    }
}

/// Removes what a merge has written aside.
pub(crate) fn clear_up(disk: &dyn Disk, table: &Path, journal: &Path) {
    for path in [table, journal] {
        let _ = disk.remove(&aside(path));
    }
}

/// A file for as long as the merge is wanted, and of which not much is unsynced.
struct Watched {
    file: Box<dyn DiskFile>,
    progress: Arc<Progress>,
    unsynced: u64,
}

impl Watched {
    fn boxed(file: Box<dyn DiskFile>, progress: &Arc<Progress>) -> Box<dyn DiskFile> {
        Box::new(Watched {
            file,
            progress: Arc::clone(progress),
            unsynced: 0,
        })
    }

    fn check(&self) -> io::Result<()> {
        if self.progress.is_stopped() {
            return Err(io::Error::other("it is not wanted any more"));
        }
        Ok(())
    }
}

impl DiskFile for Watched {
    fn size(&mut self) -> io::Result<u64> {
        self.file.size()
    }

    fn stamp(&mut self) -> io::Result<Stamp> {
        self.file.stamp()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write_at(offset, bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= UNSYNCED {
            self.sync()?;
        }
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.file.sync()?;
        self.unsynced = 0;
        Ok(())
    }
}

fn failed(doing: &str, path: &Path, error: io::Error) -> PersistentError {
    PersistentError::storage(format!("{doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::sync::{Condvar, Mutex};
    use std::thread;
    use std::time::Duration;

    use persistent_map_core::PersistentMap;
    use tempfile::TempDir;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::backend::CsvBackend;
    use crate::disk::OsDisk;
    use crate::store::BEHIND;

    const FLOOR: u64 = 4000;

    type Map = PersistentMap<u32, String, CsvBackend>;

    /// How far a merge may go, and has come.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Stage {
        Nowhere,
        /// It has opened the table, and is about to write.
        Writing,
        Ended,
    }

    /// The real disk, on which merges wait for a test.
    #[derive(Clone)]
    struct Held {
        is_panicking: bool,
        stages: Arc<(Mutex<(Stage, Stage)>, Condvar)>,
    }

    impl Held {
        fn new() -> Self {
            let stages = Mutex::new((Stage::Nowhere, Stage::Nowhere));
            Held {
                is_panicking: false,
                stages: Arc::new((stages, Condvar::new())),
            }
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
            OsDisk.open(path)
        }

        fn create(&self, path: &Path, like: &Path) -> io::Result<Box<dyn DiskFile>> {
            if thread::current().name() == Some("persistent-map-csv") {
                self.come_to(Stage::Writing);
            }
            OsDisk.create(path, like)
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
            OsDisk.begin(Box::new(move || {
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
        let mut number = first;
        while !held.has_come_to(stage) {
            assert!(number < 10_000, "no merge begins, or none ends");
            map.insert(number, value(number)).await.unwrap();
            number += 1;
            tokio::task::yield_now().await;
        }
        number
    }

    fn names(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    async fn assert_has(path: &Path, count: u32) {
        let map = PersistentMap::<u32, String, _>::new(CsvBackend::new(path))
            .await
            .unwrap();
        let found: HashMap<_, _> = map.iter().collect();
        assert_eq!(found, (0..count).map(|key| (key, value(key))).collect());
        map.close().await.unwrap();
        assert_eq!(names(path), ["t.csv", "t.csv.lock"]);
    }

    #[tokio::test]
    async fn commits_go_on_while_a_table_is_written() {
        let ((_dir, path), held) = (table(), Held::new());
        let map = open(&held, &path).await.unwrap();
        let begun = insert_until(&map, &held, Stage::Writing, 0).await;
        for number in begun..begun + 10 {
            map.insert(number, value(number)).await.unwrap();
        }
        assert!(!path.exists());
        let journal = path.with_extension("csv.journal");
        let before = fs::metadata(&journal).unwrap().len();

        held.let_go();
        let count = insert_until(&map, &held, Stage::Ended, begun + 10).await;
        thread::sleep(Duration::from_millis(50));
        map.insert(count, value(count)).await.unwrap();
        assert!(path.exists(), "the next commit puts the table in its place");
        assert!(
            fs::metadata(&journal).unwrap().len() < before,
            "what is merged is in the journal still"
        );
        drop(map);
        assert_has(&path, count + 1).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_tasks_write_through_many_merges() {
        let (_dir, path) = table();
        let map: Map = PersistentMap::new(CsvBackend::new(&path).merge_after(FLOOR))
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
        assert_has(&path, 2000).await;
    }

    #[tokio::test]
    async fn a_merge_that_is_slow_is_waited_for() {
        let ((_dir, path), held) = (table(), Held::new());
        let map = open(&held, &path).await.unwrap();
        let begun = insert_until(&map, &held, Stage::Writing, 0).await;
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
        assert_has(&path, 200).await;
    }

    #[tokio::test]
    async fn flush_does_not_wait_for_a_merge_to_be_complete() {
        let ((_dir, path), held) = (table(), Held::new());
        let map = open(&held, &path).await.unwrap();
        let count = insert_until(&map, &held, Stage::Writing, 0).await;
        held.let_go_soon();
        map.flush().await.unwrap();
        assert_eq!(names(&path), ["t.csv", "t.csv.lock"]);
        assert_eq!(
            fs::read_to_string(&path).unwrap().lines().count(),
            count as usize + 1
        );
        map.insert(count, value(count)).await.unwrap();
        drop(map);
        assert_has(&path, count + 1).await;
    }

    #[test]
    fn a_map_that_is_dropped_keeps_its_path_until_its_merge_has_ended() {
        let ((_dir, path), held) = (table(), Held::new());
        let runtime = Runtime::new().unwrap();
        let count = runtime.block_on(async {
            let map = open(&held, &path).await.unwrap();
            insert_until(&map, &held, Stage::Writing, 0).await
        });
        drop(runtime);
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let refused = open(&held, &path).await.unwrap_err();
            assert!(
                matches!(refused, PersistentError::InUse { .. }),
                "{refused}"
            );
            held.let_go_soon();
            assert_has(&path, count).await;
        });
    }

    #[tokio::test]
    async fn a_table_that_is_edited_while_it_is_merged_is_not_overwritten() {
        let ((_dir, path), held) = (table(), Held::new());
        fs::write(&path, "key,value\n0,\n").unwrap();
        let map = open(&held, &path).await.unwrap();
        insert_until(&map, &held, Stage::Writing, 0).await;
        // As editors do it: the merge has the old file open.
        let edited = path.with_extension("edited");
        fs::write(&edited, "key,value\n0,edited\n").unwrap();
        fs::rename(&edited, &path).unwrap();
        held.let_go();
        let count = insert_until(&map, &held, Stage::Ended, 1000).await;
        thread::sleep(Duration::from_millis(50));
        map.insert(count, value(count)).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "key,value\n0,edited\n");
        let refused = map.flush().await.unwrap_err().to_string();
        assert!(refused.contains("changed by somebody else"), "{refused}");
    }

    #[tokio::test]
    async fn a_panic_in_a_merge_is_a_failed_merge() {
        let ((_dir, path), mut held) = (table(), Held::new());
        held.is_panicking = true;
        let map = open(&held, &path).await.unwrap();
        let count = insert_until(&map, &held, Stage::Ended, 0).await;
        for number in count..200 {
            map.insert(number, value(number)).await.unwrap();
        }
        map.flush().await.unwrap();
        assert_eq!(names(&path), ["t.csv", "t.csv.lock"]);
        drop(map);
        assert_has(&path, 200).await;
    }
}
