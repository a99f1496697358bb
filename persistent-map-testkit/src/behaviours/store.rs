//! The contract, a function a line. Each panics with a message if the backend does not keep it.

#![allow(
    clippy::missing_panics_doc,
    reason = "to panic is what a behaviour that does not hold is there for; the module says so once"
)]

use std::time::Duration;

use persistent_map_core::{Outcome, PersistentError, StorageBackend, Survives, Write};
use tokio::task::JoinSet;

use crate::drop_after_polls;
use crate::fixture::Fixture;
use crate::sample::Sample as _;
use crate::stage::{
    Collect, Stage, assert_same, assert_stored, assert_unsupported, entries, join, key, ok,
    prepared, value,
};

/// Calls a macro with what it is given and the names of all behaviours, here and in `map.rs`.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_behaviour {
    (($($callback:tt)+) $fixture:expr) => {
        $($callback)+! {
            $fixture,
            a_new_store_is_empty
            a_saved_entry_is_there_after_reopening
            the_last_save_of_a_key_wins
            a_deleted_entry_is_gone_after_reopening
            deleting_a_missing_key_changes_nothing
            an_acknowledged_save_survives_a_kill
            an_acknowledged_delete_survives_a_kill
            an_empty_batch_changes_nothing
            a_batch_of_one_is_a_save_or_a_delete
            a_batch_is_applied_in_order_or_refused
            a_batch_cut_short_is_applied_completely_or_not_at_all
            clear_removes_everything_or_is_refused
            read_back_gives_what_is_stored
            replace_is_all_or_nothing_or_refused
            load_gives_every_entry_once
            thousands_of_entries_come_back
            load_stops_when_the_sink_refuses
            the_sink_has_the_last_word
            a_load_that_failed_can_be_repeated
            awkward_keys_and_large_values_come_back
            what_is_accepted_comes_back
            flush_and_close_can_be_repeated
            a_closed_store_can_be_reopened_at_once
            a_second_owner_is_refused
            a_map_keeps_its_entries
            a_cleared_map_stays_empty
            many_writers_leave_memory_and_store_equal
            writers_of_one_key_leave_memory_and_store_equal
            dropped_calls_leave_memory_and_store_equal
            a_dropped_map_gives_its_store_back
            a_closed_map_reads_and_refuses_writes
            updates_of_one_key_are_all_counted
            conditional_calls_change_what_they_say
            many_entries_are_one_step_or_refused
            transactions_are_all_or_nothing
            one_initialiser_runs_for_all_callers
            events_tell_all_changes_in_order
            write_behind_stores_everything_in_the_end
            write_behind_leaves_a_prefix
            a_copy_arrives_in_the_other_store
        }
    };
}

/// A new store has no entries, and loading it is not an error.
pub async fn a_new_store_is_empty<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.open().await;
    assert_eq!(
        ok("load_all", backend.load_all().await).len(),
        0,
        "a new store has entries"
    );
}

/// What `save` stored, the next owner of the store loads.
pub async fn a_saved_entry_is_there_after_reopening<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..20 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    stage
        .close_and_expect(backend, (0..20).map(|n| (n, n)))
        .await;
}

/// Saving an existing key replaces its value.
pub async fn the_last_save_of_a_key_wins<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in [3, 2, 1] {
        ok("save", backend.save(key::<F>(0), value::<F>(n)).await);
    }
    ok("save", backend.save(key::<F>(1), value::<F>(9)).await);
    stage.close_and_expect(backend, [(0, 1), (1, 9)]).await;
}

/// A deleted entry does not come back, and a key that is saved again after it does.
pub async fn a_deleted_entry_is_gone_after_reopening<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..4 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    for n in [1, 2] {
        ok("delete", backend.delete(&key::<F>(n)).await);
    }
    ok("save", backend.save(key::<F>(2), value::<F>(7)).await);
    stage
        .close_and_expect(backend, [(0, 0), (2, 7), (3, 3)])
        .await;
}

/// `delete` of a key that is not there is `Ok` and leaves the others alone.
pub async fn deleting_a_missing_key_changes_nothing<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    ok("save", backend.save(key::<F>(0), value::<F>(0)).await);
    ok(
        "delete of a missing key",
        backend.delete(&key::<F>(1)).await,
    );
    ok("delete", backend.delete(&key::<F>(0)).await);
    ok(
        "delete of a deleted key",
        backend.delete(&key::<F>(0)).await,
    );
    ok("save", backend.save(key::<F>(2), value::<F>(2)).await);
    stage.close_and_expect(backend, [(2, 2)]).await;
}

