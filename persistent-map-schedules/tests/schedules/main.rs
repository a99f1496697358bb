//! The engine of core under random schedules: at each lock, each atomic number and each `await` a scheduler decides which
//! task goes on. A schedule that wedges is reported as a deadlock, and each failure with the schedule that repeats it.
//!
//! `SCHEDULES=100000 cargo test --release` tries so many for each scenario, `SEED=7` begins with another one.

mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use persistent_map_core::{
    Behind, Event, Outcome, PersistentError, PersistentMap, Result, WriteMode,
};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::AtomicU64;

use store::{Store, planned};

type Map = PersistentMap<u8, u64, Store>;

/// Half of the schedules choose each step by chance, the other half prefer tasks and change that a few times.
fn try_schedules<F: Future<Output = ()> + 'static>(scenario: fn() -> F) {
    let count = number("SCHEDULES").unwrap_or(1000);
    let seed = number("SEED").unwrap_or(0) as u64;
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        shuttle::Runner::new(scheduler, shuttle::Config::new()).run(move || block_on(scenario()));
    };
    run(Box::new(RandomScheduler::new_from_seed(seed, count / 2)));
    run(Box::new(PctScheduler::new_from_seed(seed, 3, count / 2)));
}

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number")),
    )
}

async fn through(store: &Store) -> Map {
    PersistentMap::new(store.clone()).await.unwrap()
}

async fn behind(store: &Store, limits: Behind) -> Map {
    let builder = PersistentMap::builder(store.clone()).write_mode(WriteMode::Behind(limits));
    builder.open().await.unwrap()
}

/// Polls a call a few times and then drops it, if it has not answered by then.
async fn give_up<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut polls = thread_rng().gen_range(0..4);
    let mut call = std::pin::pin!(call);
    std::future::poll_fn(|context| {
        if polls == 0 {
            return std::task::Poll::Ready(None);
        }
        polls -= 1;
        context.waker().wake_by_ref();
        call.as_mut().poll(context).map(Some)
    })
    .await
}

#[test]
fn what_is_read_is_stored_and_answers_follow_the_order_of_commits() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        let writers: Vec<_> = (1..=3)
            .map(|task: u64| {
                let (map, store) = (map.clone(), store.clone());
                spawn(async move {
                    let mut answers = Vec::new();
                    for value in [task * 10, task * 10 + 1] {
                        answers.push((map.insert(1, value).await.unwrap(), Some(value)));
                        assert!(
                            store.has_stored(1, Some(value)),
                            "answered before it was stored"
                        );
                    }
                    answers
                })
            })
            .collect();
        let reader = spawn({
            let (map, store) = (map.clone(), store.clone());
            async move {
                for _ in 0..4 {
                    if let Some(value) = map.get(&1) {
                        assert!(
                            store.has_stored(1, Some(value)),
                            "read before it was stored"
                        );
                    }
                    yield_now().await;
                }
            }
        });
        let mut answers = HashMap::new();
        for writer in writers {
            for (before, after) in writer.await.unwrap() {
                assert!(
                    answers.insert(before, after).is_none(),
                    "two calls replaced one value"
                );
            }
        }
        reader.await.unwrap();
        let mut value = None;
        for stored in store.history_of(1) {
            assert_eq!(
                answers.remove(&value),
                Some(stored),
                "another order than that of commits"
            );
            value = stored;
        }
        assert_eq!(map.get(&1), value);
        map.close().await.unwrap();
    });
}

#[test]
fn updates_and_transactions_count_each_other() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        map.insert_many([(1, 100), (2, 100)]).await.unwrap();
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let map = map.clone();
            tasks.push(spawn(async move {
                map.update(&1, |value| *value += 1).await.unwrap();
            }));
        }
        for amount in [3, 5] {
            let map = map.clone();
            tasks.push(spawn(async move {
                let moved: Result<()> = map
                    .transaction(move |tx| {
                        let (from, to) = (tx.get(&1).unwrap(), tx.get(&2).unwrap());
                        tx.insert(1, from - amount);
                        tx.insert(2, to + amount);
                        Ok(())
                    })
                    .await;
                moved.unwrap();
            }));
        }
        let looker = spawn({
            let map = map.clone();
            async move {
                let seen = map.snapshot().await.unwrap();
                let sum: u64 = seen.values().sum();
                assert!(
                    (200..=202).contains(&sum),
                    "half a transaction is seen: {sum}"
                );
            }
        });
        for task in tasks {
            task.await.unwrap();
        }
        looker.await.unwrap();
        assert_eq!((map.get(&1), map.get(&2)), (Some(94), Some(108)));
        map.close().await.unwrap();
        assert_eq!(store.entries(), HashMap::from([(1, 94), (2, 108)]));
    });
}

