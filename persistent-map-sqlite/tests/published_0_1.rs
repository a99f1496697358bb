//! Databases that the published version 0.1.3 has written come in with all entries, and stay as they are.

#[path = "../../persistent-map-file/tests/published_0_1/mod.rs"]
mod published;

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{Key, PersistentError, PersistentMap, Result, Value};
use persistent_map_sqlite::{SqliteBackend, import_0_1};
use persistent_map_testkit::assert_refused;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, query};

use published::{large, number, player, text, written};

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("published_0_1_3_{name}.db"))
}

/// A copy, because nothing may be made beside the golden file either.
fn copy_of(name: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("old.db");
    fs::copy(golden(name), &path)?;
    Ok((dir, path))
}

async fn assert_imported<K, V>(name: &str, expected: HashMap<K, V>) -> Result<()>
where
    K: Key + std::str::FromStr + Debug,
    V: Value + Debug + PartialEq,
{
    let (dir, path) = copy_of(name)?;
    assert_eq!(import_0_1::<K, V>(&path).await?, expected, "{name}");
    assert_eq!(fs::read(&path)?, fs::read(golden(name))?);
    assert_eq!(fs::read_dir(dir.path())?.count(), 1, "files were made");

    // And on into a database of this version.
    let new = dir.path().join("new.db");
    let map = PersistentMap::<K, V, _>::new(SqliteBackend::new(&new).await?).await?;
    map.insert_many(import_0_1(&path).await?).await?;
    map.close().await?;
    let map = PersistentMap::<K, V, _>::new(SqliteBackend::new(&new).await?).await?;
    assert_eq!(map.iter().collect::<HashMap<K, V>>(), expected);
    map.close().await
}

#[tokio::test]
async fn every_entry_of_a_published_database_arrives() -> Result<()> {
    assert_imported("texts", written(text, text)).await?;
    assert_imported("players", written(text, player)).await?;
    assert_imported("numbers", written(number, large)).await
}

async fn sqlite(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

#[tokio::test]
async fn bad_rows_are_named_and_no_value_is_shown() -> Result<()> {
    let (_dir, path) = copy_of("numbers")?;
    let mut other = sqlite(&path).await;
    for change in [
        "UPDATE kv SET value = '\"secret\"' WHERE key = '-149'",
        "UPDATE kv SET key = 'x' WHERE key = '-148'",
        "UPDATE kv SET value = x'00' WHERE key = '-147'",
        "INSERT INTO kv VALUES ('007', '1')",
    ] {
        query(change).execute(&mut other).await.unwrap();
    }
    other.close().await.unwrap();
    let words = [
        "4 of its rows",
        "key \"-149\": invalid type",
        "key \"x\": the key is no `i64`",
        "key \"-147\": a cell is no text",
        "key \"007\": an earlier row has an equal key",
    ];
    let text = assert_refused(&path, &words, import_0_1::<i64, u64>(&path)).await;
    assert!(!text.contains("secret"), "{text}");
    Ok(())
}

#[tokio::test]
async fn other_files_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let new = dir.path().join("new.db");
    let map = PersistentMap::<i64, u64, _>::new(SqliteBackend::new(&new).await?).await?;
    map.close().await?;
    let text = dir.path().join("text.db");
    fs::write(&text, "no database")?;
    let empty = dir.path().join("empty.db");
    fs::write(&empty, "")?;
    for path in [&new, &text, &empty] {
        let words = ["not a database that persistent-map 0.1"];
        assert_refused(path, &words, import_0_1::<i64, u64>(path)).await;
    }
    let (_dir, with_log) = copy_of("texts")?;
    let mut other = sqlite(&with_log).await;
    query("PRAGMA journal_mode = WAL")
        .execute(&mut other)
        .await
        .unwrap();
    other.close().await.unwrap();
    let import = import_0_1::<String, String>(&with_log);
    assert_refused(&with_log, &["write-ahead log", "journal_mode"], import).await;
    let missing = import_0_1::<i64, u64>(dir.path().join("missing.db")).await;
    assert!(matches!(missing, Err(PersistentError::Refused { .. })));
    assert!(!dir.path().join("missing.db").exists());
    Ok(())
}

#[tokio::test]
async fn opened_as_a_new_one_it_says_what_to_do() -> Result<()> {
    for name in ["texts", "players", "numbers"] {
        let (_dir, path) = copy_of(name)?;
        let words = ["persistent-map 0.1", "import_0_1"];
        assert_refused(&path, &words, SqliteBackend::new(&path)).await;
    }
    Ok(())
}

/// As a process leaves it that is killed while it commits: a part of the change is in the file.
#[tokio::test]
async fn a_commit_that_was_cut_off_is_not_imported() -> Result<()> {
    let (dir, path) = copy_of("texts")?;
    let mut owner = sqlite(&path).await;
    for step in [
        "PRAGMA cache_size = 1",
        "BEGIN",
        "UPDATE kv SET value = '\"changed\"'",
    ] {
        query(step).execute(&mut owner).await.unwrap();
    }
    let image = tempfile::tempdir()?;
    for entry in fs::read_dir(dir.path())? {
        let entry = entry?;
        fs::copy(entry.path(), image.path().join(entry.file_name()))?;
    }
    let cut = image.path().join("old.db");
    assert_ne!(
        fs::read(&cut)?,
        fs::read(golden("texts"))?,
        "nothing was written"
    );
    assert_refused(&cut, &["-journal"], import_0_1::<String, String>(&cut)).await;
    let mut setter = sqlite(&cut).await;
    query("SELECT count(*) FROM kv")
        .fetch_one(&mut setter)
        .await
        .unwrap();
    setter.close().await.unwrap();
    assert_eq!(
        import_0_1::<String, String>(&cut).await?,
        written(text, text)
    );
    Ok(())
}
