//! A real table of somebody else's, opened where it is.

use std::fs;
use std::path::Path;

use persistent_map_core::PersistentMap;
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Airport {
    icao: String,
    name: String,
    city: Option<String>,
    subd: Option<String>,
    country: String,
    elevation: f64,
    lat: f64,
    lon: f64,
    tz: String,
    lid: Option<String>,
}

impl Airport {
    fn cells(&self) -> [String; 10] {
        let option = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            self.icao.clone(),
            self.name.clone(),
            option(&self.city),
            option(&self.subd),
            self.country.clone(),
            self.elevation.to_string(),
            self.lat.to_string(),
            self.lon.to_string(),
            self.tz.clone(),
            option(&self.lid),
        ]
    }
}

async fn open(path: &Path) -> PersistentMap<String, Airport, CsvBackend> {
    PersistentMap::new(CsvBackend::new(path).key_column("iata"))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_airports_open_as_they_are_and_one_change_is_one_line() {
    let original = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/airports.csv");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("airports.csv");
    fs::copy(original, &path).unwrap();
    let before = fs::read_to_string(&path).unwrap();

    let map = open(&path).await;
    assert_eq!(map.len(), 7_884);
    let mut reader = csv::Reader::from_reader(before.as_bytes());
    for record in reader.records() {
        let record = record.unwrap();
        let airport = map.get(&record[0]).unwrap();
        for (found, expected) in airport.cells().iter().zip(record.iter().skip(1)) {
            // Some numbers are written `130.0`.
            let number = |text: &str| text.parse().ok().map(f64::to_bits);
            let is_same =
                found == expected || (number(found).is_some() && number(found) == number(expected));
            assert!(is_same, "{record:?}");
        }
    }

    map.flush().await.unwrap();
    assert!(
        fs::read_to_string(&path).unwrap() == before,
        "a flush without a change changed it"
    );

    let mut heathrow = map.get("LHR").unwrap();
    heathrow.elevation = 83.5;
    map.insert("LHR".to_string(), heathrow).await.unwrap();
    map.flush().await.unwrap();
    let after = fs::read_to_string(&path).unwrap();
    let changed: Vec<_> = before
        .lines()
        .zip(after.lines())
        .filter(|(old, new)| old != new)
        .collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0.replace(",83,", ",83.5,"), changed[0].1);
    assert_eq!(before.lines().count(), after.lines().count());
    map.close().await.unwrap();

    let map = open(&path).await;
    assert_eq!(
        (map.len(), map.get("LHR").unwrap().elevation.to_bits()),
        (7_884, 83.5f64.to_bits())
    );
    map.close().await.unwrap();
}
