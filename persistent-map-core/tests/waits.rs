//! Nobody waits for ever: writers among readers who never pause, and other tasks beside calls that never wait.

use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use persistent_map_core::{Behind, PersistentError, PersistentMap, StorageBackend, WriteMode};
use persistent_map_memory::InMemoryBackend;
use persistent_map_testkit::Disk;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

mod support;
use support::limit::limit;
use support::{lazy, soon};

thread_local! {
    /// Whether this thread takes its time to copy a key.
    static IS_SLOW: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Name(u64);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Clone for Name {
    fn clone(&self) -> Self {
        if IS_SLOW.get() {
            thread::sleep(Duration::from_millis(1));
        }
        Name(self.0)
    }
}

/// Keys from 1 on are in one shard, those of `OTHER_SHARD` and above in another.
#[derive(Default)]
struct Plain(u64);

const OTHER_SHARD: u64 = u64::MAX - 100;

impl Hasher for Plain {
    fn write(&mut self, _: &[u8]) {
        panic!("a key that is no `u64`");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Map<B> = PersistentMap<Name, u64, B, BuildHasherDefault<Plain>>;

async fn open<B: StorageBackend<Name, u64>>(backend: B, mode: WriteMode) -> Map<B> {
    let builder = PersistentMap::builder(backend)
        .write_mode(mode)
        .hasher(BuildHasherDefault::default());
    builder.open().await.unwrap()
}

/// Reads of which eight overlap without a gap, and each of which is short.
trait Read<B>: Fn(&Map<B>) + Send + Copy + 'static {}
impl<B, F: Fn(&Map<B>) + Send + Copy + 'static> Read<B> for F {}

fn pause() {
    thread::sleep(Duration::from_millis(2));
}

async fn writers_get_in<B: StorageBackend<Name, u64>>(
    map: &Map<B>,
    what: &str,
    read: impl Read<B>,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let (has_read, reads) = channel();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (map, stop, has_read) = (map.clone(), Arc::clone(&stop), has_read.clone());
            thread::spawn(move || {
                IS_SLOW.set(true);
                while !stop.load(Relaxed) {
                    read(&map);
                    let _ = has_read.send(());
                }
            })
        })
        .collect();
    for _ in 0..16 {
        reads.recv().unwrap();
    }
    let write = async {
        for n in 0..5 {
            map.insert(Name(1), n).await.unwrap();
            map.insert(Name(2), n).await.unwrap();
            map.update_or_insert(Name(3), 0, |value| *value += 1)
                .await
                .unwrap();
            map.remove(&Name(4)).await.unwrap();
            map.insert(Name(OTHER_SHARD), n).await.unwrap();
        }
    };
    let written = timeout(Duration::from_secs(10), write).await;
    stop.store(true, Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    written.unwrap_or_else(|_| panic!("readers keep writers out: {what}"));
}

async fn writers_get_in_among_all<B: StorageBackend<Name, u64>>(map: Map<B>) {
    for key in [1, 2, 3, 4, OTHER_SHARD] {
        map.insert(Name(key), 0).await.unwrap();
    }
    writers_get_in(&map, "`with`", |map| {
        map.with(&Name(1), |_| pause());
    })
    .await;
    writers_get_in(&map, "a read inside of one of the same shard", |map| {
        map.with(&Name(1), |_| map.with(&Name(2), |_| pause()));
    })
    .await;
    writers_get_in(&map, "a read inside of one of another shard", |map| {
        map.with(&Name(OTHER_SHARD), |_| map.with(&Name(1), |_| pause()));
        map.with(&Name(1), |_| map.with(&Name(OTHER_SHARD), |_| pause()));
    })
    .await;
    writers_get_in(&map, "`keys`", |map| drop(map.keys())).await;
    map.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_never_pause_do_not_keep_writers_out() {
    let _limit = limit();
    writers_get_in_among_all(open(Disk::new().backend(), WriteMode::Through).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_never_pause_do_not_keep_writers_out_whose_store_follows() {
    let _limit = limit();
    let mode = WriteMode::Behind(Behind::new());
    writers_get_in_among_all(open(Disk::new().backend(), mode).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_never_pause_do_not_keep_writers_out_without_a_store() {
    let _limit = limit();
    writers_get_in_among_all(open(InMemoryBackend::new(), WriteMode::Through).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_waits_for_another_one_waits_a_second_at_most_behind_a_writer() {
    let limit = limit();
    let map = open(Disk::new().backend(), WriteMode::Through).await;
    map.insert(Name(1), 1).await.unwrap();
    let (inside, is_inside) = channel();
    let (answer, answered) = channel();
    let outer = {
        let map = map.clone();
        thread::spawn(move || {
            map.with(&Name(1), |_| {
                inside.send(()).unwrap();
                answered.recv_timeout(Duration::from_secs(10)).unwrap()
            })
        })
    };
    is_inside.recv().unwrap();
    let write = tokio::spawn({
        let map = map.clone();
        async move { map.insert(Name(1), 2).await.unwrap() }
    });
    thread::sleep(Duration::from_millis(100));
    limit.at("the read that the outer one waits for");
    let started = Instant::now();
    answer.send(map.get(&Name(1))).unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{started:?}");
    assert_eq!(outer.join().unwrap(), Some(Some(1)));
    limit.at("the write");
    assert_eq!(soon(write).await.unwrap(), Some(1));
}

/// Awaits a call again and again, which never waits by itself, beside a timer.
async fn lets_a_timer_fire<T>(what: &str, mut call: impl AsyncFnMut() -> T) {
    let started = Instant::now();
    let endless = async {
        loop {
            drop(call().await);
            let hogged = started.elapsed();
            assert!(hogged < Duration::from_secs(5), "{what} never yields");
        }
    };
    let ended: Result<(), _> = timeout(Duration::from_millis(1), endless).await;
    assert!(ended.is_err());
}

async fn calls_let_a_timer_fire<B: StorageBackend<Name, u64>>(map: Map<B>) {
    let key = || Name(1);
    lets_a_timer_fire("`insert`", async || map.insert(key(), 1).await).await;
    lets_a_timer_fire("`remove`", async || map.remove(&key()).await).await;
    lets_a_timer_fire("`update`", async || map.update(&key(), |_| ()).await).await;
    lets_a_timer_fire("`compute`", async || map.compute(key(), |_| Some(1)).await).await;
    lets_a_timer_fire("`insert_if_absent`", async || {
        map.insert_if_absent(key(), 1).await
    })
    .await;
    lets_a_timer_fire("`get_or_insert_with`", async || {
        map.get_or_insert_with(key(), async || 1).await
    })
    .await;
    lets_a_timer_fire("`insert_many`", async || map.insert_many([]).await).await;
    lets_a_timer_fire("`transaction`", async || {
        map.transaction(|_| Ok::<_, PersistentError>(())).await
    })
    .await;
    lets_a_timer_fire("`retain`", async || map.retain(|_, _| true).await).await;
    lets_a_timer_fire("`clear`", async || map.clear().await).await;
    lets_a_timer_fire("`snapshot`", async || map.snapshot().await).await;
    lets_a_timer_fire("`verify`", async || map.verify().await).await;
    lets_a_timer_fire("`flush`", async || map.flush().await).await;
    let (mut events, mut watch) = (map.subscribe(), map.watch(key()));
    map.close().await.unwrap();
    lets_a_timer_fire("`close`", async || map.close().await).await;
    lets_a_timer_fire("`insert` when closed", async || map.insert(key(), 1).await).await;
    lets_a_timer_fire("`flush` when closed", async || map.flush().await).await;
    lets_a_timer_fire("`snapshot` when closed", async || map.snapshot().await).await;
    lets_a_timer_fire("`recv`", async || events.recv().await).await;
    lets_a_timer_fire("`changed`", async || watch.changed().await).await;
}

#[tokio::test]
async fn calls_that_never_wait_let_a_timer_fire() {
    let _limit = limit();
    calls_let_a_timer_fire(open(InMemoryBackend::new(), WriteMode::Through).await).await;
    calls_let_a_timer_fire(open(Disk::new().backend(), WriteMode::Through).await).await;
    calls_let_a_timer_fire(open(Disk::new().backend(), WriteMode::Behind(lazy())).await).await;
}

/// How many calls end in the time of two turns, of a task that makes this call again and again.
async fn calls_in_two_turns<T>(mut call: impl AsyncFnMut() -> T) -> u32 {
    let made = Cell::new(0);
    let endless = async {
        loop {
            drop(call().await);
            made.set(made.get() + 1);
        }
    };
    let two_turns = async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    };
    tokio::select! {
        biased;
        () = endless => {}
        () = two_turns => {}
    }
    made.get()
}

async fn one_call_on_many_entries_is_a_turn<B: StorageBackend<Name, u64>>(map: Map<B>) {
    let many = || (0..10_000).map(|key| (Name(key), 1));
    map.insert_many(many()).await.unwrap();
    let snapshots = calls_in_two_turns(async || map.snapshot().await).await;
    let inserts = calls_in_two_turns(async || map.insert_many(many()).await).await;
    let retains = calls_in_two_turns(async || map.retain(|_, _| true).await).await;
    let calls = [snapshots, inserts, retains];
    assert!(calls.iter().all(|made| *made <= 4), "{calls:?}");
}

#[tokio::test]
async fn calls_on_many_entries_use_up_a_turn_each() {
    let _limit = limit();
    one_call_on_many_entries_is_a_turn(open(InMemoryBackend::new(), WriteMode::Through).await)
        .await;
    let behind = WriteMode::Behind(lazy());
    one_call_on_many_entries_is_a_turn(open(Disk::new().backend(), behind).await).await;
}
