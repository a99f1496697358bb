//! Backends with one bug each: the kit must find every one, and by the right behaviour.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use persistent_map_core::{
    Capabilities, Encoded, LoadSink, PersistentError, Result, StorageBackend, Write,
};
use persistent_map_testkit::{
    Disk, Fixture, Odd, Sample as _, a_closed_store_can_be_reopened_at_once, check_all,
    what_is_accepted_comes_back,
};

/// What is wrong with the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// `delete` answers `Ok` and does nothing.
    DropsADelete,
    /// `Ok` comes when the write is in a buffer; `flush` and `close` store it.
    AcknowledgesBeforeTheCommit,
    /// A batch is applied from its end.
    LosesOrder,
    /// A batch is applied a piece at a time, and can be interrupted.
    HalfAppliesABatch,
    /// `load` leaves out the first row, as if it could not be read.
    LiesInLoad,
    /// `load` goes on when its sink refuses a row.
    SwallowsTheSinksError,
    /// A load that has failed is taken for one that goes on.
    LoadsOnce,
    /// Saving an existing key keeps the old value.
    KeepsTheOldValue,
    /// `clear` forgets to remove what is stored.
    ClearsNothing,
    /// Batches are declared and refused.
    PromisesBatches,
    /// `read_back` gives what was there at `load`.
    ReadsBackWhatWasLoaded,
    /// `read_back` goes on when its sink refuses a row.
    ReadsBackInSpiteOfTheSink,
    /// `replace` removes everything first, and can be interrupted before it writes.
    ReplacesInTwoSteps,
    /// `replace` leaves entries that are not among the new ones.
    ReplacesSome,
    /// `replace` is refused when all is gone already.
    RefusesToReplaceTooLate,
    /// The store is given back some time after `close`.
    ClosesLate,
    /// The same, and who opens it waits for that.
    ClosesLateAndWaits,
    /// Whoever comes is let in.
    HasNoLock,
    /// A second owner is refused, and has broken the lock.
    BreaksTheLock,
    /// Read in pieces of 1,000, each but the first without its first row.
    SkipsBetweenPieces,
    /// The same, of what is read back.
    SkipsBetweenPiecesReadBack,
    /// What the sink says after the last row is not heard.
    IgnoresTheLastWord,
    /// The sink is asked for its last word before it has all rows.
    AsksTooEarly,
    /// `read_back` asks for a last word as well.
    AsksWhenReadingBack,
}

type Files = Arc<Mutex<HashMap<PathBuf, HashMap<String, String>>>>;

struct Planted {
    bug: Bug,
    files: Files,
    open: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Planted {
    fn new(bug: Bug) -> Self {
        Planted {
            bug,
            files: Files::default(),
            open: Arc::default(),
        }
    }
}

impl Fixture for Planted {
    type Key = String;
    type Value = String;
    type Backend = Backend;

    async fn open(&self, dir: &Path) -> Result<Backend> {
        let lock = || self.open.lock().unwrap().insert(dir.to_path_buf());
        let mut locked = lock();
        if self.bug == Bug::ClosesLateAndWaits {
            for _ in 0..50 {
                if locked {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                locked = lock();
            }
        }
        if !locked && self.bug != Bug::HasNoLock {
            if self.bug == Bug::BreaksTheLock {
                self.open.lock().unwrap().remove(dir);
            }
            return Err(PersistentError::in_use(dir, "another backend"));
        }
        Ok(Backend {
            bug: self.bug,
            file: dir.to_path_buf(),
            files: Arc::clone(&self.files),
            buffer: Mutex::default(),
            loaded: Mutex::default(),
            load_was_called: Mutex::default(),
            open: Arc::clone(&self.open),
            closed: Mutex::new(false),
        })
    }

    fn crash(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let image = files.get(from).cloned().unwrap_or_default();
        files.insert(to.to_path_buf(), image);
        Ok(())
    }
}

type Change = (String, Option<String>);

struct Backend {
    bug: Bug,
    file: PathBuf,
    files: Files,
    buffer: Mutex<Vec<Change>>,
    loaded: Mutex<HashMap<String, String>>,
    load_was_called: Mutex<bool>,
    open: Arc<Mutex<HashSet<PathBuf>>>,
    closed: Mutex<bool>,
}

impl Backend {
    fn store(&self, change: Change) {
        if self.bug == Bug::AcknowledgesBeforeTheCommit {
            self.buffer.lock().unwrap().push(change);
        } else {
            self.commit(change);
        }
    }

