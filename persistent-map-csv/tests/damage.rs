//! Files that are not what they were: a flipped byte or a missing end of the journal is an error or does no harm; what
//! a table cannot tell from an edit is at least never read as something else than it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{OnCorrupt, PersistentMap, Result};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    number: u32,
    text: Option<String>,
}

type Entries = BTreeMap<String, Item>;

fn item(number: u32) -> Item {
    let text = number.is_multiple_of(2).then(|| format!("text, {number}"));
    Item { number, text }
}

async fn open(path: &Path) -> Result<Entries> {
    let map = PersistentMap::<String, Item, _>::new(CsvBackend::new(path)).await?;
    let entries = map.iter().collect();
    map.close().await?;
    Ok(entries)
}

/// A table of three rows with a journal of five commits, as a kill leaves them; and the states that the map had.
struct Killed {
    table: Vec<u8>,
    journal: Vec<u8>,
    states: Vec<Entries>,
}

impl Killed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        let map = PersistentMap::new(CsvBackend::new(&path)).await.unwrap();
        for number in 0..3 {
            map.insert(format!("k{number}"), item(number))
                .await
                .unwrap();
        }
        map.flush().await.unwrap();
        let mut states = vec![map.iter().collect()];
        for number in 1..6 {
            if number == 3 {
                map.remove("k0").await.unwrap();
            } else {
                map.insert(format!("k{number}"), item(number * 10))
                    .await
                    .unwrap();
            }
            states.push(map.iter().collect());
        }
        let killed = Killed {
            table: fs::read(&path).unwrap(),
            journal: fs::read(journal_of(&path)).unwrap(),
            states,
        };
        map.close().await.unwrap();
        killed
    }

    fn place(&self) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        fs::write(&path, &self.table).unwrap();
        fs::write(journal_of(&path), &self.journal).unwrap();
        (dir, path)
    }

    fn last(&self) -> &Entries {
        self.states.last().unwrap()
    }
}

fn journal_of(path: &Path) -> PathBuf {
    path.with_extension("csv.journal")
}

#[tokio::test]
async fn the_journal_of_a_killed_process_is_replayed() {
    let killed = Killed::new().await;
    let (_dir, path) = killed.place();
    for _ in 0..2 {
        assert_eq!(open(&path).await.unwrap(), *killed.last());
        assert!(!journal_of(&path).exists());
    }
}

#[tokio::test]
async fn a_flipped_byte_of_the_journal_is_an_error() {
    let killed = Killed::new().await;
    for at in 0..killed.journal.len() {
        for flip in [1, 0x80, 0xff] {
            let (_dir, path) = killed.place();
            let mut journal = killed.journal.clone();
            journal[at] ^= flip;
            fs::write(journal_of(&path), &journal).unwrap();
            let Err(error) = open(&path).await else {
                panic!("byte {at} was flipped to no effect");
            };
            let error = error.to_string();
            assert!(error.contains("t.csv.journal"), "byte {at}: {error}");
            assert_eq!(
                fs::read(journal_of(&path)).unwrap(),
                journal,
                "byte {at}: it was changed"
            );
            assert_eq!(fs::read(&path).unwrap(), killed.table);
        }
    }
}

/// A file that ends too early looks like a crash, so the commits that are left count; they are a state that the map had.
#[tokio::test]
async fn a_journal_without_its_end_is_an_earlier_state() {
    let killed = Killed::new().await;
    let mut found = Vec::new();
    for length in 0..=killed.journal.len() {
        let (_dir, path) = killed.place();
        fs::write(journal_of(&path), &killed.journal[..length]).unwrap();
        let entries = open(&path).await.unwrap();
        let state = killed.states.iter().position(|state| *state == entries);
        found.push(state.expect("a state that the map had"));
        // The end is gone for good, so that nothing is appended to half a commit.
        assert_eq!(open(&path).await.unwrap(), entries);
    }
    assert!(found.is_sorted());
    assert_eq!((found[0], found.last()), (0, Some(&5)));
}

