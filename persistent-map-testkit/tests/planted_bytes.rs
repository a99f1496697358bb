//! Stores of bytes with one bug each, in what only such stores have: the kit must find every one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use persistent_map_core::{
    Bincode, ByteStore, ByteWrite, Capabilities, Format, Location, PersistentError, Result,
    RowSink, RowVerdict,
};
use persistent_map_testkit::{Fixture, byte_conformance, check_all_bytes, conformance};

/// What is wrong with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// The format is kept and never compared.
    ComparesNothing,
    /// The types are compared, and the codec is not.
    ComparesNoCodec,
    /// Rows are given out, and then the format is compared.
    ComparesTooLate,
    /// Refused data is cleared away.
    ClearsWhatItRefuses,
    /// The new format is kept before the first row is given out.
    RecordsTooEarly,
    /// The new format is kept when all rows have been given out, and then the sink is asked.
    RecordsBeforeTheEnd,
    /// The format that came first is kept for ever.
    RecordsOnce,
    /// Rows that are set aside stay where they are.
    SetsNothingAside,
    /// A row that is set aside takes the one behind it along.
    SetsAsideTooMuch,
    /// A row is moved as soon as the sink says so.
    SetsAsideTooEarly,
    /// What the sink says at the end is not heard.
    IgnoresFinish,
    /// The sink is never asked.
    NeverFinishes,
    /// The sink is asked after each row.
    FinishesOften,
    /// An error of the sink is passed on, and it is asked once more.
    FinishesAfterAnError,
    /// Reading back ends as loading does.
    FinishesReadBack,
    /// Rows are moved by reading back.
    ReadBackSetsAside,
    /// The new rows are kept for the old types.
    ReplaceKeepsTheFormat,
    /// The new types are recorded, and then the rows are replaced.
    ReplacesInTwoSteps,
    /// A key without bytes is refused.
    RefusesTheEmptyKey,
    /// A key without bytes is no key.
    DropsTheEmptyKey,
    /// Keys are cut off after 255 bytes.
    CutsKeysOff,
    /// Keys of more than 65,535 bytes are refused, too late.
    RefusesLongKeysTooLate,
    /// Keys are texts, to their first zero.
    EndsKeysAtZero,
    /// The first row has the number 0.
    CountsFromZero,
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Default)]
struct Content {
    format: Option<String>,
    rows: Rows,
    set_aside: Rows,
}

type Files = Arc<Mutex<HashMap<PathBuf, Content>>>;

struct Planted {
    bug: Bug,
    files: Files,
}

impl Planted {
    fn new(bug: Bug) -> Self {
        let files = Files::default();
        Planted { bug, files }
    }
}

impl Fixture for Planted {
    type Key = String;
    type Value = String;
    type Backend = Store;

    async fn open(&self, dir: &Path) -> Result<Store> {
        Ok(Store {
            bug: self.bug,
            file: dir.to_path_buf(),
            files: Arc::clone(&self.files),
        })
    }

    fn crash(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let image = files.get(from).cloned().unwrap_or_default();
        files.insert(to.to_path_buf(), image);
        Ok(())
    }

    fn has_lock(&self) -> bool {
        false
    }
}

struct Store {
    bug: Bug,
    file: PathBuf,
    files: Files,
}

impl Store {
    fn content<R>(&self, change: impl FnOnce(&mut Content) -> R) -> R {
        change(
            self.files
                .lock()
                .unwrap()
                .entry(self.file.clone())
                .or_default(),
        )
    }

    fn agree(&self, format: &Format) -> Result<()> {
        let Some(found) = self.content(|content| content.format.clone()) else {
            return Ok(());
        };
        match format.compare_text(&found, &self.location()) {
            Err(_) if self.bug == Bug::ComparesNothing => Ok(()),
            Err(PersistentError::Mismatch { found, .. })
                if self.bug == Bug::ComparesNoCodec && found.starts_with("codec") =>
            {
                Ok(())
            }
            compared => compared,
        }
    }

    fn record(&self, format: &Format) {
        let text = format.to_text();
        self.content(|content| match &mut content.format {
            Some(_) if self.bug == Bug::RecordsOnce => {}
            kept => *kept = Some(text),
        });
    }

    /// The keys of rows that are to be set aside.
    fn give(&self, sink: &mut dyn RowSink, move_at_once: bool) -> Result<Vec<Vec<u8>>> {
        let rows = self.content(|content| content.rows.clone());
        let first = u64::from(self.bug != Bug::CountsFromZero);
        let mut aside = Vec::new();
        for (number, (key, value)) in (first..).zip(&rows) {
            let verdict = sink.row(number, key, value);
            if verdict.is_err() && self.bug == Bug::FinishesAfterAnError {
                sink.finish()?;
            }
            if verdict? == RowVerdict::SetAside {
                if move_at_once {
                    self.set_aside(std::slice::from_ref(key));
                }
                aside.push(key.clone());
            }
            if self.bug == Bug::FinishesOften {
                sink.finish()?;
            }
        }
        Ok(aside)
    }

    fn set_aside(&self, keys: &[Vec<u8>]) {
        self.content(|content| {
            for key in keys {
                if let Some(value) = content.rows.remove(key) {
                    content.set_aside.insert(key.clone(), value);
                }
                if self.bug == Bug::SetsAsideTooMuch {
                    let next = content.rows.range(key.clone()..).next();
                    let next = next.map(|(key, _)| key.clone());
                    next.and_then(|key| content.rows.remove(&key));
                }
            }
        });
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        match self.bug {
            Bug::CutsKeysOff => key[..key.len().min(255)].to_vec(),
            Bug::EndsKeysAtZero => key.iter().copied().take_while(|byte| *byte != 0).collect(),
            _ => key.to_vec(),
        }
    }
}

