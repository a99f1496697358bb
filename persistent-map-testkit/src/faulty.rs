//! A backend that fails when it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use persistent_map_core::{
    Capabilities, Encoded, Key, LoadSink, PersistentError, Result, StorageBackend, Value, Write,
};
use tokio::sync::{RwLock, RwLockWriteGuard, watch};

/// How a write fails, if [`Faults`] say so.
///
/// ```
/// use persistent_map_core::{Outcome, PersistentMap, Result};
/// use persistent_map_testkit::{Disk, Fault, Faults};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// for fault in Fault::ALL {
///     let faults = Faults::new();
///     let map = PersistentMap::new(faults.wrap(Disk::<u8, u8>::new().backend())).await?;
///     faults.fail_next(fault);
///     let error = map.insert(1, 1).await.unwrap_err();
///     assert_eq!(error.outcome() == Outcome::NotApplied, fault == Fault::Refused);
///     assert_eq!(map.get(&1), None);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An error, and nothing was applied.
    Refused,
    /// An error that says the outcome is unknown; it was not applied.
    UnknownNotApplied,
    /// An error that says the outcome is unknown; it was applied.
    UnknownApplied,
    /// A panic before anything was applied.
    Panic,
    /// A panic after it was applied.
    PanicApplied,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [
        Fault::Refused,
        Fault::UnknownNotApplied,
        Fault::UnknownApplied,
        Fault::Panic,
        Fault::PanicApplied,
    ];
}

/// The switchboard of any number of [`Faulty`] backends.
///
/// ```
/// use persistent_map_core::{Outcome, PersistentMap};
/// use persistent_map_testkit::{Disk, Fault, Faults};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let faults = Faults::new();
/// let map = PersistentMap::new(faults.wrap(Disk::<String, u32>::new().backend())).await?;
/// faults.fail_next(Fault::Refused);
/// let error = map.insert("a".to_string(), 1).await.unwrap_err();
/// assert_eq!(error.outcome(), Outcome::NotApplied);
/// assert_eq!(map.get("a"), None);
/// assert_eq!(map.insert("a".to_string(), 1).await?, None);
///
/// faults.fail_nth(2, Fault::Refused); // not the next one, but the one after it
/// map.remove("a").await?;
/// assert!(map.insert("a".to_string(), 2).await.is_err());
///
/// faults.fail_always(Fault::Refused); // a full disk; with `fail_from`, one that will be
/// assert!(map.insert("a".to_string(), 3).await.is_err() && map.insert("a".to_string(), 4).await.is_err());
/// faults.heal();
/// map.insert("a".to_string(), 5).await?;
/// assert_eq!(faults.writes(), 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    plan: Mutex<Plan>,
    paused: watch::Sender<bool>,
    /// Read by each write under way.
    still: RwLock<()>,
}

#[derive(Debug, Default)]
struct Plan {
    /// Writes that have begun.
    writes: u64,
    /// Counted from 1.
    at: Option<(u64, Fault)>,
    /// This one, and all that follow.
    from: Option<(u64, Fault)>,
}

impl Faults {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A backend that fails as these switches say. For an example see [`Faults`].
    pub fn wrap<B>(&self, inner: B) -> Faulty<B> {
        Faulty {
            inner,
            faults: self.clone(),
        }
    }

    /// Fails the next write.
    pub fn fail_next(&self, fault: Fault) {
        self.fail_nth(1, fault);
    }

    /// Fails the `n`-th write from now; 1 is the next one. Replaces what was planned before.
    pub fn fail_nth(&self, n: u64, fault: Fault) {
        let mut plan = self.plan();
        plan.at = Some((plan.writes + n, fault));
    }

    /// Fails every write from now on.
    pub fn fail_always(&self, fault: Fault) {
        self.fail_from(1, fault);
    }

    /// Fails the `n`-th write from now and every one after it; 1 is the next one.
    pub fn fail_from(&self, n: u64, fault: Fault) {
        let mut plan = self.plan();
        plan.from = Some((plan.writes + n, fault));
    }

