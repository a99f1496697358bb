//! What a whole map on the backend must do: its promises to applications, a function a promise. Each panics with a message
//! if one does not hold.

#![allow(
    clippy::missing_panics_doc,
    reason = "to panic is what a behaviour that does not hold is there for; the module says so once"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use persistent_map_core::{
    Behind, Event, PersistentError, PersistentMap, Result, Survives, WriteMode, copy,
};
use tokio::task::JoinSet;

use crate::disk::Disk;
use crate::drop_after_polls;
use crate::faulty::Faults;
use crate::fixture::Fixture;
use crate::stage::{MapOf, Stage, assert_same, join, key, ok, told_apart, value, verified};

/// Tasks that read and change one entry at once: every change counts, in memory and in the store.
pub async fn updates_of_one_key_are_all_counted<F: Fixture>(fixture: &F) {
    const TASKS: usize = 16;
    const EACH: usize = 5;
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    // The n-th value stands for n.
    let numbers: Arc<Vec<F::Value>> =
        Arc::new((0..=TASKS * EACH).map(|n| value::<F>(n as u64)).collect());
    ok("insert", map.insert(key::<F>(0), value::<F>(0)).await);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (map, numbers) = (map.clone(), Arc::clone(&numbers));
        tasks.spawn(async move {
            for _ in 0..EACH {
                let numbers = Arc::clone(&numbers);
                let count = move |value: &mut F::Value| {
                    let now = numbers.iter().position(|number| number == value);
                    *value = numbers[now.expect("a value that was never written") + 1].clone();
                };
                let counted = ok("update", map.update(&key::<F>(0), count).await);
                assert!(counted.is_some(), "update did not find the entry");
            }
        });
    }
    join(tasks).await;
    assert!(
        map.get(&key::<F>(0)).as_ref() == numbers.last(),
        "an update was lost"
    );
    stage.crash_and_compare(&map).await;
    stage.close_and_compare(map).await;
}

/// `insert_if_absent`, `compare_and_swap`, `compute`, `update_or_insert`, `remove_if` and `retain` change what they say
/// they change, and nothing else.
pub async fn conditional_calls_change_what_they_say<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    let k = key::<F>;
    let v = value::<F>;
    assert_eq!(
        ok("insert_if_absent", map.insert_if_absent(k(0), v(0)).await),
        None
    );
    assert_eq!(
        ok("insert_if_absent", map.insert_if_absent(k(0), v(1)).await),
        Some(v(0)),
        "insert_if_absent did not say what is there"
    );
    let swap = |expected, new| map.compare_and_swap(k(0), expected, new);
    assert_eq!(
        ok("compare_and_swap", swap(Some(v(1)), Some(v(2))).await),
        Err(Some(v(0)))
    );
    assert_eq!(
        ok("compare_and_swap", swap(Some(v(0)), Some(v(2))).await),
        Ok(())
    );
    assert_eq!(map.get(&k(0)), Some(v(2)));
    let two = v(2);
    let kept = map.remove_if(&k(0), move |value| *value != two).await;
    assert_eq!(
        ok("remove_if", kept),
        None,
        "remove_if removed what its test keeps"
    );
    let three = v(3);
    let computed = map
        .compute(k(1), move |old| old.or(Some(three.clone())))
        .await;
    assert_eq!(ok("compute", computed), Some(v(3)));
    let put = |key, new: F::Value| {
        map.update_or_insert(key, v(4), move |value| {
            std::mem::replace(value, new.clone())
        })
    };
    assert_eq!(
        ok("update_or_insert", put(k(1), v(5)).await),
        v(3),
        "update_or_insert did not change what is there"
    );
    assert_eq!(
        ok("update_or_insert", put(k(2), v(6)).await),
        v(4),
        "update_or_insert did not change the first value"
    );
    assert_eq!((map.get(&k(1)), map.get(&k(2))), (Some(v(5)), Some(v(6))));
    stage.crash_and_compare(&map).await;

    assert_eq!(ok("compare_and_swap", swap(Some(v(2)), None).await), Ok(()));
    assert_eq!(ok("compute", map.compute(k(1), |_| None).await), None);
    assert_eq!(ok("remove", map.remove(&k(2)).await), Some(v(6)));
    assert!(map.is_empty(), "entries are left that were removed");
    for n in 0..20 {
        ok("insert", map.insert(k(n), v(n)).await);
    }
    let kept: Vec<F::Value> = (0..20).step_by(3).map(v).collect();
    let removed = map.retain(move |_, value| kept.contains(value)).await;
    assert_eq!(ok("retain", removed), 13);
    assert_eq!(map.len(), 7);
    stage.close_and_compare(map).await;
}