/// `Ok` of `save` means stored: without `flush`, without `close`, at that very moment.
pub async fn an_acknowledged_save_survives_a_kill<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..6 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
        stage
            .crash_and_expect(&backend, (0..=n).map(|n| (n, n)))
            .await;
    }
}

/// `Ok` of `delete` means deleted, at that very moment.
pub async fn an_acknowledged_delete_survives_a_kill<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..4 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    for n in 0..4 {
        ok("delete", backend.delete(&key::<F>(n)).await);
        stage
            .crash_and_expect(&backend, (n + 1..4).map(|n| (n, n)))
            .await;
    }
}

/// An empty batch is `Ok`.
pub async fn an_empty_batch_changes_nothing<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    ok("save", backend.save(key::<F>(0), value::<F>(0)).await);
    ok("apply of nothing", backend.apply(&[]).await);
    stage.close_and_expect(backend, [(0, 0)]).await;
}

/// Every store takes batches of one write, prepared or not.
pub async fn a_batch_of_one_is_a_save_or_a_delete<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..4 {
        let write = Write::insert(key::<F>(n), value::<F>(n));
        ok(
            "apply of a prepared insert",
            backend.apply(&[prepared(&backend, write)]).await,
        );
    }
    ok(
        "apply of an insert",
        backend
            .apply(&[Write::insert(key::<F>(4), value::<F>(4))])
            .await,
    );
    let removal = prepared(&backend, Write::remove(key::<F>(1)));
    ok(
        "apply of a prepared removal",
        backend.apply(&[removal]).await,
    );
    ok(
        "apply of a removal",
        backend.apply(&[Write::remove(key::<F>(2))]).await,
    );
    stage
        .crash_and_expect(&backend, [(0, 0), (3, 3), (4, 4)])
        .await;
    stage
        .close_and_expect(backend, [(0, 0), (3, 3), (4, 4)])
        .await;
}

/// With atomic batches: the last write of a key wins, and `Ok` means all of it is stored. Without: refused, and nothing
/// is written.
pub async fn a_batch_is_applied_in_order_or_refused<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..3 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    let mut batch = vec![
        Write::insert(key::<F>(0), value::<F>(10)),
        Write::remove(key::<F>(1)),
        Write::insert(key::<F>(3), value::<F>(3)),
        Write::insert(key::<F>(0), value::<F>(11)),
        Write::insert(key::<F>(1), value::<F>(12)),
        Write::remove(key::<F>(3)),
        Write::remove(key::<F>(2)),
        Write::insert(key::<F>(4), value::<F>(13)),
    ];
    batch.extend((100..1000).map(|n| Write::insert(key::<F>(n), value::<F>(n))));
    let batch: Vec<_> = batch
        .into_iter()
        .map(|write| prepared(&backend, write))
        .collect();
    let applied = backend.apply(&batch).await;
    if backend.capabilities().atomic_batches {
        ok("apply of a batch", applied);
        let expected = || {
            [(0, 11), (1, 12), (4, 13)]
                .into_iter()
                .chain((100..1000).map(|n| (n, n)))
        };
        stage.crash_and_expect(&backend, expected()).await;
        stage.close_and_expect(backend, expected()).await;
    } else {
        assert_unsupported(
            "apply of a batch, without declaring atomic batches,",
            &applied,
        );
        stage
            .close_and_expect(backend, (0..3).map(|n| (n, n)))
            .await;
    }
}

/// A batch whose future is dropped (its runtime has ended) is there completely or not at all.
pub async fn a_batch_cut_short_is_applied_completely_or_not_at_all<F: Fixture>(fixture: &F) {
    for polls in 0..12 {
        let stage = Stage::new(fixture);
        let backend = stage.loaded().await;
        if !backend.capabilities().atomic_batches {
            let batch = [
                Write::insert(key::<F>(0), value::<F>(0)),
                Write::insert(key::<F>(1), value::<F>(1)),
            ];
            let applied = drop_after_polls(backend.apply(&batch), polls).await;
            assert!(
                !matches!(applied, Some(Ok(()))),
                "a batch was applied without declaring atomic batches"
            );
            stage.close_and_expect(backend, []).await;
            continue;
        }
        let batch: Vec<_> = (0..600)
            .map(|n| Write::insert(key::<F>(n), value::<F>(n)))
            .collect();
        drop_after_polls(backend.apply(&batch), polls).await;
        ok("close", backend.close().await);
        drop(backend);
        let found = stage.reopened().await.len();
        assert!(
            found == 0 || found == 600,
            "a batch of 600 dropped after {polls} polls left {found} entries"
        );
    }
}

