//! Switches that are turned while the program runs, heard at once by all who wait for them, and remembered.
//!
//! ```text
//! $ cargo run --example feature_flags
//! dark-mode is off, beta is off
//! on dark-mode
//! dark-mode is on
//! ```
//!
//! Type `on NAME` or `off NAME`. Ctrl-D ends it.
//!
//! **When it is killed**, each switch is as it was last turned: what a watcher has seen was stored before.

use std::io::stdin;

use persistent_map::{PersistentMap, Result, Watch, sqlite::SqliteBackend};
use persistent_map_examples::data_file;

/// The flags that this program knows. One that was never turned is off.
const FLAGS: [&str; 2] = ["dark-mode", "beta"];

type Flags = PersistentMap<String, bool, SqliteBackend>;

fn show(flag: &str, is_on: Option<bool>) -> String {
    let state = if is_on.unwrap_or(false) { "on" } else { "off" };
    format!("{flag} is {state}")
}

/// A part of the program that lives with a flag: it waits without asking again and again.
async fn follow(mut flag: Watch<String, bool>) {
    // A watch gives the latest value, not each one on the way. It ends with the map.
    while let Ok(is_on) = flag.changed().await {
        println!("{}", show(flag.key(), is_on));
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let backend = SqliteBackend::new(data_file("feature_flags.db")?).await?;
    let flags = Flags::new(backend).await?;
    let states = FLAGS.map(|flag| show(flag, flags.get(flag)));
    println!("{}", states.join(", "));

    // A watch is of what comes after it was made. Made in its task, it could miss what happens before that begins.
    let followers = FLAGS.map(|flag| tokio::spawn(follow(flags.watch(flag.to_string()))));
    for line in stdin().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [state @ ("on" | "off"), flag] if FLAGS.contains(&flag) => {
                flags.insert(flag.to_string(), state == "on").await?;
            }
            _ => println!(
                "type `on NAME` or `off NAME`; there are {}",
                FLAGS.join(" and ")
            ),
        }
    }
    flags.close().await?;
    for follower in followers {
        let _ = follower.await;
    }
    Ok(())
}
