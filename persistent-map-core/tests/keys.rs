//! Keys that are equal and are written differently: one entry, in memory as in the store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use persistent_map_core::{
    Behind, LoadSink, PersistentError, PersistentMap, Result, StorageBackend, WriteMode,
    async_trait, collect,
};
use persistent_map_testkit::Faults;

mod support;
use support::limit::limit;
use support::{Shelf, behind, lazy};

/// `a/b`, `a/b/` and `a//b` are equal paths, with bytes of their own.
const SPELLINGS: [&str; 3] = ["a/b", "a/b/", "a//b"];

#[tokio::test]
async fn an_entry_keeps_the_key_that_it_was_first_stored_with() {
    let _limit = limit();
    let shelf = Shelf::bincode();
    let rows = shelf.rows();
    let map = PersistentMap::<PathBuf, u64, _>::new(shelf).await.unwrap();
    for (n, spelling) in (0..).zip(SPELLINGS) {
        map.insert(PathBuf::from(spelling), n).await.unwrap();
    }
    assert_eq!((map.len(), rows.lock().unwrap().len()), (1, 1));
    map.close().await.unwrap();

    let map = PersistentMap::<PathBuf, u64, _>::new(Shelf::on(&rows))
        .await
        .unwrap();
    assert_eq!(map.get(Path::new("a/b")), Some(2));
    assert_eq!(map.remove(Path::new("a//b")).await.unwrap(), Some(2));
    assert!(
        rows.lock().unwrap().is_empty(),
        "a removed entry is still stored"
    );
}

#[tokio::test]
async fn writers_who_spell_a_new_key_differently_meet_in_one_row() {
    let _limit = limit();
    let shelf = Shelf::bincode();
    let rows = shelf.rows();
    let faults = Faults::new();
    let map = PersistentMap::<PathBuf, u64, _>::new(faults.wrap(shelf))
        .await
        .unwrap();
    faults.pause();
    let mut calls = tokio::task::JoinSet::new();
    for (n, spelling) in (0..).zip(SPELLINGS.into_iter().cycle().take(30)) {
        let map = map.clone();
        calls.spawn(async move { map.insert(PathBuf::from(spelling), n).await.unwrap() });
    }
    while map.stats().pending < 20 && faults.writes() == 0 {
        tokio::task::yield_now().await;
    }
    faults.resume();
    calls.join_all().await;
    assert_eq!((map.len(), rows.lock().unwrap().len()), (1, 1));
    assert_eq!(map.get(Path::new("a/b")), Some(29));
    map.close().await.unwrap();
    let map = PersistentMap::<PathBuf, u64, _>::new(Shelf::on(&rows))
        .await
        .unwrap();
    assert_eq!(map.get(Path::new("a/b")), Some(29));
}

#[tokio::test]
async fn spellings_of_a_key_meet_in_one_row_of_a_store_that_follows() {
    let _limit = limit();
    let shelf = Shelf::bincode();
    let rows = shelf.rows();
    let map = PersistentMap::<PathBuf, u64, _>::builder(shelf)
        .write_mode(WriteMode::Behind(Behind::new()))
        .open()
        .await
        .unwrap();
    let all = |first| SPELLINGS.map(PathBuf::from).into_iter().zip(first..);
    map.insert_many(all(0)).await.unwrap();
    map.flush().await.unwrap();
    assert_eq!((map.len(), rows.lock().unwrap().len()), (1, 1));
    // Gone from memory, and still in the store when it is written again.
    map.remove(Path::new("a/b/")).await.unwrap();
    map.insert_many(all(10).skip(1)).await.unwrap();
    map.close().await.unwrap();
    assert_eq!((map.len(), rows.lock().unwrap().len()), (1, 1));
    let map = PersistentMap::<PathBuf, u64, _>::new(Shelf::on(&rows))
        .await
        .unwrap();
    assert_eq!(map.get(Path::new("a/b")), Some(12));
}

