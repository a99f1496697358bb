//! Opens a store, until its entries can be read.

use std::time::Instant;

use crate::data::{Text, key};
use crate::gauge::{Figures, Memory, disk_bytes};
use crate::steps::fill::fill;
use crate::store::{Outcome, Store};
use crate::trial::Trial;

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn run<S: Store<Text>>(trial: &Trial) -> Outcome<Figures> {
    let before = Memory::read();
    let start = Instant::now();
    let store = S::open(&trial.directory).await?;
    let seconds = start.elapsed().as_secs_f64();
    // Contenders that keep nothing are filled, for what they take in memory.
    if store.get(&key(0))?.is_none() {
        fill(&store, &(0..trial.entries).collect::<Vec<_>>()).await?;
    }
    let after = Memory::read();
    if store.get(&key(trial.entries - 1))?.is_none() {
        return Err("the last entry is not there".into());
    }
    store.close().await?;

    let each = |bytes: f64| bytes / trial.entries as f64;
    let mut figures = Figures::from([
        ("seconds".to_string(), seconds),
        (
            "disk_bytes_each".to_string(),
            each(disk_bytes(&trial.directory)?),
        ),
    ]);
    if let (Some(before), Some(after)) = (before, after) {
        figures.insert("memory_bytes_each".into(), each(after.now - before.now));
        figures.insert("peak_bytes_each".into(), each(after.peak - before.now));
    }
    Ok(figures)
}
