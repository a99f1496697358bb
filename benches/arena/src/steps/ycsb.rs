//! The core workloads of YCSB, as published: Cooper et al., "Benchmarking cloud serving systems with YCSB", 2010.
//!
//! E is left out: it scans a range of keys, and a hash map has no order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_distr::{Distribution as _, Zipf};

use crate::crew;
use crate::data::{Payload as _, Record, key};
use crate::gauge::Figures;
use crate::steps::insert::close;
use crate::store::{Outcome, Store};
use crate::trial::{Step, Trial};

const ZIPFIAN: f64 = 0.99;

/// What a call that is no read does.
#[derive(Clone, Copy)]
enum Change {
    Update,
    Insert,
    ReadThenUpdate,
}

pub(crate) async fn run<S: Store<Record>>(trial: &Trial) -> Outcome<Figures> {
    let store = Arc::new(S::open(&trial.directory).await?);
    let call = caller(trial)?;
    let figures = crew::timed(&store, trial.tasks, trial.time(), call).await?;
    close(store).await?;
    Ok(figures)
}

type Pinned = std::pin::Pin<Box<dyn Future<Output = Outcome<()>> + Send>>;

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn caller<S: Store<Record>>(
    trial: &Trial,
) -> Outcome<impl Fn(Arc<S>) -> Pinned + Clone + Send + 'static> {
    let (reads, change) = match trial.step {
        Step::YcsbA => (0.5, Change::Update),
        Step::YcsbB => (0.95, Change::Update),
        Step::YcsbD => (0.95, Change::Insert),
        Step::YcsbF => (0.5, Change::ReadThenUpdate),
        _ => (1.0, Change::Update),
    };
    let ranks = Zipf::new(trial.entries as f64, ZIPFIAN)?;
    let entries = Arc::new(AtomicU64::new(trial.entries));
    Ok(move |store: Arc<S>| {
        let entries = Arc::clone(&entries);
        Box::pin(async move {
            // Keys are spread by themselves, so the most popular ones are not neighbours. With D they are the latest.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = ranks.sample(&mut rand::rng()) as u64 - 1;
            let number = match change {
                Change::Insert => entries.load(Ordering::Acquire) - 1 - rank,
                Change::Update | Change::ReadThenUpdate => rank,
            };
            if fastrand::f64() < reads {
                return read(&*store, number);
            }
            match change {
                Change::Insert => {
                    // Counted when it is there. Tasks overtake each other, so one too early may be looked for.
                    let number = entries.fetch_add(1, Ordering::AcqRel);
                    store.insert(key(number), Record::any()).await
                }
                Change::ReadThenUpdate => {
                    read(&*store, number)?;
                    store.update(&key(number), Record::rewrite_a_field).await
                }
                Change::Update => store.update(&key(number), Record::rewrite_a_field).await,
            }
        }) as Pinned
    })
}

fn read<S: Store<Record>>(store: &S, number: u64) -> Outcome<()> {
    std::hint::black_box(store.get(&key(number))?);
    Ok(())
}