#[async_trait]
impl ByteStore for Store {
    type Codec = Bincode;

    fn codec(&self) -> &Bincode {
        &Bincode
    }

    fn location(&self) -> Location {
        Location::of_file(&self.file)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time().with_atomic_batches()
    }

    fn check(&self, key_bytes: usize, _: usize) -> Result<()> {
        match key_bytes {
            0..=100_000 => Ok(()),
            bytes => Err(PersistentError::too_large("key", bytes, 100_000)),
        }
    }

    async fn load(&self, format: &Format, rows: &mut dyn RowSink) -> Result<()> {
        if self.bug == Bug::ComparesTooLate {
            self.give(rows, false)?;
        }
        let agreed = self.agree(format);
        if agreed.is_err() && self.bug == Bug::ClearsWhatItRefuses {
            self.content(|content| content.rows.clear());
        }
        agreed?;
        if self.bug == Bug::RecordsTooEarly {
            self.record(format);
        }
        let aside = self.give(rows, self.bug == Bug::SetsAsideTooEarly)?;
        if self.bug == Bug::RecordsBeforeTheEnd {
            self.record(format);
        }
        match self.bug {
            Bug::NeverFinishes => {}
            Bug::IgnoresFinish => drop(rows.finish()),
            _ => rows.finish()?,
        }
        self.record(format);
        if self.bug != Bug::SetsNothingAside {
            self.set_aside(&aside);
        }
        Ok(())
    }

    async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()> {
        tokio::task::yield_now().await;
        for write in batch {
            let key = self.key(write.key);
            let refused = |reason: &str| Err(PersistentError::storage("writing", reason));
            match key.len() {
                0 if self.bug == Bug::RefusesTheEmptyKey => return refused("a key without bytes"),
                0 if self.bug == Bug::DropsTheEmptyKey => continue,
                65_536.. if self.bug == Bug::RefusesLongKeysTooLate => {
                    return refused("a long key");
                }
                _ => {}
            }
            self.content(|content| match write.value {
                Some(value) => drop(content.rows.insert(key, value.to_vec())),
                None => drop(content.rows.remove(&key)),
            });
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.content(|content| content.rows.clear());
        Ok(())
    }

    async fn read_back(&self, rows: &mut dyn RowSink) -> Result<()> {
        self.give(rows, self.bug == Bug::ReadBackSetsAside)?;
        if self.bug == Bug::FinishesReadBack {
            rows.finish()?;
        }
        Ok(())
    }

    async fn replace(&self, format: &Format, rows: &[ByteWrite<'_>]) -> Result<()> {
        if self.bug == Bug::ReplacesInTwoSteps {
            self.record(format);
            tokio::task::yield_now().await;
        }
        let rows = rows
            .iter()
            .filter_map(|row| Some((row.key.to_vec(), row.value?.to_vec())));
        let rows = rows.collect();
        let format = Some(format.to_text());
        self.content(|content| {
            if self.bug != Bug::ReplaceKeepsTheFormat {
                content.format = format;
            }
            content.rows = rows;
        });
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

conformance!(without_a_bug, Planted::new(Bug::None));
byte_conformance!(bytes_without_a_bug, Planted::new(Bug::None));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_bug_is_found_by_the_behaviour_it_breaks() {
    let format = "another_format_is_refused_and_changes_nothing";
    let failed_load = "a_load_that_failed_leaves_the_format";
    let aside = "rows_that_are_set_aside_are_not_loaded_again";
    let refused_end = "a_sink_that_refuses_at_the_end_keeps_all_rows";
    let finish = "load_ends_with_finish_and_read_back_does_not";
    let replace = "replace_records_the_format";
    let keys = "keys_of_all_sizes_are_stored_or_refused";
    for (bug, behaviour) in [
        (Bug::ComparesNothing, format),
        (Bug::ComparesNoCodec, format),
        (Bug::ComparesTooLate, format),
        (Bug::ClearsWhatItRefuses, format),
        (Bug::RecordsTooEarly, failed_load),
        (Bug::RecordsBeforeTheEnd, failed_load),
        (Bug::RecordsOnce, "a_newer_description_is_taken"),
        (Bug::SetsNothingAside, aside),
        (Bug::SetsAsideTooMuch, aside),
        (Bug::SetsAsideTooEarly, refused_end),
        (Bug::IgnoresFinish, refused_end),
        (Bug::NeverFinishes, finish),
        (Bug::FinishesOften, finish),
        (Bug::FinishesAfterAnError, finish),
        (Bug::FinishesReadBack, finish),
        (Bug::ReadBackSetsAside, "read_back_sets_nothing_aside"),
        (Bug::ReplaceKeepsTheFormat, replace),
        (Bug::ReplacesInTwoSteps, replace),
        (Bug::RefusesTheEmptyKey, keys),
        (Bug::DropsTheEmptyKey, keys),
        (Bug::CutsKeysOff, keys),
        (Bug::RefusesLongKeysTooLate, keys),
        (Bug::EndsKeysAtZero, keys),
        (Bug::CountsFromZero, finish),
    ] {
        let failed: Vec<&str> = check_all_bytes(Planted::new(bug))
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
