//! Tables that the published version 0.1.3 has written come in with all entries, and stay as they are.

#[path = "../../persistent-map-file/tests/published_0_1/mod.rs"]
mod published;

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{Key, PersistentError, PersistentMap, Result, Value};
use persistent_map_csv::{CsvBackend, import_0_1};
use persistent_map_testkit::assert_refused;

use published::{large, number, player, text, written};

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("published_0_1_3_{name}.csv"))
}

async fn assert_imported<K, V>(name: &str, expected: HashMap<K, V>) -> Result<()>
where
    K: Key + std::str::FromStr + Debug,
    V: Value + Debug + PartialEq,
{
    let before = fs::read(golden(name))?;
    assert_eq!(import_0_1::<K, V>(golden(name)).await?, expected, "{name}");
    assert_eq!(fs::read(golden(name))?, before);

    // And on into a table of this version.
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("new.csv");
    let map = PersistentMap::<K, V, _>::new(CsvBackend::new(&path)).await?;
    map.insert_many(import_0_1(golden(name)).await?).await?;
    map.close().await?;
    let map = PersistentMap::<K, V, _>::new(CsvBackend::new(&path)).await?;
    assert_eq!(map.iter().collect::<HashMap<K, V>>(), expected);
    map.close().await
}

#[tokio::test]
async fn every_entry_of_a_published_table_arrives() -> Result<()> {
    assert_imported("texts", written(text, text)).await?;
    assert_imported("players", written(text, player)).await?;
    assert_imported("numbers", written(number, large)).await
}

#[tokio::test]
async fn bad_lines_are_named_and_no_value_is_shown() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("old.csv");
    fs::write(&path, "1,10\n2,secret\nx,30\n4\n5,50\n6,6")?;
    let words = [
        "4 of its lines",
        "line 2, key \"2\"",
        "line 3, key \"x\": the key is no `u64`",
        "line 4, key \"4\"",
        "line 6, key \"6\": the file ends without the end of this line",
    ];
    let text = assert_refused(&path, &words, import_0_1::<u64, u64>(&path)).await;
    assert!(!text.contains("secret"), "{text}");

    fs::write(&path, "1,10\n2,20\n2,21\n")?;
    let entries = import_0_1::<u64, u64>(&path).await?;
    assert_eq!(entries, HashMap::from([(1, 10), (2, 21)]));
    // Rows of different lengths, which 0.1 could write and not read.
    fs::write(&path, "1,7,8,9\n2,\n3,7\n")?;
    let lists = import_0_1::<u64, Vec<Option<u8>>>(&path).await?;
    assert_eq!(lists[&1], [Some(7), Some(8), Some(9)]);
    assert_eq!((&lists[&2], &lists[&3]), (&vec![None], &vec![Some(7)]));
    fs::write(&path, "")?;
    assert!(import_0_1::<u64, u64>(&path).await?.is_empty());
    let missing = import_0_1::<u64, u64>(dir.path().join("missing.csv")).await;
    assert!(matches!(missing, Err(PersistentError::Refused { .. })));
    Ok(())
}

#[tokio::test]
async fn opened_as_a_table_it_says_what_to_do() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for name in ["texts", "players", "numbers"] {
        let path = dir.path().join(name);
        fs::copy(golden(name), &path)?;
        let open = PersistentMap::<String, String, _>::new(CsvBackend::new(&path));
        assert_refused(&path, &["import_0_1"], open).await;
    }
    Ok(())
}