    fn commit(&self, (key, value): Change) {
        let mut files = self.files.lock().unwrap();
        let entries = files.entry(self.file.clone()).or_default();
        match value {
            Some(_) if self.bug == Bug::KeepsTheOldValue && entries.contains_key(&key) => {}
            Some(value) => {
                entries.insert(key, value);
            }
            None if self.bug == Bug::DropsADelete => {}
            None => {
                entries.remove(&key);
            }
        }
    }

    /// The number-th of all rows that are read.
    fn is_skipped(&self, bug: Bug, number: usize) -> bool {
        self.bug == bug && number > 0 && number.is_multiple_of(1_000)
    }

    fn release(&self) {
        if !std::mem::replace(&mut *self.closed.lock().unwrap(), true) {
            self.open.lock().unwrap().remove(&self.file);
        }
    }
}

#[async_trait]
impl StorageBackend<String, String> for Backend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }

    async fn load(&self, sink: &mut dyn LoadSink<String, String>) -> Result<()> {
        let skipped = usize::from(self.bug == Bug::LiesInLoad);
        let entries = self.load_all().await?;
        self.loaded.lock().unwrap().clone_from(&entries);
        if std::mem::replace(&mut *self.load_was_called.lock().unwrap(), true)
            && self.bug == Bug::LoadsOnce
        {
            return Err(PersistentError::storage("loading", "it is open already"));
        }
        if self.bug == Bug::AsksTooEarly {
            sink.finish()?;
        }
        for (number, (key, value)) in entries.into_iter().skip(skipped).enumerate() {
            if self.is_skipped(Bug::SkipsBetweenPieces, number) {
                continue;
            }
            let taken = sink.entry(key, value);
            if self.bug != Bug::SwallowsTheSinksError {
                taken?;
            }
        }
        match self.bug {
            Bug::AsksTooEarly => Ok(()),
            Bug::IgnoresTheLastWord => sink.finish().or(Ok(())),
            _ => sink.finish(),
        }
    }

    async fn load_all(&self) -> Result<HashMap<String, String>> {
        Ok(self
            .files
            .lock()
            .unwrap()
            .get(&self.file)
            .cloned()
            .unwrap_or_default())
    }

    async fn save(&self, key: String, value: String) -> Result<()> {
        self.store((key, Some(value)));
        Ok(())
    }

    async fn delete(&self, key: &String) -> Result<()> {
        self.store((key.clone(), None));
        Ok(())
    }

