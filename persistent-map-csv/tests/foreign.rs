//! Tables that somebody else wrote: opened as they are, written in their own way, or refused with the line and what to
//! do about it.

use std::fs;
use std::path::{Path, PathBuf};

use persistent_map_core::{OnCorrupt, PersistentError, PersistentMap, Result, Value};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct City {
    name: String,
    country: Option<String>,
    lat: f64,
    people: Option<u32>,
}

type Cities = PersistentMap<String, City, CsvBackend>;

fn city(name: &str, country: Option<&str>, lat: f64, people: Option<u32>) -> City {
    City {
        name: name.to_string(),
        country: country.map(str::to_string),
        lat,
        people,
    }
}

fn file(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cities.csv");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn backend(path: &Path) -> CsvBackend {
    CsvBackend::new(path).key_column("code")
}

async fn open(path: &Path) -> Result<Cities> {
    PersistentMap::new(backend(path)).await
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

async fn assert_refused_by<V: Value>(backend: CsvBackend, path: &Path, words: &[&str]) {
    let open = PersistentMap::<String, V, _>::new(backend);
    let text = persistent_map_testkit::assert_refused(path, words, open).await;
    assert!(!text.contains("secret"), "a value is shown: {text}");
}

async fn assert_refused(contents: impl AsRef<[u8]>, words: &[&str]) {
    let (_dir, path) = file(contents);
    assert_refused_by::<City>(backend(&path), &path, words).await;
}

#[tokio::test]
async fn columns_may_be_in_any_order_and_written_in_any_way() {
    for contents in [
        "code,name,country,lat,people\nLHR,London,GB,51.5,\nOSL,\"Oslo, north\",,59.9,709037\n",
        "\u{feff}code;lat;name;people;country\r\nLHR;51.5;London;;GB\r\nOSL;59.9;Oslo, north;709037;\r\n",
        "\"lat\",\"people\",\"code\",\"country\",\"name\"\n\"51.5\",\"\",\"LHR\",\"GB\",\"London\"\n\n\"59.9\",\"709037.0\",\"OSL\",\"\",\"Oslo, north\"",
        "name\tcode\tcountry\tlat\tpeople\nLondon\tLHR\tGB\t51.5\t\nOslo, north\tOSL\t\t59.9\t709037\n",
        "code,name,country,lat,people\rOSL,\"Oslo, north\",,59.9,709037\rLHR,London,GB,51.5,\r",
    ] {
        let (dir, path) = file(contents);
        let map = open(&path).await.unwrap();
        assert_eq!(map.len(), 2, "{contents}");
        assert_eq!(map.get("LHR"), Some(city("London", Some("GB"), 51.5, None)));
        assert_eq!(
            map.get("OSL"),
            Some(city("Oslo, north", None, 59.9, Some(709_037)))
        );
        map.flush().await.unwrap();
        assert_eq!(text(&path), contents, "a flush without a change changed it");

        // It is written as it was found: separator, line ends, columns, byte order mark, unchanged rows.
        let changed = city("Oslo", None, 59.9, Some(1));
        map.insert("OSL".to_string(), changed.clone())
            .await
            .unwrap();
        map.insert("AMS".to_string(), changed.clone())
            .await
            .unwrap();
        map.close().await.unwrap();
        let written = text(&path);
        assert!(written.starts_with(contents.lines().next().unwrap().split('\r').next().unwrap()));
        let london = contents
            .split(['\n', '\r'])
            .find(|line| line.contains("LHR"))
            .unwrap();
        assert!(written.contains(london), "{written}");
        let map = open(&path).await.unwrap();
        assert_eq!(map.len(), 3);
        assert_eq!(map.get("OSL"), Some(changed));
        map.close().await.unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["cities.csv", "cities.csv.lock"]);
    }
}

#[tokio::test]
async fn a_change_of_one_row_is_a_change_of_one_line() {
    let contents = "code;name;country;lat;people\r\nA;\"a\";;1;\r\nB;b;;2.0;\r\nC;c;;3;\r\n";
    let (_dir, path) = file(contents);
    let map = open(&path).await.unwrap();
    map.insert("B".to_string(), city("b", None, 2.5, None))
        .await
        .unwrap();
    map.remove("C").await.unwrap();
    map.flush().await.unwrap();
    let expected = contents.replace("2.0", "2.5").replace("C;c;;3;\r\n", "");
    assert_eq!(text(&path), expected);
    map.close().await.unwrap();
}

