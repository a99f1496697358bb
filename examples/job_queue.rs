//! A queue of jobs that survives its process, and does the effect of each job exactly once.
//!
//! ```text
//! cargo run --example job_queue
//! ```
//!
//! The work here is to add the numbers from 1 to 2000. A job for many numbers makes two jobs for half of them; a job for a
//! few adds them. So jobs make jobs, as a crawler's do, and the sum tells whether one was lost or done twice.
//!
//! **When it is killed** (try it: Ctrl-C while it works) the queue is as after the last `Ok`. A job that was being worked on
//! is still in it, and done again by the next run: start whatever you like in a job, but change the map in the transaction
//! that ends it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use persistent_map::{PersistentError, PersistentMap, Result, sqlite::SqliteBackend};
use persistent_map_examples::data_file;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// The numbers to add.
const ALL: (u64, u64) = (1, 2000);

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    from: u64,
    to: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum State {
    Waiting,
    Running,
    /// What it came to; nothing if it was split.
    Done(u64),
}

/// Cheap to clone: all workers share one map.
#[derive(Clone)]
struct Queue {
    jobs: PersistentMap<u64, Job, SqliteBackend>,
    next_id: Arc<AtomicU64>,
}

impl Queue {
    async fn open() -> Result<Self> {
        let backend = SqliteBackend::new(data_file("job_queue.db")?).await?;
        let jobs = PersistentMap::<u64, Job, _>::new(backend).await?;
        // What a killed process was working on waits again. One process owns the file, so nobody else works on it.
        let interrupted: Vec<(u64, Job)> = jobs
            .iter()
            .filter(|(_, job)| job.state == State::Running)
            .map(|(id, job)| {
                (
                    id,
                    Job {
                        state: State::Waiting,
                        ..job
                    },
                )
            })
            .collect();
        println!(
            "{} jobs, {} were interrupted",
            jobs.len(),
            interrupted.len()
        );
        jobs.insert_many(interrupted).await?;
        if jobs.is_empty() {
            let (from, to) = ALL;
            jobs.insert(
                0,
                Job {
                    from,
                    to,
                    state: State::Waiting,
                },
            )
            .await?;
        }
        let next_id = jobs.keys().max().map_or(0, |last| last + 1);
        Ok(Queue {
            jobs,
            next_id: Arc::new(AtomicU64::new(next_id)),
        })
    }

    /// Takes a job for one worker alone. Others look at the same list, so each candidate is looked at once more in the
    /// transaction, where nobody else can change it.
    async fn take(&self) -> Result<Option<(u64, Job)>> {
        let waiting: BTreeSet<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.state == State::Waiting)
            .map(|(id, _)| id)
            .collect();
        self.jobs
            .transaction(move |tx| {
                for id in &waiting {
                    if let Some(job) = tx.get(id).filter(|job| job.state == State::Waiting) {
                        tx.insert(
                            *id,
                            Job {
                                state: State::Running,
                                ..job.clone()
                            },
                        );
                        return Ok::<_, PersistentError>(Some((*id, job)));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// Ends a job and adds those that it has made, in one step: a crash leaves both or neither.
    async fn finish(&self, id: u64, job: Job, result: u64, made: Vec<(u64, u64)>) -> Result<()> {
        let first = self.next_id.fetch_add(made.len() as u64, Ordering::Relaxed);
        self.jobs
            .transaction(move |tx| {
                tx.insert(
                    id,
                    Job {
                        state: State::Done(result),
                        ..job.clone()
                    },
                );
                for (id, (from, to)) in (first..).zip(&made) {
                    let (from, to) = (*from, *to);
                    tx.insert(
                        id,
                        Job {
                            from,
                            to,
                            state: State::Waiting,
                        },
                    );
                }
                Ok(())
            })
            .await
    }

    async fn work(&self) -> Result<()> {
        while !self.is_done() {
            let Some((id, job)) = self.take().await? else {
                // Others are working on all there is, and may make more.
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            tokio::time::sleep(Duration::from_millis(3)).await; // It is hard work.
            if job.to - job.from < 10 {
                let sum = (job.from..=job.to).sum();
                self.finish(id, job, sum, Vec::new()).await?;
            } else {
                let middle = u64::midpoint(job.from, job.to);
                let halves = vec![(job.from, middle), (middle + 1, job.to)];
                self.finish(id, job, 0, halves).await?;
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let is_done = |job: &Job| matches!(job.state, State::Done(_));
        self.jobs.values().all(|job| is_done(&job))
    }

    fn sum(&self) -> u64 {
        let sums = self.jobs.values().map(|job| match job.state {
            State::Done(sum) => sum,
            State::Waiting | State::Running => 0,
        });
        sums.sum()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let queue = Queue::open().await?;
    println!("working");
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        let queue = queue.clone();
        workers.spawn(async move { queue.work().await });
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|error| PersistentError::storage("working", error))??;
    }
    println!("the sum of {} to {} is {}", ALL.0, ALL.1, queue.sum());
    println!(
        "all {} jobs are done; the next run begins anew",
        queue.jobs.len()
    );
    queue.jobs.clear().await?;
    queue.jobs.close().await
}
