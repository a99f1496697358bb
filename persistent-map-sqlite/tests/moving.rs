//! Tables that move to other types or to another codec: completely or not at all.

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{
    Bincode, Codec, CorruptRow, Json, LoadSink, MessagePack, PersistentError, PersistentMap,
    Result, StorageBackend, Value, collect,
};
use persistent_map_sqlite::SqliteBackend;
use persistent_map_testkit::drop_after_polls;
use serde::{Deserialize, Serialize};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection, query_scalar, raw_sql,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Player {
    name: String,
    score: u32,
}

/// The next version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PlayerV2 {
    name: String,
    score: u64,
    level: u8,
}

impl From<Player> for PlayerV2 {
    fn from(old: Player) -> Self {
        PlayerV2 {
            name: old.name,
            score: old.score.into(),
            level: 1,
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

fn numbers(count: u64) -> HashMap<String, u64> {
    (0..count).map(|n| (format!("key {n}"), n)).collect()
}

/// A closed database with these entries in the table `entries`.
async fn database<V: Value>(dir: &Path, entries: HashMap<String, V>) -> PathBuf {
    let path = dir.join("app.db");
    store(SqliteBackend::new(&path).await.unwrap(), entries).await;
    path
}

async fn store<V: Value, C: Codec>(backend: SqliteBackend<C>, entries: HashMap<String, V>) {
    let map = PersistentMap::new(backend).await.unwrap();
    for (key, value) in entries {
        map.insert(key, value).await.unwrap();
    }
    map.close().await.unwrap();
}

async fn load<V: Value, C: Codec>(backend: &SqliteBackend<C>) -> Result<HashMap<String, V>> {
    collect(backend).await
}

async fn replace<V: Value, C: Codec>(
    backend: &SqliteBackend<C>,
    entries: HashMap<String, V>,
) -> Result<()> {
    StorageBackend::<String, V>::replace(backend, entries.into_iter().collect()).await
}

async fn save<V: Value, C: Codec>(backend: &SqliteBackend<C>, key: &str, value: V) {
    let saved = StorageBackend::<String, V>::save(backend, key.to_string(), value);
    saved.await.unwrap();
}

async fn close<C: Codec>(backend: SqliteBackend<C>) {
    StorageBackend::<String, ()>::close(&backend).await.unwrap();
}

/// What the next owner of the table `entries` finds.
async fn open<V: Value, C: Codec>(path: &Path, codec: C) -> Result<HashMap<String, V>> {
    let backend = SqliteBackend::builder(path).codec(codec).open().await?;
    let entries = load(&backend).await;
    close(backend).await;
    entries
}

async fn assert_holds<V: Value + PartialEq + Debug>(path: &Path, expected: &HashMap<String, V>) {
    assert_eq!(open::<V, _>(path, Bincode).await.unwrap(), *expected);
}

async fn sqlite(path: &Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

async fn change(path: &Path, sql: &str) {
    let mut connection = sqlite(path).await;
    let sql = AssertSqlSafe(sql.to_string());
    raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn is_mismatch<T>(result: &Result<T>) -> bool {
    matches!(result, Err(PersistentError::Mismatch { .. }))
}

#[tokio::test]
async fn a_table_moves_to_a_new_version_of_its_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;

    let backend = SqliteBackend::new(&path).await.unwrap();
    assert!(is_mismatch(&load::<PlayerV2, _>(&backend).await));
    let old = load::<Player, _>(&backend).await.unwrap();
    let mut expected = upgraded(old);
    replace(&backend, expected.clone()).await.unwrap();
    let extra = PlayerV2 {
        name: "Emmy".to_string(),
        score: u64::MAX,
        level: 9,
    };
    save(&backend, "emmy", extra.clone()).await;
    expected.insert("emmy".to_string(), extra);
    close(backend).await;

    assert!(is_mismatch(&open::<Player, _>(&path, Bincode).await));
    assert_holds(&path, &expected).await;
}

#[tokio::test]
async fn a_load_that_failed_can_be_repeated_with_other_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    for _ in 0..3 {
        assert!(is_mismatch(&load::<u64, _>(&backend).await));
    }
    assert_eq!(load::<Player, _>(&backend).await.unwrap(), players());
    close(backend).await;

    // Types that are accepted unseen, and then do not fit. They are not recorded.
    for repeated in [true, false] {
        let backend = SqliteBackend::builder(&path)
            .accept_other_types(true)
            .open()
            .await
            .unwrap();
        let refused = load::<bool, _>(&backend).await;
        assert!(matches!(refused, Err(PersistentError::Corrupt(row)) if row.intact));
        if repeated {
            assert_eq!(load::<Player, _>(&backend).await.unwrap(), players());
        }
        close(backend).await;
        assert_holds(&path, &players()).await;
    }
}

#[tokio::test]
async fn only_the_one_table_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let db = SqliteBackend::new(&path).await.unwrap();
    store(db.table("numbers").await.unwrap(), numbers(9)).await;
    load::<Player, _>(&db).await.unwrap();
    replace(&db, numbers(3)).await.unwrap();
    let other = db.table("numbers").await.unwrap();
    assert_eq!(load::<u64, _>(&other).await.unwrap(), numbers(9));
    close(other).await;
    close(db).await;
    assert_holds(&path, &numbers(3)).await;
}

#[tokio::test]
async fn many_rows_are_replaced_with_one_commit() {
    const ROWS: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    load::<Player, _>(&backend).await.unwrap();
    replace(&backend, numbers(ROWS)).await.unwrap();
    assert_eq!(read_back::<u64, _>(&backend).await.0, numbers(ROWS));
    close(backend).await;
    assert_holds(&path, &numbers(ROWS)).await;
}

/// The last statement fails, so that all others have run by then.
#[tokio::test]
async fn a_replacement_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    change(
        &path,
        "CREATE TRIGGER no BEFORE UPDATE ON persistent_map_maps BEGIN SELECT RAISE(ABORT, 'not today'); END",
    )
    .await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    load::<Player, _>(&backend).await.unwrap();
    let error = replace(&backend, numbers(700)).await.unwrap_err();
    for word in ["table `entries`", "app.db", "700", "nothing was applied"] {
        assert!(
            error.to_string().contains(word),
            "`{word}` is missing: {error}"
        );
    }
    assert_eq!(read_back::<Player, _>(&backend).await.0, players());
    let mut expected = players();
    let late = expected["ada"].clone();
    save(&backend, "late", late.clone()).await;
    expected.insert("late".to_string(), late);
    close(backend).await;
    assert_holds(&path, &expected).await;
}

/// A runtime that ends drops the future at any of its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_cut_short_is_done_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut old, mut new) = (0, 0);
    for polls in 0.. {
        let home = tempfile::tempdir_in(&dir).unwrap();
        let path = database(home.path(), players()).await;
        let backend = SqliteBackend::new(&path).await.unwrap();
        load::<Player, _>(&backend).await.unwrap();
        let done = drop_after_polls(replace(&backend, numbers(2000)), polls).await;
        close(backend).await;
        match open::<Player, _>(&path, Bincode).await {
            Ok(found) => {
                assert_eq!(found, players(), "after {polls} polls");
                old += 1;
            }
            Err(PersistentError::Mismatch { .. }) => {
                assert_holds(&path, &numbers(2000)).await;
                new += 1;
            }
            Err(error) => panic!("after {polls} polls: {error}"),
        }
        if let Some(done) = done {
            done.unwrap();
            break;
        }
    }
    assert!(old > 1 && new > 0, "{old} times undone, {new} times done");
}