/// With atomic batches: one step that leaves nothing. Without: refused, and nothing is removed.
pub async fn clear_removes_everything_or_is_refused<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..10 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    let cleared = backend.clear().await;
    if backend.capabilities().atomic_batches {
        ok("clear", cleared);
        stage.crash_and_expect(&backend, []).await;
        ok("clear of an empty store", backend.clear().await);
        ok(
            "save after clear",
            backend.save(key::<F>(3), value::<F>(30)).await,
        );
        stage.close_and_expect(backend, [(3, 30)]).await;
    } else if cleared.is_ok() {
        stage.close_and_expect(backend, []).await;
    } else {
        assert_unsupported("clear", &cleared);
        stage
            .close_and_expect(backend, (0..10).map(|n| (n, n)))
            .await;
    }
}

/// `read_back` gives each entry as it is stored at that moment, stops when its sink refuses, and changes nothing.
pub async fn read_back_gives_what_is_stored<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    assert_read_back::<F>(&backend, []).await;
    for n in 0..40 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    ok("delete", backend.delete(&key::<F>(5)).await);
    ok("save", backend.save(key::<F>(6), value::<F>(60)).await);
    let changed = || {
        (0..40)
            .filter(|n| *n != 5)
            .map(|n| (n, if n == 6 { 60 } else { n }))
    };
    assert_read_back::<F>(&backend, changed()).await;

    let mut sink = Collect {
        refuse_after: Some(3),
        ..Collect::default()
    };
    let read = backend.read_back(&mut sink).await;
    assert!(
        read.is_err(),
        "read_back must pass on the error of its sink, and returned {read:?}"
    );
    assert!(
        sink.entries.len() <= 3,
        "read_back went on after its sink had refused"
    );

    ok("flush", backend.flush().await);
    assert_read_back::<F>(&backend, changed()).await;
    stage.crash_and_expect(&backend, changed()).await;
    let later: Vec<_> = (10..30)
        .map(|n| Write::remove(key::<F>(n)))
        .chain((30..50).map(|n| Write::insert(key::<F>(n), value::<F>(n + 100))))
        .map(|write| prepared(&backend, write))
        .collect();
    let size = if backend.capabilities().atomic_batches {
        later.len()
    } else {
        1
    };
    for batch in later.chunks(size) {
        ok("apply", backend.apply(batch).await);
    }
    let at_last = || {
        changed()
            .filter(|(n, _)| *n < 10)
            .chain((30..50).map(|n| (n, n + 100)))
    };
    assert_read_back::<F>(&backend, at_last()).await;
    stage.crash_and_expect(&backend, at_last()).await;
    stage.close_and_expect(backend, at_last()).await;
}

async fn assert_read_back<F: Fixture>(
    backend: &F::Backend,
    expected: impl IntoIterator<Item = (u64, u64)>,
) {
    let mut sink = Collect::default();
    ok("read_back", backend.read_back(&mut sink).await);
    sink.assert_clean("read_back");
    assert_same("read_back", &sink.entries, &entries::<F>(expected));
    assert!(
        sink.finished.is_empty(),
        "read_back must not call `finish`, which is for rows to set aside"
    );
}

