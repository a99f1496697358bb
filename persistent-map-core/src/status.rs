//! How the map is doing: may it write, what has it done, how did it end.

use std::sync::{Arc, OnceLock, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::error::{PersistentError, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What state a map is in. Part of its [`Stats`]. For an example see [`Stats::is_healthy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Reads and writes.
    Open,
    /// An outcome was unknown: reads only, until it is opened again.
    Poisoned,
    /// Closed: reads only.
    Closed,
}

/// Figures about a map, taken without waiting. Each is exact for some recent moment, not all for the same one. From
/// [`PersistentMap::stats`](crate::PersistentMap::stats).
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_memory::InMemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::<String, u64, _>::new(InMemoryBackend::new()).await?;
/// let stats = map.stats();
/// println!("{} entries, {} writes in {} commits", stats.entries, stats.writes, stats.commits);
/// if let Some(failure) = &stats.last_failure {
///     println!("the store fails: {failure}");
/// }
/// # assert!(stats.is_healthy());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// Entries in memory.
    pub entries: usize,
    /// Calls that are queued and not yet taken up by the writer.
    pub pending: usize,
    /// Entries that are accepted and not stored yet, with [`WriteMode::Behind`](crate::WriteMode::Behind).
    pub unsaved: usize,
    /// Their keys and values in bytes, where the backend prepares bytes.
    pub unsaved_bytes: usize,
    /// Commits of the store since open. Zero without a store.
    pub commits: u64,
    /// Writes in those commits; divided by `commits`, how many share one.
    pub writes: u64,
    /// Most writes in one commit.
    pub largest_commit: u64,
    /// Commits and flushes that failed since open. It only grows, so it is for rates and alarms, not for "how is it now".
    pub failed_commits: u64,
    /// The latest failure of the store, until a commit or a flush goes well. With
    /// [`WriteMode::Behind`](crate::WriteMode::Behind) also as long as the store refuses an entry that was accepted.
    pub last_failure: Option<PersistentError>,
    /// Whether the map reads and writes.
    pub phase: Phase,
}

impl Stats {
    /// Whether the map is open and the store did what it was asked last: what a `/healthz` should answer.
    ///
    /// It recovers by itself, with the next commit or [`flush`](crate::PersistentMap::flush) that goes well. A map that nobody
    /// writes to asks its store nothing, so whoever takes an unhealthy program out of service lets the check write an entry
    /// before it looks. A map that is poisoned or closed does not recover: it has to be opened again.
    ///
    /// ```
    /// # use persistent_map_core::*;
    /// # use persistent_map_testkit::{Disk, Fault, Faults};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let faults = Faults::new();
    /// # let map = PersistentMap::new(faults.wrap(Disk::<u8, u8>::new().backend())).await?;
    /// # faults.fail_next(Fault::Refused);
    /// map.insert(1, 1).await.unwrap_err(); // the disk is full, say
    /// assert!(!map.stats().is_healthy());
    /// assert_eq!(map.stats().phase, Phase::Open); // and it takes writes
    ///
    /// map.insert(1, 1).await?; // there is room again
    /// assert!(map.stats().is_healthy());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_healthy(&self) -> bool {
        self.phase == Phase::Open && self.last_failure.is_none()
    }
}

/// Shared by the handles and the writer.
pub(crate) struct Status {
    poison: OnceLock<Arc<PersistentError>>,
    last_failure: Mutex<Option<PersistentError>>,
    /// There is a last failure. What each commit looks at.
    is_failing: AtomicBool,
    commits: AtomicU64,
    writes: AtomicU64,
    largest_commit: AtomicU64,
    failed_commits: AtomicU64,
    /// Nothing more is accepted. What each call looks at: a watch has a lock.
    is_closed: AtomicBool,
    closing: watch::Sender<bool>,
    /// How the map ended, once it has.
    end: watch::Sender<Option<Result<()>>>,
}

impl Status {
    pub(crate) fn new() -> Self {
        Status {
            poison: OnceLock::new(),
            last_failure: Mutex::new(None),
            is_failing: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            largest_commit: AtomicU64::new(0),
            failed_commits: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            closing: watch::Sender::new(false),
            end: watch::Sender::new(None),
        }
    }

    /// Refuses to change a store whose state is unknown.
    pub(crate) fn check_sound(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(first) => Err(PersistentError::Poisoned {
                first: Arc::clone(first),
            }),
        }
    }

    /// Refuses a call on a map that is poisoned or closed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_sound()?;
        self.check_open()
    }

    /// Refuses a call on a map that is closed, or about to be.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(PersistentError::Closed);
        }
        Ok(())
    }

    /// Refuses to do what nobody waits for any more, or what would keep a close waiting.
    pub(crate) fn check_wanted<T>(&self, answer: &oneshot::Sender<T>) -> Result<()> {
        if answer.is_closed() {
            return Err(PersistentError::Closed);
        }
        self.check_open()
    }

    /// Asks the writer to finish. From now on nothing is accepted. Returns whether this is the first time.
    pub(crate) fn request_close(&self) -> bool {
        self.is_closed.store(true, Ordering::Release);
        !self.closing.send_replace(true)
    }

    /// Waits for somebody to ask for the close.
    pub(crate) async fn close_requested(&self) {
        // The sender is in `self`, so it cannot have gone.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Only the first failure is kept: those that follow are its consequences.
    pub(crate) fn poison(&self, failure: PersistentError) {
        if self.poison.set(Arc::new(failure)).is_ok() {
            tracing::error!(
                target: "persistent_map",
                error = self.poison.get().map(tracing::field::display),
                "outcome of a write unknown: the map refuses writes until it is opened again"
            );
        }
    }

    pub(crate) fn committed(&self, writes: usize) {
        let writes = writes as u64;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes, Ordering::Relaxed);
        self.largest_commit.fetch_max(writes, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, failure: &PersistentError) {
        self.failed_commits.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(target: "persistent_map", error = %failure, "a commit failed");
        self.fails(failure);
    }

    /// The store does not do what it should.
    pub(crate) fn fails(&self, failure: &PersistentError) {
        let mut last = self.lock_failure();
        *last = Some(failure.clone());
        self.is_failing.store(true, Ordering::Relaxed);
    }

    /// The store has done what it was asked.
    pub(crate) fn works(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            let mut last = self.lock_failure();
            *last = None;
            self.is_failing.store(false, Ordering::Relaxed);
        }
    }

    fn lock_failure(&self) -> MutexGuard<'_, Option<PersistentError>> {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the map, unless it has ended already.
    pub(crate) fn end(&self, result: Result<()>) {
        self.is_closed.store(true, Ordering::Release);
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(result);
            }
            first
        });
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Result<()> {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(PersistentError::WriterGone),
        }
    }

    /// The figures that are kept here.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            entries: 0,
            pending: 0,
            unsaved: 0,
            unsaved_bytes: 0,
            commits: self.commits.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            largest_commit: self.largest_commit.load(Ordering::Relaxed),
            failed_commits: self.failed_commits.load(Ordering::Relaxed),
            last_failure: self.lock_failure().clone(),
            phase: match self.check_writable() {
                Ok(()) => Phase::Open,
                Err(PersistentError::Poisoned { .. }) => Phase::Poisoned,
                Err(_) => Phase::Closed,
            },
        }
    }
}
