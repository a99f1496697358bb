//! Write-behind when the store fails, refuses or ends: what is unsaved is told of, and tried again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use persistent_map_core::{
    Behind, Capabilities, Event, Outcome, PersistentError, Phase, Result, StorageBackend, Write,
};
use persistent_map_testkit::{Disk, Fault, Faults};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{Level, Metadata, Subscriber, span};

mod support;
use support::{backend_of, behind, lazy, soon, until};

#[tokio::test]
async fn a_store_that_fails_for_a_while_loses_nothing_and_says_so() {
    for atomic in [true, false] {
        let disk = Disk::new();
        let faults = Faults::new();
        let backend = backend_of(&disk, atomic);
        let limits = Behind::new()
            .max_delay(Duration::from_millis(5))
            .retry(Duration::from_millis(5), Duration::from_millis(20));
        let map = behind(faults.wrap(backend), limits).await;
        let mut events = map.subscribe();
        for n in 0..10 {
            map.insert(n, n).await.unwrap();
        }
        faults.fail_always(Fault::Refused);
        until("a failure", || map.stats().failed_commits > 0).await;

        // The next write, and each one after it: reading the error does not clear it.
        for _ in 0..3 {
            let error = map.insert(100, 1).await.unwrap_err();
            assert!(
                matches!(error, PersistentError::Unsaved { entries: 10, .. }),
                "{error}"
            );
            assert_eq!(error.outcome(), Outcome::NotApplied);
            let error = map.flush().await.unwrap_err();
            assert!(
                matches!(error, PersistentError::Unsaved { entries: 10, .. }),
                "{error}"
            );
        }
        assert_eq!(map.get(&100), None);
        let stats = map.stats();
        assert_eq!((stats.unsaved, stats.phase), (10, Phase::Open));
        assert!(stats.last_failure.is_some());
        let mut failures = 0;
        while let Ok(Some(event)) = timeout(Duration::from_millis(10), events.recv()).await {
            failures += u32::from(matches!(event, Event::Failed(_)));
        }
        assert!(failures > 0, "subscribers were not told");
        // It is tried again by itself, not only when somebody asks.
        let tries = faults.writes();
        until("a retry", || faults.writes() > tries + 1).await;
        assert!(disk.entries().is_empty());

        faults.heal();
        until("the recovery", || map.stats().unsaved == 0).await;
        assert_eq!(disk.entries(), map.iter().collect());
        map.insert(100, 2).await.unwrap();
        map.close().await.unwrap();
        assert_eq!(disk.entries().len(), 11);
    }
}

/// Calls what is planned when one is dropped, and nothing while that runs.
#[derive(Clone, Serialize, Deserialize)]
struct Loud;

thread_local! {
    static WHEN_DROPPED: Cell<Option<Box<dyn FnMut()>>> = const { Cell::new(None) };
}

impl Drop for Loud {
    fn drop(&mut self) {
        if let Some(mut planned) = WHEN_DROPPED.take() {
            planned();
            WHEN_DROPPED.set(Some(planned));
        }
    }
}

/// A caller who comes when the first entries have been stored and are dropped, in the middle of the save.
#[tokio::test]
async fn a_store_that_works_again_refuses_nobody() {
    for atomic in [true, false] {
        let disk = Disk::new();
        let faults = Faults::new();
        let backend = backend_of(&disk, atomic);
        let map = behind(faults.wrap(backend), lazy()).await;
        map.insert(0, Loud).await.unwrap();
        map.insert(1, Loud).await.unwrap();
        faults.fail_next(Fault::Refused);
        map.flush().await.unwrap_err();

        let answers = Rc::new(RefCell::new(Vec::new()));
        let (late, heard, stored) = (map.clone(), Rc::clone(&answers), faults.clone());
        let before = faults.writes();
        WHEN_DROPPED.set(Some(Box::new(move || {
            let call = pin!(late.insert(2, Loud));
            if let Poll::Ready(answer) = call.poll(&mut Context::from_waker(Waker::noop())) {
                let is_stored = stored.writes() > before;
                heard.borrow_mut().push((is_stored, answer.map(drop)));
            }
        })));
        let flushed = map.flush().await;
        WHEN_DROPPED.take();
        flushed.unwrap();
        let answers = answers.take();
        assert!(answers.iter().any(|(is_stored, _)| *is_stored));
        for (is_stored, answer) in answers {
            assert_eq!(answer.is_ok(), is_stored, "{answer:?}");
        }
        map.close().await.unwrap();
        assert_eq!(disk.entries().len(), 3);
    }
}

