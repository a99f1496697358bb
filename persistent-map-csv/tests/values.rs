//! What goes in comes out: keys and values of all kinds survive a flush and a reopen, or are refused by the insert.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{Key, PersistentError, PersistentMap, Value};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("values.csv");
    (dir, path)
}

async fn open<K: Key, V: Value>(path: &Path) -> PersistentMap<K, V, CsvBackend> {
    PersistentMap::new(CsvBackend::new(path)).await.unwrap()
}

/// Inserts the entries, closes, reopens and compares; then once more without the first checkpoint, as after a kill.
/// Returns the text of the table.
async fn round_trip<K, V>(entries: Vec<(K, V)>) -> String
where
    K: Key + Debug,
    V: Value + PartialEq + Debug,
{
    let (dir, path) = place();
    let map = open(&path).await;
    for (key, value) in &entries {
        map.insert(key.clone(), value.clone()).await.unwrap();
    }
    let killed = dir.path().join("killed.csv");
    for extension in ["csv", "csv.journal"] {
        // A large table has been written already, a small one is all in the journal.
        let _ = fs::copy(
            path.with_extension(extension),
            killed.with_extension(extension),
        );
    }
    map.close().await.unwrap();
    let expected: HashMap<K, V> = entries.into_iter().collect();
    for path in [&path, &killed] {
        let map = open::<K, V>(path).await;
        let found: HashMap<K, V> = map.iter().collect();
        assert_eq!(found, expected);
        map.close().await.unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::read_to_string(killed).unwrap(), text);
    text
}

fn awkward() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "a",
        "\0",
        "\n",
        "\r",
        "\r\n",
        "\t",
        ",",
        ";",
        "\"",
        "\"\"",
        "\"\"\"",
        "\"\"\"\"",
        "a\"b",
        "'",
        "''",
        "\u{feff}",
        "\u{feff}x",
        "\u{fffd}",
        "héllo",
        "日本語",
        "=1+1",
        "'=1+1",
        "''=1+1",
        "+1",
        "-1",
        "-x",
        "@a",
        "007",
        "1e3",
        "1.0",
        "true",
        "TRUE",
        "null",
        "NULL",
        "NaN",
        "{}",
        "{\"a\":1}",
        "[1]",
        "key",
        "value",
        "#",
        "\\",
        "\\N",
        "\u{2028}",
        "key,value",
        "x\r",
        "\rx",
        "x\n\"y\"\r\n",
    ]
    .map(str::to_string)
    .to_vec();
    texts.push("x".repeat(100 << 10));
    texts.push("\"".repeat(1000));
    texts.push("\"\n".repeat(512 << 10));
    texts
}

