//! Look-ups of entries that are there, at random.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::data::{Text, key};
use crate::gauge::{Figures, nanos_each};
use crate::steps::fill::fill;
use crate::store::{Outcome, Store};
use crate::trial::Trial;

pub(crate) async fn run<S: Store<Text>>(trial: &Trial) -> Outcome<Figures> {
    let store = S::open(&trial.directory).await?;
    // Contenders that keep nothing come without entries.
    if store.get(&key(0))?.is_none() {
        fill(&store, &(0..trial.entries).collect::<Vec<_>>()).await?;
    }
    let keys: Arc<[String]> = (0..trial.entries).map(key).collect();
    let store = Arc::new(store);
    let look_up =
        |store: &S, key: &String| -> Outcome<bool> { Ok(black_box(store.get(key)?).is_some()) };
    let look_at = |store: &S, key: &String| -> Outcome<bool> {
        let length = store.read(key, |value| black_box(value).len())?;
        Ok(black_box(length).is_some())
    };
    // Both in turns, so that what disturbs one disturbs the other.
    let mut turns = [(0.0, 0.0); 4];
    let time = trial.time() / 8;
    for (get, read) in &mut turns {
        *get = timed(&store, &keys, trial.tasks, time, look_up)?;
        *read = timed(&store, &keys, trial.tasks, time, look_at)?;
    }
    let best = |which: fn(&(f64, f64)) -> f64| turns.iter().map(which).fold(f64::MAX, f64::min);
    Ok(Figures::from([
        ("get_ns".to_string(), best(|turn| turn.0)),
        ("read_ns".to_string(), best(|turn| turn.1)),
    ]))
}

/// Nanoseconds of one look-up, on average over the threads.
#[expect(clippy::cast_precision_loss, reason = "few threads")]
fn timed<S: Store<Text>>(
    store: &Arc<S>,
    keys: &Arc<[String]>,
    threads: usize,
    time: Duration,
    find: impl Fn(&S, &String) -> Outcome<bool> + Send + Copy + 'static,
) -> Outcome<f64> {
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let (store, keys) = (Arc::clone(store), Arc::clone(keys));
            thread::spawn(move || -> Outcome<f64> {
                let mut random = fastrand::Rng::new();
                let start = Instant::now();
                let mut done = 0;
                while start.elapsed() < time {
                    for _ in 0..1024 {
                        if !find(&store, &keys[random.usize(..keys.len())])? {
                            return Err("an entry is not there".into());
                        }
                    }
                    done += 1024;
                }
                Ok(nanos_each(start, done))
            })
        })
        .collect();
    let mut sum = 0.0;
    for handle in handles {
        sum += handle.join().map_err(|_| "a reader has panicked")??;
    }
    Ok(sum / threads as f64)
}