/// Beside a journal the table is protected by its checksum.
#[tokio::test]
async fn a_table_that_does_not_fit_its_journal_is_an_error() {
    let killed = Killed::new().await;
    for at in 0..killed.table.len() {
        let (_dir, path) = killed.place();
        let mut table = killed.table.clone();
        table[at] ^= 1;
        fs::write(&path, &table).unwrap();
        assert!(open(&path).await.is_err(), "byte {at}");
        assert_eq!(fs::read(&path).unwrap(), table);
        assert_eq!(fs::read(journal_of(&path)).unwrap(), killed.journal);

        fs::write(&path, &killed.table[..at]).unwrap();
        assert!(open(&path).await.is_err(), "length {at}");
    }
    let (_dir, path) = killed.place();
    fs::remove_file(&path).unwrap();
    let error = open(&path).await.unwrap_err().to_string();
    assert!(error.contains("the file is gone"), "{error}");
}

/// Rows are copied as they stand, so they must not come below other columns than their own.
#[tokio::test]
async fn writes_are_not_made_to_a_table_of_other_columns() {
    let killed = Killed::new().await;
    for columns in ["key,text,number", "key,number,text,note"] {
        let (_dir, path) = killed.place();
        let mut table = format!("{columns}\n").into_bytes();
        let row = if columns.ends_with("note") {
            "k7,7,seven,mine\n"
        } else {
            "k7,7,7\n"
        };
        table.extend_from_slice(row.as_bytes());
        fs::write(&path, &table).unwrap();
        let backend = CsvBackend::new(&path).replay_onto_edited_table(true);
        let error = PersistentMap::<String, Item, _>::new(backend).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`key`, `number`, `text`"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), table);
        assert_eq!(fs::read(journal_of(&path)).unwrap(), killed.journal);
    }
}

/// A table whose last cell is a text without quotation marks, so that a part of it is one, too.
fn plain_table() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    fs::write(&path, "key,number,text\nk1,1,some text\nk2,2,more text\n").unwrap();
    (dir, path)
}

/// Half a copy, or a full disk: a shorter value in the last cell is no value that was ever stored.
#[tokio::test]
async fn a_closed_table_that_is_cut_is_refused_or_has_whole_rows() {
    let (_dir, path) = plain_table();
    let entries = open(&path).await.unwrap();
    let table = fs::read(&path).unwrap();
    for length in 0..table.len() {
        fs::write(&path, &table[..length]).unwrap();
        match open(&path).await {
            Ok(found) => {
                assert!(table[..length].ends_with(b"\n"), "length {length}");
                assert!(found.iter().all(|(key, item)| entries[key] == *item));
                // It was closed as it is now.
                fs::write(&path, &table).unwrap();
                open(&path).await.unwrap();
            }
            Err(error) => {
                let error = error.to_string();
                let words = [
                    format!("had {} bytes, now it has {length}", table.len()),
                    "Restore".to_string(),
                ];
                assert!(words.iter().all(|word| error.contains(word)), "{error}");
                assert_eq!(fs::read(&path).unwrap(), table[..length]);
            }
        }
    }
    // Whole again, it opens; so does a cut one after the advice was followed.
    fs::write(&path, &table).unwrap();
    assert_eq!(open(&path).await.unwrap(), entries);
    fs::write(&path, &table[..table.len() - 2]).unwrap();
    open(&path).await.unwrap_err();
    fs::write(&path, [&table[..table.len() - 2], b"\n"].concat()).unwrap();
    open(&path).await.unwrap();
}

/// Nothing depends on the note, and edits are what a table is for.
#[tokio::test]
async fn a_table_that_was_edited_after_it_was_closed_is_told_as_that() {
    let (_dir, path) = plain_table();
    let opened = async || {
        let builder = PersistentMap::<String, Item, _>::builder(CsvBackend::new(&path));
        let (map, report) = builder.open_with_report().await.unwrap();
        map.close().await.unwrap();
        report.edited
    };
    assert!(!opened().await, "nobody has closed it");
    assert!(!opened().await);
    let table = fs::read_to_string(&path).unwrap();
    for edited in [
        table.replace("k1", "k9"),
        table.clone() + "k9,9,\n",
        table.split_inclusive('\n').take(2).collect(),
        format!("{table}k9,9,no end"),
        // Shorter, and what was closed before it had no end either.
        table.trim_end().to_string(),
    ] {
        fs::write(&path, &edited).unwrap();
        assert!(opened().await, "{edited}");
        assert!(!opened().await, "{edited}");
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
    }
    fs::write(&path, &table).unwrap();
    assert!(opened().await);
    fs::remove_file(path.with_extension("csv.lock")).unwrap();
    fs::write(&path, &table[..table.len() - 2]).unwrap();
    assert!(!opened().await, "without the lock file nobody knows");
    fs::remove_file(&path).unwrap();
    assert!(opened().await);
}

