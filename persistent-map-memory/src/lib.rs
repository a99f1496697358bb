#![doc = include_str!("../README.md")]

use std::any::{Any, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use persistent_map_core::{
    Capabilities, Key, PersistentError, PersistentMap, Result, StorageBackend, Value, Write,
};

/// No store: the map's own memory is all there is. For tests, caches and data that may go when the process does.
///
/// Writes change memory at once, in the caller's task: no queue, no second copy. A map of this backend never calls it, so
/// it keeps nothing. A backend that stands before it and wants to be called
/// ([`not_resident`](Capabilities::not_resident)) finds an ordinary one: what was written is kept, until it is dropped.
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
#[derive(Default)]
pub struct InMemoryBackend {
    /// A `HashMap<K, V>`, once something was written.
    written: Mutex<Option<Box<dyn Any + Send>>>,
}

impl InMemoryBackend {
    /// A backend that stores nothing.
    pub const fn new() -> Self {
        InMemoryBackend {
            written: Mutex::new(None),
        }
    }

    fn change<K: Key, V: Value>(&self, change: impl FnOnce(&mut HashMap<K, V>)) -> Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = written.get_or_insert_with(|| Box::new(HashMap::<K, V>::new()));
        change(entries.downcast_mut().ok_or_else(other_types::<K, V>)?);
        Ok(())
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
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = &*written else {
            return Ok(HashMap::new());
        };
        let entries: Option<&HashMap<K, V>> = entries.downcast_ref();
        entries.cloned().ok_or_else(other_types::<K, V>)
    }

    async fn save(&self, key: K, value: V) -> Result<(), PersistentError> {
        self.change(|entries| drop(entries.insert(key, value)))
    }

    async fn delete(&self, key: &K) -> Result<(), PersistentError> {
        self.change::<K, V>(|entries| drop(entries.remove(key)))
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        self.change(|entries| {
            for write in batch {
                match write.value() {
                    Some(value) => entries.insert(write.key().clone(), value.clone()),
                    None => entries.remove(write.key()),
                };
            }
        })
    }

    async fn clear(&self) -> Result<()> {
        self.change::<K, V>(HashMap::clear)
    }

    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        let entries: HashMap<K, V> = entries.into_iter().collect();
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(entries));
        Ok(())
    }

    async fn flush(&self) -> Result<(), PersistentError> {
        Ok(())
    }
}

impl fmt::Debug for InMemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryBackend").finish_non_exhaustive()
    }
}

fn other_types<K, V>() -> PersistentError {
    PersistentError::Mismatch {
        place: "memory".to_string(),
        expected: format!(
            "keys of type {} and values of type {}",
            type_name::<K>(),
            type_name::<V>()
        ),
        found: "entries of other types".to_string(),
        advice: "Use a backend for each map".to_string(),
    }
}
