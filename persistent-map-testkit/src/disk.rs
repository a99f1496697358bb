//! A pretend disk: survives its backends, can be copied, and is fast.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use persistent_map_core::{
    Capabilities, Key, PersistentError, Result, StorageBackend, Value, Write,
};

/// A place that keeps entries while backends come and go: what a file is to a real store.
///
/// ```
/// use persistent_map_core::PersistentMap;
/// use persistent_map_testkit::Disk;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let disk = Disk::<String, u32>::new();
/// let map = PersistentMap::new(disk.backend()).await?;
/// map.insert("a".to_string(), 1).await?;
/// drop(map);
///
/// let map = PersistentMap::new(disk.one_at_a_time_backend()).await?;
/// assert_eq!(map.get("a"), Some(1));
///
/// let before = disk.copy(); // what a crash at this moment leaves
/// map.clear().await?;
/// assert_eq!((before.entries().len(), disk.entries().len()), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Disk<K, V>(Arc<Mutex<HashMap<K, V>>>);

impl<K: Key, V: Value> Disk<K, V> {
    /// An empty disk.
    pub fn new() -> Self {
        Disk(Arc::default())
    }

    /// A backend with atomic batches on this disk. For an example see [`Disk`].
    pub fn backend(&self) -> DiskBackend<K, V> {
        DiskBackend {
            disk: self.clone(),
            capabilities: Capabilities::one_at_a_time().with_atomic_batches(),
        }
    }

    /// A backend without atomic batches on this disk.
    pub fn one_at_a_time_backend(&self) -> DiskBackend<K, V> {
        DiskBackend {
            disk: self.clone(),
            capabilities: Capabilities::one_at_a_time(),
        }
    }

    /// A copy of what is on the disk now.
    pub fn entries(&self) -> HashMap<K, V> {
        self.locked(|entries| entries.clone())
    }

    /// Another disk with the same entries.
    #[must_use]
    pub fn copy(&self) -> Self {
        Disk(Arc::new(Mutex::new(self.entries())))
    }

    fn locked<R>(&self, change: impl FnOnce(&mut HashMap<K, V>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Key, V: Value> Default for Disk<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for Disk<K, V> {
    fn clone(&self) -> Self {
        Disk(Arc::clone(&self.0))
    }
}

/// A backend on a disk. From [`Disk::backend`]. Each write first gives way to other tasks once, as real I/O does.
#[derive(Debug)]
pub struct DiskBackend<K, V> {
    disk: Disk<K, V>,
    capabilities: Capabilities,
}

#[async_trait]
impl<K: Key, V: Value> StorageBackend<K, V> for DiskBackend<K, V> {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn load_all(&self) -> Result<HashMap<K, V>> {
        Ok(self.disk.entries())
    }

    async fn save(&self, key: K, value: V) -> Result<()> {
        tokio::task::yield_now().await;
        self.disk.locked(|entries| entries.insert(key, value));
        Ok(())
    }

    async fn delete(&self, key: &K) -> Result<()> {
        tokio::task::yield_now().await;
        self.disk.locked(|entries| entries.remove(key));
        Ok(())
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        if !self.capabilities.atomic_batches && batch.len() > 1 {
            return Err(PersistentError::unsupported("atomic batches"));
        }
        tokio::task::yield_now().await;
        self.disk.locked(|entries| {
            for write in batch {
                match write.value() {
                    Some(value) => entries.insert(write.key().clone(), value.clone()),
                    None => entries.remove(write.key()),
                };
            }
        });
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        if !self.capabilities.atomic_batches {
            return Err(PersistentError::unsupported("clearing in one step"));
        }
        tokio::task::yield_now().await;
        self.disk.locked(HashMap::clear);
        Ok(())
    }

    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        if !self.capabilities.atomic_batches {
            return Err(PersistentError::unsupported("replacing all entries"));
        }
        tokio::task::yield_now().await;
        self.disk
            .locked(|stored| *stored = entries.into_iter().collect());
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}
