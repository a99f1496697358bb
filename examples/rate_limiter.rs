//! So many requests a client, and no more: also under load, and also after a restart.
//!
//! ```text
//! $ cargo run --example rate_limiter
//! ann
//! ann: 1 of 1 allowed
//! ann 20
//! ann: 4 of 20 allowed
//! ```
//!
//! Type a client's name, and a number for so many requests at once. Ctrl-D ends it.
//!
//! **When it is killed**, no client gets its tokens back: each request that was allowed is in the file. A *power cut* may
//! forget the latest ones, because `Synchronous::Normal` does not wait for the disk. That is cheap enough to do at each
//! request, and all that a limiter needs.

use std::io::stdin;
use std::time::{Duration, SystemTime};

use persistent_map::sqlite::{SqliteBackend, Synchronous};
use persistent_map::{PersistentMap, Result};
use persistent_map_examples::data_file;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// A client may save up so many requests,
const BURST: f64 = 5.0;
/// and gets one more in this time.
const REFILL: Duration = Duration::from_mins(1);

/// What a client has saved up, at a time.
#[derive(Clone, Serialize, Deserialize)]
struct Bucket {
    tokens: f64,
    at: SystemTime,
}

impl Bucket {
    fn full() -> Self {
        Bucket {
            tokens: BURST,
            at: SystemTime::now(),
        }
    }

    /// Whether there was one to take.
    fn take(&mut self) -> bool {
        let now = SystemTime::now();
        // A clock that was set back gives nothing.
        let passed = now.duration_since(self.at).unwrap_or_default();
        let refilled = self.tokens + passed.as_secs_f64() / REFILL.as_secs_f64();
        self.tokens = refilled.min(BURST);
        self.at = now;
        let is_allowed = self.tokens >= 1.0;
        if is_allowed {
            self.tokens -= 1.0;
        }
        is_allowed
    }
}

#[derive(Clone)]
struct Limiter {
    buckets: PersistentMap<String, Bucket, SqliteBackend>,
}

impl Limiter {
    async fn open() -> Result<Self> {
        let backend = SqliteBackend::builder(data_file("rate_limiter.db")?)
            .synchronous(Synchronous::Normal)
            .open()
            .await?;
        let buckets = PersistentMap::new(backend).await?;
        Ok(Limiter { buckets })
    }

    /// The first request of a client finds a full bucket. `update_or_insert` makes, reads and changes it in one step, so
    /// however many requests come at once, each token is taken once.
    async fn allows(&self, client: &str) -> Result<bool> {
        self.buckets
            .update_or_insert(client.to_string(), Bucket::full(), Bucket::take)
            .await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let limiter = Limiter::open().await?;
    println!("{} clients are known", limiter.buckets.len());
    for line in stdin().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let Some(client) = words.next() else { continue };
        let count: u32 = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let (limiter, client) = (limiter.clone(), client.to_string());
            requests.spawn(async move { limiter.allows(&client).await });
        }
        let mut allowed = 0;
        for request in requests.join_all().await {
            allowed += u32::from(request?);
        }
        println!("{client}: {allowed} of {count} allowed");
    }
    limiter.buckets.close().await
}
