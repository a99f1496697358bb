//! Any entries, written and removed in any order, are there after any mixture of flushes and reopenings.

use std::collections::HashMap;
use std::path::Path;

use persistent_map_core::PersistentMap;
use persistent_map_csv::CsvBackend;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mixed {
    text: String,
    note: Option<String>,
    number: i64,
    ratio: f64,
    sign: char,
    list: Vec<String>,
    nested: Option<(u8, bool)>,
}

#[derive(Debug, Clone)]
enum Step {
    Insert(String, Mixed),
    Remove(String),
    Clear,
    Flush,
    Reopen,
}

/// Any text, and often one that CSV or a spreadsheet gives a meaning.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\"',;\\t\\r\\n =+@'\u{feff}\u{fffd}\u{0}-]{0,6}",
        "[=+@-]?[0-9]{1,4}",
    ]
}

fn mixed() -> impl Strategy<Value = Mixed> {
    (
        text(),
        proptest::option::of(text()),
        any::<i64>(),
        any::<f64>().prop_filter("a NaN equals nothing", |float| !float.is_nan()),
        any::<char>(),
        proptest::collection::vec(text(), 0..3),
        any::<Option<(u8, bool)>>(),
    )
        .prop_map(|(text, note, number, ratio, sign, list, nested)| Mixed {
            text,
            note,
            number,
            ratio,
            sign,
            list,
            nested,
        })
}

fn step() -> impl Strategy<Value = Step> {
    // Few short keys, so that they meet again.
    let key = || prop_oneof![3 => "[ab\"=']?", 1 => text()];
    prop_oneof![
        8 => (key(), mixed()).prop_map(|(key, value)| Step::Insert(key, value)),
        3 => key().prop_map(Step::Remove),
        1 => Just(Step::Clear),
        2 => Just(Step::Flush),
        2 => Just(Step::Reopen),
    ]
}

async fn open(path: &Path, guard: bool) -> PersistentMap<String, Mixed, CsvBackend> {
    let backend = CsvBackend::new(path).guard_formulas(guard).sync(false);
    PersistentMap::new(backend).await.unwrap()
}

async fn run(steps: Vec<Step>, guard: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("properties.csv");
    let mut expected = HashMap::new();
    let mut map = open(&path, guard).await;
    for step in steps.into_iter().chain([Step::Reopen]) {
        match step {
            Step::Insert(key, value) => {
                let before = map.insert(key.clone(), value.clone()).await.unwrap();
                assert_eq!(before, expected.insert(key, value));
            }
            Step::Remove(key) => {
                assert_eq!(map.remove(&key).await.unwrap(), expected.remove(&key));
            }
            Step::Clear => {
                map.clear().await.unwrap();
                expected.clear();
            }
            Step::Flush => map.flush().await.unwrap(),
            Step::Reopen => {
                map.close().await.unwrap();
                map = open(&path, guard).await;
                assert_eq!(map.iter().collect::<HashMap<_, _>>(), expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        // `PROPTEST_CASES` sets how many.
        ..ProptestConfig::default()
    })]

    #[test]
    fn entries_survive_any_history(
        steps in proptest::collection::vec(step(), 1..40),
        guard in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps, guard));
    }
}