#[test]
fn a_failed_commit_takes_back_what_was_computed_on_it() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        map.insert(1, 0).await.unwrap();
        store.fail(thread_rng().gen_range(0..3), Outcome::NotApplied);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let map = map.clone();
                spawn(async move { map.update(&1, |value| *value += 1).await })
            })
            .collect();
        let mut counted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => counted += 1,
                Err(error) => assert_eq!(error.outcome(), Outcome::NotApplied),
            }
        }
        assert_eq!(map.get(&1), Some(counted));
        assert_eq!(store.entries(), HashMap::from([(1, counted)]));
        map.close().await.unwrap();
    });
}

#[test]
fn after_an_unknown_outcome_nothing_more_is_written() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        store.fail(thread_rng().gen_range(0..3), Outcome::Unknown);
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let map = map.clone();
                spawn(async move { (task, map.insert(task, 1).await) })
            })
            .collect();
        for task in tasks {
            let (key, answer) = task.await.unwrap();
            assert_eq!(answer.is_ok(), map.get(&key).is_some());
        }
        let commits = store.commits();
        if store.has_failed() {
            assert!(map.insert(9, 9).await.is_err());
            assert_eq!(store.commits(), commits, "written after an unknown outcome");
            assert!(map.close().await.is_err());
        } else {
            map.close().await.unwrap();
        }
    });
}

#[test]
fn calls_that_are_dropped_leave_memory_and_store_equal() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        let tasks: Vec<_> = (0..3)
            .map(|task: u64| {
                let map = map.clone();
                spawn(async move {
                    give_up(map.insert(1, task)).await;
                    give_up(map.remove(&1)).await;
                    give_up(map.update(&2, |value| *value += 1)).await;
                    give_up(map.insert_many([(2, task), (3, task)])).await;
                    give_up(map.flush()).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // Whatever was queued before this is done before this.
        let seen = map.snapshot().await.unwrap();
        assert_eq!(store.entries(), HashMap::from_iter(seen));
        map.close().await.unwrap();
    });
}

#[test]
fn close_is_between_calls() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        let writers: Vec<_> = (0..3)
            .map(|task| {
                let map = map.clone();
                spawn(async move { (task, map.insert(task, 1).await) })
            })
            .collect();
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let map = map.clone();
                spawn(async move { map.close().await.unwrap() })
            })
            .collect();
        for closer in closers {
            closer.await.unwrap();
        }
        for writer in writers {
            let (key, answer) = writer.await.unwrap();
            match answer {
                Ok(_) => assert!(store.has_stored(key, Some(1))),
                Err(error) => {
                    assert!(matches!(error, PersistentError::Closed), "{error}");
                    assert!(!store.has_stored(key, Some(1)));
                }
            }
        }
        assert!(store.is_closed());
    });
}

