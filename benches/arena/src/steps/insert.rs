//! New entries, one a call, from many tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::crew;
use crate::data::{Payload as _, Text, key};
use crate::gauge::Figures;
use crate::store::{Outcome, Store};
use crate::trial::Trial;

pub(crate) async fn run<S: Store<Text>>(trial: &Trial) -> Outcome<Figures> {
    let store = Arc::new(S::open(&trial.directory).await?);
    // Behind those that the store was filled with, and those of rounds before this one.
    let next = Arc::new(AtomicU64::new(fastrand::u64(1 << 40..1 << 62)));
    let insert = move |store: Arc<S>| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        async move { store.insert(key(number), Text::any()).await }
    };
    let figures = crew::timed(&store, trial.tasks, trial.time(), insert).await?;
    close(store).await?;
    Ok(figures)
}

pub(crate) async fn close<V: crate::data::Payload, S: Store<V>>(store: Arc<S>) -> Outcome<()> {
    let store = Arc::into_inner(store).ok_or("a task still has the store")?;
    store.close().await
}