/// What the journal says of a key is what counts. The table must have one row of it all the same, or none could be merged.
#[tokio::test]
async fn rows_of_one_key_are_told_where_the_journal_replaces_them() {
    let killed = Killed::new().await;
    for last in [false, true] {
        let (_dir, path) = killed.place();
        let table = [&*killed.table, b"k1,7,other\n"].concat();
        fs::write(&path, &table).unwrap();
        let backend = || {
            CsvBackend::new(&path)
                .replay_onto_edited_table(true)
                .keep_last_duplicate(last)
        };
        let error = PersistentMap::<String, Item, _>::new(backend()).await;
        let error = error.unwrap_err().to_string();
        let (told, other) = if last { (3, 5) } else { (5, 3) };
        for words in [
            format!("line {told} of"),
            format!("the key is that of line {other}, too"),
        ] {
            assert!(error.contains(&words), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), table);
        let (map, report) = PersistentMap::<String, Item, _>::builder(backend())
            .on_corrupt(OnCorrupt::Quarantine)
            .open_with_report()
            .await
            .unwrap();
        let lines: Vec<u64> = report.quarantined.iter().map(|row| row.row).collect();
        assert_eq!(
            (map.iter().collect(), lines),
            (killed.last().clone(), vec![told])
        );
        map.close().await.unwrap();
        assert_eq!(open(&path).await.unwrap(), *killed.last());
    }
}

#[tokio::test]
async fn a_journal_with_other_keys_is_left_as_it_is() {
    let killed = Killed::new().await;
    let (_dir, path) = killed.place();
    let keys_by = |column: &str| {
        let backend = CsvBackend::new(&path).key_column(column);
        PersistentMap::<String, Item, _>::new(backend.replay_onto_edited_table(true))
    };
    // A table without rows has nothing to say about it.
    fs::write(&path, "key,text,number\n").unwrap();
    let error = keys_by("text").await.unwrap_err().to_string();
    assert!(error.contains("key_column(\"key\")"), "{error}");
    assert_eq!(fs::read(journal_of(&path)).unwrap(), killed.journal);
    keys_by("key").await.unwrap().close().await.unwrap();
}

/// What was cut short goes when the table is known to be good, not before.
#[tokio::test]
async fn a_refused_table_keeps_a_journal_that_was_never_begun() {
    let killed = Killed::new().await;
    let (_dir, path) = killed.place();
    let table = [&killed.table[..], b"k9,no number,\n"].concat();
    fs::write(&path, &table).unwrap();
    fs::write(journal_of(&path), &killed.journal[..10]).unwrap();
    assert!(open(&path).await.is_err());
    assert_eq!(fs::read(&path).unwrap(), table);
    assert_eq!(fs::read(journal_of(&path)).unwrap(), killed.journal[..10]);

    fs::write(&path, &killed.table).unwrap();
    assert_eq!(open(&path).await.unwrap(), killed.states[0]);
    assert!(!journal_of(&path).exists());
}

/// By itself it is what it says: an edit. Whatever it says must be a row or an error.
#[tokio::test]
async fn a_table_by_itself_is_read_as_it_stands() {
    let killed = Killed::new().await;
    for at in 0..killed.table.len() {
        for flip in [1, 0x80] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.csv");
            let mut table = killed.table.clone();
            table[at] ^= flip;
            fs::write(&path, &table).unwrap();
            if let Ok(entries) = open(&path).await {
                let differences = entries
                    .iter()
                    .filter(|(key, item)| killed.states[0].get(*key) != Some(item))
                    .count();
                assert!(differences <= 1, "byte {at}: {entries:?}");
            }
            assert_eq!(
                fs::read(&path).unwrap(),
                table,
                "byte {at}: the file was changed"
            );
        }
    }
}
