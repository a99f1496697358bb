//! Files that are damaged, of something else, of other types, or of somebody else.

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use persistent_map_core::{OnCorrupt, PersistentError, PersistentMap, Result};
use persistent_map_redb::RedbBackend;
use persistent_map_testkit::assert_refused;
use tokio::runtime::Builder;

type Map<K, V> = PersistentMap<K, V, RedbBackend>;

async fn open<K, V>(path: &Path) -> Result<Map<K, V>>
where
    K: persistent_map_core::Key,
    V: persistent_map_core::Value,
{
    PersistentMap::new(RedbBackend::open(path).await?).await
}

async fn written(path: &Path) -> Result<()> {
    let map = open::<u64, String>(path).await?;
    map.insert_many((0..200).map(|n| (n, format!("value {n}"))))
        .await?;
    map.close().await
}

#[tokio::test]
async fn a_flipped_byte_is_an_error_or_the_right_value() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("good.redb");
    written(&path).await?;
    let good = fs::read(&path)?;
    let (damaged, mut refused) = (dir.path().join("damaged.redb"), 0);
    // Where there is data, not in the file's empty space.
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 150) {
        let mut bytes = good.clone();
        bytes[*at] ^= 0x10;
        fs::write(&damaged, bytes)?;
        match open::<u64, String>(&damaged).await {
            Err(_) => refused += 1,
            Ok(map) => {
                assert_eq!(map.len(), 200, "byte {at}");
                for (key, value) in &map {
                    assert_eq!(value, format!("value {key}"), "byte {at}");
                }
                map.close().await?;
            }
        }
    }
    assert!(refused > 20, "only {refused} of 150 were noticed");
    Ok(())
}

#[tokio::test]
async fn other_files_and_other_owners_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (name, content) in [("text.redb", "no database"), ("empty.redb", "")] {
        let path = dir.path().join(name);
        fs::write(&path, content)?;
        assert_refused(&path, &["redb does not open it"], RedbBackend::open(&path)).await;
    }
    let path = dir.path().join("shared.redb");
    let owner = RedbBackend::open(&path).await?;
    let second = RedbBackend::open(&path).await;
    assert!(matches!(second, Err(PersistentError::InUse { .. })));
    drop((owner, second));
    RedbBackend::open(&path).await.map(drop)
}

#[tokio::test]
async fn other_types_are_refused_and_the_entries_stay() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("types.redb");
    written(&path).await?;
    let refused = open::<u64, u64>(&path).await;
    assert!(matches!(refused, Err(PersistentError::Mismatch { .. })));
    let map = open::<u64, String>(&path).await?;
    assert_eq!(map.len(), 200);
    map.close().await?;

    // And an older type is upgraded in place.
    let backend = RedbBackend::open(&path).await?;
    let builder = PersistentMap::<u64, u64, _>::builder(backend);
    let map = builder
        .migrate(|old: String| old.len() as u64)
        .open()
        .await?;
    assert_eq!(map.get(&7u64), Some("value 7".len() as u64));
    map.close().await?;
    assert_eq!(open::<u64, u64>(&path).await?.len(), 200);
    Ok(())
}

#[tokio::test]
async fn rows_that_do_not_decode_are_set_aside_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("rows.redb");
    written(&path).await?;
    let entries = redb::TableDefinition::<&[u8], &[u8]>::new("entries");
    let database = redb::Database::open(&path).map_err(std::io::Error::other)?;
    let change = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        // The key 3, as bincode writes it, and a text that is cut off.
        transaction
            .open_table(entries)?
            .insert([3u8].as_slice(), [9u8].as_slice())?;
        Ok(transaction.commit()?)
    };
    change().map_err(std::io::Error::other)?;
    drop(database);
    assert!(matches!(
        open::<u64, String>(&path).await,
        Err(PersistentError::Corrupt(_))
    ));
    for expected in [1, 0] {
        let builder = PersistentMap::<u64, String, _>::builder(RedbBackend::open(&path).await?);
        let builder = builder.on_corrupt(OnCorrupt::Quarantine);
        let (map, report) = builder.open_with_report().await?;
        assert_eq!((map.len(), report.quarantined.len()), (199, expected));
        map.close().await?;
    }
    Ok(())
}

/// Each of the callers sits on a thread of tokio's pool, and all threads of it are taken.
#[test]
fn callers_that_fill_the_pool_are_answered() {
    let (done, ended) = channel();
    thread::spawn(move || {
        let runtime = Builder::new_multi_thread().max_blocking_threads(8).build();
        runtime.unwrap().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let map = open::<u64, u64>(&dir.path().join("pool.redb"))
                .await
                .unwrap();
            let all_are_there = Arc::new(Barrier::new(8));
            let calls: Vec<_> = (0..8)
                .map(|number| {
                    let (map, all_are_there) = (map.blocking(), Arc::clone(&all_are_there));
                    tokio::task::spawn_blocking(move || {
                        all_are_there.wait();
                        map.insert(number, number).unwrap();
                    })
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
            map.close().await.unwrap();
        });
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_mins(1));
    ended.expect("a call fails, or waits for the pool");
}
