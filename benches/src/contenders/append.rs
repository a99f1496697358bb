//! A file that is appended to and synced under a lock, and nothing else: what the disk gives to one commit at a time.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use arena::{Outcome, Payload, Store};

pub(crate) struct Append(Mutex<File>);

impl Append {
    fn append(&self, frames: &[u8]) -> Outcome<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(frames)?;
        Ok(file.sync_data()?)
    }
}

fn frame<V: Payload>(frames: &mut Vec<u8>, key: &str, value: &V) -> Outcome<()> {
    let value = value.to_bytes()?;
    frames.extend(u32::try_from(key.len())?.to_le_bytes());
    frames.extend(u32::try_from(value.len())?.to_le_bytes());
    frames.extend(key.as_bytes());
    frames.extend(&*value);
    Ok(())
}

impl<V: Payload> Store<V> for Append {
    const BLOCKS: bool = true;

    async fn open(directory: &Path) -> Outcome<Self> {
        let mut options = File::options();
        let file = options.create(true).append(true);
        Ok(Append(Mutex::new(file.open(directory.join("append"))?)))
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        let mut frames = Vec::new();
        frame(&mut frames, &key, &value)?;
        self.append(&frames)
    }

    async fn update(&self, _: &str, _: impl Fn(&mut V) + Send + Sync + 'static) -> Outcome<()> {
        Err("a file that is only appended to cannot be updated".into())
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        let mut frames = Vec::new();
        for (key, value) in &entries {
            frame(&mut frames, key, value)?;
        }
        self.append(&frames)
    }

    fn get(&self, _: &String) -> Outcome<Option<V>> {
        Err("a file that is only appended to cannot be read by key".into())
    }
}
