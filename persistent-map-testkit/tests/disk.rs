//! The pretend disk keeps the contract itself.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use persistent_map_core::Result;
use persistent_map_testkit::{Disk, DiskBackend, Fixture, Item, conformance};

/// A disk for each directory.
struct Disks {
    atomic_batches: bool,
    disks: Mutex<HashMap<PathBuf, Disk<String, Item>>>,
}

impl Disks {
    fn new(atomic_batches: bool) -> Self {
        Disks {
            atomic_batches,
            disks: Mutex::default(),
        }
    }

    fn disk(&self, dir: &Path) -> Disk<String, Item> {
        self.disks
            .lock()
            .unwrap()
            .entry(dir.to_path_buf())
            .or_default()
            .clone()
    }
}

impl Fixture for Disks {
    type Key = String;
    type Value = Item;
    type Backend = DiskBackend<String, Item>;

    async fn open(&self, dir: &Path) -> Result<Self::Backend> {
        let disk = self.disk(dir);
        Ok(if self.atomic_batches {
            disk.backend()
        } else {
            disk.one_at_a_time_backend()
        })
    }

    fn crash(&self, from: &Path, to: &Path) -> io::Result<()> {
        let copy = self.disk(from).copy();
        self.disks.lock().unwrap().insert(to.to_path_buf(), copy);
        Ok(())
    }

    fn has_lock(&self) -> bool {
        false
    }
}

conformance!(with_atomic_batches, Disks::new(true));
conformance!(one_at_a_time, Disks::new(false));
