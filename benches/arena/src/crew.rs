//! Many tasks that use one store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::data::Payload;
use crate::gauge::{Figures, Latencies};
use crate::store::{Outcome, Store};

/// Has each of `tasks` do `work`, which gets the number of its task, and gives back all results. Where calls block, a task
/// is a thread.
pub(crate) async fn all<V, S, T, F>(
    store: &Arc<S>,
    tasks: usize,
    work: impl Fn(usize, Arc<S>) -> F,
) -> Outcome<Vec<T>>
where
    V: Payload,
    S: Store<V>,
    T: Send + 'static,
    F: Future<Output = Outcome<T>> + Send + 'static,
{
    let handles: Vec<_> = (0..tasks)
        .map(|number| {
            let work = work(number, Arc::clone(store));
            if S::BLOCKS {
                tokio::task::spawn_blocking(move || Handle::current().block_on(work))
            } else {
                tokio::spawn(work)
            }
        })
        .collect();
    let mut results = Vec::with_capacity(tasks);
    for handle in handles {
        results.push(handle.await??);
    }
    Ok(results)
}

/// Has each of `tasks` call again and again until the time is up, and says how long the calls took.
pub(crate) async fn timed<V, S, C, F>(
    store: &Arc<S>,
    tasks: usize,
    time: Duration,
    call: C,
) -> Outcome<Figures>
where
    V: Payload,
    S: Store<V>,
    C: Fn(Arc<S>) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let start = Instant::now();
    let each = all(store, tasks, |_, store| {
        let call = call.clone();
        async move {
            let mut latencies = Latencies::new()?;
            let mut before = Instant::now();
            while before - start < time {
                call(Arc::clone(&store)).await?;
                let after = Instant::now();
                latencies.took(after - before);
                before = after;
            }
            Outcome::Ok(latencies)
        }
    })
    .await?;
    let elapsed = start.elapsed();
    let mut sum = Latencies::new()?;
    for latencies in &each {
        sum.add(latencies)?;
    }
    Ok(sum.figures(elapsed))
}