    /// No more faults.
    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.at = None;
        plan.from = None;
    }

    /// Lets writes wait before they do anything, until [`resume`](Self::resume).
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # use std::time::Duration;
    /// let faults = Faults::new();
    /// let map = PersistentMap::new(faults.wrap(Disk::new().backend())).await?;
    /// faults.pause(); // a disk that hangs
    /// let insert = tokio::time::timeout(Duration::from_millis(10), map.insert(1, 1)).await;
    /// assert!(insert.is_err() && map.is_empty());
    /// faults.resume();
    /// map.flush().await?;
    /// assert_eq!(map.get(&1), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    /// Lets writes go on that wait since [`pause`](Self::pause).
    pub fn resume(&self) {
        self.0.paused.send_replace(false);
    }

    /// Waits until no write is under way, and lets none begin before the guard is dropped. So that the files of a store can
    /// be copied as they are at one moment. Dropping the future holds nothing.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// let (faults, disk) = (Faults::new(), Disk::new());
    /// let map = PersistentMap::new(faults.wrap(disk.backend())).await?;
    /// let writes = tokio::spawn(async move { map.insert(1, 1).await });
    /// let stillness = faults.hold_still().await;
    /// let copy = disk.copy(); // with the entry or without it, and nothing between
    /// drop(stillness);
    /// # assert!(copy.entries().len() < 2);
    /// # writes.await.unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn hold_still(&self) -> Stillness<'_> {
        Stillness {
            _guard: self.0.still.write().await,
        }
    }

    /// How many writes have begun: `save`, `delete`, `apply`, `clear` and `replace` count one each.
    pub fn writes(&self) -> u64 {
        self.plan().writes
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn around(&self, write: impl Future<Output = Result<()>>) -> Result<()> {
        let fault = {
            let mut plan = self.plan();
            plan.writes += 1;
            let now = plan.writes;
            let once = plan.at.take_if(|(at, _)| *at == now);
            let lasting = plan.from.filter(|(from, _)| *from <= now);
            once.or(lasting).map(|(_, fault)| fault)
        };
        let mut paused = self.0.paused.subscribe();
        // The sender is in `self`, so it cannot have gone.
        let _ = paused.wait_for(|paused| !paused).await;
        let _under_way = self.0.still.read().await;
        let failure = || PersistentError::storage("writing", "a fault was injected");
        match fault {
            None => write.await,
            Some(Fault::Refused) => Err(failure()),
            Some(Fault::UnknownNotApplied) => Err(failure().unknown()),
            Some(Fault::UnknownApplied) => {
                write.await?;
                Err(failure().unknown())
            }
            Some(Fault::Panic) => quiet_panic(),
            Some(Fault::PanicApplied) => {
                write.await?;
                quiet_panic()
            }
        }
    }
}

/// One that is not printed: it was asked for.
fn quiet_panic() -> ! {
    std::panic::resume_unwind(Box::new("a panic was injected"))
}

/// While it lives, no write begins. From [`Faults::hold_still`].
#[derive(Debug)]
#[must_use = "writes go on as soon as it is dropped"]
pub struct Stillness<'a> {
    _guard: RwLockWriteGuard<'a, ()>,
}

/// A backend that does what the inner one does, unless its [`Faults`] say otherwise. From [`Faults::wrap`].
#[derive(Debug)]
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<K, V, B> StorageBackend<K, V> for Faulty<B>
where
    K: Key,
    V: Value,
    B: StorageBackend<K, V>,
{
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().not_resident()
    }

    fn prepare(&self, key: &K, value: Option<&V>) -> Result<Option<Encoded>> {
        self.inner.prepare(key, value)
    }

    async fn load(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        self.inner.load(sink).await
    }

    async fn load_all(&self) -> Result<HashMap<K, V>> {
        self.inner.load_all().await
    }

    async fn save(&self, key: K, value: V) -> Result<()> {
        self.faults.around(self.inner.save(key, value)).await
    }

    async fn delete(&self, key: &K) -> Result<()> {
        self.faults.around(self.inner.delete(key)).await
    }

    async fn apply(&self, batch: &[Write<K, V>]) -> Result<()> {
        self.faults.around(self.inner.apply(batch)).await
    }

    async fn clear(&self) -> Result<()> {
        self.faults.around(self.inner.clear()).await
    }

    async fn read_back(&self, sink: &mut dyn LoadSink<K, V>) -> Result<()> {
        self.inner.read_back(sink).await
    }

    async fn replace(&self, entries: Vec<(K, V)>) -> Result<()> {
        self.faults.around(self.inner.replace(entries)).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