/// By the first spelling of its key the second entry is one byte larger than the store takes.
#[tokio::test]
async fn an_entry_that_is_too_large_by_its_first_spelling_is_refused() {
    let _limit = limit();
    let entries = || {
        [
            (PathBuf::from("a/b/"), "x".to_string()),
            (PathBuf::from("a/b"), "x".repeat(95)),
        ]
    };
    let shelf = Shelf::bincode();
    let rows = shelf.rows();
    let map = PersistentMap::new(shelf).await.unwrap();
    let [first, second] = entries();
    let (_, refused) = tokio::join!(map.insert(first.0, first.1), map.insert(second.0, second.1));
    let error = refused.unwrap_err();
    assert!(matches!(error, PersistentError::TooLarge { .. }), "{error}");
    assert_eq!(map.len(), rows.lock().unwrap().len());

    let shelf = Shelf::bincode();
    let rows = shelf.rows();
    let map = behind(shelf, lazy()).await;
    let error = map.insert_many(entries()).await.unwrap_err();
    assert!(matches!(error, PersistentError::TooLarge { .. }), "{error}");
    map.close().await.unwrap();
    assert_eq!((map.len(), rows.lock().unwrap().len()), (0, 0));
}

/// Gives an entry twice, which is for the store to know and for nobody to hide.
struct Twins;

#[async_trait]
impl StorageBackend<PathBuf, u64> for Twins {
    async fn load(&self, sink: &mut dyn LoadSink<PathBuf, u64>) -> Result<()> {
        sink.entry(PathBuf::from("a/b"), 1)?;
        sink.entry(PathBuf::from("a/b/"), 2)
    }
    async fn load_all(&self) -> Result<HashMap<PathBuf, u64>> {
        collect(self).await
    }
    async fn save(&self, _: PathBuf, _: u64) -> Result<()> {
        Ok(())
    }
    async fn delete(&self, _: &PathBuf) -> Result<()> {
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_gives_a_key_twice_is_not_loaded() {
    let _limit = limit();
    let opened = PersistentMap::new(Twins).await.map(drop);
    for loaded in [opened, collect(&Twins).await.map(drop)] {
        let error = loaded.unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("loading entry 2") && error.contains("equal keys"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn two_rows_of_equal_keys_are_reported_and_can_be_set_aside() {
    let _limit = limit();
    let shelf = Shelf::bincode();
    let rows = shelf.rows();
    let map = PersistentMap::<String, u64, _>::new(shelf).await.unwrap();
    map.insert("a/b".to_string(), 1).await.unwrap();
    map.insert("a/b/".to_string(), 2).await.unwrap();
    map.close().await.unwrap();

    let opened = PersistentMap::<PathBuf, u64, _>::new(Shelf::on(&rows)).await;
    let collected = collect::<PathBuf, u64, _>(&Shelf::on(&rows)).await;
    for refused in [opened.map(drop), collected.map(drop)] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("an earlier row has an equal key"), "{error}");
    }
    let (map, report) = PersistentMap::<PathBuf, u64, _>::builder(Shelf::on(&rows))
        .on_corrupt(persistent_map_core::OnCorrupt::Quarantine)
        .open_with_report()
        .await
        .unwrap();
    assert_eq!((map.len(), report.quarantined.len()), (1, 1));
}

/// A backend for one type, to see that it is called with the key that it has.
#[derive(Default)]
struct Log(std::sync::Mutex<Vec<PathBuf>>);

#[async_trait]
impl StorageBackend<PathBuf, u64> for Log {
    async fn load_all(&self) -> Result<HashMap<PathBuf, u64>> {
        Ok(HashMap::new())
    }
    async fn save(&self, key: PathBuf, _: u64) -> Result<()> {
        self.0.lock().unwrap().push(key);
        Ok(())
    }
    async fn delete(&self, key: &PathBuf) -> Result<()> {
        self.0.lock().unwrap().push(key.clone());
        Ok(())
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_typed_backend_is_given_the_key_that_it_has() {
    let _limit = limit();
    let map = PersistentMap::new(Log::default()).await.unwrap();
    map.insert(PathBuf::from("a/b"), 1).await.unwrap();
    map.insert(PathBuf::from("a/b/"), 2).await.unwrap();
    map.remove(Path::new("a//b")).await.unwrap();
    let spelled: Vec<String> = map
        .backend()
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|path| path.to_str().unwrap().to_string())
        .collect();
    assert_eq!(spelled, ["a/b", "a/b", "a/b"]);
}
