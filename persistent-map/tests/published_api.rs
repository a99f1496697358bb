//! The API that 0.1 has published, call for call: code that was written for it compiles, and does what it did.

#![cfg(all(feature = "sqlite", feature = "in_memory"))]

use std::collections::HashMap;
use std::hash::Hash;

use persistent_map::in_memory::InMemoryBackend;
use persistent_map::sqlite::SqliteBackend;
use persistent_map::{PersistentError, PersistentMap, Result, StorageBackend};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The calls of the front page, with owned keys behind references.
async fn front_page<B>(map: &PersistentMap<String, String, B>) -> Result<()>
where
    B: StorageBackend<String, String>,
{
    map.insert("greeting".to_string(), "hello".to_string())
        .await?;
    map.insert("count".to_string(), "42".to_string()).await?;
    if let Some(value) = map.get(&"greeting".to_string()) {
        assert_eq!(value, "hello");
    }
    assert!(map.contains_key(&"count".to_string()));
    let old_value = map.remove(&"greeting".to_string()).await?;
    assert_eq!(old_value.as_deref(), Some("hello"));
    map.flush().await?;
    assert_eq!(map.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_map_in_sqlite() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("my_app_data.db");
    for _ in 0..2 {
        let backend = SqliteBackend::new(path.to_str().unwrap()).await?;
        let map = PersistentMap::new(backend).await?;
        front_page(&map).await?;
        map.close().await?;
    }
    Ok(())
}

#[cfg(feature = "csv_backend")]
#[tokio::test]
async fn a_map_in_a_csv_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("my_data.csv");
    for _ in 0..2 {
        let map = PersistentMap::new(persistent_map::csv::CsvBackend::new(&path)).await?;
        front_page(&map).await?;
        map.insert("count".to_string(), "43".to_string()).await?;
        map.flush().await?;
        assert_eq!(std::fs::read_to_string(&path)?, "key,value\ncount,43\n");
        map.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_map_in_memory() -> Result<(), PersistentError> {
    let backend = InMemoryBackend::new();
    front_page(&PersistentMap::new(backend).await?).await
}

/// A backend for all types, with no more bounds than were published.
struct Custom {}

#[async_trait::async_trait]
impl<K, V> StorageBackend<K, V> for Custom
where
    K: Eq + Hash + Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    async fn load_all(&self) -> Result<HashMap<K, V>, PersistentError> {
        Ok(HashMap::new())
    }

    async fn save(&self, _key: K, _value: V) -> Result<(), PersistentError> {
        Ok(())
    }

    async fn delete(&self, _key: &K) -> Result<(), PersistentError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), PersistentError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_map_on_a_custom_backend() -> Result<()> {
    front_page(&PersistentMap::new(Custom {}).await?).await
}

/// Maps are shared between tasks, and calls are spawned.
#[tokio::test]
async fn maps_and_their_futures_can_be_sent() -> Result<()> {
    fn sendable<T: Send + Sync + 'static>(_: &T) {}
    fn spawnable<F: Future + Send>(future: F) {
        drop(future);
    }

    let map = PersistentMap::<String, u64, _>::new(SqliteBackend::new(":memory:").await?).await?;
    sendable(&map);
    sendable(&map.iter());
    spawnable(SqliteBackend::new(":memory:"));
    spawnable(map.insert(String::new(), 0));
    spawnable(map.remove(""));
    spawnable(map.clear());
    spawnable(map.flush());
    spawnable(map.close());
    spawnable(map.backend().table("other"));
    spawnable(PersistentMap::<String, u64, _>::new(InMemoryBackend::new()));
    spawnable(PersistentMap::<String, u64, _>::builder(InMemoryBackend::new()).open());
    Ok(())
}
