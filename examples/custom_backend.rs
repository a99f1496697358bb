//! A backend of your own: all entries in one JSON file, in the four methods that a backend must have.
//!
//! Run it twice: `cargo run --example custom_backend`. `examples/tests/custom_backend.rs` holds it against the contract.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use persistent_map::{Key, PersistentError, PersistentMap, Result, StorageBackend, Value};
use persistent_map_examples::data_file;

/// Writes the whole file at each change: right for a few hundred entries, and short. It has no lock, so it is up to you
/// that one process uses the file at a time.
#[derive(Debug)]
pub struct JsonFile<K, V> {
    path: PathBuf,
    /// What the file says.
    entries: Mutex<HashMap<K, V>>,
}

impl<K: Key, V: Value> JsonFile<K, V> {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or is not what `save` writes.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let entries = match fs::read(&path) {
            Ok(json) => serde_json::from_slice::<Vec<(K, V)>>(&json).map_err(|error| {
                PersistentError::storage(format!("reading {}", path.display()), error)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(JsonFile {
            path,
            entries: Mutex::new(entries.into_iter().collect()),
        })
    }

    /// Makes a change: first in the file, then in `entries`. So an error leaves both as they were.
    async fn change(&self, change: impl FnOnce(&mut HashMap<K, V>)) -> Result<()> {
        let mut entries = self.lock().clone();
        change(&mut entries);
        let json = serde_json::to_vec_pretty(&entries.iter().collect::<Vec<_>>())
            .map_err(|error| PersistentError::storage("encoding the entries", error))?;
        let path = self.path.clone();
        // Files block, and async code must not.
        tokio::task::spawn_blocking(move || replace(&path, &json))
            .await
            .map_err(|error| PersistentError::storage("writing the file", error))??;
        *self.lock() = entries;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A crash leaves the old file or the new one, never a piece of either.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[async_trait]
impl<K: Key, V: Value> StorageBackend<K, V> for JsonFile<K, V> {
    async fn load_all(&self) -> Result<HashMap<K, V>, PersistentError> {
        Ok(self.lock().clone())
    }

    async fn save(&self, key: K, value: V) -> Result<(), PersistentError> {
        self.change(|entries| drop(entries.insert(key, value)))
            .await
    }

    async fn delete(&self, key: &K) -> Result<(), PersistentError> {
        self.change(|entries| drop(entries.remove(key))).await
    }

    async fn flush(&self) -> Result<(), PersistentError> {
        Ok(()) // `save` and `delete` leave nothing to flush.
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = data_file("custom_backend.json")?;
    let map = PersistentMap::<String, u64, _>::new(JsonFile::open(&path)?).await?;
    let visits = map.get("visits").unwrap_or(0) + 1;
    map.insert("visits".to_string(), visits).await?;
    println!("Visit number {visits}. The file:");
    println!("{}", fs::read_to_string(&path)?);
    map.close().await
}
