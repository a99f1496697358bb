//! Answers of a slow service, asked for once: however many callers want one, and over restarts.
//!
//! ```text
//! $ cargo run --example slow_cache
//! London
//! London has 6 letters (asked the service 1 time)
//! London London Paris
//! ...
//! ```
//!
//! Type names. All names of a line are asked for at once. The service does not know names with digits. Ctrl-D ends it.
//!
//! The cache is a CSV table, so you can look at it, and correct or remove an answer, while the program does not run.
//!
//! **When it is killed**, answers that were given are in the table. A call that was under way has left nothing, and is made
//! again when somebody asks.

use std::fmt;
use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use persistent_map::{PersistentError, PersistentMap, Result, csv::CsvBackend};
use persistent_map_examples::data_file;
use tokio::task::JoinSet;

/// Stands for something that is far away and costs money.
#[derive(Clone, Default)]
struct Service {
    calls: Arc<AtomicU32>,
}

impl Service {
    async fn letters(&self, name: &str) -> Result<u64, NoAnswer> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        if name.chars().any(|letter| letter.is_ascii_digit()) {
            return Err(NoAnswer::Unknown);
        }
        Ok(name.chars().count() as u64)
    }
}

/// An initialiser has errors of its own. All it needs is a place for those of the map.
#[derive(Debug)]
enum NoAnswer {
    Unknown,
    NotStored(PersistentError),
}

impl From<PersistentError> for NoAnswer {
    fn from(error: PersistentError) -> Self {
        NoAnswer::NotStored(error)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Unknown => f.write_str("is not known to the service"),
            NoAnswer::NotStored(error) => write!(f, "has no answer: {error}"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = data_file("slow_cache.csv")?;
    let cache = PersistentMap::<String, u64, _>::new(CsvBackend::new(path)).await?;
    println!("{} answers are known", cache.len());
    for line in stdin().lines() {
        let line = line?;
        let service = Service::default();
        let mut questions = JoinSet::new();
        for name in line.split_whitespace().map(String::from) {
            let (cache, service) = (cache.clone(), service.clone());
            questions.spawn(async move {
                // One caller runs it and the others wait. If it fails, nothing is kept, and the next one tries.
                let answer = cache
                    .get_or_try_insert_with(name.clone(), || service.letters(&name))
                    .await;
                match answer {
                    Ok(letters) => format!("{name} has {letters} letters"),
                    Err(error) => format!("{name} {error}"),
                }
            });
        }
        let mut answers = questions.join_all().await;
        answers.sort();
        let calls = service.calls.load(Ordering::Relaxed);
        let times = if calls == 1 { "time" } else { "times" };
        println!("{} (asked the service {calls} {times})", answers.join(", "));
    }
    cache.close().await
}