/// What `read_back` gives, and the rows that it cannot.
async fn read_back<V: Value, C: Codec>(
    backend: &SqliteBackend<C>,
) -> (HashMap<String, V>, Vec<CorruptRow>) {
    let mut sink = Lenient {
        entries: HashMap::new(),
        corrupt: Vec::new(),
    };
    StorageBackend::<String, V>::read_back(backend, &mut sink)
        .await
        .unwrap();
    (sink.entries, sink.corrupt)
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

#[tokio::test]
async fn reading_back_sees_the_file_and_sets_nothing_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    let mut expected = load::<Player, _>(&backend).await.unwrap();
    assert_eq!(read_back::<Player, _>(&backend).await.0, expected);

    let bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(5)
        .position(|text| text == b"Grace")
        .expect("the text of a value");
    let flip = |with: &[u8]| {
        use std::io::{Seek as _, SeekFrom, Write as _};

        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(with).unwrap();
    };
    flip(b"Grbce");
    let grace = expected.remove("grace").unwrap();
    for _ in 0..2 {
        let (entries, corrupt) = read_back::<Player, _>(&backend).await;
        assert_eq!(entries, expected);
        let [row] = corrupt.as_slice() else {
            panic!("{corrupt:?}");
        };
        assert!(row.reason.contains("checksum") && !row.intact, "{row}");
    }
    // Of other types, every row is in the way, and none is set aside.
    let (entries, corrupt) = read_back::<bool, _>(&backend).await;
    assert_eq!((entries.len(), corrupt.len()), (0, 5));

    flip(b"Grace");
    expected.insert("grace".to_string(), grace);
    assert_eq!(read_back::<Player, _>(&backend).await.0, expected);
    close(backend).await;
    assert_holds(&path, &expected).await;
}

