//! Tables that move to other types, completely or not at all, and tables that are read back while they are open.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{
    CorruptRow, LoadSink, Outcome, PersistentError, Result, StorageBackend, Value, Write, collect,
};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Player {
    name: String,
    score: u32,
}

/// The next version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlayerV2 {
    name: String,
    level: Option<u8>,
    score: u32,
}

impl From<Player> for PlayerV2 {
    fn from(old: Player) -> Self {
        PlayerV2 {
            name: old.name,
            level: Some(1),
            score: old.score,
        }
    }
}

fn players() -> HashMap<String, Player> {
    [
        ("ada", "Ada", 36),
        ("grace", "Grace", 85),
        ("alan", "Alan, \"the\" 2nd", 0),
        ("kurt", "Kurt Gödel", u32::MAX),
        ("", "", 1),
    ]
    .into_iter()
    .map(|(key, name, score)| {
        let name = name.to_string();
        (key.to_string(), Player { name, score })
    })
    .collect()
}

fn upgraded(old: HashMap<String, Player>) -> HashMap<String, PlayerV2> {
    old.into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect()
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("players.csv");
    if !text.is_empty() {
        fs::write(&path, text).unwrap();
    }
    (dir, path)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The names beside a file, and its text.
fn state(path: &Path) -> (Vec<OsString>, Vec<u8>) {
    let dir = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<_> = dir.map(|entry| entry.unwrap().file_name()).collect();
    // It stays, as the next owner waits for it.
    names.retain(|name| *name != *"players.csv.lock");
    names.sort();
    (names, fs::read(path).unwrap())
}

async fn load<V: Value>(backend: &CsvBackend) -> Result<HashMap<String, V>> {
    collect(backend).await
}

async fn replace<V: Value>(backend: &CsvBackend, entries: HashMap<String, V>) -> Result<()> {
    backend.replace(entries.into_iter().collect()).await
}

async fn save<V: Value>(backend: &CsvBackend, key: &str, value: V) {
    backend.save(key.to_string(), value).await.unwrap();
}

async fn close(backend: CsvBackend) {
    StorageBackend::<String, ()>::close(&backend).await.unwrap();
}

async fn open<V: Value>(path: &Path) -> Result<HashMap<String, V>> {
    let backend = CsvBackend::new(path);
    let entries = load(&backend).await;
    close(backend).await;
    entries
}

async fn assert_holds<V: Value + PartialEq + Debug>(path: &Path, expected: &HashMap<String, V>) {
    assert_eq!(open::<V>(path).await.unwrap(), *expected);
}

fn is_mismatch<T>(result: &Result<T>) -> bool {
    matches!(result, Err(PersistentError::Mismatch { .. }))
}

/// Loads as players, and replaces them by what they become.
async fn upgrade<V: Value>(backend: &CsvBackend, change: impl Fn(Player) -> V) {
    let old = load::<Player>(backend).await.unwrap();
    let new = old.into_iter().map(|(key, old)| (key, change(old)));
    replace(backend, new.collect()).await.unwrap();
}

#[tokio::test]
async fn a_table_moves_to_a_new_version_of_its_type() {
    let (_dir, path) = file("key,name,score\nada,Ada,36\ngrace,Grace,85\n");
    let before = state(&path);
    let backend = CsvBackend::new(&path);
    for _ in 0..2 {
        let refused = load::<PlayerV2>(&backend).await;
        assert!(is_mismatch(&refused), "{refused:?}");
        assert_eq!(state(&path), before, "a load that failed has left traces");
    }
    upgrade(&backend, PlayerV2::from).await;
    let written = "key,name,score,level\nada,Ada,36,1\ngrace,Grace,85,1\n";
    assert_eq!(text(&path), written);

    let extra = PlayerV2 {
        name: "Emmy".to_string(),
        level: None,
        score: 9,
    };
    save(&backend, "emmy", extra.clone()).await;
    close(backend).await;
    assert_eq!(
        text(&path),
        "key,name,score,level\nada,Ada,36,1\nemmy,Emmy,9,\ngrace,Grace,85,1\n"
    );
    assert_eq!(open::<PlayerV2>(&path).await.unwrap()["emmy"], extra);
}

#[tokio::test]
async fn what_somebody_else_has_put_into_a_table_stays() {
    let table = "\u{feff};score;key;note;name;;note 2\r\n\
                 1;85;grace;\"a; b\";Grace;x;=1\r\n\
                 2;36;ada;;Ada;;\r\n\
                 3;7;gone;lost;Gone;y;z\r\n";
    let (_dir, path) = file(table);
    let backend = CsvBackend::new(&path);
    assert!(is_mismatch(&load::<PlayerV2>(&backend).await));
    let mut new = upgraded(load(&backend).await.unwrap());
    new.remove("gone");
    let emmy = PlayerV2 {
        name: "Emmy; \"N\"".to_string(),
        level: None,
        score: 9,
    };
    new.insert("emmy".to_string(), emmy);
    replace(&backend, new.clone()).await.unwrap();
    assert_eq!(
        text(&path),
        "\u{feff};score;key;note;name;;note 2;level\r\n\
         2;36;ada;;Ada;;;1\r\n\
         ;9;emmy;;\"Emmy; \"\"N\"\"\";;;\r\n\
         1;85;grace;\"a; b\";Grace;x;=1;1\r\n"
    );
    close(backend).await;
    assert_holds(&path, &new).await;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Renamed {
    nick: String,
    score: u32,
}

/// What others wrote beside an entry is about that one, and goes with it: at once, in the same batch, and after a crash.
#[tokio::test]
async fn a_row_that_comes_back_has_none_of_the_cells_of_the_old_one() {
    type Batch = Vec<Write<String, Player>>;
    let player = |score| Player {
        name: "Ada".to_string(),
        score,
    };
    let insert = |score| Write::insert("ada".to_string(), player(score));
    let remove = || Write::<String, Player>::remove("ada".to_string());
    let histories: Vec<(Vec<Batch>, &str)> = vec![
        (vec![vec![insert(2)], vec![insert(3)]], "about Ada"),
        (vec![vec![remove()], vec![insert(3)]], ""),
        (vec![vec![remove(), insert(3)]], ""),
        (
            vec![vec![insert(2), remove(), insert(2)], vec![insert(3)]],
            "",
        ),
        (
            vec![
                vec![remove()],
                vec![insert(2)],
                vec![remove()],
                vec![insert(3)],
            ],
            "",
        ),
    ];
    for (history, note) in &histories {
        for is_killed in [false, true] {
            let (dir, path) = file("key,name,score,note\nada,Ada,1,about Ada\nzuse,Konrad,1,z1\n");
            let backend = CsvBackend::new(&path);
            load::<Player>(&backend).await.unwrap();
            for batch in history {
                backend.apply(batch).await.unwrap();
            }
            let path = if is_killed {
                let left = dir.path().join("left.csv");
                fs::copy(&path, &left).unwrap();
                fs::copy(journal_of(&path), journal_of(&left)).unwrap();
                left
            } else {
                path
            };
            close(backend).await;
            open::<Player>(&path).await.unwrap();
            let expected = format!("key,name,score,note\nada,Ada,3,{note}\nzuse,Konrad,1,z1\n");
            assert_eq!(text(&path), expected);
        }
    }
}

/// All rows go, and so does what was written beside them.
#[tokio::test]
async fn a_cleared_table_forgets_the_cells_of_its_rows() {
    let (_dir, path) = file("key,name,score,note\nada,Ada,1,about Ada\n");
    let backend = CsvBackend::new(&path);
    let mut players = load::<Player>(&backend).await.unwrap();
    StorageBackend::<String, Player>::clear(&backend)
        .await
        .unwrap();
    save(&backend, "ada", players.remove("ada").unwrap()).await;
    close(backend).await;
    assert_eq!(text(&path), "key,name,score,note\nada,Ada,1,\n");
}

#[tokio::test]
async fn fields_go_and_values_change_their_form() {
    const TABLE: &str = "key,name,note,score\nada,Ada,n,36\n";
    // A field that is renamed.
    let (_dir, path) = file(TABLE);
    let backend = CsvBackend::new(&path);
    upgrade(&backend, |old| Renamed {
        nick: old.name,
        score: old.score,
    })
    .await;
    close(backend).await;
    assert_eq!(text(&path), "key,note,score,nick\nada,n,36,Ada\n");

    // To a value of one cell, with what is no field beside it.
    let (_dir, path) = file(TABLE);
    let backend = CsvBackend::new(&path);
    assert!(is_mismatch(&load::<u32>(&backend).await));
    upgrade(&backend, |old| old.score).await;
    close(backend).await;
    assert_eq!(text(&path), "key,note,value\nada,n,36\n");
    assert_holds(&path, &HashMap::from([("ada".to_string(), 36)])).await;

    // And from one.
    let (_dir, path) = file("value,key\n36,ada\n");
    let backend = CsvBackend::new(&path);
    let refused = load::<PlayerV2>(&backend).await;
    assert!(matches!(&refused, Err(PersistentError::Corrupt(row)) if row.intact));
    let old = load::<u32>(&backend).await.unwrap();
    let new = old.into_iter().map(|(key, score)| {
        let name = key.to_uppercase();
        (key, Player { name, score })
    });
    replace(&backend, new.collect()).await.unwrap();
    close(backend).await;
    assert_eq!(text(&path), "key,name,score\nada,ADA,36\n");
}

#[tokio::test]
async fn a_replacement_by_nothing_is_an_empty_table() {
    let (_dir, path) = file("key,name,score,note\nada,Ada,36,n\n");
    let backend = CsvBackend::new(&path);
    load::<Player>(&backend).await.unwrap();
    replace(&backend, HashMap::<String, PlayerV2>::new())
        .await
        .unwrap();
    assert_eq!(text(&path), "key,name,score,note\n");
    save(&backend, "b", 7u8).await;
    close(backend).await;
    assert_eq!(text(&path), "key,value\nb,7\n");

    // Nothing was there, and nothing comes.
    let (_dir, path) = file("");
    let backend = CsvBackend::new(&path);
    load::<Player>(&backend).await.unwrap();
    replace(&backend, HashMap::<String, u8>::new())
        .await
        .unwrap();
    assert!(!path.exists());
    replace(&backend, players()).await.unwrap();
    close(backend).await;
    assert_holds(&path, &players()).await;
}

#[tokio::test]
async fn a_replacement_that_fails_changes_nothing() {
    const TABLE: &str = "key,name,score\nada,Ada,36\n";
    let (_dir, path) = file(TABLE);
    let backend = CsvBackend::new(&path);
    load::<Player>(&backend).await.unwrap();
    // No form in a cell, in the second entry only.
    let lists = [("a", vec![Some(1.0)]), ("b", vec![Some(f64::NAN)])];
    let lists = lists.map(|(key, list)| (key.to_string(), list));
    let error = replace(&backend, lists.into()).await.unwrap_err();
    assert!(
        matches!(error, PersistentError::Unstorable { .. }),
        "{error}"
    );
    let large = HashMap::from([("a".to_string(), "x".repeat((16 << 20) + 1))]);
    let error = replace(&backend, large).await.unwrap_err();
    assert!(matches!(error, PersistentError::TooLarge { .. }), "{error}");
    let before = state(&path);
    assert_eq!(before.1, TABLE.as_bytes());

    // Somebody else has written to it meanwhile.
    let edited = "key,name,score\nada,Ada,37\n";
    fs::write(&path, edited).unwrap();
    let error = replace(&backend, upgraded(players())).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
    for word in ["players.csv", "changed by somebody else", "not overwritten"] {
        assert!(
            error.to_string().contains(word),
            "`{word}` is missing: {error}"
        );
    }
    assert_eq!(state(&path), (before.0, edited.as_bytes().to_vec()));

    fs::write(&path, TABLE).unwrap();
    replace(&backend, upgraded(players())).await.unwrap();
    close(backend).await;
    assert_holds(&path, &upgraded(players())).await;
}

/// A crash of the old program has left a journal: the new one is told that it is of other types, and the upgrade has
/// its writes.
#[tokio::test]
async fn writes_in_a_journal_are_upgraded_with_the_table() {
    for table in ["", "key,name,score\nada,Ada,1\n"] {
        let (_dir, path) = file(table);
        let backend = CsvBackend::new(&path);
        load::<Player>(&backend).await.unwrap();
        for (key, player) in players() {
            save(&backend, &key, player).await;
        }
        let (_dir, killed) = file(table);
        let journal = path.with_extension("csv.journal");
        fs::copy(journal, killed.with_extension("csv.journal")).unwrap();

        let backend = CsvBackend::new(&killed);
        let refused = load::<PlayerV2>(&backend).await;
        assert!(is_mismatch(&refused), "{refused:?}");
        upgrade(&backend, PlayerV2::from).await;
        close(backend).await;
        assert_holds(&killed, &upgraded(players())).await;
    }
}

struct Lenient<V> {
    entries: HashMap<String, V>,
    corrupt: Vec<CorruptRow>,
}

impl<V: Value> LoadSink<String, V> for Lenient<V> {
    fn expect(&mut self, _: u64) {}

    fn entry_if_new(&mut self, key: String, value: V) -> Result<bool> {
        Ok(self.entries.insert(key, value).is_none())
    }

    fn corrupt(&mut self, row: CorruptRow) -> Result<()> {
        self.corrupt.push(row);
        Ok(())
    }
}

/// What `read_back` gives, and the rows that it cannot. It must leave everything as it is.
async fn read_back<V: Value>(
    backend: &CsvBackend,
    path: &Path,
) -> Result<(HashMap<String, V>, Vec<CorruptRow>)> {
    let mut sink = Lenient {
        entries: HashMap::new(),
        corrupt: Vec::new(),
    };
    let journal = path.with_extension("csv.journal");
    let before = (state(path), fs::read(&journal).ok());
    let read = backend.read_back(&mut sink).await;
    assert!(
        (state(path), fs::read(&journal).ok()) == before,
        "reading has changed something"
    );
    read.map(|()| (sink.entries, sink.corrupt))
}

#[tokio::test]
async fn reading_back_sees_the_files_and_changes_nothing() {
    let (_dir, path) = file("key,name,score\nada,Ada,36\ngrace,Grace,85\n");
    let backend = CsvBackend::new(&path);
    let mut expected = load::<Player>(&backend).await.unwrap();
    let found = |read: Result<_>| read.map(|(entries, _): (HashMap<_, Player>, _)| entries);
    assert_eq!(found(read_back(&backend, &path).await).unwrap(), expected);

    // The table, edited: rows that fit, and one that does not.
    fs::write(&path, "key,name,score\nada,Ada,37\ngrace,Grace,x\n").unwrap();
    let (entries, corrupt) = read_back::<Player>(&backend, &path).await.unwrap();
    assert_eq!((entries.len(), entries["ada"].score), (1, 37));
    let [row] = corrupt.as_slice() else {
        panic!("{corrupt:?}");
    };
    assert_eq!((row.row, row.key.as_str()), (3, "\"grace\""));
    // No row fits.
    fs::write(&path, "key,name,score\nada,Ada,x\n").unwrap();
    let (entries, corrupt) = read_back::<Player>(&backend, &path).await.unwrap();
    assert_eq!((entries.len(), corrupt.len()), (0, 1));
    // Put back, as it was.
    fs::write(&path, "key,name,score\nada,Ada,36\ngrace,Grace,85\n").unwrap();

    // With a journal.
    let late = expected["ada"].clone();
    for key in ["late", "grace"] {
        save(&backend, key, late.clone()).await;
        expected.insert(key.to_string(), late.clone());
    }
    assert!(path.with_extension("csv.journal").exists());
    assert_eq!(found(read_back(&backend, &path).await).unwrap(), expected);
    let before = text(&path);
    fs::write(&path, "key,name,score\nada,Ada,37\n").unwrap();
    let error = found(read_back(&backend, &path).await).unwrap_err();
    for word in ["players.csv", "while the map was open", "journal"] {
        assert!(
            error.to_string().contains(word),
            "`{word}` is missing: {error}"
        );
    }
    fs::write(&path, before).unwrap();
    let journal = path.with_extension("csv.journal");
    let bytes = fs::read(&journal).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&journal, damaged).unwrap();
    let error = found(read_back(&backend, &path).await).unwrap_err();
    assert!(error.to_string().contains("journal is damaged"), "{error}");
    fs::write(&journal, bytes).unwrap();

    assert_eq!(found(read_back(&backend, &path).await).unwrap(), expected);
    close(backend).await;
    assert_holds(&path, &expected).await;
}

#[tokio::test]
async fn reading_back_notices_a_table_that_is_gone() {
    let (_dir, path) = file("key,name,score\nada,Ada,36\n");
    let backend = CsvBackend::new(&path);
    load::<Player>(&backend).await.unwrap();
    fs::remove_file(&path).unwrap();
    let mut sink = Lenient::<Player> {
        entries: HashMap::new(),
        corrupt: Vec::new(),
    };
    let error = backend.read_back(&mut sink).await.unwrap_err();
    assert!(error.to_string().contains("the file is gone"), "{error}");
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/players_v1.csv");

#[tokio::test]
async fn the_golden_file_opens_and_moves_on() {
    let (_dir, path) = file("");
    fs::copy(GOLDEN, &path).expect("the golden file");
    let before = state(&path).1;
    assert_holds(&path, &players()).await;
    assert_eq!(fs::read(&path).unwrap(), before);

    let backend = CsvBackend::new(&path);
    assert!(is_mismatch(&load::<PlayerV2>(&backend).await));
    upgrade(&backend, PlayerV2::from).await;
    close(backend).await;
    assert_holds(&path, &upgraded(players())).await;
}

#[tokio::test]
#[ignore = "makes a file that is kept"]
async fn make_the_golden_file() {
    assert!(
        !Path::new(GOLDEN).exists(),
        "what an older version has written cannot be made again; the file stays"
    );
    let (_dir, path) = file("");
    let backend = CsvBackend::new(&path);
    load::<Player>(&backend).await.unwrap();
    for (key, player) in players() {
        save(&backend, &key, player).await;
    }
    close(backend).await;
    fs::copy(path, GOLDEN).unwrap();
}

const GOLDEN_KILLED_2: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/players_v2_killed.csv"
);
const GOLDEN_KILLED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/players_v1_killed.csv"
);