/// `insert_many` and `remove_many` are one step; without atomic batches they are refused, and nothing is written.
pub async fn many_entries_are_one_step_or_refused<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    ok("insert", map.insert(key::<F>(0), value::<F>(0)).await);
    let entries = |n: u64| (0..50).map(move |k| (key::<F>(k), value::<F>(k + n)));
    let inserted = map.insert_many(entries(1)).await;
    if map.capabilities().atomic_batches {
        assert_eq!(ok("insert_many", inserted), 49, "new entries");
        stage.crash_and_compare(&map).await;
        let removed = map.remove_many((0..60).step_by(2).map(key::<F>)).await;
        assert_eq!(ok("remove_many", removed), 25, "removed entries");
        for (polls, n) in (0..6).zip(2..) {
            let before = ok("snapshot", map.snapshot().await);
            drop_after_polls(map.insert_many(entries(n)), polls).await;
            ok("flush", map.flush().await);
            let after = ok("snapshot", map.snapshot().await);
            let all: HashMap<_, _> = entries(n).collect();
            assert!(
                after == before || after == all.into_iter().collect(),
                "a dropped insert_many was done in part"
            );
            stage.crash_and_compare(&map).await;
        }
    } else {
        assert_refused("insert_many", &inserted);
        assert_refused(
            "remove_many",
            &map.remove_many([key::<F>(0), key::<F>(1)]).await,
        );
        assert_eq!(map.len(), 1, "a refused batch changed memory");
    }
    assert_eq!(ok("insert_many of none", map.insert_many([]).await), 0);
    let one = [(key::<F>(90), value::<F>(90))];
    assert_eq!(ok("insert_many of one", map.insert_many(one).await), 1);
    stage.close_and_compare(map).await;
}