#[tokio::test]
async fn awkward_texts_as_keys_and_values() {
    let texts = awkward();
    let pairs = texts.iter().cloned().zip(texts.iter().rev().cloned());
    round_trip(pairs.collect()).await;
    let options = texts
        .iter()
        .map(|text| (Some(text.clone()), Some(text.clone())))
        .chain([(None, None)]);
    round_trip(options.collect()).await;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Texts {
    plain: String,
    maybe: Option<String>,
    list: Vec<Option<String>>,
}

#[tokio::test]
async fn awkward_texts_in_fields() {
    let texts = awkward();
    let values = texts.iter().enumerate().map(|(n, text)| {
        let value = Texts {
            plain: text.clone(),
            maybe: (n % 5 > 0).then(|| text.clone()),
            list: vec![Some(text.clone()), None],
        };
        (n, value)
    });
    let table = round_trip(values.collect()).await;
    assert!(
        table.starts_with("key,plain,maybe,list\n0,,,\"[\"\"\"\",null]\"\n"),
        "{}",
        &table[..80]
    );
}

#[tokio::test]
async fn keys_are_sorted_by_their_text() {
    let entries = [10u32, 9, 2, 100].map(|n| (n, n * 2));
    assert_eq!(
        round_trip(entries.to_vec()).await,
        "key,value\n10,20\n100,200\n2,4\n9,18\n"
    );
}

#[tokio::test]
async fn numbers_keep_every_bit() {
    let floats = [
        0.0,
        -0.0,
        1.0,
        0.1,
        1.0 / 3.0,
        5e-324,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        1e16,
        1e17,
        1e-5,
        9.999e-6,
        9_007_199_254_740_993.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
        2.000_000_000_000_000_4,
    ];
    let bits = |float: f64| float.to_bits();
    let (_dir, path) = place();
    let map = open::<u64, f64>(&path).await;
    for float in floats {
        map.insert(bits(float), float).await.unwrap();
    }
    map.close().await.unwrap();
    let map = open::<u64, f64>(&path).await;
    assert_eq!(map.len(), floats.len());
    assert!(map.iter().all(|(key, float)| key == bits(float)));
    map.close().await.unwrap();

    // In lists, too.
    let list = floats
        .into_iter()
        .filter(|float| float.is_finite())
        .collect::<Vec<f64>>();
    round_trip(vec![("list".to_string(), list)]).await;
    round_trip(vec![(i64::MIN, u64::MAX), (i64::MAX, 0)]).await;
    round_trip(vec![(i128::MIN, u128::MAX), (0, 1)]).await;
    round_trip(vec![('x', f32::MIN_POSITIVE), ('"', 0.1), (',', 1e20)]).await;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Shape {
    Point,
    #[serde(rename = "{\"odd")]
    Odd,
    Circle(u32),
    Box {
        width: u32,
        name: Option<String>,
    },
    Pair(u8, i8),
}

fn shapes() -> Vec<Shape> {
    vec![
        Shape::Point,
        Shape::Odd,
        Shape::Circle(3),
        Shape::Box {
            width: 1,
            name: Some(String::new()),
        },
        Shape::Pair(1, -1),
    ]
}

#[tokio::test]
async fn enums_as_keys_values_and_fields() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Holder {
        shape: Shape,
        maybe: Option<Shape>,
    }
    let entries = shapes().into_iter().zip(shapes().into_iter().rev());
    let table = round_trip(entries.collect()).await;
    assert!(
        table.contains("\nPoint,\"{\"\"Pair\"\":[1,-1]}\"\n"),
        "{table}"
    );
    let holders = shapes().into_iter().enumerate().map(|(n, shape)| {
        let maybe = (n > 1).then(|| shape.clone());
        (n, Holder { shape, maybe })
    });
    round_trip(holders.collect()).await;
}

/// Types that look at the text to find out what they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(i64),
    Flag(bool),
    Text(String),
    List(Vec<i64>),
}

#[tokio::test]
async fn types_that_describe_themselves() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Holder {
        loose: Loose,
        count: u32,
    }

    let mut values = vec![Loose::Number(5), Loose::Flag(true), Loose::List(vec![1])];
    values.extend(awkward().into_iter().map(Loose::Text));
    let values: Vec<_> = values.into_iter().enumerate().collect();
    let table = round_trip(values.clone()).await;
    assert!(table.contains("\n0,5\n"), "{table}");

    let held = values
        .into_iter()
        .map(|(n, loose)| (n, Holder { loose, count: 1 }));
    round_trip(held.collect()).await;
}