    async fn apply(&self, batch: &[Write<String, String>]) -> Result<()> {
        if self.bug == Bug::PromisesBatches && batch.len() > 1 {
            return Err(PersistentError::unsupported("atomic batches"));
        }
        let mut changes: Vec<Change> = batch
            .iter()
            .map(|write| (write.key().clone(), write.value().cloned()))
            .collect();
        if self.bug == Bug::LosesOrder {
            changes.reverse();
        }
        for (index, change) in changes.into_iter().enumerate() {
            if self.bug == Bug::HalfAppliesABatch && index % 100 == 99 {
                tokio::task::yield_now().await;
            }
            self.store(change);
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        if self.bug != Bug::ClearsNothing {
            self.files.lock().unwrap().remove(&self.file);
        }
        self.buffer.lock().unwrap().clear();
        Ok(())
    }

    async fn read_back(&self, sink: &mut dyn LoadSink<String, String>) -> Result<()> {
        let entries = if self.bug == Bug::ReadsBackWhatWasLoaded {
            self.loaded.lock().unwrap().clone()
        } else {
            self.load_all().await?
        };
        for (number, (key, value)) in entries.into_iter().enumerate() {
            if self.is_skipped(Bug::SkipsBetweenPiecesReadBack, number) {
                continue;
            }
            let taken = sink.entry(key, value);
            if self.bug != Bug::ReadsBackInSpiteOfTheSink {
                taken?;
            }
        }
        match self.bug {
            Bug::AsksWhenReadingBack => sink.finish(),
            _ => Ok(()),
        }
    }

    async fn replace(&self, entries: Vec<(String, String)>) -> Result<()> {
        let all = |change: &dyn Fn(&mut HashMap<String, String>)| {
            change(
                self.files
                    .lock()
                    .unwrap()
                    .entry(self.file.clone())
                    .or_default(),
            );
        };
        if self.bug == Bug::ReplacesInTwoSteps {
            all(&HashMap::clear);
            tokio::task::yield_now().await;
        }
        if self.bug == Bug::RefusesToReplaceTooLate {
            all(&HashMap::clear);
            return Err(PersistentError::unsupported("a change of types in place"));
        }
        all(&|stored| {
            if self.bug != Bug::ReplacesSome {
                stored.clear();
            }
            stored.extend(entries.iter().cloned());
        });
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        let buffered = std::mem::take(&mut *self.buffer.lock().unwrap());
        for change in buffered {
            self.commit(change);
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.flush().await?;
        if self.bug == Bug::ClosesLate {
            // Left to `Drop`.
            return Ok(());
        }
        if self.bug == Bug::ClosesLateAndWaits {
            let (open, file) = (Arc::clone(&self.open), self.file.clone());
            *self.closed.lock().unwrap() = true;
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                open.lock().unwrap().remove(&file);
            });
            return Ok(());
        }
        self.release();
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.release();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_without_a_bug_passes() {
    for verdict in check_all(Planted::new(Bug::None)).await {
        assert_eq!(verdict.failure, None, "{}", verdict.behaviour);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_bug_is_found_by_the_behaviour_it_breaks() {
    for (bug, behaviour) in [
        (Bug::DropsADelete, "a_deleted_entry_is_gone_after_reopening"),
        (
            Bug::AcknowledgesBeforeTheCommit,
            "an_acknowledged_save_survives_a_kill",
        ),
        (Bug::LosesOrder, "a_batch_is_applied_in_order_or_refused"),
        (
            Bug::HalfAppliesABatch,
            "a_batch_cut_short_is_applied_completely_or_not_at_all",
        ),
        (Bug::LiesInLoad, "load_gives_every_entry_once"),
        (
            Bug::SwallowsTheSinksError,
            "load_stops_when_the_sink_refuses",
        ),
        (Bug::LoadsOnce, "a_load_that_failed_can_be_repeated"),
        (Bug::KeepsTheOldValue, "the_last_save_of_a_key_wins"),
        (Bug::ClearsNothing, "clear_removes_everything_or_is_refused"),
        (
            Bug::PromisesBatches,
            "a_batch_is_applied_in_order_or_refused",
        ),
        (
            Bug::ReadsBackWhatWasLoaded,
            "read_back_gives_what_is_stored",
        ),
        (
            Bug::ReadsBackInSpiteOfTheSink,
            "read_back_gives_what_is_stored",
        ),
        (
            Bug::ReplacesInTwoSteps,
            "replace_is_all_or_nothing_or_refused",
        ),
        (Bug::ReplacesSome, "replace_is_all_or_nothing_or_refused"),
        (
            Bug::RefusesToReplaceTooLate,
            "replace_is_all_or_nothing_or_refused",
        ),
        (Bug::ClosesLate, "a_closed_store_can_be_reopened_at_once"),
        (Bug::HasNoLock, "a_second_owner_is_refused"),
        (Bug::BreaksTheLock, "a_second_owner_is_refused"),
        (Bug::SkipsBetweenPieces, "thousands_of_entries_come_back"),
        (
            Bug::SkipsBetweenPiecesReadBack,
            "thousands_of_entries_come_back",
        ),
        (Bug::IgnoresTheLastWord, "the_sink_has_the_last_word"),
        (Bug::AsksTooEarly, "the_sink_has_the_last_word"),
        (Bug::AsksWhenReadingBack, "read_back_gives_what_is_stored"),
    ] {
        let failed: Vec<&str> = check_all(Planted::new(bug))
            .await
            .into_iter()
            .filter(|verdict| verdict.failure.is_some())
            .map(|verdict| verdict.behaviour)
            .collect();
        assert!(
            failed.contains(&behaviour),
            "{bug:?}: {behaviour} passed; failed: {failed:?}"
        );
    }
}

/// Each of its opens takes a third of a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_the_next_owner_waits_for_is_found() {
    let fixture = Planted::new(Bug::ClosesLateAndWaits);
    let run = async move { a_closed_store_can_be_reopened_at_once(&fixture).await };
    assert!(tokio::spawn(run).await.is_err());
}

/// What becomes of values that the format of a store has no words for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// They are refused in time.
    None,
    /// They are written as something else.
    Silent,
    /// They are written, and cannot be read.
    Unreadable,
    /// They are refused when others share their commit.
    RefusedLate,
    /// They are refused, and stored.
    RefusedAndStored,
}

struct Lossy {
    loss: Loss,
    disk: Disk<String, Odd>,
}

struct LossyBackend {
    loss: Loss,
    disk: Disk<String, Odd>,
}

impl Fixture for Lossy {
    type Key = String;
    type Value = Odd;
    type Backend = LossyBackend;

    async fn open(&self, _: &Path) -> Result<LossyBackend> {
        let (loss, disk) = (self.loss, self.disk.clone());
        Ok(LossyBackend { loss, disk })
    }
}

impl LossyBackend {
    async fn put(&self, key: String, value: Odd) -> Result<()> {
        self.disk.backend().save(key, value).await
    }
}

fn unstorable() -> PersistentError {
    PersistentError::storage("writing a value", "the format has no NaN")
}

#[async_trait]
impl StorageBackend<String, Odd> for LossyBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }

    fn prepare(&self, _: &String, value: Option<&Odd>) -> Result<Option<Encoded>> {
        let is_odd = value.is_some_and(|value| !value.ratio.is_finite());
        if is_odd && matches!(self.loss, Loss::None | Loss::RefusedAndStored) {
            return Err(unstorable());
        }
        Ok(None)
    }

    async fn load_all(&self) -> Result<HashMap<String, Odd>> {
        let entries = self.disk.entries();
        if self.loss == Loss::Unreadable && entries.values().any(|value| value.ratio.is_nan()) {
            return Err(unstorable());
        }
        Ok(entries)
    }

    async fn save(&self, key: String, value: Odd) -> Result<()> {
        if value.ratio.is_finite() {
            // Whatever was refused before it comes with it.
            if self.loss == Loss::RefusedAndStored {
                self.put(String::sample(1), value.clone()).await?;
            }
            return self.put(key, value).await;
        }
        match self.loss {
            Loss::RefusedLate => Err(unstorable()),
            Loss::Silent => {
                self.put(
                    key,
                    Odd {
                        ratio: 0.0,
                        ..value
                    },
                )
                .await
            }
            _ => self.put(key, value).await,
        }
    }

    async fn delete(&self, key: &String) -> Result<()> {
        self.disk.backend().delete(key).await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_do_not_come_back_are_found() {
    for loss in [
        Loss::None,
        Loss::Silent,
        Loss::Unreadable,
        Loss::RefusedLate,
        Loss::RefusedAndStored,
    ] {
        let disk = Disk::new();
        let fixture = Lossy { loss, disk };
        let run = async move { what_is_accepted_comes_back(&fixture).await };
        let found = tokio::spawn(run).await.is_err();
        assert_eq!(found, loss != Loss::None, "{loss:?}");
    }
}
