//! Moving house: all entries of one map into another.

use std::fmt;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::backend::{Key, StorageBackend, Value};
use crate::error::{PersistentError, Result};
use crate::load::Progress;
use crate::map::PersistentMap;
use crate::verify::equal;

/// Entries in one commit.
const BATCH: usize = 4096;

/// Copies all entries of `from` into `to`, whatever their backends, and checks that they have arrived in the store.
///
/// `.await` it. What is copied is a [`snapshot`](PersistentMap::snapshot): later changes of `from` are not. An entry of `to`
/// with the same key is replaced; others stay. After the last entry `to` is flushed, its store is read back and compared
/// with memory ([`verify`](PersistentMap::verify)), and each copied entry is compared with its original.
///
/// It is not one step: entries are committed 4,096 at a time (one by one without atomic batches). If it fails or is dropped,
/// `from` is as it was, `to` has a part, and doing it again completes it.
///
/// ```
/// use persistent_map_core::{PersistentMap, Result, copy};
/// use persistent_map_memory::InMemoryBackend;
/// # use persistent_map_testkit::Disk;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let old = PersistentMap::new(InMemoryBackend::new()).await?;
/// old.insert_many((0..10_000u32).map(|n| (n, n.to_string()))).await?;
///
/// # let backend = Disk::new().backend();
/// let new = PersistentMap::new(backend).await?;
/// let copied = copy(&old, &new)
///     .on_progress(|progress| println!("{} of {:?}", progress.loaded, progress.total))
///     .await?;
/// assert_eq!((copied.entries, copied.verified), (10_000, 10_000));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What `to` says of a write, its flush or its [`verify`](PersistentMap::verify).
///
/// # Cancel safety
/// Dropping it leaves a part of the entries in `to`.
pub fn copy<'a, K, V, A, T, B, S>(
    from: &'a PersistentMap<K, V, A, T>,
    to: &'a PersistentMap<K, V, B, S>,
) -> Copying<'a, K, V, A, T, B, S> {
    Copying {
        from,
        to,
        on_progress: None,
    }
}

/// A copy that is about to be made. From [`copy`]; `.await` it.
#[must_use = "nothing is copied until it is awaited"]
pub struct Copying<'a, K, V, A, T, B, S> {
    from: &'a PersistentMap<K, V, A, T>,
    to: &'a PersistentMap<K, V, B, S>,
    on_progress: Option<Box<dyn FnMut(Progress) + Send + 'a>>,
}

/// What a copy has done. From [`copy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Entries that were copied.
    pub entries: u64,
    /// Entries of the target that were read back from its store and found equal: the copied ones, and those that it had.
    pub verified: u64,
    /// How long it took, with the check.
    pub elapsed: Duration,
}

impl<'a, K, V, A, T, B, S> Copying<'a, K, V, A, T, B, S> {
    /// Calls `tell` after each commit. It runs in the task that awaits the copy.
    pub fn on_progress(mut self, tell: impl FnMut(Progress) + Send + 'a) -> Self {
        self.on_progress = Some(Box::new(tell));
        self
    }
}

impl<K, V, A, T, B, S> Copying<'_, K, V, A, T, B, S>
where
    K: Key,
    V: Value + PartialEq,
    A: StorageBackend<K, V>,
    B: StorageBackend<K, V>,
    T: BuildHasher + Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    async fn run(mut self) -> Result<Copied> {
        let started = Instant::now();
        let snapshot = self.from.snapshot().await?;
        let total = snapshot.len() as u64;
        let mut progress = Progress {
            loaded: 0,
            total: Some(total),
        };
        let batch = if self.to.capabilities().atomic_batches {
            BATCH
        } else {
            1
        };
        let mut entries = snapshot
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        loop {
            let next: Vec<(K, V)> = entries.by_ref().take(batch).collect();
            if next.is_empty() {
                break;
            }
            progress.loaded += next.len() as u64;
            self.to.insert_many(next).await?;
            if let Some(tell) = &mut self.on_progress {
                tell(progress);
            }
        }
        self.to.flush().await?;
        let verified = self.to.verify().await?;
        let (mut missing, mut other) = (0, 0);
        for (key, value) in &snapshot {
            match self.to.with(key, |copied| equal(copied, value)) {
                Some(true) => {}
                Some(false) => other += 1,
                None => missing += 1,
            }
        }
        if missing + other > 0 {
            return Err(PersistentError::NotAsWritten {
                missing,
                other,
                unexpected: 0,
            });
        }
        Ok(Copied {
            entries: total,
            verified,
            elapsed: started.elapsed(),
        })
    }
}

impl<'a, K, V, A, T, B, S> IntoFuture for Copying<'a, K, V, A, T, B, S>
where
    K: Key,
    V: Value + PartialEq,
    A: StorageBackend<K, V>,
    B: StorageBackend<K, V>,
    T: BuildHasher + Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    type Output = Result<Copied>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Copied>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<K, V, A, T, B, S> fmt::Debug for Copying<'_, K, V, A, T, B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copying").finish_non_exhaustive()
    }
}