/// Each time it waits twice as long: after 10, 20, 40 ms and so on.
#[tokio::test]
async fn a_store_that_goes_on_failing_is_tried_less_and_less_often() {
    let faults = Faults::new();
    let limits = lazy().retry(Duration::from_millis(10), Duration::from_hours(1));
    let map = behind(faults.wrap(Disk::new().backend()), limits).await;
    map.insert(1, 1).await.unwrap();
    faults.fail_always(Fault::Refused);
    map.flush().await.unwrap_err();
    sleep(Duration::from_millis(100)).await;
    let tries = faults.writes();
    assert!((2..=4).contains(&tries), "{tries}");
}

#[tokio::test]
async fn close_says_what_could_not_be_stored() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy()).await;
    map.insert_many((0..10).map(|n| (n, n))).await.unwrap();
    faults.fail_always(Fault::Refused);
    let error = map.close().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 10, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("injected"), "{error}");
    assert_eq!(map.len(), 10, "reads go on");
    let error = map.insert(1, 1).await.unwrap_err();
    assert!(matches!(error, PersistentError::Closed), "{error}");
    let again = map.close().await.unwrap_err();
    assert!(matches!(again, PersistentError::Unsaved { .. }), "{again}");
}

#[tokio::test]
async fn an_unknown_outcome_ends_writing_and_close_tells_of_the_rest() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(disk.backend()), lazy()).await;
    map.insert(1, 1).await.unwrap();
    faults.fail_next(Fault::UnknownApplied);
    map.flush().await.unwrap_err();
    assert_eq!(map.stats().phase, Phase::Poisoned);
    let error = map.insert(2, 2).await.unwrap_err();
    assert!(matches!(error, PersistentError::Poisoned { .. }), "{error}");
    let error = timeout(Duration::from_secs(5), map.close())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_runtime_that_ends_takes_the_unsaved_rest_and_nobody_hangs() {
    let disk = Disk::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let map = runtime.block_on(behind(disk.backend(), lazy()));
    runtime.block_on(async {
        map.insert(1, 1).await.unwrap();
        map.flush().await.unwrap();
        map.insert(2, 2).await.unwrap();
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(disk.entries(), HashMap::from([(1, 1)]));
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    other.block_on(async {
        let late = timeout(Duration::from_secs(5), map.insert(3, 3))
            .await
            .unwrap();
        assert!(late.is_err());
        let late = timeout(Duration::from_secs(5), map.close()).await.unwrap();
        assert!(matches!(late, Err(PersistentError::WriterGone)), "{late:?}");
        assert!(map.flush().await.is_err());
    });
    assert_eq!(map.get(&2), Some(2));
}

/// Counts the errors that are logged.
#[derive(Default)]
struct Log(Arc<AtomicUsize>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_runtime_that_ends_logs_what_it_takes_along() {
    let lives = |unsaved: bool, closed: bool| {
        let log = Log::default();
        let errors = Arc::clone(&log.0);
        tracing::subscriber::with_default(log, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let faults = Faults::new();
            let map = runtime.block_on(behind(faults.wrap(Disk::new().backend()), lazy()));
            runtime.block_on(async {
                map.insert(1, 1).await.unwrap();
                if !unsaved {
                    map.flush().await.unwrap();
                }
                if closed {
                    faults.fail_always(Fault::Refused);
                    drop(map.close().await);
                }
            });
            drop(runtime);
        });
        errors.load(Ordering::Relaxed)
    };
    assert_eq!(lives(true, false), 1);
    assert_eq!(lives(false, false), 0);
    // The close has told of it.
    assert_eq!(lives(true, true), 1);
}

/// In a process of its own, because others of these tests listen.
#[test]
fn what_a_runtime_takes_along_is_printed_if_nobody_listens() {
    const CHILD: &str = "PERSISTENT_MAP_TEST_UNHEARD";
    const NAME: &str = "what_a_runtime_takes_along_is_printed_if_nobody_listens";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let map = runtime.block_on(behind(Disk::new().backend(), lazy()));
        runtime.block_on(map.insert(1, 1)).unwrap();
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(CHILD, "")
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stderr).unwrap();
    assert!(child.status.success(), "{printed}");
    assert!(printed.contains("1 entry was not stored"), "{printed}");
    assert!(printed.contains("close().await"), "{printed}");
}

/// A store that takes one write at a time, does not like thirteen, and fails at fourteen.
struct Picky(Disk<u32, u32>);

#[async_trait]
impl StorageBackend<u32, u32> for Picky {
    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time()
    }
    async fn load_all(&self) -> Result<HashMap<u32, u32>> {
        Ok(self.0.entries())
    }
    async fn save(&self, key: u32, value: u32) -> Result<()> {
        if value == 13 {
            return Err(PersistentError::TooLarge {
                part: "value",
                bytes: 13,
                limit: 12,
            });
        }
        if value == 14 {
            return Err(PersistentError::storage("saving", "a bad number"));
        }
        let write = Write::insert(key, value);
        self.0.backend().apply(&[write]).await
    }
    async fn delete(&self, key: &u32) -> Result<()> {
        self.0.backend().apply(&[Write::remove(*key)]).await
    }
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_entry_that_the_store_refuses_does_not_hold_up_the_others() {
    let disk = Disk::new();
    let map = behind(Picky(disk.clone()), lazy()).await;
    map.insert(1, 13).await.unwrap();
    map.insert(2, 2).await.unwrap();
    let error = map.flush().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 1, .. }),
        "{error}"
    );
    assert_eq!(disk.entries(), HashMap::from([(2, 2)]));
    // The others go on, and it is not forgotten.
    map.insert(3, 3).await.unwrap();
    map.flush().await.unwrap_err();
    assert_eq!(disk.entries(), HashMap::from([(2, 2), (3, 3)]));
    assert_eq!(map.stats().unsaved, 1);
    assert!(!map.stats().is_healthy(), "others have made up for it");
    // Until it is replaced by one that the store takes.
    map.insert(1, 1).await.unwrap();
    map.flush().await.unwrap();
    assert_eq!(map.stats().unsaved, 0);
    assert!(map.stats().is_healthy());
    map.insert(1, 13).await.unwrap();
    let error = map.close().await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 1, .. }),
        "{error}"
    );
    assert_eq!(disk.entries()[&1], 1);
}