#[tokio::test]
async fn rows_out_of_order_are_sorted_when_the_table_is_written() {
    let (_dir, path) = file("code,name,country,lat,people\nC,\"c\",,3,\nA,a,,1,\n\nB,b,,2,\n");
    let map = open(&path).await.unwrap();
    map.insert("D".to_string(), city("d", None, 4.0, None))
        .await
        .unwrap();
    map.close().await.unwrap();
    assert_eq!(
        text(&path),
        "code,name,country,lat,people\nA,a,,1,\nB,b,,2,\nC,\"c\",,3,\nD,d,,4,\n"
    );
}

#[tokio::test]
async fn other_columns_are_kept_or_refused() {
    let contents = "mine,code,name,country,lat,people,\nx,A,a,,1,,\n\"y,z\",B,b,,2,,\n";
    let (_dir, path) = file(contents);
    assert_refused_by::<City>(
        backend(&path).keep_extra_columns(false),
        &path,
        &["line 1", "column `mine`", "keep_extra_columns(true)"],
    )
    .await;
    let map = open(&path).await.unwrap();
    map.insert("B".to_string(), city("bee", None, 2.0, None))
        .await
        .unwrap();
    map.insert("C".to_string(), city("c", None, 3.0, None))
        .await
        .unwrap();
    map.close().await.unwrap();
    let expected = contents.replace("B,b", "B,bee") + ",C,c,,3,,\n";
    assert_eq!(text(&path), expected);
}

#[tokio::test]
async fn a_table_with_a_header_only_takes_the_columns_that_it_lacks() {
    let (_dir, path) = file("note;code;name");
    let map = open(&path).await.unwrap();
    map.insert("A".to_string(), city("a", None, 1.0, None))
        .await
        .unwrap();
    map.close().await.unwrap();
    assert_eq!(text(&path), "note;code;name;country;lat;people\n;A;a;;1;\n");
    assert_eq!(open(&path).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_struct_may_hold_its_key() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Coded {
        name: String,
        code: String,
    }
    let (_dir, path) = file("code,name\nA,a\n");
    let map = PersistentMap::<String, Coded, _>::new(backend(&path))
        .await
        .unwrap();
    let coded = |code: &str| Coded {
        name: "b".to_string(),
        code: code.to_string(),
    };
    assert_eq!(map.get("A").unwrap().code, "A");
    map.insert("B".to_string(), coded("B")).await.unwrap();
    let error = map.insert("C".to_string(), coded("D")).await.unwrap_err();
    assert!(
        error.to_string().contains("differs from the key"),
        "{error}"
    );
    map.close().await.unwrap();
    assert_eq!(text(&path), "code,name\nA,a\nB,b\n");
}

#[tokio::test]
async fn a_table_edited_by_hand_between_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cities.csv");
    let map = open(&path).await.unwrap();
    for code in ["A", "B", "C"] {
        map.insert(code.to_string(), city(code, Some(""), 1.0, None))
            .await
            .unwrap();
    }
    map.close().await.unwrap();
    let before = "code,name,country,lat,people\nA,A,\"\"\"\"\"\",1,\nB,B,\"\"\"\"\"\",1,\nC,C,\"\"\"\"\"\",1,\n";
    assert_eq!(text(&path), before);

    let edited = before.replace("B,B,\"\"\"\"\"\",1,\n", "") + "0,first,,0.5,12\n";
    fs::write(&path, edited).unwrap();
    let map = open(&path).await.unwrap();
    assert_eq!(map.len(), 3);
    assert_eq!(map.get("0"), Some(city("first", None, 0.5, Some(12))));
    assert_eq!(map.get("A"), Some(city("A", Some(""), 1.0, None)));
    map.close().await.unwrap();
}

#[tokio::test]
async fn faults_of_the_header() {
    assert_refused("", &["an empty file", "delete it"]).await;
    assert_refused(
        "id,name\n1,secret\n",
        &["line 1", "no column `code`", "`id`, `name`", "key_column"],
    )
    .await;
    let utf16: Vec<u8> = "code,name\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_refused(
        [&[0xff, 0xfe], &utf16[..]].concat(),
        &["UTF-16", "CSV UTF-8"],
    )
    .await;
    assert_refused(&utf16, &["UTF-16", "CSV UTF-8"]).await;
    assert_refused(
        "code,name,country,people\nA,secret,,\n",
        &[
            "line 1",
            "column `lat` is missing",
            "add the column",
            "migrate",
        ],
    )
    .await;
    // A column that is an `Option` must be there as well: it may be a misspelt one.
    assert_refused(
        "code,name,contry,lat,people\nA,secret,,1,\n",
        &["line 1", "column `country` is missing"],
    )
    .await;
    assert_refused("code,name,name\nA,b,c\n", &["line 1", "two columns `name`"]).await;
    assert_refused("code\nA\n", &["line 1", "no column beside"]).await;
    assert_refused(
        b"code,n\xe4me\nA,b\n",
        &["line 1", "not UTF-8", "CSV UTF-8"],
    )
    .await;

    assert_refused(
        b"SQLite format 3\0and so on",
        &["a SQLite database", "SqliteBackend"],
    )
    .await;
    // What a terminal would obey is shown, not sent to it.
    let colour = "\u{1b}[31m";
    for header in [
        format!("id,{colour}\n1,a\n"),
        format!("code,{colour},{colour}\nA,b,c\n"),
        format!("code,{colour}\nA,b\n"),
    ] {
        let (_dir, path) = file(header);
        let open = open(&path);
        let text = persistent_map_testkit::assert_refused(&path, &["\\u{1b}[31m"], open).await;
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    let (_dir, path) = file("x".repeat(1000) + &",y".repeat(1000) + "\n");
    let open = open(&path);
    let text =
        persistent_map_testkit::assert_refused(&path, &["line 1", "`y`", "more"], open).await;
    assert!(text.len() < 1000, "{text}");

    let (_dir, path) = file("code,name\nA,secret\n");
    assert_refused_by::<u64>(backend(&path), &path, &["line 1", "no column `value`"]).await;
}

