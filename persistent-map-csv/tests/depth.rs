//! What is nested too deep is refused, where it is written and where it is read, and no thread runs out of stack.

use std::path::{Path, PathBuf};
use std::{fs, thread};

use persistent_map_core::{PersistentError, PersistentMap, Result, Value};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};

/// A struct in a struct: columns, and JSON in one of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

/// A list in a list: JSON in one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nest(Vec<Nest>);

/// In a thread with this much stack.
fn with_stack<T: Send + 'static>(kib: usize, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().stack_size(kib * 1024).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    });
    thread.unwrap().join().unwrap()
}

async fn insert<V: Value>(path: PathBuf, value: V) -> Result<()> {
    let map = PersistentMap::<u8, V, _>::new(CsvBackend::new(path)).await?;
    let inserted = map.insert(1, value).await.map(drop);
    map.close().await?;
    inserted
}

fn open<V: Value>(path: &Path) -> Result<()> {
    let path = path.to_path_buf();
    with_stack(1024, async move || {
        let map = PersistentMap::<u8, V, _>::new(CsvBackend::new(path)).await?;
        map.close().await
    })
}

#[test]
fn what_is_nested_too_deep_is_refused_by_insert() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let path = at("chains.csv");
    let (chains, nests) = (path.clone(), at("nests.csv"));
    let errors = with_stack(64 * 1024, async move || {
        let link = |chain| Chain {
            next: Some(Box::new(chain)),
        };
        let chain = (0..8000).fold(Chain::default(), |chain, _| link(chain));
        let nest = (0..8000).fold(Nest(Vec::new()), |nest, _| Nest(vec![nest]));
        [insert(chains, chain).await, insert(nests, nest).await]
    });
    for error in errors.map(Result::unwrap_err) {
        assert!(
            matches!(error, PersistentError::Unstorable { .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains("more than 128 levels deep"), "{text}");
        assert!(text.contains("entries of their own"), "{text}");
    }
    open::<Chain>(&path).unwrap();
}

#[test]
fn what_is_taken_is_opened_by_a_thread_with_little_stack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nests.csv");
    let mut taken = 0;
    for levels in 1..100 {
        let nest = (1..levels).fold(Nest(Vec::new()), |nest, _| Nest(vec![nest]));
        let place = path.clone();
        if with_stack(1024, async move || insert(place, nest).await).is_err() {
            break;
        }
        open::<Nest>(&path).unwrap();
        taken = levels;
    }
    // Two levels each, the struct and the list.
    assert_eq!(taken, 64);
}

#[test]
fn a_cell_that_is_nested_without_end_is_a_bad_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nests.csv");
    for levels in [200, 200_000] {
        let cell = "[".repeat(levels) + &"]".repeat(levels);
        fs::write(&path, format!("key,value\n1,\"{cell}\"\n")).unwrap();
        let error = open::<Nest>(&path).unwrap_err();
        assert!(matches!(error, PersistentError::Corrupt(_)), "{error}");
    }
}