/// Transactions that exchange values leave the same values at every look, after a crash, and at the end; one that fails or
/// panics changes nothing. Without atomic batches they are refused, and nothing is written.
pub async fn transactions_are_all_or_nothing<F: Fixture>(fixture: &F) {
    const ENTRIES: u64 = 20;
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    for n in 0..ENTRIES {
        ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
    }
    if !map.capabilities().atomic_batches {
        assert_refused("transaction", &exchange::<F>(&map, 0, 1, 1).await);
        assert_eq!(
            map.get(&key::<F>(0)),
            Some(value::<F>(0)),
            "a refused transaction was done"
        );
        let one = map.transaction(|tx| {
            tx.insert(key::<F>(0), value::<F>(30));
            Ok::<_, PersistentError>(tx.get(&key::<F>(0)))
        });
        assert_eq!(
            ok("a transaction of one entry", one.await),
            Some(value::<F>(30))
        );
        return stage.close_and_compare(map).await;
    }
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let map = map.clone();
        tasks.spawn(async move {
            for n in 0..20 {
                let (a, b) = ((task * 7 + n) % ENTRIES, (task * 3 + n * 5) % ENTRIES);
                match n % 5 {
                    4 => drop(
                        drop_after_polls(exchange::<F>(&map, a, b, 1), usize::from(n % 2 == 0))
                            .await,
                    ),
                    // 2 fails, 3 panics.
                    kind => {
                        let result = exchange::<F>(&map, a, b, kind).await;
                        assert_eq!(
                            result.is_ok(),
                            kind < 2,
                            "an exchange of kind {kind}: {result:?}"
                        );
                    }
                }
            }
        });
    }
    while !tasks.is_empty() {
        let found = ok("snapshot", map.snapshot().await);
        assert_same_values::<F>("a snapshot", found.values(), ENTRIES);
        let next = tokio::time::timeout(Duration::from_millis(2), tasks.join_next()).await;
        if let Ok(Some(Err(error))) = next {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    ok("flush", map.flush().await);
    assert_same_values::<F>(
        "memory",
        map.iter().map(|(_, v)| v).collect::<Vec<_>>().iter(),
        ENTRIES,
    );
    stage.crash_and_compare(&map).await;
    stage.close_and_compare(map).await;
}

async fn exchange<F: Fixture>(map: &MapOf<F>, a: u64, b: u64, kind: u64) -> Result<()> {
    map.transaction(move |tx| {
        let (a, b) = (key::<F>(a), key::<F>(b));
        let (of_a, of_b) = (tx.get(&a), tx.get(&b));
        if let Some(of_b) = of_b {
            tx.insert(a, of_b);
        }
        // In the middle, where one value is there twice.
        match kind {
            2 => return Err(PersistentError::unsupported("what was planned to fail")),
            // Without the hook, which would print it.
            3 => std::panic::resume_unwind(Box::new("a planned panic")),
            _ => {}
        }
        if let Some(of_a) = of_a {
            tx.insert(b, of_a);
        }
        Ok(())
    })
    .await
}

fn assert_same_values<'a, F: Fixture>(
    what: &str,
    found: impl Iterator<Item = &'a F::Value>,
    count: u64,
) where
    F::Value: 'a,
{
    let found: Vec<_> = found.collect();
    assert_eq!(
        found.len() as u64,
        count,
        "{what} has another number of entries"
    );
    for n in 0..count {
        let value = value::<F>(n);
        assert!(
            found.iter().any(|other| **other == value),
            "{what} shows half of a transaction"
        );
    }
}

/// However many ask for a missing entry at once, one of them makes it.
pub async fn one_initialiser_runs_for_all_callers<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let (map, runs) = (map.clone(), Arc::clone(&runs));
        tasks.spawn(async move {
            let init = || async {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                value::<F>(5)
            };
            let got = ok(
                "get_or_insert_with",
                map.get_or_insert_with(key::<F>(0), init).await,
            );
            assert_eq!(got, value::<F>(5), "a caller got another value");
        });
    }
    join(tasks).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1, "initialisers that ran");
    stage.crash_and_compare(&map).await;
}

/// Whoever applies all events to a snapshot has the map, and the store has it too.
pub async fn events_tell_all_changes_in_order<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    for mode in [WriteMode::Through, WriteMode::Behind(Behind::new())] {
        let map = stage.map_in(mode).await;
        let mut events = map.subscribe();
        let mut replica = ok("snapshot", map.snapshot().await);
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let map = map.clone();
            tasks.spawn(async move {
                for n in 0..20 {
                    let k = key::<F>((task + n) % 5);
                    if n % 4 == 3 {
                        ok("remove", map.remove(&k).await);
                    } else {
                        ok("insert", map.insert(k, value::<F>(task * 20 + n)).await);
                    }
                }
            });
        }
        join(tasks).await;
        ok("close", map.close().await);
        while let Some(event) = events.recv().await {
            let Event::Changed(changes) = event else {
                panic!("an event that is no change: {event:?}");
            };
            for change in changes.iter() {
                let old = match change.new.clone() {
                    Some(new) => replica.insert(change.key.clone(), new),
                    None => replica.remove(&change.key),
                };
                assert_eq!(old, change.old, "an event is missing, or out of order");
            }
        }
        let replica: HashMap<_, _> = replica.into_iter().collect();
        assert_same("a replica", &replica, &map.iter().collect());
        stage.compare_reopened(&map).await;
    }
}

