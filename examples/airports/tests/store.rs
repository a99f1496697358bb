//! The `airports` example, run after run.

use std::path::Path;

use airports::{AIRPORTS_CSV, Airport, Airports, Mismatch, Store, read};

#[tokio::test]
async fn what_one_run_loads_the_next_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("airports.db");
    let airports = read(AIRPORTS_CSV).unwrap();

    let store = open(&path, 0).await;
    assert!(!store.is_complete());
    let mut told = 0;
    assert_eq!(store.load(&airports, || told += 1).await.unwrap(), 7_884);
    assert_eq!(told, 7_884);
    assert_eq!(store.verify(&airports), Ok(()));
    let stats = store.airports.stats();
    assert!(
        stats.commits < stats.writes,
        "no commit was shared: {stats:?}"
    );
    store.close().await.unwrap();

    let store = open(&path, 7_884).await;
    assert!(store.is_complete());
    assert_eq!(store.verify(&airports), Ok(()));
    assert_eq!(store.airports.get("LHR").as_ref(), airports.get("LHR"));
    assert_eq!(store.airports.get("XXX"), None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_load_that_was_interrupted_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("airports.db");
    let airports = read(AIRPORTS_CSV).unwrap();

    let store = open(&path, 0).await;
    for (code, airport) in airports.iter().step_by(100) {
        insert(&store, code, airport).await;
    }
    store.close().await.unwrap();

    let store = open(&path, 79).await;
    assert!(!store.is_complete());
    assert_eq!(store.load(&airports, || {}).await.unwrap(), 7_884 - 79);
    assert!(store.is_complete());
    assert_eq!(store.verify(&airports), Ok(()));
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_kind_of_difference_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut airports = read(AIRPORTS_CSV).unwrap();
    airports.retain(|code, _| code.starts_with('L'));

    let store = open(&dir.path().join("airports.db"), 0).await;
    store.load(&airports, || {}).await.unwrap();
    store.airports.remove("LHR").await.unwrap();
    let moved = Airport {
        lon: 0.0,
        ..airports["LCY"].clone()
    };
    insert(&store, "LCY", &moved).await;
    insert(&store, "XXX", &moved).await;

    let mismatch = store.verify(&airports).unwrap_err();
    let codes = |code: &str| vec![code.to_string()];
    assert_eq!(
        mismatch,
        Mismatch {
            missing: codes("LHR"),
            different: codes("LCY"),
            unknown: codes("XXX"),
        }
    );
    assert_eq!(
        mismatch.to_string(),
        "the map differs from the file: 1 not in the map (LHR); 1 with another value in the map (LCY); \
         1 only in the map (XXX); delete the map's file to load it again"
    );
    assert_eq!(
        store.verify(&Airports::new()).unwrap_err().unknown.len(),
        store.airports.len()
    );
}

async fn open(path: &Path, entries: u64) -> Store {
    let (store, report) = Store::open(path).await.unwrap();
    assert_eq!(report.entries, entries);
    store
}

async fn insert(store: &Store, code: &str, airport: &Airport) {
    store
        .airports
        .insert(code.to_string(), airport.clone())
        .await
        .unwrap();
}
