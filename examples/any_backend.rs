//! Counts its own runs in a store that is chosen on the command line.
//!
//! ```text
//! cargo run --example any_backend -- sqlite
//! cargo run --example any_backend -- csv
//! cargo run --example any_backend -- memory
//! ```

use persistent_map::PersistentMap;
use persistent_map_examples::{Kind, Result, backend, data_file};

#[tokio::main]
async fn main() -> Result<()> {
    let kind = std::env::args().nth(1).unwrap_or_default();
    let Some(kind) = Kind::named(&kind) else {
        eprintln!("usage: any_backend sqlite|csv|memory");
        std::process::exit(2);
    };
    let path = data_file(&format!("runs.{}", kind.ending()))?;
    let runs = PersistentMap::new(backend(kind, &path).await?).await?;
    let count = runs
        .update_or_insert("runs".to_string(), 0u64, |runs| {
            *runs += 1;
            *runs
        })
        .await?;
    println!("run {count}, in {kind:?}");
    runs.close().await?;
    Ok(())
}
