//! Calls that would wait for themselves are refused, where that can be known.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use persistent_map_core::{Behind, PersistentError, PersistentMap, Result, StorageBackend};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::Disk;
use tokio::sync::Barrier;
use tokio::time::timeout;

mod support;
use support::limit::limit;
use support::{behind, soon};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// As another runtime would do it, which the map knows nothing of.
fn block_on<T>(call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
            return answer;
        }
        thread::park();
    }
}

type Map<B> = PersistentMap<u32, u32, B>;

fn assert_refused<T>(answer: &Result<T>, what: &str) {
    assert!(is_refused(answer), "{what} is not refused");
}

/// Each kind of call that may wait for the map.
fn all_are_refused<B: StorageBackend<u32, u32>>(map: &Map<B>) {
    assert_refused(&block_on(map.insert(1, 1)), "`insert`");
    assert_refused(&block_on(map.remove(&1)), "`remove`");
    assert_refused(&block_on(map.update(&1, |_| ())), "`update`");
    assert_refused(&block_on(map.insert_many([(1, 1)])), "`insert_many`");
    assert_refused(&block_on(map.retain(|_, _| true)), "`retain`");
    assert_refused(&block_on(map.clear()), "`clear`");
    assert_refused(&block_on(map.flush()), "`flush`");
    assert_refused(&block_on(map.snapshot()), "`snapshot`");
    assert_refused(&block_on(map.verify()), "`verify`");
    assert_refused(&block_on(map.close()), "`close`");
    let made = block_on(map.get_or_insert_with(99, async || 1));
    assert_refused(&made, "`get_or_insert_with`");
    assert_refused(&map.blocking().insert(1, 1), "a blocking `insert`");
}

async fn refuses_inside_of_itself<B: StorageBackend<u32, u32>>(map: Map<B>) {
    let limit = limit();
    map.insert(1, 1).await.unwrap();
    let other = PersistentMap::new(InMemoryBackend::new()).await.unwrap();
    for round in 0..2 {
        limit.at("`with`");
        map.with(&1, |_| all_are_refused(&map)).unwrap();
        limit.at("`update`");
        let inner = map.clone();
        let updated = map.update(&1, move |_| all_are_refused(&inner)).await;
        updated.unwrap().unwrap();
        limit.at("`transaction`");
        let (inner, other) = (map.clone(), other.clone());
        let transaction = map.transaction(move |tx| {
            all_are_refused(&inner);
            // Nothing is known of what another map waits for.
            assert!(block_on(other.insert(1, round)).is_ok());
            tx.insert(2, inner.get(&1).unwrap());
            Ok::<_, PersistentError>(())
        });
        transaction.await.unwrap();
    }
    limit.at("the end");
    soon(map.insert(3, 3)).await.unwrap();
    soon(map.close()).await.unwrap();
    assert_eq!(map.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_refuses_to_be_waited_for_inside_of_its_own_closures() {
    refuses_inside_of_itself(PersistentMap::new(Disk::new().backend()).await.unwrap()).await;
    refuses_inside_of_itself(behind(Disk::new().backend(), Behind::new()).await).await;
    refuses_inside_of_itself(PersistentMap::new(InMemoryBackend::new()).await.unwrap()).await;
}

fn is_refused<T>(answer: &Result<T>) -> bool {
    matches!(answer, Err(PersistentError::WouldDeadlock { .. }))
}

/// Asks for these values, each of which asks for the next one, and the last one for the first.
async fn circle(keys: usize, maps: usize) -> Vec<Result<u32>> {
    let mut all = Vec::new();
    for _ in 0..maps {
        all.push(
            PersistentMap::<usize, u32, _>::new(InMemoryBackend::new())
                .await
                .unwrap(),
        );
    }
    let all_are_making = Arc::new(Barrier::new(keys));
    let calls = (0..keys).map(|key| {
        let (all, barrier) = (all.clone(), Arc::clone(&all_are_making));
        tokio::spawn(async move {
            let next = (key + 1) % keys;
            let init = async || {
                barrier.wait().await;
                let (map, next) = (&all[next % all.len()], next);
                map.get_or_try_insert_with(next, async || Ok::<_, PersistentError>(7))
                    .await
            };
            all[key % all.len()].get_or_try_insert_with(key, init).await
        })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        let answer = timeout(Duration::from_secs(10), call).await;
        answers.push(answer.expect("they wait for each other").unwrap());
    }
    answers
}

#[tokio::test]
async fn initialisers_that_ask_for_each_other_are_told() {
    let _limit = limit();
    for (keys, maps) in [(1, 1), (2, 1), (2, 2), (5, 1), (6, 3)] {
        let answers = circle(keys, maps).await;
        let refused = answers.iter().filter(|answer| is_refused(answer)).count();
        assert_eq!(refused, 1, "the last one to ask: {answers:?}");
    }
}

#[tokio::test]
async fn an_initialiser_may_ask_for_other_values_and_others_for_the_same() {
    let _limit = limit();
    let map = PersistentMap::<u32, u32, _>::new(InMemoryBackend::new())
        .await
        .unwrap();
    let third = async || {
        map.get_or_insert_with(3, async || {
            tokio::task::yield_now().await;
            30
        })
        .await
        .unwrap()
    };
    let first = map.get_or_insert_with(1, async || third().await + 1);
    let second = map.get_or_insert_with(2, async || third().await + 2);
    let (first, second) = Box::pin(soon(async { tokio::join!(first, second) })).await;
    assert_eq!((first.unwrap(), second.unwrap()), (31, 32));
    map.clear().await.unwrap();
    // Nothing is remembered of who has waited for whom.
    let third = map.get_or_insert_with(3, async || {
        map.get_or_insert_with(1, async || 10).await.unwrap() + 1
    });
    assert_eq!(soon(third).await.unwrap(), 11);
}