/// `replace`, after `load`, leaves exactly the new entries, durably, and a store that takes writes; or it is refused and
/// changes nothing. Dropped half way (its runtime has ended) it is done completely or not at all.
pub async fn replace_is_all_or_nothing_or_refused<F: Fixture>(fixture: &F) {
    for count in [0, 1, 300] {
        let (stage, backend) = ten_to_replace(fixture).await;
        // Some keys are old and some are new.
        let new = || (5..5 + count).map(|n| (n, n + 1000));
        let replaced = backend.replace(entries::<F>(new()).into_iter().collect());
        if let Err(error) = replaced.await {
            assert_unsupported("replace", &Err(error));
            let old = || (0..10).map(|n| (n, n));
            stage.crash_and_expect(&backend, old()).await;
            ok("save", backend.save(key::<F>(10), value::<F>(10)).await);
            stage
                .close_and_expect(backend, old().chain([(10, 10)]))
                .await;
            return;
        }
        stage.crash_and_expect(&backend, new()).await;
        assert_read_back::<F>(&backend, new()).await;
        ok("save", backend.save(key::<F>(2), value::<F>(20)).await);
        ok("delete", backend.delete(&key::<F>(5)).await);
        let at_last = || new().filter(|(n, _)| *n != 5).chain([(2, 20)]);
        stage.crash_and_expect(&backend, at_last()).await;
        stage.close_and_expect(backend, at_last()).await;
    }
    for polls in 0..12 {
        let (stage, backend) = ten_to_replace(fixture).await;
        let new = || (5..205).map(|n| (n, n + 1000));
        let entries = entries::<F>(new()).into_iter().collect();
        drop_after_polls(backend.replace(entries), polls).await;
        ok("close", backend.close().await);
        let found = stage.reopened().await;
        if found.len() == 10 {
            assert_stored::<F>(&backend, &found, (0..10).map(|n| (n, n)));
        } else {
            assert_stored::<F>(&backend, &found, new());
        }
    }
}

/// A store that has ten entries, and was loaded anew.
async fn ten_to_replace<F: Fixture>(fixture: &F) -> (Stage<'_, F>, F::Backend) {
    let (stage, backend) = ten_stored(fixture).await;
    ok("load", backend.load(&mut Collect::default()).await);
    (stage, backend)
}

/// `load` and `load_all` tell the same, each entry once, and `expect`, if it is called, is not far off.
pub async fn load_gives_every_entry_once<F: Fixture>(fixture: &F) {
    const ENTRIES: u64 = 500;
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..ENTRIES {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    ok("close", backend.close().await);
    let volatile = backend.capabilities().survives == Survives::Nothing;
    drop(backend);
    let mut sink = Collect::default();
    let backend = stage.open().await;
    ok("load", backend.load(&mut sink).await);
    ok("close", backend.close().await);
    drop(backend);
    sink.assert_clean("load");
    assert_same("load", &sink.entries, &stage.reopened().await);
    let expected = if volatile { 0 } else { ENTRIES };
    assert_eq!(
        sink.entries.len() as u64,
        expected,
        "entries loaded of {expected}"
    );
    if let Some(expected) = sink.expected {
        assert_eq!(
            expected,
            sink.entries.len() as u64,
            "load announced another number of entries"
        );
    }
}

/// Thousands of entries come back, each once. Many stores read them in pieces, of so many rows or so many bytes.
pub async fn thousands_of_entries_come_back<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    // Single writes may take a millisecond each.
    let (count, size) = if backend.capabilities().atomic_batches {
        (5_000, 1_000)
    } else {
        (2_500, 1)
    };
    // A large one now and then, if the type has large ones.
    let expected = || (0..count).map(|n| (n, if n % 200 == 7 { 7 } else { n % 7 }));
    let writes: Vec<_> = expected()
        .map(|(k, v)| prepared(&backend, Write::insert(key::<F>(k), value::<F>(v))))
        .collect();
    for batch in writes.chunks(size) {
        ok("apply", backend.apply(batch).await);
    }
    assert_read_back::<F>(&backend, expected()).await;
    ok("close", backend.close().await);
    drop(backend);
    let backend = stage.open().await;
    let mut sink = Collect::default();
    ok("load", backend.load(&mut sink).await);
    sink.assert_clean("load");
    assert_stored::<F>(&backend, &sink.entries, expected());
    if backend.capabilities().survives != Survives::Nothing {
        assert_read_back::<F>(&backend, expected()).await;
    }
}

/// An error of the sink ends the load and is what `load` returns.
pub async fn load_stops_when_the_sink_refuses<F: Fixture>(fixture: &F) {
    let (_stage, backend) = ten_stored(fixture).await;
    let volatile = backend.capabilities().survives == Survives::Nothing;
    let mut sink = Collect {
        refuse_after: Some(3),
        ..Collect::default()
    };
    let loaded = backend.load(&mut sink).await;
    assert_eq!(
        loaded.is_err(),
        !volatile,
        "load must pass on the error of its sink, and returned {loaded:?}"
    );
    assert!(
        sink.entries.len() <= 3,
        "load went on after its sink had refused"
    );
}