#[tokio::test]
async fn a_codec_is_changed_there_and_back_beside_other_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let db = SqliteBackend::new(&path).await.unwrap();
    store(db.table("numbers").await.unwrap(), numbers(3000)).await;
    let open_beside = PersistentMap::<String, u64, _>::new(db.table("numbers").await.unwrap())
        .await
        .unwrap();

    // In both directions, while another table of the file is in use.
    let json = db.change_codec::<String, Player, _>(Json).await.unwrap();
    let map = PersistentMap::<String, Player, _>::new(json).await.unwrap();
    assert_eq!(map.iter().collect::<HashMap<_, _>>(), players());
    let ada = map.get("ada").unwrap();
    map.insert("late".to_string(), ada.clone()).await.unwrap();
    open_beside.insert("late".to_string(), 1).await.unwrap();
    map.close().await.unwrap();
    open_beside.close().await.unwrap();
    let mut expected = players();
    expected.insert("late".to_string(), ada);

    assert!(is_mismatch(&open::<Player, _>(&path, Bincode).await));
    assert_eq!(open::<Player, _>(&path, Json).await.unwrap(), expected);
    let mut connection = sqlite(&path).await;
    let text: String =
        query_scalar("SELECT CAST(value AS TEXT) FROM entries WHERE key = CAST('\"ada\"' AS BLOB)")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(text, r#"{"name":"Ada","score":36}"#);
    connection.close().await.unwrap();

    let json = SqliteBackend::builder(&path)
        .codec(Json)
        .open()
        .await
        .unwrap();
    let back = json.change_codec::<String, Player, _>(Bincode).await;
    let numbers_again = back.unwrap().table("numbers").await.unwrap();
    let mut expected_numbers = numbers(3000);
    expected_numbers.insert("late".to_string(), 1);
    assert_eq!(
        load::<u64, _>(&numbers_again).await.unwrap(),
        expected_numbers
    );
    close(numbers_again).await;
    assert_holds(&path, &expected).await;
}

#[tokio::test]
async fn a_codec_that_is_in_use_already_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    for start in 0..3 {
        let backend = SqliteBackend::new(&path).await.unwrap();
        let backend = backend.change_codec::<String, Player, _>(MessagePack);
        let map = PersistentMap::<String, Player, _>::new(backend.await.unwrap())
            .await
            .unwrap();
        assert_eq!(map.iter().collect::<HashMap<_, _>>(), players(), "{start}");
        map.close().await.unwrap();
    }
    let bytes = fs::read(&path).unwrap();
    let backend = SqliteBackend::new(&path).await.unwrap();
    // The types are not looked at here: a map that is opened on it does.
    let backend = backend.change_codec::<String, u64, _>(MessagePack).await;
    close(backend.unwrap()).await;
    assert_eq!(fs::read(&path).unwrap(), bytes, "the file was changed");

    // A table that is not there yet is made with the new codec.
    let new = dir.path().join("new.db");
    let backend = SqliteBackend::new(&new).await.unwrap();
    let backend = backend.change_codec::<String, Player, _>(Json).await;
    store(backend.unwrap(), players()).await;
    assert_eq!(open::<Player, _>(&new, Json).await.unwrap(), players());
}

#[tokio::test]
async fn a_codec_is_not_changed_where_something_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    let refused = backend.change_codec::<String, PlayerV2, _>(Json).await;
    assert!(is_mismatch(&refused), "{refused:?}");
    let json = SqliteBackend::builder(&path)
        .codec(Json)
        .open()
        .await
        .unwrap();
    let refused = json.change_codec::<String, Player, _>(MessagePack).await;
    assert!(is_mismatch(&refused), "{refused:?}");
    assert_holds(&path, &players()).await;

    // A value that the codec has no form for.
    let floats = dir.path().join("floats.db");
    let entries = HashMap::from([("a".to_string(), 1.0), ("b".to_string(), f64::INFINITY)]);
    store(SqliteBackend::new(&floats).await.unwrap(), entries.clone()).await;
    let backend = SqliteBackend::new(&floats).await.unwrap();
    let refused = backend.change_codec::<String, f64, _>(Json).await;
    assert!(
        matches!(refused, Err(PersistentError::Unstorable { .. })),
        "{refused:?}"
    );
    assert_holds(&floats, &entries).await;

    // A row that does not decode.
    change(
        &path,
        "UPDATE entries SET checksum = checksum + 1 WHERE CAST(key AS TEXT) LIKE '%grace'",
    )
    .await;
    let rows = rows(&path).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    let refused = backend.change_codec::<String, Player, _>(Json).await;
    let Err(PersistentError::Corrupt(row)) = &refused else {
        panic!("{refused:?}");
    };
    assert!(row.to_string().contains("\"grace\""), "{row}");
    let again = SqliteBackend::new(&path).await.unwrap();
    close(again).await;
    assert_eq!(self::rows(&path).await, rows);
}