#[tokio::test]
async fn faults_of_rows() {
    const HEADER: &str = "code,name,country,lat,people\nA,\"two\nlines\",,1,\n";
    let with = |rows: &str| format!("{HEADER}{rows}");
    for (rows, words) in [
        (
            "B,secret,,x1,\n",
            &["line 4", "\"B\"", "column `lat`", "a number (f64)"][..],
        ),
        (
            "B,secret,,\"1,5\",\n",
            &["line 4", "column `lat`", "a comma", "decimal(',')"],
        ),
        (
            "B,secret,,1,-3\n",
            &["line 4", "column `people`", "whole number (u32)"],
        ),
        (
            "B,secret,,1,\nC,c,,,\n",
            &["line 5", "\"C\"", "column `lat`"],
        ),
        (
            "B,secret,,1\n",
            &["line 4", "expected 5 cells", "found 4", "Complete the row"],
        ),
        ("B,secr", &["line 4", "expected 5 cells", "found 2"]),
        (
            "B,b,secret,here,1,\n",
            &["line 4", "expected 5 cells", "found 6"],
        ),
        (
            "B,b,,1,\nA,secret,,1,\n",
            &["line 5", "column `code`", "the key is that of line 2"],
        ),
        (
            "A,b,,1,\n",
            &["line 4", "the key is that of line 2", "Remove one"],
        ),
        (
            "B,\"secret\n\nC,c,,1,\n",
            &["line 4", "quotation mark opens", "complete the row"],
        ),
        (
            "B,\"secret\"x,,1,\n",
            &["line 4", "after the quotation mark"],
        ),
    ] {
        assert_refused(with(rows), words).await;
    }
    assert_refused(
        [HEADER.as_bytes(), b"B,Z\xfcrich,,1,\n"].concat(),
        &["line 4", "column `name`", "UTF-8"],
    )
    .await;
}

