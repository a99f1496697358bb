//! Makes the store that another step needs.

use crate::data::{Payload, entries};
use crate::gauge::{Figures, disk_bytes};
use crate::store::{Outcome, Store};
use crate::trial::Trial;

/// So many entries are in memory beside the store.
const CHUNK: u64 = 100_000;

pub(crate) async fn run<V: Payload, S: Store<V>>(trial: &Trial) -> Outcome<Figures> {
    let store = S::open(&trial.directory).await?;
    fill(&store, trial.entries).await?;
    store.close().await?;
    let bytes = disk_bytes(&trial.directory)?;
    Ok(Figures::from([("disk_bytes".to_string(), bytes)]))
}

pub(crate) async fn fill<V: Payload, S: Store<V>>(store: &S, count: u64) -> Outcome<()> {
    let mut from = 0;
    while from < count {
        let to = count.min(from + CHUNK);
        store.fill(entries(from..to)).await?;
        from = to;
    }
    store.flush().await
}