fn journal_of(path: &Path) -> PathBuf {
    path.with_extension("csv.journal")
}

#[tokio::test]
async fn the_golden_journal_is_replayed() {
    for golden in [GOLDEN_KILLED, GOLDEN_KILLED_2] {
        let (_dir, path) = file("");
        fs::copy(golden, &path).expect("the golden file");
        fs::copy(journal_of(Path::new(golden)), journal_of(&path)).expect("its journal");
        assert_ne!(text(&path), fs::read_to_string(GOLDEN).unwrap());
        for _ in 0..2 {
            assert_holds(&path, &players()).await;
            assert_eq!(text(&path), fs::read_to_string(GOLDEN).unwrap());
            assert!(!journal_of(&path).exists());
        }
    }
}

/// A journal has a row to add, one to change, one to remove, and a table that it belongs to.
#[tokio::test]
#[ignore = "makes files that are kept"]
async fn make_the_golden_journal() {
    assert!(
        !Path::new(GOLDEN_KILLED_2).exists(),
        "what an older version has written cannot be made again; the files stay"
    );
    let (_dir, path) = file("key,name,score\nada,Ada,1\nanon,Anon,7\nkurt,Kurt Gödel,4294967295\n");
    let backend = CsvBackend::new(&path);
    load::<Player>(&backend).await.unwrap();
    for (key, player) in players() {
        save(&backend, &key, player).await;
    }
    StorageBackend::<String, Player>::delete(&backend, &"anon".to_string())
        .await
        .unwrap();
    // As a kill leaves them: what is in the files while they are open.
    fs::copy(&path, GOLDEN_KILLED_2).unwrap();
    fs::copy(journal_of(&path), journal_of(Path::new(GOLDEN_KILLED_2))).unwrap();
    close(backend).await;
}
