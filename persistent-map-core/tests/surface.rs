//! What the compiler must say of the public surface.

use std::fmt::Debug;
use std::time::Duration;

use persistent_map_core::{
    Builder, Change, Copied, Copying, Event, Iter, Keys, PersistentError, PersistentMap, Stats,
    StorageBackend, Subscription, Values, Watch, copy,
};

type Map = PersistentMap<String, u64, Anything>;

/// Any backend will do: nothing here is run.
struct Anything;

#[persistent_map_core::async_trait]
impl StorageBackend<String, u64> for Anything {
    async fn load_all(&self) -> Result<std::collections::HashMap<String, u64>, PersistentError> {
        Ok(std::collections::HashMap::new())
    }
    async fn save(&self, _: String, _: u64) -> Result<(), PersistentError> {
        Ok(())
    }
    async fn delete(&self, _: &String) -> Result<(), PersistentError> {
        Ok(())
    }
    async fn flush(&self) -> Result<(), PersistentError> {
        Ok(())
    }
}

fn send<T: Send>(_: T) {}
fn send_type<T: Send>() {}
fn owned<T: Send + 'static>(_: T) {}

/// Code for any backend need not say that it is one, to look.
#[allow(dead_code, reason = "it is there to be compiled")]
fn reads_ask_nothing_of_the_backend<B>(map: &PersistentMap<String, u64, B>) -> bool {
    let read = map.get("a").is_some() || map.with("a", |n| *n > 0).is_some();
    read || map.contains_key("a") || map.is_empty()
}

/// Every public future can be given to `tokio::spawn`.
#[allow(dead_code, reason = "it is there to be compiled")]
fn every_future_is_send(map: &Map, other: &Map, events: &mut Subscription<String, u64>) {
    let key = String::new;
    send(PersistentMap::<String, u64, _>::new(Anything));
    let builder = || PersistentMap::<String, u64, _>::builder(Anything);
    send(builder().open());
    send(builder().open_with_report());
    send(map.insert(key(), 1));
    send(map.remove("a"));
    send(map.clear());
    send(map.flush());
    send(map.close());
    send(map.update("a", |n| *n += 1));
    send(map.update_or_insert(key(), 0, |n| *n += 1));
    send(map.compute(key(), |n| n));
    send(map.insert_if_absent(key(), 1));
    send(map.compare_and_swap(key(), None, Some(1)));
    send(map.remove_if("a", |n| *n == 1));
    send(map.get_or_insert_with(key(), || async { 1 }));
    send(map.get_or_try_insert_with(key(), || async { Ok::<_, PersistentError>(1) }));
    send(map.insert_many([(key(), 1)]));
    send(map.remove_many([key()]));
    send(map.retain(|_, _| true));
    send(map.transaction(|tx| Ok::<_, PersistentError>(tx.get("a"))));
    send(map.snapshot());
    send(map.verify());
    send(copy(map, other).into_future());
    send(events.recv());
    send(map.watch(key()).changed());
    send(tokio::time::timeout(
        Duration::from_secs(1),
        map.insert(key(), 1),
    ));
}

/// Whatever a read returns is its own: it borrows nothing of the map, so it cannot be a guard.
#[allow(dead_code, reason = "it is there to be compiled")]
fn no_call_returns_a_guard(map: &Map) {
    owned(map.get("a"));
    owned(map.with("a", |n| *n));
    owned(map.contains_key("a"));
    owned(map.len());
    owned(map.is_empty());
    owned(map.iter());
    owned(map.into_iter());
    owned(map.keys());
    owned(map.values());
    owned(map.subscribe());
    owned(map.watch(String::new()));
    owned(map.stats());
    owned(map.capabilities());
    owned(map.clone());
}

#[test]
fn types_can_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Map>();
    check::<Stats>();
    check::<PersistentError>();
    check::<Change<String, u64>>();
    check::<Event<String, u64>>();
    check::<Copied>();
    send_type::<Builder<String, u64, Anything>>();
    send_type::<Iter<String, u64>>();
    send_type::<Keys<String>>();
    send_type::<Values<String, u64>>();
    send_type::<Subscription<String, u64>>();
    send_type::<Watch<String, u64>>();
    send_type::<
        Copying<
            '_,
            String,
            u64,
            Anything,
            std::hash::RandomState,
            Anything,
            std::hash::RandomState,
        >,
    >();
}

#[test]
fn events_can_be_printed_whatever_their_keys_and_values_are() {
    fn check<T: Debug>() {}
    enum Secret {}
    check::<Change<Secret, Secret>>();
    check::<Event<Secret, Secret>>();
    check::<Subscription<Secret, Secret>>();
}
