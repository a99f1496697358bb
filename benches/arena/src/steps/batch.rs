//! Many entries with one commit.

use std::time::Instant;

use crate::data::{Text, entry};
use crate::gauge::{Figures, nanos_each};
use crate::store::{Outcome, Store};
use crate::trial::Trial;

pub(crate) async fn run<S: Store<Text>>(trial: &Trial) -> Outcome<Figures> {
    let store = S::open(&trial.directory).await?;
    let batch = (0..trial.entries).map(entry).collect();
    let start = Instant::now();
    store.fill(batch).await?;
    let each = nanos_each(start, trial.entries);
    store.close().await?;
    Ok(Figures::from([("ns".to_string(), each)]))
}
