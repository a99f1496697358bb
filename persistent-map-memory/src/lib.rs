#![doc = include_str!("../README.md")]

use std::collections::HashMap;

use async_trait::async_trait;
use persistent_map_core::{
    Capabilities, Key, PersistentError, PersistentMap, Result, StorageBackend, Value, Write,
};

/// No store: the map's own memory is all there is. For tests, caches and data that may go when the process does.
///
/// Writes change memory at once, in the caller's task: no queue, no second copy. The backend itself keeps nothing, so
/// it has nothing to load either.
///
/// ```
/// use persistent_map_core::PersistentMap;
/// use persistent_map_memory::InMemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let map = PersistentMap::new(InMemoryBackend::new()).await?;
/// map.insert("answer".to_string(), 42).await?;
/// assert_eq!(map.get("answer"), Some(42));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InMemoryBackend {}

impl InMemoryBackend {
    /// A backend that stores nothing.
    pub const fn new() -> Self {
        InMemoryBackend {}
    }
}

/// A map in memory: the type for fields and parameters.
///
/// ```
/// use persistent_map_memory::{InMemoryBackend, InMemoryMap};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let visits: InMemoryMap<String, u64> = InMemoryMap::new(InMemoryBackend::new()).await?;
/// # visits.close().await
/// # }
/// ```
pub type InMemoryMap<K, V> = PersistentMap<K, V, InMemoryBackend>;

#[async_trait]
impl<K: Key, V: Value> StorageBackend<K, V> for InMemoryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::resident()
    }

    async fn load_all(&self) -> Result<HashMap<K, V>, PersistentError> {
        Ok(HashMap::new())
    }

    async fn save(&self, _: K, _: V) -> Result<(), PersistentError> {
        Ok(())
    }

    async fn delete(&self, _: &K) -> Result<(), PersistentError> {
        Ok(())
    }

    async fn apply(&self, _: &[Write<K, V>]) -> Result<()> {
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), PersistentError> {
        Ok(())
    }
}