#[tokio::test]
async fn a_row_without_end_is_not_read_into_memory() {
    let (_dir, path) = file("code,name,country,lat,people\nA,\"");
    let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    let error = open(&path).await.unwrap_err().to_string();
    assert!(
        error.contains("line 2: the row is longer than 40 MiB"),
        "{error}"
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
}

#[tokio::test]
async fn keys_in_another_form_than_the_map_writes() {
    let (_dir, path) = file("key,value\n007,secret\n");
    let error = PersistentMap::<u64, String, _>::new(CsvBackend::new(&path))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("use `String`"), "{error}");
    let map = PersistentMap::<String, String, _>::new(CsvBackend::new(&path))
        .await
        .unwrap();
    assert!(map.contains_key("007"));
    map.close().await.unwrap();
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_set_aside_on_demand() {
    let contents = "code,name,country,lat,people\nA,a,,1,\nB,b,,north,\nC,c\nD,d,,4,\n";
    let (_dir, path) = file(contents);
    let (map, report) = PersistentMap::<String, City, _>::builder(backend(&path))
        .on_corrupt(OnCorrupt::Quarantine)
        .open_with_report()
        .await
        .unwrap();
    let lines: Vec<u64> = report.quarantined.iter().map(|row| row.row).collect();
    assert_eq!((map.len(), lines), (2, vec![3, 4]));
    map.close().await.unwrap();
    assert_eq!(
        text(&path),
        "code,name,country,lat,people\nA,a,,1,\nD,d,,4,\n"
    );
    let aside = path.with_file_name("cities.csv.quarantine.csv");
    assert_eq!(
        text(&aside),
        "code,name,country,lat,people\nB,b,,north,\nC,c\n"
    );
    assert_eq!(open(&path).await.unwrap().len(), 2);
}

/// The first stays, or the last; the others are kept, and told with their lines. Also beside a row that cannot be read.
#[tokio::test]
async fn rows_of_one_key_are_set_aside_but_one() {
    const ROWS: &str = "B,b1,,1,\nA,a1,,1,\nB,b2,,2,\nA,a2,,north,\nC,c,,3,\nB,b3,,3,\n";
    for (last, b, lines, aside) in [
        (false, "b1", [4, 5, 7], "B,b2,,2,\nA,a2,,north,\nB,b3,,3,\n"),
        (true, "b3", [2, 4, 5], "B,b1,,1,\nB,b2,,2,\nA,a2,,north,\n"),
    ] {
        let (_dir, path) = file(format!("code,name,country,lat,people\n{ROWS}"));
        let open = || {
            PersistentMap::<String, City, _>::builder(backend(&path).keep_last_duplicate(last))
                .on_corrupt(OnCorrupt::Quarantine)
                .open_with_report()
        };
        let (map, report) = open().await.unwrap();
        let told: Vec<u64> = report.quarantined.iter().map(|row| row.row).collect();
        assert_eq!(told, lines, "{last}");
        let reason = format!("the key is that of line {}", if last { 7 } else { 2 });
        let first = report.quarantined[0].to_string();
        assert!(first.contains(&reason), "{first}");
        assert_eq!((map.len(), map.get("A").unwrap().name.as_str()), (3, "a1"));
        assert_eq!(map.get("B").unwrap().name, b);
        map.verify().await.unwrap();
        map.close().await.unwrap();
        let number = if last { 3 } else { 1 };
        assert_eq!(
            text(&path),
            format!("code,name,country,lat,people\nA,a1,,1,\nB,{b},,{number},\nC,c,,3,\n")
        );
        let set_aside = text(&path.with_file_name("cities.csv.quarantine.csv"));
        assert_eq!(set_aside, format!("code,name,country,lat,people\n{aside}"));
        let (map, report) = open().await.unwrap();
        assert_eq!((map.len(), report.quarantined.len()), (3, 0));
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn one_owner() {
    let (_dir, path) = file("code,name,country,lat,people\nA,a,,1,\n");
    let map = open(&path).await.unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, PersistentError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("this very process"), "{error}");
    map.close().await.unwrap();
    open(&path).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_changed_while_it_is_open_is_not_overwritten() {
    let (_dir, path) = file("code,name,country,lat,people\nA,a,,1,\n");
    let map = open(&path).await.unwrap();
    map.insert("B".to_string(), city("b", None, 2.0, None))
        .await
        .unwrap();
    let edited = "code,name,country,lat,people\nA,edited,,1,\n";
    fs::write(&path, edited).unwrap();
    for _ in 0..2 {
        let error = map.flush().await.unwrap_err();
        assert!(
            error.to_string().contains("changed by somebody else"),
            "{error}"
        );
    }
    assert_eq!(text(&path), edited);
    map.insert("C".to_string(), city("c", None, 3.0, None))
        .await
        .unwrap();
    assert!(map.close().await.is_err());

    // The same as after a crash: nothing is mixed in silence.
    let error = open(&path).await.unwrap_err();
    assert!(
        error.to_string().contains("replay_onto_edited_table"),
        "{error}"
    );
    assert_eq!(text(&path), edited);
    let map = PersistentMap::<String, City, _>::new(backend(&path).replay_onto_edited_table(true))
        .await
        .unwrap();
    map.close().await.unwrap();
    assert_eq!(text(&path), format!("{edited}B,b,,2,\nC,c,,3,\n"));
}

#[cfg(unix)] // Links and modes are what other systems do not have.
#[tokio::test]
async fn links_and_modes() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let (dir, path) = file("code,name,country,lat,people\nA,a,,1,\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = dir.path().join("link.csv");
    symlink(&path, &link).unwrap();
    let map = open(&link).await.unwrap();
    assert!(matches!(
        open(&path).await,
        Err(PersistentError::InUse { .. })
    ));
    map.insert("B".to_string(), city("b", None, 2.0, None))
        .await
        .unwrap();
    map.close().await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(text(&path).ends_with("B,b,,2,\n"));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );

    let other = dir.path().join("other.csv");
    fs::hard_link(&path, &other).unwrap();
    assert_refused_by::<City>(backend(&other), &other, &["2 names", "hard links"]).await;

    let directory = dir.path().join("directory");
    fs::create_dir(&directory).unwrap();
    assert_refused_by::<City>(backend(&directory), &directory, &["it is a directory"]).await;
}