/// `finish` of the sink is called once, after the last entry; its error is what `load` returns, and nothing has changed.
/// (A store that never sets a row aside need not call it.)
pub async fn the_sink_has_the_last_word<F: Fixture>(fixture: &F) {
    let (stage, backend) = ten_stored(fixture).await;
    for refuse_at_the_end in [true, true, false] {
        let mut sink = Collect {
            refuse_at_the_end,
            ..Collect::default()
        };
        let loaded = backend.load(&mut sink).await;
        assert_stored::<F>(&backend, &sink.entries, (0..10).map(|n| (n, n)));
        match sink.finished[..] {
            [] => {
                ok("load", loaded);
                break;
            }
            [came] => {
                assert_eq!(
                    came,
                    sink.entries.len(),
                    "load called `finish` before the last entry"
                );
                assert_eq!(
                    loaded.is_err(),
                    refuse_at_the_end,
                    "load must pass on what `finish` says, and returned {loaded:?}"
                );
            }
            _ => panic!("load called `finish` {} times", sink.finished.len()),
        }
    }
    ok("save", backend.save(key::<F>(10), value::<F>(10)).await);
    stage
        .close_and_expect(backend, (0..=10).map(|n| (n, n)))
        .await;
}

/// A store with ten entries, before it is loaded anew.
async fn ten_stored<F: Fixture>(fixture: &F) -> (Stage<'_, F>, F::Backend) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..10 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    ok("close", backend.close().await);
    drop(backend);
    let backend = stage.open().await;
    (stage, backend)
}

/// A load that fails changes nothing, and the next one on the same backend gives everything.
pub async fn a_load_that_failed_can_be_repeated<F: Fixture>(fixture: &F) {
    let (stage, backend) = ten_stored(fixture).await;
    for refuse_after in [0, 5] {
        let mut sink = Collect {
            refuse_after: Some(refuse_after),
            ..Collect::default()
        };
        if backend.load(&mut sink).await.is_ok() {
            // It survives nothing, so there is nothing to refuse.
            return;
        }
    }
    let mut sink = Collect::default();
    ok("load after a failed load", backend.load(&mut sink).await);
    assert_stored::<F>(&backend, &sink.entries, (0..10).map(|n| (n, n)));
    ok("save", backend.save(key::<F>(10), value::<F>(10)).await);
    stage
        .close_and_expect(backend, (0..=10).map(|n| (n, n)))
        .await;
}

/// Empty, quoted, very long keys; values of 0 bytes to 100 KiB.
pub async fn awkward_keys_and_large_values_come_back<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    for n in 0..120 {
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
    }
    stage
        .crash_and_expect(&backend, (0..120).map(|n| (n, n)))
        .await;
    stage
        .close_and_expect(backend, (0..120).map(|n| (n, n)))
        .await;
}

/// What a store could not read back as it was, it refuses before it is written; what it accepts comes back. Tried with
/// the [`awkward`](crate::Sample::awkward) values of the fixture's type, if it has some, as [`Odd`](crate::Odd) has.
pub async fn what_is_accepted_comes_back<F: Fixture>(fixture: &F) {
    for awkward in F::Value::awkward() {
        let stage = Stage::new(fixture);
        let map = stage.map().await;
        ok("insert", map.insert(key::<F>(0), value::<F>(0)).await);
        let inserted = map.insert(key::<F>(1), awkward.clone()).await;
        if let Err(error) = &inserted {
            assert!(
                error.outcome() == Outcome::NotApplied,
                "{awkward:?} must be refused as not applied, and the store says: {error}"
            );
            let prepared = map.backend().prepare(&key::<F>(1), Some(&awkward));
            assert!(
                prepared.is_err() || !map.capabilities().atomic_batches,
                "{awkward:?} must be refused by `prepare`: later it fails all that share its commit"
            );
        }
        ok("insert", map.insert(key::<F>(2), value::<F>(2)).await);
        let volatile = map.capabilities().survives == Survives::Nothing;
        ok("close", map.close().await);
        drop(map);
        if volatile {
            return;
        }
        let backend = stage.open().await;
        let mut found = match backend.load_all().await {
            Ok(found) => found,
            Err(error) => panic!("{awkward:?} was accepted, and is why load fails: {error}"),
        };
        ok("close", backend.close().await);
        let came_back = found.remove(&key::<F>(1));
        if inserted.is_ok() {
            // NaN is not equal to itself.
            let alike =
                |back: &F::Value| *back == awkward || format!("{back:?}") == format!("{awkward:?}");
            assert!(
                came_back.as_ref().is_some_and(alike),
                "{awkward:?} was accepted, and comes back as {came_back:?}"
            );
        } else {
            assert!(came_back.is_none(), "{awkward:?} was refused, and stored");
        }
        assert_stored::<F>(&backend, &found, [(0, 0), (2, 2)]);
    }
}