#[tokio::test]
async fn the_first_reason_is_told_until_the_store_works_again() {
    let faults = Faults::new();
    let map = behind(faults.wrap(Picky(Disk::new())), lazy()).await;
    map.insert(1, 14).await.unwrap();
    faults.fail_next(Fault::Refused);
    for _ in 0..2 {
        let error = map.flush().await.unwrap_err();
        assert!(error.to_string().contains("injected"), "{error}");
    }
    // What it does not like comes first, and is then replaced.
    let map = behind(faults.wrap(Picky(Disk::new())), lazy()).await;
    map.insert(1, 13).await.unwrap();
    let error = map.flush().await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    map.insert(1, 1).await.unwrap();
    map.flush().await.unwrap();
    map.insert(1, 14).await.unwrap();
    let error = map.flush().await.unwrap_err();
    assert!(error.to_string().contains("a bad number"), "{error}");
}

/// They are what it does not like, and not what it fails at.
#[tokio::test]
async fn refused_entries_are_tried_again_after_a_failure() {
    let faults = Faults::new();
    let retry = Duration::from_millis(1);
    let limits = lazy().retry(retry, retry);
    let map = behind(faults.wrap(Picky(Disk::new())), limits).await;
    map.insert(1, 13).await.unwrap();
    map.flush().await.unwrap_err();
    faults.fail_next(Fault::Refused);
    map.flush().await.unwrap_err();
    until("another try", || faults.writes() == 3).await;
}

#[tokio::test]
async fn entries_that_the_store_refuses_take_no_room_from_others() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(Picky(disk.clone())), lazy().max_entries(3)).await;
    for n in 0..2 {
        map.insert(n, 13).await.unwrap();
    }
    map.flush().await.unwrap_err();
    faults.pause();
    for n in 2..5 {
        soon(map.insert(n, 1)).await.unwrap();
    }
    assert_eq!(map.stats().unsaved, 5);
    faults.resume();
    map.flush().await.unwrap_err();
    assert_eq!((disk.entries().len(), map.stats().unsaved), (3, 2));
}

#[tokio::test]
async fn as_many_refused_entries_as_may_wait_stop_writers_and_say_why() {
    let disk = Disk::new();
    let faults = Faults::new();
    let map = behind(faults.wrap(Picky(disk.clone())), lazy().max_entries(2)).await;
    faults.fail_next(Fault::Refused);
    for n in 0..2 {
        map.insert(n, 13).await.unwrap();
    }
    map.flush().await.unwrap_err();
    map.flush().await.unwrap_err();
    let error = soon(map.insert(2, 1)).await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unsaved { entries: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("larger than"), "{error}");
    assert_eq!(map.get(&2), None);
    soon(map.close()).await.unwrap_err();
}
