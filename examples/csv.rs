//! A map in a file that people read and edit: `cargo run --example csv`.
//!
//! Writes a small table, shows its text, edits it as one would in an editor, and opens it again.

use std::fs;

use persistent_map::csv::CsvBackend;
use persistent_map::{PersistentMap, Result};
use persistent_map_examples::data_file;
use serde::{Deserialize, Serialize};

/// One column a field.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Planet {
    name: String,
    moons: u32,
    discovered: Option<u16>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = data_file("planets.csv")?;
    let planets = || CsvBackend::new(&path).key_column("orbit");
    let _ = fs::remove_file(&path);

    // Each insert is durable when it returns; `flush` brings the table up to date.
    let map = PersistentMap::<u8, Planet, _>::new(planets()).await?;
    for (orbit, name, moons, discovered) in [
        (3, "Earth", 1, None),
        (4, "Mars", 2, None),
        (7, "Uranus", 28, Some(1781)),
    ] {
        let name = name.to_string();
        let planet = Planet {
            name,
            moons,
            discovered,
        };
        map.insert(orbit, planet).await?;
    }
    map.flush().await?;
    println!("{}:\n{}", path.display(), fs::read_to_string(&path)?);
    map.close().await?;

    // Somebody opens the file, adds a row and corrects a number.
    let edited =
        fs::read_to_string(&path)?.replace("Uranus,28", "Uranus,29") + "8,Neptune,16,1846\n";
    fs::write(&path, edited)?;

    let map = PersistentMap::<u8, Planet, _>::new(planets()).await?;
    println!("After the edit: {} planets", map.len());
    println!("7: {:?}", map.get(&7));
    println!("8: {:?}\n", map.get(&8));
    map.close().await?;

    // A mistake is reported with its line and column, and the file is left as it is.
    let mistaken = fs::read_to_string(&path)?.replace("Mars,2", "Mars,two");
    fs::write(&path, &mistaken)?;
    if let Err(error) = PersistentMap::<u8, Planet, _>::new(planets()).await {
        println!("After a mistake: {error}");
    }
    fs::write(&path, mistaken.replace("Mars,two", "Mars,2"))?;
    Ok(())
}