/// Neither `flush` nor `close` minds being called again.
pub async fn flush_and_close_can_be_repeated<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let backend = stage.loaded().await;
    ok("flush of a new store", backend.flush().await);
    ok("save", backend.save(key::<F>(0), value::<F>(0)).await);
    ok("flush", backend.flush().await);
    ok("flush again", backend.flush().await);
    ok("close", backend.close().await);
    ok("close again", backend.close().await);
    assert_stored::<F>(&backend, &stage.reopened().await, [(0, 0)]);
}

/// `close` returns when everything is released: the next `open` succeeds while the closed backend still exists, and need
/// not wait for it.
pub async fn a_closed_store_can_be_reopened_at_once<F: Fixture>(fixture: &F) {
    /// Less than a late release takes, and more than noise. Locks may be waited for: without a look at the clock a late
    /// release would not be seen.
    const WAIT: Duration = Duration::from_millis(150);
    let stage = Stage::new(fixture);
    let mut fastest = Duration::MAX;
    for n in 0..5 {
        let backend = stage.loaded().await;
        ok("save", backend.save(key::<F>(n), value::<F>(n)).await);
        ok("close", backend.close().await);
        fastest = fastest.min(stage.time_to_reopen().await);
        let found = stage.reopened().await;
        assert_stored::<F>(&backend, &found, (0..=n).map(|n| (n, n)));
    }
    if fastest < WAIT {
        return;
    }
    // It may be slow to open at any time.
    let mut rested = Duration::ZERO;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rested = rested.max(stage.time_to_reopen().await);
    }
    assert!(
        fastest < rested + WAIT,
        "after close the store opens in {fastest:?}, and a second later in {rested:?}: close must release everything \
         before it returns"
    );
}

/// Who opens a store that has an owner is refused with `InUse`, here or when it is loaded, and the owner does not notice;
/// after `close` the next one comes in. Not asked of stores without a lock ([`Fixture::has_lock`]).
pub async fn a_second_owner_is_refused<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let first = stage.loaded().await;
    if !fixture.has_lock() || first.capabilities().survives == Survives::Nothing {
        return;
    }
    for n in 0..2 {
        ok("save", first.save(key::<F>(n), value::<F>(n)).await);
        match stage.intrude().await {
            Err(PersistentError::InUse { .. }) => {}
            Err(error) => {
                panic!("a second owner must be refused with InUse, and was told: {error}")
            }
            Ok(()) => panic!(
                "two backends have the store at once. If it has no lock on purpose, say so: \
                 `open_with(..).without_lock()`, or `has_lock` of the fixture"
            ),
        }
    }
    ok("save", first.save(key::<F>(2), value::<F>(2)).await);
    stage.close_and_expect(first, (0..3).map(|n| (n, n))).await;
}

/// A map inserts, replaces and removes, says what it replaced, and has the same entries after a restart.
pub async fn a_map_keeps_its_entries<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    for n in 0..50 {
        let before = ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
        assert_eq!(before, None, "a first insert replaced something");
    }
    let before = ok("insert", map.insert(key::<F>(0), value::<F>(60)).await);
    assert_eq!(
        before,
        Some(value::<F>(0)),
        "insert returned another value than it replaced"
    );
    let before = ok("remove", map.remove(&key::<F>(1)).await);
    assert_eq!(
        before,
        Some(value::<F>(1)),
        "remove returned another value than it removed"
    );
    let before = ok("remove", map.remove(&key::<F>(1)).await);
    assert_eq!(before, None, "remove returned a value that was gone");
    assert_eq!(map.get(&key::<F>(0)), Some(value::<F>(60)));
    assert_eq!(map.len(), 49);
    stage.close_and_compare(map).await;
}

