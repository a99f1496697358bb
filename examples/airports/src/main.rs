//! 7,884 airports: loaded from a file once, found in memory ever after.
//!
//! The first run reads `examples/data/airports.csv` into a map in `example-data/airports.db`; each later run opens the
//! map and compares all entries with the file. Arguments are codes to look up:
//!
//! ```text
//! cargo run --release -p airports -- LHR SFO XXX
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use airports::{AIRPORTS_CSV, Airports, Result, Store, data_file, read};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("airports: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let airports = read(AIRPORTS_CSV)?;
    let path = data_file("airports.db")?;
    let (store, report) = Store::open(&path).await?;
    println!("Map: {}", path.display());
    println!(
        "Opened with {} entries in {:.1?}.",
        HumanCount(report.entries),
        report.elapsed
    );

    if store.is_complete() {
        verify(&store, &airports)?;
    } else {
        load(&store, &airports).await?;
    }

    let codes: Vec<String> = std::env::args().skip(1).collect();
    if codes.is_empty() {
        println!("Look up airports: cargo run --release -p airports -- LHR SFO XXX");
    }
    for code in codes {
        look_up(&store, &code.to_uppercase());
    }
    store.close().await
}

async fn load(store: &Store, airports: &Airports) -> Result<()> {
    let (before, all) = (store.airports.len() as u64, airports.len() as u64);
    if before > 0 {
        println!("An earlier load was interrupted: going on with it.");
    }
    let bar = ProgressBar::new(all)
        .with_position(before)
        .with_style(ProgressStyle::with_template(
            "{wide_bar} {human_pos} of {human_len} airports",
        )?);
    let started = Instant::now();
    let count = store.load(airports, || bar.inc(1)).await?;
    let elapsed = started.elapsed();
    bar.finish_and_clear();

    store.verify(airports)?;
    println!(
        "Stored {} airports in {elapsed:.1?}: {} entries/s, in {} commits.",
        HumanCount(count),
        HumanCount(per_second(count, elapsed)),
        HumanCount(store.airports.stats().commits),
    );
    println!("Run again to see whether they are still there.");
    Ok(())
}

fn verify(store: &Store, airports: &Airports) -> Result<()> {
    let started = Instant::now();
    store.verify(airports)?;
    println!(
        "Verified in {:.1?}: all {} entries equal the file, and there are no others.",
        started.elapsed(),
        HumanCount(airports.len() as u64),
    );
    Ok(())
}

fn look_up(store: &Store, code: &str) {
    let started = Instant::now();
    let found = store.airports.get(code);
    let elapsed = started.elapsed();
    match found {
        Some(airport) => println!(
            "{code}: {}, {}, {}, {} ft, at {:?}, {:?} (found in {elapsed:?})",
            airport.name,
            airport.city.as_deref().unwrap_or("no city"),
            airport.country,
            airport.elevation,
            airport.lat,
            airport.lon,
        ),
        None => println!("{code}: no such airport (known in {elapsed:?})"),
    }
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let per_second = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}
