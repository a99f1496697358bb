//! Copies the airports from one file into another, of another kind; the endings say which.
//!
//! ```text
//! cargo run --release --example convert -- example-data/airports.csv example-data/airports-copy.db
//! ```
//!
//! `cargo run --example airports_csv` makes such a file. The copy is read back from its store and compared. It can be interrupted and repeated.

use std::path::Path;

use persistent_map::{PersistentMap, copy};
use persistent_map_examples::{Airport, Kind, Result, backend};

#[tokio::main]
async fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &paths[..] else {
        eprintln!("usage: convert FROM TO, each .db or .csv");
        std::process::exit(2);
    };
    let from = open(Path::new(from)).await?;
    let to = open(Path::new(to)).await?;
    let copied = copy(&from, &to)
        .on_progress(|progress| eprintln!("{} of {:?}", progress.loaded, progress.total))
        .await?;
    println!(
        "{} entries copied and {} verified in {:.1?}",
        copied.entries, copied.verified, copied.elapsed
    );
    from.close().await?;
    to.close().await?;
    Ok(())
}

async fn open(
    path: &Path,
) -> Result<PersistentMap<String, Airport, persistent_map::DynBackend<String, Airport>>> {
    let kind = Kind::of(path).ok_or("a file is .db or .csv")?;
    Ok(PersistentMap::new(backend(kind, path).await?).await?)
}