/// `clear` empties memory and store.
pub async fn a_cleared_map_stays_empty<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    for n in 0..20 {
        ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
    }
    ok("clear", map.clear().await);
    assert!(map.is_empty(), "entries are left in memory after clear");
    ok(
        "insert after clear",
        map.insert(key::<F>(3), value::<F>(3)).await,
    );
    stage.close_and_compare(map).await;
}

/// Sixteen tasks at once: no write is lost, and a kill at the end finds the store as memory has it.
pub async fn many_writers_leave_memory_and_store_equal<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let map = map.clone();
        tasks.spawn(async move {
            for n in 0..20 {
                let n = task * 20 + n;
                ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
                if n % 3 == 0 {
                    ok("remove", map.remove(&key::<F>(n)).await);
                }
            }
        });
    }
    join(tasks).await;
    assert_eq!(map.len(), (0..320).filter(|n| n % 3 != 0).count());
    stage.crash_and_compare(&map).await;
    stage.close_and_compare(map).await;
}

/// Many tasks on one key: whoever is last in memory is last in the store.
pub async fn writers_of_one_key_leave_memory_and_store_equal<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    for round in 0..5 {
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            let map = map.clone();
            tasks.spawn(async move {
                for n in 0..5 {
                    let number = (round * 16 + task) * 5 + n;
                    if number % 7 == 0 {
                        ok("remove", map.remove(&key::<F>(0)).await);
                    } else {
                        ok("insert", map.insert(key::<F>(0), value::<F>(number)).await);
                    }
                }
            });
        }
        join(tasks).await;
        stage.crash_and_compare(&map).await;
    }
    stage.close_and_compare(map).await;
}

/// Calls that are dropped at any of their first polls: each is done or not, in memory as in the store, and the map goes
/// on.
pub async fn dropped_calls_leave_memory_and_store_equal<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    for polls in 0..10 {
        let n = 10 * polls as u64;
        ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
        drop_after_polls(map.insert(key::<F>(n + 1), value::<F>(n + 1)), polls).await;
        drop_after_polls(map.insert(key::<F>(n), value::<F>(n + 2)), polls).await;
        drop_after_polls(map.remove(&key::<F>(n)), polls).await;
        drop_after_polls(map.flush(), polls).await;
        ok(
            "insert",
            map.insert(key::<F>(n + 3), value::<F>(n + 3)).await,
        );
        ok("flush", map.flush().await);
        stage.crash_and_compare(&map).await;
    }
    drop_after_polls(map.clear(), 2).await;
    ok("flush", map.flush().await);
    drop_after_polls(map.close(), 1).await;
    stage.close_and_compare(map).await;
}

/// Dropping the last handle, without `close`, gives the store back soon, with all that was acknowledged.
pub async fn a_dropped_map_gives_its_store_back<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    for n in 0..5 {
        let map = stage.map().await;
        ok("insert", map.insert(key::<F>(n), value::<F>(n)).await);
        let volatile = map.capabilities().survives == Survives::Nothing;
        drop(map);
        let found = stage.reopened_when_free().await.len() as u64;
        assert_eq!(
            found,
            if volatile { 0 } else { n + 1 },
            "entries after a drop"
        );
    }
}

/// After `close`: reads go on, writes are refused with `Closed`, for all handles; closing again is `Ok`.
pub async fn a_closed_map_reads_and_refuses_writes<F: Fixture>(fixture: &F) {
    let stage = Stage::new(fixture);
    let map = stage.map().await;
    let other = map.clone();
    ok("insert", map.insert(key::<F>(0), value::<F>(0)).await);
    ok("close", map.close().await);
    ok("close again", other.close().await);
    assert_eq!(other.get(&key::<F>(0)), Some(value::<F>(0)));
    let refused = other.insert(key::<F>(1), value::<F>(1)).await;
    assert!(
        matches!(refused, Err(PersistentError::Closed)),
        "insert after close returned {refused:?}"
    );
    let refused = other.clear().await;
    assert!(
        matches!(refused, Err(PersistentError::Closed)),
        "clear after close returned {refused:?}"
    );
    assert_eq!(other.len(), 1, "a refused write changed memory");
    stage.close_and_compare(map).await;
}
