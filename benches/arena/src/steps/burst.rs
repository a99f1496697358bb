//! New entries, as fast as memory takes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::crew;
use crate::data::{Text, entry};
use crate::gauge::{Figures, nanos_each};
use crate::steps::insert::close;
use crate::store::{Outcome, Store};
use crate::trial::Trial;

/// Of each burst, which is stored before the next: below the bounds that write-behind has if nobody sets others.
const BURST: u64 = 80_000;

pub(crate) async fn run<S: Store<Text>>(trial: &Trial) -> Outcome<Figures> {
    let store = Arc::new(S::open(&trial.directory).await?);
    let (mut accepted, mut stored) = (0.0, 0.0);
    let mut bursts = 0.0;
    let mut from = 0;
    while from < trial.entries {
        let to = trial.entries.min(from + BURST);
        let shares = shares((from..to).map(entry), trial.tasks);
        let start = Instant::now();
        crew::all(&store, trial.tasks, |number, store| {
            let share = take(&shares[number]);
            async move {
                for (key, value) in share {
                    store.insert(key, value).await?;
                }
                Outcome::Ok(())
            }
        })
        .await?;
        accepted += nanos_each(start, to - from);
        store.flush().await?;
        stored += nanos_each(start, to - from);
        bursts += 1.0;
        from = to;
    }
    close(store).await?;
    Ok(Figures::from([
        ("ns".to_string(), accepted / bursts),
        ("with_flush_ns".to_string(), stored / bursts),
    ]))
}

type Share = Mutex<Vec<(String, Text)>>;

/// The entries in as many parts as there are tasks, made before the clock starts.
fn shares(entries: impl Iterator<Item = (String, Text)>, tasks: usize) -> Vec<Share> {
    let mut shares: Vec<Vec<_>> = (0..tasks).map(|_| Vec::new()).collect();
    for (number, entry) in entries.enumerate() {
        shares[number % tasks].push(entry);
    }
    shares.into_iter().map(Mutex::new).collect()
}

fn take(share: &Share) -> Vec<(String, Text)> {
    std::mem::take(&mut share.lock().unwrap_or_else(PoisonError::into_inner))
}