#[tokio::test]
async fn everything_else_is_json() {
    #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Wrapper((u8, String));

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        id: u32,
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Only {
        value: u32,
    }

    let key = |n| Wrapper((n, "a,b".to_string()));
    let map = HashMap::from([("a".to_string(), 1u8), ("b".to_string(), 2)]);
    let set: HashSet<u32> = (0..50).collect();
    let table = round_trip(vec![(key(1), map.clone()), (key(2), map)]).await;
    assert!(
        table.starts_with("key,value\n\"[1,\"\"a,b\"\"]\",\"{\"\""),
        "{table}"
    );
    round_trip(vec![(1u8, set)]).await;
    round_trip(vec![(1u8, ()), (2, ())]).await;
    round_trip(vec![(true, Some(1u8)), (false, None)]).await;
    let rest = BTreeMap::from([("x".to_string(), 1)]);
    round_trip(vec![(1u8, Flattened { id: 1, rest })]).await;
    let table = round_trip(vec![(1u8, Only { value: 5 })]).await;
    assert_eq!(table, "key,value\n1,\"{\"\"value\"\":5}\"\n");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Skipping {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    name: String,
}

#[tokio::test]
async fn fields_that_are_left_out_keep_their_column() {
    let full = Skipping {
        tags: vec!["a".to_string()],
        note: Some(String::new()),
        name: "x".to_string(),
    };
    let empty = Skipping {
        tags: Vec::new(),
        note: None,
        name: String::new(),
    };
    let table = round_trip(vec![(1u8, empty.clone()), (2, full.clone())]).await;
    assert_eq!(
        table,
        "key,tags,note,name\n1,,,\n2,\"[\"\"a\"\"]\",\"\"\"\"\"\",x\n"
    );
}

#[tokio::test]
async fn what_would_not_come_back_is_refused() {
    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Wide {
        a: u8,
    }

    async fn refusal<V: Value + Debug>(value: V) -> String {
        let (dir, path) = place();
        let map = open::<u8, V>(&path).await;
        let error = map.insert(1, value).await.unwrap_err();
        assert!(
            matches!(error, PersistentError::Unstorable { .. }),
            "{error}"
        );
        assert!(map.is_empty());
        map.close().await.unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "only the lock"
        );
        error.to_string()
    }

    assert!(
        refusal(Some(None::<u8>))
            .await
            .contains("read back as 'None'")
    );
    assert!(refusal(Some(())).await.contains("read back as 'None'"));
    assert!(refusal(vec![Some(f64::NAN)]).await.contains("another one"));
    refusal(vec![f64::INFINITY]).await;

    let (_dir, path) = place();
    let map = open::<u8, String>(&path).await;
    let error = map.insert(1, "x".repeat((16 << 20) + 1)).await.unwrap_err();
    assert!(matches!(error, PersistentError::TooLarge { .. }), "{error}");
    map.insert(1, "\"".repeat((16 << 20) - 100)).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(open::<u8, String>(&path).await.len(), 1);

    fs::write(&path, "key,b\n1,2\n").unwrap();
    let error = PersistentMap::<u8, Wide, _>::new(CsvBackend::new(&path))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the column `a` is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn the_guard_against_formulas_is_seen_by_spreadsheets_only() {
    let (_dir, path) = place();
    let guarded = || CsvBackend::new(&path).guard_formulas(true);
    let entries = [("=a", "=1+1"), ("-1", "-5"), ("'=b", "+x"), ("c", "'@d")];

    let map = open::<String, String>(&path).await;
    for (key, value) in entries {
        map.insert(key.to_string(), value.to_string())
            .await
            .unwrap();
    }
    map.close().await.unwrap();
    let plain = "key,value\n''=b,+x\n-1,-5\n=a,=1+1\nc,''@d\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), plain);

    // With the guard, a checkpoint marks what is there already.
    let map = PersistentMap::<String, String, _>::new(guarded())
        .await
        .unwrap();
    map.insert("d".to_string(), "d".to_string()).await.unwrap();
    map.insert("=a".to_string(), "=2".to_string())
        .await
        .unwrap();
    map.close().await.unwrap();
    let marked = "key,value\n''=b,'+x\n-1,-5\n'=a,'=2\nc,''@d\nd,d\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), marked);

    // And without it the same is read.
    let map = open::<String, String>(&path).await;
    assert_eq!(map.get("=a").as_deref(), Some("=2"));
    assert_eq!(map.get("'=b").as_deref(), Some("+x"));
    assert_eq!(map.get("c").as_deref(), Some("'@d"));
    assert_eq!(map.len(), 5);
    map.close().await.unwrap();
}