#[test]
fn one_initialiser_runs_at_a_time() {
    try_schedules(|| async {
        let map = through(&Store::default()).await;
        let running = Arc::new(AtomicU64::new(0));
        let fails = thread_rng().gen_bool(0.5);
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let (map, running) = (map.clone(), Arc::clone(&running));
                spawn(async move {
                    let init = || async {
                        let _running = Running::new(&running);
                        yield_now().await;
                        if fails { Err(planned()) } else { Ok(task) }
                    };
                    let call = map.get_or_try_insert_with(7, init);
                    if task < 2 {
                        give_up(call).await
                    } else {
                        Some(call.await)
                    }
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.extend(task.await.unwrap());
        }
        for answer in answers {
            match answer {
                Ok(value) => assert_eq!(map.get(&7), Some(value)),
                Err(error) => assert!(matches!(error, PersistentError::Storage { .. }), "{error}"),
            }
        }
        map.close().await.unwrap();
    });
}

/// Only one may be there at any moment.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        assert_eq!(count.fetch_add(1, SeqCst), 0, "two initialisers at a time");
        Running(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn events_tell_all_changes_in_the_order_of_commits() {
    try_schedules(|| async {
        let store = Store::default();
        let map = through(&store).await;
        let mut events = map.subscribe();
        let writers: Vec<_> = (0..3)
            .map(|task| {
                let map = map.clone();
                // Too late for some of them.
                spawn(async move { map.insert(task % 2, u64::from(task)).await.is_ok() })
            })
            .collect();
        map.close().await.unwrap();
        let mut told = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Changed(changes) => {
                    told.extend(changes.iter().map(|change| (change.key, change.new)));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, store.history());
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn a_watch_misses_no_change() {
    try_schedules(|| async {
        let map = through(&Store::default()).await;
        // Others come and go.
        let other = spawn({
            let map = map.clone();
            async move { drop(map.watch(1)) }
        });
        let another = spawn({
            let map = map.clone();
            async move { drop(map.watch(1)) }
        });
        let watcher = spawn({
            let mut watch = map.watch(1);
            async move {
                while watch.get() != Some(2) {
                    watch.changed().await.unwrap();
                }
            }
        });
        map.insert(1, 1).await.unwrap();
        map.insert(1, 2).await.unwrap();
        watcher.await.unwrap();
        other.await.unwrap();
        another.await.unwrap();
        map.close().await.unwrap();
    });
}

#[test]
fn what_is_flushed_is_stored_and_a_save_takes_a_moment() {
    try_schedules(|| async {
        let store = Store::default();
        // With room for one, writers wait for each other; with room for all, they go on while a save begins.
        let limit = thread_rng().gen_range(1..12);
        let map = behind(&store, Behind::new().max_entries(limit)).await;
        let writers: Vec<_> = (0..2)
            .map(|task: u8| {
                let (map, store) = (map.clone(), store.clone());
                spawn(async move {
                    for step in 1..=3 {
                        // The second key follows the first one, always.
                        map.insert(task * 2, step).await.unwrap();
                        map.insert(task * 2 + 1, step).await.unwrap();
                    }
                    map.flush().await.unwrap();
                    let entries = store.entries();
                    let stored = [task * 2, task * 2 + 1].map(|key| entries.get(&key).copied());
                    assert_eq!(stored, [Some(3); 2], "flushed, and not stored");
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        map.close().await.unwrap();
        for stored in store.states() {
            for key in [0, 2] {
                let [first, second] =
                    [key, key + 1].map(|key| stored.get(&key).copied().unwrap_or(0));
                assert!(
                    second <= first && first <= second + 1,
                    "a save is of no moment"
                );
            }
        }
    });
}

#[test]
fn a_save_that_fails_keeps_its_entries() {
    try_schedules(|| async {
        let store = Store::default();
        let map = behind(&store, Behind::new().max_entries(2)).await;
        store.fail(thread_rng().gen_range(0..3), Outcome::NotApplied);
        let writers: Vec<_> = (0..3)
            .map(|task| {
                let map = map.clone();
                spawn(async move {
                    let mut accepted = 0;
                    for step in 1..=2 {
                        if map.insert(task, step).await.is_ok() {
                            accepted = step;
                        }
                    }
                    (task, accepted)
                })
            })
            .collect();
        let mut accepted = HashMap::new();
        for writer in writers {
            let (key, value) = writer.await.unwrap();
            if value > 0 {
                accepted.insert(key, value);
            }
        }
        assert_eq!(HashMap::from_iter(map.snapshot().await.unwrap()), accepted);
        // The second one may be the first that finds the store at work again.
        if map.flush().await.is_err() {
            map.flush().await.unwrap();
        }
        assert_eq!(store.entries(), accepted);
        map.close().await.unwrap();
    });
}

#[test]
fn a_map_that_follows_is_closed_between_calls() {
    try_schedules(|| async {
        let store = Store::default();
        let map = behind(&store, Behind::new().max_entries(2)).await;
        let writers: Vec<_> = (0..3)
            .map(|task: u8| {
                let map = map.clone();
                spawn(async move { (task, map.compute(task, |_| Some(1)).await) })
            })
            .collect();
        let closer = spawn({
            let map = map.clone();
            async move { map.close().await.unwrap() }
        });
        let mut accepted = HashMap::new();
        for writer in writers {
            let (key, answer) = writer.await.unwrap();
            match answer {
                Ok(_) => drop(accepted.insert(key, 1)),
                Err(error) => assert!(matches!(error, PersistentError::Closed), "{error}"),
            }
        }
        closer.await.unwrap();
        assert_eq!(store.entries(), accepted);
    });
}
