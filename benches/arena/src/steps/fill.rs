//! Makes the store that another step needs.

use crate::data::{Payload, entry, key};
use crate::gauge::{Figures, disk_bytes};
use crate::store::{Outcome, Store};
use crate::trial::Trial;

/// So many entries are in memory beside the store.
const CHUNK: usize = 100_000;

pub(crate) async fn run<V: Payload, S: Store<V>>(
    trial: &Trial,
    in_order: bool,
) -> Outcome<Figures> {
    let mut numbers: Vec<u64> = (0..trial.entries).collect();
    if in_order {
        numbers.sort_by_cached_key(|&number| key(number));
    }
    let store = S::open(&trial.directory).await?;
    fill(&store, &numbers).await?;
    store.close().await?;
    let bytes = disk_bytes(&trial.directory)?;
    Ok(Figures::from([("disk_bytes".to_string(), bytes)]))
}

/// Stores the entries of these numbers.
pub(crate) async fn fill<V: Payload, S: Store<V>>(store: &S, numbers: &[u64]) -> Outcome<()> {
    for chunk in numbers.chunks(CHUNK) {
        let entries = chunk.iter().map(|&number| entry(number));
        store.fill(entries.collect()).await?;
    }
    store.flush().await
}