/// All that a table holds, and what it says that it holds, as text.
async fn rows(path: &Path) -> Vec<String> {
    let mut connection = sqlite(path).await;
    let rows = query_scalar(
        "SELECT hex(key) || hex(value) || checksum FROM entries \
         UNION ALL SELECT codec || key_type || value_type || checksum FROM persistent_map_maps \
         UNION ALL SELECT 'set aside: ' || count(*) FROM persistent_map_quarantine",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    rows
}

#[tokio::test]
async fn a_codec_is_not_changed_under_an_open_map() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    let db = SqliteBackend::new(&path).await.unwrap();
    let map = PersistentMap::<String, Player, _>::new(db.table("ENTRIES").await.unwrap())
        .await
        .unwrap();
    let refused = db.change_codec::<String, Player, _>(Json).await;
    assert!(
        matches!(refused, Err(PersistentError::InUse { .. })),
        "{refused:?}"
    );
    map.remove("ada").await.unwrap();
    map.close().await.unwrap();
    let mut expected = players();
    expected.remove("ada");
    assert_holds(&path, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_codec_cut_short_is_done_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut old, mut new) = (0, 0);
    for polls in 0.. {
        let home = tempfile::tempdir_in(&dir).unwrap();
        let path = database(home.path(), numbers(300)).await;
        let backend = SqliteBackend::new(&path).await.unwrap();
        let done = drop_after_polls(backend.change_codec::<String, u64, _>(Json), polls).await;
        let is_done = done.is_some();
        drop(done);
        match open::<u64, _>(&path, Bincode).await {
            Ok(found) => {
                assert_eq!(found, numbers(300), "after {polls} polls");
                old += 1;
            }
            Err(PersistentError::Mismatch { .. }) => {
                let found = open::<u64, _>(&path, Json).await.unwrap();
                assert_eq!(found, numbers(300), "after {polls} polls");
                new += 1;
            }
            Err(error) => panic!("after {polls} polls: {error}"),
        }
        if is_done {
            break;
        }
    }
    assert!(old > 1 && new > 0, "{old} times undone, {new} times done");
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/players_v1.db");

/// A copy that may be written to.
fn golden() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("players.db");
    fs::copy(GOLDEN, &path).expect("the golden file");
    (dir, path)
}

#[tokio::test]
async fn the_golden_file_opens_and_moves_on() {
    let (_dir, path) = golden();
    assert_holds(&path, &players()).await;

    let backend = SqliteBackend::new(&path).await.unwrap();
    assert!(is_mismatch(&load::<PlayerV2, _>(&backend).await));
    let expected = upgraded(load(&backend).await.unwrap());
    replace(&backend, expected.clone()).await.unwrap();
    close(backend).await;
    assert_holds(&path, &expected).await;

    let (_dir, path) = golden();
    let backend = SqliteBackend::new(&path).await.unwrap();
    let backend = backend.change_codec::<String, Player, _>(Json).await;
    assert_eq!(
        load::<Player, _>(&backend.unwrap()).await.unwrap(),
        players()
    );
}

#[tokio::test]
#[ignore = "makes a file that is kept"]
async fn make_the_golden_file() {
    assert!(
        !Path::new(GOLDEN).exists(),
        "what an older version has written cannot be made again; the file stays"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path(), players()).await;
    fs::copy(path, GOLDEN).unwrap();
}

const GOLDEN_KILLED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/players_v1_killed.db"
);

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

#[tokio::test]
async fn the_golden_log_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("players.db");
    fs::copy(GOLDEN_KILLED, &path).expect("the golden file");
    assert!(open::<Player, _>(&path, Bincode).await.is_err());

    fs::copy(log_of(Path::new(GOLDEN_KILLED)), log_of(&path)).expect("its log");
    for _ in 0..2 {
        assert_holds(&path, &players()).await;
        assert!(!log_of(&path).exists());
    }
}

#[tokio::test]
#[ignore = "makes files that are kept"]
async fn make_the_golden_log() {
    assert!(
        !Path::new(GOLDEN_KILLED).exists(),
        "what an older version has written cannot be made again; the files stay"
    );
    let dir = tempfile::tempdir().unwrap();
    let old = Player {
        name: "Anon".to_string(),
        score: 7,
    };
    let entries = ["ada", "anon"].map(|key| (key.to_string(), old.clone()));
    let path = database(dir.path(), HashMap::from(entries)).await;
    let backend = SqliteBackend::new(&path).await.unwrap();
    load::<Player, _>(&backend).await.unwrap();
    for (key, player) in players() {
        save(&backend, &key, player).await;
    }
    StorageBackend::<String, Player>::delete(&backend, &"anon".to_string())
        .await
        .unwrap();
    // As a kill leaves them: what is in the files while they are open.
    fs::copy(&path, GOLDEN_KILLED).unwrap();
    fs::copy(log_of(&path), log_of(Path::new(GOLDEN_KILLED))).unwrap();
    close(backend).await;
}
