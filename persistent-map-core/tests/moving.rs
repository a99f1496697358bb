//! Moving house: copies between maps, new types in the same store, and looking at what is stored.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use persistent_map_core::{
    Behind, Bincode, Json, OnCorrupt, PersistentError, PersistentMap, WriteMode, copy,
};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::{Disk, Fault, Faults};
use serde::{Deserialize, Serialize};

mod support;
use support::backend_of;
use support::limit::limit;

#[tokio::test]
async fn a_copy_has_all_entries_in_its_store() {
    let _limit = limit();
    let from = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    from.insert_many((0..10_000u32).map(|n| (n, f64::from(n))))
        .await
        .unwrap();
    from.insert(7, f64::NAN).await.unwrap();
    for (atomic, mode) in [
        (true, WriteMode::Through),
        (false, WriteMode::Through),
        (true, WriteMode::Behind(Behind::new())),
    ] {
        let disk = Disk::new();
        let backend = backend_of(&disk, atomic);
        let to = PersistentMap::builder(backend)
            .write_mode(mode)
            .open()
            .await
            .unwrap();
        to.insert(7, 1.0).await.unwrap();
        to.insert(1_000_000, 1.0).await.unwrap();
        let mut told = Vec::new();
        let copied = copy(&from, &to)
            .on_progress(|progress| {
                assert_eq!(progress.total, Some(10_000));
                told.push(progress.loaded);
            })
            .await
            .unwrap();
        assert_eq!((copied.entries, copied.verified), (10_000, 10_001));
        assert_eq!(told.last(), Some(&10_000));
        assert_eq!(disk.entries().len(), 10_001);
        assert!(disk.entries()[&7].is_nan());
    }
}

#[tokio::test]
async fn a_copy_that_fails_can_be_made_again() {
    let _limit = limit();
    let from = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    from.insert_many((0..10_000u32).map(|n| (n, n)))
        .await
        .unwrap();
    let disk = Disk::new();
    let faults = Faults::new();
    let to = PersistentMap::new(faults.wrap(disk.backend()))
        .await
        .unwrap();
    faults.fail_nth(2, Fault::Refused);
    copy(&from, &to).await.unwrap_err();
    assert_eq!(disk.entries().len(), 4096);
    assert_eq!(from.len(), 10_000);
    assert_eq!(copy(&from, &to).await.unwrap().verified, 10_000);
}

#[tokio::test]
async fn verify_finds_what_the_store_does_not_have() {
    let _limit = limit();
    let disk = Disk::new();
    let map = PersistentMap::new(disk.backend()).await.unwrap();
    map.insert_many((0..10).map(|n| (n, n))).await.unwrap();
    assert_eq!(map.verify().await.unwrap(), 10);
    // Somebody goes past the map.
    let other = PersistentMap::new(disk.backend()).await.unwrap();
    other.insert(3, 33).await.unwrap();
    other.remove(&4).await.unwrap();
    other.remove(&5).await.unwrap();
    other.insert(100, 1).await.unwrap();
    let error = map.verify().await.unwrap_err();
    assert!(
        matches!(
            error,
            PersistentError::NotAsWritten {
                missing: 2,
                other: 1,
                unexpected: 1
            }
        ),
        "{error}"
    );
    map.close().await.unwrap();
    assert!(matches!(map.verify().await, Err(PersistentError::Closed)));
}

#[tokio::test]
async fn a_second_row_of_a_key_does_not_make_up_for_one_that_is_missing() {
    let _limit = limit();
    let shelf = support::Shelf::bincode();
    let rows = shelf.rows();
    let map = PersistentMap::<u32, u32, _>::new(shelf).await.unwrap();
    map.insert_many([(1, 1), (2, 2)]).await.unwrap();
    let twin = rows.lock().unwrap()[0].clone();
    rows.lock().unwrap()[1] = twin;
    map.verify().await.unwrap_err();
}

/// All of its hashes are equal, which is slow and allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Slow(u32);

impl Hash for Slow {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[tokio::test]
async fn verify_tells_keys_of_equal_hashes_apart() {
    let _limit = limit();
    let map = PersistentMap::new(support::Shelf::bincode()).await.unwrap();
    map.insert_many((0..3).map(|n| (Slow(n), n))).await.unwrap();
    assert_eq!(map.verify().await.unwrap(), 3);
}

#[tokio::test]
async fn older_types_are_upgraded_and_stored_anew() {
    let _limit = limit();
    let shelf = support::Shelf::new(Bincode);
    let rows = shelf.rows();
    let old: PersistentMap<u8, u8, _> = PersistentMap::new(shelf).await.unwrap();
    old.insert_many((0..10).map(|n| (n, n))).await.unwrap();
    old.close().await.unwrap();

    // A `u8` is one byte, which is no text.
    let open = || PersistentMap::<u8, String, _>::builder(support::Shelf::on(&rows));
    open().open().await.expect_err("it has other types");
    let before = rows.lock().unwrap().clone();
    let failed = open()
        .migrate::<Vec<String>>(|_| String::new())
        .open()
        .await;
    failed.expect_err("none of the types fits");
    let failed = open().migrate::<u8>(|_| "x".repeat(200)).open().await;
    failed.expect_err("what comes of it cannot be stored");
    let failed = open()
        .migrate::<u8>(|_| panic!("a planted panic"))
        .open()
        .await;
    assert!(
        matches!(failed, Err(PersistentError::Panicked { .. })),
        "{failed:?}"
    );
    assert_eq!(*rows.lock().unwrap(), before);

    for _ in 0..2 {
        let (map, report) = open()
            .migrate::<Vec<String>>(|_| String::new())
            .migrate::<u8>(|n| format!("number {n}"))
            .on_corrupt(OnCorrupt::Quarantine)
            .open_with_report()
            .await
            .unwrap();
        assert_eq!((report.entries, report.quarantined.len()), (10, 0));
        assert_eq!(map.get(&7).as_deref(), Some("number 7"));
        assert_eq!(map.verify().await.unwrap(), 10);
        map.close().await.unwrap();
    }
    // From now on it is of the new type by itself.
    let map = open().open().await.unwrap();
    let expected: HashMap<_, _> = (0..10).map(|n| (n, format!("number {n}"))).collect();
    assert_eq!(map.snapshot().await.unwrap(), expected);
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Name {
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Scored {
    name: String,
    score: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ranked {
    name: String,
    score: u32,
    level: u32,
}

/// JSON would read the newer of the two as the older one, without its score.
#[tokio::test]
async fn the_newest_of_the_older_types_that_fit_is_upgraded() {
    let _limit = limit();
    let shelf = support::Shelf::new(Json);
    let rows = shelf.rows();
    let (name, score) = ("ann".to_string(), 7);
    let scored = Scored {
        name: name.clone(),
        score,
    };
    let map = PersistentMap::new(shelf).await.unwrap();
    map.insert(1, scored).await.unwrap();
    map.close().await.unwrap();

    let shelf = support::Shelf {
        rows,
        codec: Json,
        limit: 100,
    };
    let map = PersistentMap::<i32, Ranked, _>::builder(shelf)
        .migrate::<Name>(|Name { name }| Ranked {
            name,
            score: 0,
            level: 0,
        })
        .migrate::<Scored>(|Scored { name, score }| Ranked {
            name,
            score,
            level: 0,
        })
        .open()
        .await
        .unwrap();
    let ranked = Ranked {
        name,
        score,
        level: 0,
    };
    assert_eq!(map.get(&1), Some(ranked));
}