/// Write-behind: after `flush` everything is stored, after `close` or a drop too, and calls that are dropped are done or
/// not.
pub async fn write_behind_stores_everything_in_the_end<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let lazy = || WriteMode::Behind(Behind::new().max_delay(Duration::from_hours(1)));
    let map = stage.map_in(lazy()).await;
    for (polls, round) in (0..4).zip(0..) {
        for n in 0..20 {
            ok(
                "insert",
                map.insert(key::<F>(n), value::<F>(n + round)).await,
            );
        }
        ok("remove", map.remove(&key::<F>(round)).await);
        drop_after_polls(map.insert(key::<F>(30), value::<F>(round)), polls).await;
        ok("flush", map.flush().await);
        stage.crash_and_compare(&map).await;
    }
    assert_eq!(verified::<F>(&map).await, map.len() as u64);
    ok("insert", map.insert(key::<F>(40), value::<F>(1)).await);
    stage.close_and_compare(map).await;

    let map = stage.map_in(lazy()).await;
    ok("insert", map.insert(key::<F>(41), value::<F>(2)).await);
    let volatile = map.capabilities().survives == Survives::Nothing;
    drop(map);
    for _ in 0..50 {
        // A store without a lock can be looked into before it is stored.
        let found = stage.reopened_when_free().await;
        if volatile || found.get(&key::<F>(41)) == Some(&value::<F>(2)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the last entry of a dropped map was not stored within 5 seconds");
}

/// Write-behind: a crash at any moment leaves the state of one moment, without holes.
pub async fn write_behind_leaves_a_prefix<F: Fixture>(fixture: &F) {
    const KEYS: u64 = 7;
    const WRITES: u64 = 400;
    let stage = Stage::new(fixture);
    let faults = Faults::new();
    let often = Behind::new().max_delay(Duration::ZERO).max_entries(20);
    let builder = PersistentMap::builder(faults.wrap(stage.open().await));
    let builder = builder.write_mode(WriteMode::Behind(often));
    let map = ok("opening a map", builder.open().await);
    let values: Arc<Vec<F::Value>> = Arc::new((0..WRITES).map(value::<F>).collect());
    let writer = tokio::spawn({
        let (map, values) = (map.clone(), Arc::clone(&values));
        async move {
            for (n, value) in (0..).zip(values.iter()) {
                ok(
                    "insert",
                    map.insert(key::<F>(n % KEYS), value.clone()).await,
                );
                if n % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    });
    let volatile = map.capabilities().survives == Survives::Nothing;
    while !writer.is_finished() {
        // A loop that never waits could keep the writer from running at all.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let still = faults.hold_still().await;
        let found = stage.crash_image().await;
        drop(still);
        let mut model = HashMap::new();
        let mut is_one_of_them = found == model;
        for (n, value) in (0..).zip(values.iter()) {
            model.insert(key::<F>(n % KEYS), value.clone());
            is_one_of_them |= found == model;
        }
        assert!(
            volatile || is_one_of_them,
            "a crash left what the map has never been: {} entries",
            found.len()
        );
    }
    if let Err(error) = writer.await {
        std::panic::resume_unwind(error.into_panic());
    }
    ok("close", map.close().await);
    if !volatile {
        assert_same("the store", &stage.reopened().await, &map.iter().collect());
    }
}

/// `verify` finds that what was written is what is stored, and `copy` moves it to another store and back.
pub async fn a_copy_arrives_in_the_other_store<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    for n in 0..120 {
        ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
    }
    ok("remove", map.remove(&key::<F>(3)).await);
    assert_eq!(verified::<F>(&map).await, 119);
    let disk = Disk::new();
    let other = ok("opening a map", PersistentMap::new(disk.backend()).await);
    let copied = ok("copy", copy(&map, &other).await);
    assert_eq!((copied.entries, copied.verified), (119, 119));
    assert_same("the copy", &disk.entries(), &map.iter().collect());

    let back = Stage::new(fixture);
    let again = back.map().await;
    let copied = copy(&other, &again).await;
    let copied = told_apart::<F, _>("copy", &again, copied).await;
    assert_eq!((copied.entries, copied.verified), (119, 119));
    back.crash_and_compare(&again).await;
    back.close_and_compare(again).await;
}

fn assert_refused<T: std::fmt::Debug>(what: &str, result: &Result<T>) {
    assert!(
        matches!(result, Err(PersistentError::Unsupported { .. })),
        "{what} must answer Unsupported without atomic batches, and returned {result:?}"
    );
}
