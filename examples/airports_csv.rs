//! Somebody else's table as a typed map, where it is: `cargo run --example airports_csv`.
//!
//! Copies `examples/data/airports.csv` to `example-data/airports.csv`, opens the copy, changes one airport, and shows
//! what has become different in the file: that one line. With the path of another table of airports it opens that one,
//! and says how many of them are those of the original.

use std::fs;
use std::path::PathBuf;

use persistent_map::PersistentMap;
use persistent_map::csv::CsvBackend;
use persistent_map_examples::{AIRPORTS_CSV, Airport, Result, data_file, read};

#[tokio::main]
async fn main() -> Result<()> {
    if let Some(path) = std::env::args_os().nth(1) {
        return compare(path.into()).await;
    }
    let path = data_file("airports.csv")?;
    fs::copy(AIRPORTS_CSV, &path)?;

    // The header of the file names the columns: `iata` is the key, the others are the fields of an airport.
    let backend = CsvBackend::new(&path).key_column("iata");
    let (map, report) = PersistentMap::<String, Airport, _>::builder(backend)
        .open_with_report()
        .await?;
    println!("{}", path.display());
    println!(
        "Opened with {} airports in {:.1?}.",
        report.entries, report.elapsed
    );

    let mut airport = map.get("LHR").ok_or("there is no LHR")?;
    airport.name = "London \"Heathrow\", the busiest".to_string();
    map.insert("LHR".to_string(), airport).await?;
    map.close().await?;

    let (before, after) = (
        fs::read_to_string(AIRPORTS_CSV)?,
        fs::read_to_string(&path)?,
    );
    let mut count = 0;
    for (line, (old, new)) in (1..).zip(before.lines().zip(after.lines())) {
        if old != new {
            println!("line {line}\n- {old}\n+ {new}");
            count += 1;
        }
    }
    println!("{count} line of {} is different.", after.lines().count());
    Ok(())
}

async fn compare(path: PathBuf) -> Result<()> {
    let backend = CsvBackend::new(&path).key_column("iata");
    let map = PersistentMap::<String, Airport, _>::new(backend).await?;
    let original = read(AIRPORTS_CSV)?;
    let equal = map
        .iter()
        .filter(|(code, airport)| original.get(code) == Some(airport))
        .count();
    println!(
        "{}: {} airports, {equal} of the original {}.",
        path.display(),
        map.len(),
        original.len()
    );
    map.close().await?;
    Ok(())
}
