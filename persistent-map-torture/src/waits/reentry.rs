//! Calls of a map from inside of its own closures and initialisers.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use persistent_map_core::PersistentError;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cases::{Play, SMALL, all, key, record, task};
use super::watch::Watch;
use crate::failure::Failure;
use crate::record::Record;
use crate::store::Map;

impl Play<'_> {
    /// Which of the two gets an error is left open; both must get something.
    pub(super) async fn initialisers(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        let mut tasks = JoinSet::new();
        for (one, other) in [(0, 1), (1, 0)] {
            let (map, watch) = (map.clone(), self.watch.clone());
            tasks.spawn(async move {
                let inner = map.clone();
                let made = map.get_or_insert_with(key(one), move || async move {
                    sleep(Duration::from_millis(50)).await;
                    let (key, value) = record(other, 0, SMALL);
                    let _ = inner.get_or_insert_with(key, || async { value }).await;
                    record(one, 0, SMALL).1
                });
                let _ = watch.call("get_or_insert_with", Box::pin(made)).await;
                Ok::<_, Failure>(())
            });
        }
        all(tasks).await?;
        self.close(&map).await
    }

    /// Each inner call is refused, or does what it says; and the outer one ends.
    pub(super) async fn closures(&self) -> Result<(), Failure> {
        let map = self.open().await?;
        self.insert(&map, 0, 0, SMALL).await?;
        let (inner, watch) = (map.clone(), self.watch.clone());
        let read = tokio::task::spawn_blocking(move || {
            inner.with(&key(0), |_| calls_inside(&inner, &watch));
        });
        self.watch.call("with", read).await.map_err(task)?;
        let (inner, watch) = (map.clone(), self.watch.clone());
        let change = move |_: &mut Record| calls_inside(&inner, &watch);
        let key = key(0);
        self.watch.call("update", map.update(&key, change)).await?;
        let (inner, watch) = (map.clone(), self.watch.clone());
        let transaction = map.transaction(move |_| {
            calls_inside(&inner, &watch);
            Ok::<_, PersistentError>(())
        });
        self.watch.call("transaction", transaction).await?;
        let (inner, watch) = (map.clone(), self.watch.clone());
        let retained = map.retain(move |_, _| {
            calls_inside(&inner, &watch);
            true
        });
        self.watch.call("retain", retained).await?;
        self.insert(&map, 1, 2, SMALL).await?;
        self.close(&map).await
    }
}

/// Calls that wait for the map, in a closure that it waits for.
fn calls_inside(map: &Map, watch: &Watch) {
    let (key, record) = record(0, 1, SMALL);
    let _ = watch.blocking("an insert inside", || block_on(map.insert(key, record)));
    let _ = watch.blocking("a flush inside", || block_on(map.flush()));
    let _ = watch.blocking("a snapshot inside", || block_on(map.snapshot()));
    let _ = watch.blocking("a verify inside", || block_on(map.verify()));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// As other runtimes do it, which the map knows nothing of.
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
