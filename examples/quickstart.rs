//! The first steps: a map that is still there when the program runs again.
//!
//! Run it twice: `cargo run --example quickstart`. Words after `--` are remembered instead of the default.

use std::time::SystemTime;

use persistent_map::{PersistentMap, Result, sqlite::SqliteBackend};
use persistent_map_examples::data_file;
use serde::{Deserialize, Serialize};

/// Keys and values are plain serde types.
#[derive(Clone, Serialize, Deserialize)]
struct Run {
    at: SystemTime,
    text: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    // Opens the file, or makes a new one, and loads its entries into memory.
    let path = data_file("quickstart.db")?;
    let map = PersistentMap::<u64, Run, _>::new(SqliteBackend::new(&path).await?).await?;

    if map.is_empty() {
        println!("The map was empty: this is the first run.");
    } else {
        println!("Entries that survived from earlier runs: {}", map.len());
    }

    // Reads come from memory: no `await`, no I/O. Entries have no particular order.
    let mut numbers: Vec<u64> = map.keys().collect();
    numbers.sort_unstable();
    for number in &numbers {
        if let Some(run) = map.get(number) {
            let ago = run.at.elapsed().unwrap_or_default();
            println!("  run {number}, {ago:.1?} ago: {}", run.text);
        }
    }

    // Writes are awaited: when `insert` returns, the entry is on disk.
    let number = numbers.last().map_or(1, |last| last + 1);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let text = match words.join(" ") {
        none if none.is_empty() => "Hello, Persistent World!".to_string(),
        text => text,
    };
    let at = SystemTime::now();
    println!("Storing run {number}: {text}");
    map.insert(number, Run { at, text }).await?;

    println!("Stored in {}. Run me again!", path.display());
    map.close().await
}
