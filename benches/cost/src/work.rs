//! Each path through the map, done so many times.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use dashmap::DashMap;
use persistent_map::in_memory::InMemoryBackend;
use persistent_map::{Behind, PersistentMap, StorageBackend, WriteMode};
use serde::{Deserialize, Serialize};

use crate::store::Nothing;

/// The hasher of the standard library, without its random keys: the same work each time.
type Hasher = BuildHasherDefault<DefaultHasher>;
type Map<B> = PersistentMap<String, String, B, Hasher>;
/// Keys of 16 characters, values of 100.
pub type Entries = Vec<(String, String)>;

/// One path through the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// What writes write: no part of their cost
    MakeEntries,
    /// Of a bare `DashMap`, with a copy: what reads are measured by
    DashmapGet,
    /// Of a bare `DashMap`: what writes are measured by
    DashmapInsert,
    Get,
    With,
    ContainsKey,
    /// One call after the other
    Insert,
    /// 64 callers who share commits
    InsertTogether,
    InsertMany,
    Update,
    InsertBehind,
    InsertMemory,
    /// A row, from its bytes into memory
    Open,
}

impl Work {
    /// What this work is measured by.
    #[must_use]
    pub fn reference(self) -> Work {
        match self {
            Work::MakeEntries => self,
            Work::DashmapGet | Work::Get | Work::With | Work::ContainsKey => Work::DashmapGet,
            _ => Work::DashmapInsert,
        }
    }

    /// Whether it begins with making entries, one each time.
    pub fn makes_entries(self) -> bool {
        !matches!(
            self,
            Work::DashmapGet | Work::Get | Work::With | Work::ContainsKey | Work::Update
        )
    }

    /// Does the work `times` times, beside what has to be done for it once.
    ///
    /// # Panics
    /// If the map returns an error.
    pub async fn perform(self, times: usize) {
        match self {
            Work::MakeEntries => drop(black_box(entries(times))),
            Work::DashmapGet => {
                let (dashmap, entries) = filled_dashmap();
                for (key, _) in entries.iter().cycle().take(times) {
                    black_box(dashmap.get(key).map(|entry| entry.value().clone()));
                }
            }
            Work::DashmapInsert => {
                let dashmap = DashMap::with_hasher(Hasher::default());
                for (key, value) in entries(times) {
                    black_box(dashmap.insert(key, value));
                }
            }
            Work::Get | Work::With | Work::ContainsKey => self.look_up(times).await,
            Work::Open => {
                let store = Nothing::but(&entries(times));
                black_box(map(store).await);
            }
            Work::Insert => {
                let map = map(Nothing::default()).await;
                for (key, value) in entries(times) {
                    map.insert(key, value).await.expect(STORES);
                }
            }
            Work::Update => {
                let entries = entries(RESIDENT);
                let map = map(Nothing::but(&entries)).await;
                for (key, _) in entries.iter().cycle().take(times) {
                    let updated = map.update(key, |value| value.make_ascii_uppercase());
                    updated.await.expect(STORES);
                }
            }
            Work::InsertTogether => together(times).await,
            Work::InsertMany => {
                let map = map(Nothing::default()).await;
                map.insert_many(entries(times)).await.expect(STORES);
            }
            Work::InsertBehind => {
                let map = map_behind().await;
                for (key, value) in entries(times) {
                    map.insert(key, value).await.expect(STORES);
                }
                map.flush().await.expect(STORES);
            }
            Work::InsertMemory => {
                let map = map(InMemoryBackend::new()).await;
                for (key, value) in entries(times) {
                    map.insert(key, value).await.expect(STORES);
                }
            }
        }
    }

    async fn look_up(self, times: usize) {
        let entries = entries(RESIDENT);
        let map = map(Nothing::but(&entries)).await;
        for (key, _) in entries.iter().cycle().take(times) {
            match self {
                Work::Get => drop(black_box(map.get(key))),
                Work::With => drop(black_box(map.with(key, String::len))),
                _ => _ = black_box(map.contains_key(key)),
            }
        }
    }
}

const STORES: &str = "a store that does nothing always succeeds";
/// Entries that reads choose among.
const RESIDENT: usize = 1000;
const CALLERS: usize = 64;

/// So many new entries.
pub fn entries(count: usize) -> Entries {
    (0..count)
        .map(|number| (format!("{:016x}", number * 0x9e37_79b9), "v".repeat(100)))
        .collect()
}

/// A map that writes through.
///
/// # Panics
/// If it cannot be opened.
pub async fn map<B: StorageBackend<String, String>>(backend: B) -> Map<B> {
    let builder = PersistentMap::builder(backend).hasher(Hasher::default());
    builder.open().await.expect(STORES)
}

/// A map that writes behind: nothing is stored before `flush`.
///
/// # Panics
/// If it cannot be opened.
pub async fn map_behind() -> Map<Nothing> {
    let limits = Behind::new()
        .max_delay(Duration::from_hours(1))
        .max_entries(1 << 30)
        .max_bytes(1 << 40);
    let builder = PersistentMap::builder(Nothing::default()).hasher(Hasher::default());
    let builder = builder.write_mode(WriteMode::Behind(limits));
    builder.open().await.expect(STORES)
}

fn filled_dashmap() -> (DashMap<String, String, Hasher>, Entries) {
    let dashmap = DashMap::with_hasher(Hasher::default());
    let entries = entries(RESIDENT);
    for (key, value) in entries.clone() {
        dashmap.insert(key, value);
    }
    (dashmap, entries)
}

async fn together(times: usize) {
    let map = Arc::new(map(Nothing::default()).await);
    let mut shares: Vec<Entries> = vec![Vec::new(); CALLERS];
    for (number, entry) in entries(times).into_iter().enumerate() {
        shares[number % CALLERS].push(entry);
    }
    let callers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let map = Arc::clone(&map);
            tokio::spawn(async move {
                for (key, value) in share {
                    map.insert(key, value).await.expect(STORES);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect(STORES);
    }
}
