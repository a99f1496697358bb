//! Tables as people and their programs write them: opened by default or by an option, written back in the same way, or
//! refused with the line and the one thing to do. A wrong value is never read.

use std::fs;
use std::path::PathBuf;

use persistent_map_core::{Key, PersistentMap, Value};
use persistent_map_csv::CsvBackend;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    price: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counted {
    name: String,
    count: Option<u32>,
}

fn item(price: f64) -> Item {
    Item {
        name: "Lamp".to_string(),
        price,
    }
}

struct Table {
    _dir: TempDir,
    path: PathBuf,
}

impl Table {
    fn new(contents: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        fs::write(&path, contents).unwrap();
        Table { _dir: dir, path }
    }

    fn backend(&self) -> CsvBackend {
        CsvBackend::new(&self.path).key_column("id")
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

/// Opens a table, changes the entry `A1`, and compares what is written.
async fn assert_written<V: Value + PartialEq + std::fmt::Debug>(
    contents: &str,
    set: impl Fn(CsvBackend) -> CsvBackend,
    found: V,
    changed: V,
    expected: &str,
) {
    let table = Table::new(contents);
    let map = PersistentMap::<String, V, _>::new(set(table.backend()))
        .await
        .unwrap();
    assert_eq!(map.get("A1"), Some(found), "{contents}");
    map.flush().await.unwrap();
    assert_eq!(
        table.text(),
        contents,
        "a flush without a change changed it"
    );
    map.insert("A1".to_string(), changed.clone()).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(table.text(), expected);
    let map = PersistentMap::<String, V, _>::new(set(table.backend()))
        .await
        .unwrap();
    assert_eq!(map.get("A1"), Some(changed));
    map.close().await.unwrap();
}

async fn assert_refused<K: Key, V: Value>(contents: impl AsRef<[u8]>, words: &[&str]) {
    let table = Table::new(contents);
    let open = PersistentMap::<K, V, _>::new(table.backend());
    let text = persistent_map_testkit::assert_refused(&table.path, words, open).await;
    assert!(!text.contains("secret"), "a value is shown: {text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn what_a_header_says_by_itself_needs_no_option() {
    for (before, after) in [
        (
            "sep=;\r\nid;name;price\r\nA1;Lamp;9.5\r\n\"B2\";Lamp;20\r\n",
            "sep=;\r\nid;name;price\r\nA1;Lamp;7\r\n\"B2\";Lamp;20\r\n",
        ),
        (
            "\u{feff}sep=|\nid|name|price\nA1|Lamp|9.5\n",
            "\u{feff}sep=|\nid|name|price\nA1|Lamp|7\n",
        ),
        ("id|name|price\nA1|Lamp|9.5\n", "id|name|price\nA1|Lamp|7\n"),
        (
            "id\tname\tprice\nA1\tLamp\t9.5\n",
            "id\tname\tprice\nA1\tLamp\t7\n",
        ),
        (
            "id , name,\u{a0}price\nA1,Lamp, 9.5 \n",
            "id , name,\u{a0}price\nA1,Lamp,7\n",
        ),
        (
            "id,name,price,,\nA1,Lamp,9.5,x,y\n",
            "id,name,price,,\nA1,Lamp,7,x,y\n",
        ),
        // Two columns of one name that are no fields.
        (
            "id,name,price,note,note\nA1,Lamp,9.5,x,y\n",
            "id,name,price,note,note\nA1,Lamp,7,x,y\n",
        ),
        (
            "\n\nid,name,price\nA1,Lamp,9.5\n",
            "\n\nid,name,price\nA1,Lamp,7\n",
        ),
        // The end mark of old programs of DOS stays at the end.
        (
            "id,name,price\r\nA1,Lamp,9.5\r\n\u{1a}",
            "id,name,price\r\nA1,Lamp,7\r\n\u{1a}",
        ),
        (
            "id,name,price\nA1,Lamp,+9.50\n",
            "id,name,price\nA1,Lamp,7\n",
        ),
    ] {
        assert_written(before, |backend| backend, item(9.5), item(7.0), after).await;
    }
    let minus = "id,name,price\nA1,Lamp,\u{2212}5\n";
    let after = "id,name,price\nA1,Lamp,7\n";
    assert_written(minus, |backend| backend, item(-5.0), item(7.0), after).await;
}

#[tokio::test]
async fn options_for_what_a_table_does_not_say() {
    assert_written(
        "id;name;price\nA1;Lamp;9,5\nB2;Lamp;1,50\n",
        |backend| backend.decimal(','),
        item(9.5),
        item(-7.25),
        "id;name;price\nA1;Lamp;-7,25\nB2;Lamp;1,50\n",
    )
    .await;
    assert_written(
        "# by \"us\n\nid,name,price\n# \"the first\nA1,Lamp,9.5\n#B2\nB2,Lamp,1\n# the end\n",
        |backend| backend.comments('#'),
        item(9.5),
        item(7.0),
        "# by \"us\n\nid,name,price\n# \"the first\nA1,Lamp,7\n#B2\nB2,Lamp,1\n# the end\n",
    )
    .await;
    assert_written(
        "Prices; in euros\r\n\r\nid,name,price\r\nA1,Lamp,9.5\r\n",
        |backend| backend.title_lines(true),
        item(9.5),
        item(7.0),
        "Prices; in euros\r\n\r\nid,name,price\r\nA1,Lamp,7\r\n",
    )
    .await;
    assert_written(
        "id^name^price\nA1^Lamp^9.5\n",
        |backend| backend.separator('^'),
        item(9.5),
        item(7.0),
        "id^name^price\nA1^Lamp^7\n",
    )
    .await;
    let counted = |count| Counted {
        name: "NA".to_string(),
        count,
    };
    for word in ["NA", "NULL", "\\N", "-"] {
        assert_written(
            &format!("id,name,count\nA1,NA,{word}\nB2,,\n"),
            |backend| backend.null_words([word, "?"]),
            counted(None),
            counted(Some(1)),
            "id,name,count\nA1,NA,1\nB2,,\n",
        )
        .await;
    }
    assert_written(
        "id,name,count\nA1,NA\nB2,x,,,\n",
        |backend| backend.uneven_rows(true),
        counted(None),
        counted(Some(1)),
        "id,name,count\nA1,NA,1\nB2,x,,,\n",
    )
    .await;
    for (yes, no) in [("yes", "no"), ("1", "0"), ("WAHR", "FALSCH")] {
        let table = |word: &str| format!("id,value\nA1,{word}\n");
        let set = |backend: CsvBackend| backend.bool_words(yes, no);
        assert_written(&table(yes), set, true, false, &table(no)).await;
    }
    let spaces = "id,value\nA1, \n";
    let after = "id,value\nA1,3\n";
    assert_written(spaces, |backend| backend, None, Some(3_u32), after).await;
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let table = Table::new("id,value\nA1,1\n");
    for backend in [
        table.backend().decimal('x'),
        table.backend().separator('ß'),
        table.backend().separator('"'),
        table.backend().comments('\n'),
        table.backend().separator(';').comments(';'),
        table.backend().comments(','),
    ] {
        let error = PersistentMap::<String, u8, _>::new(backend)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("cannot be its"), "{error}");
    }
}

/// A row whose first cell is empty would be a comment.
#[tokio::test]
async fn what_begins_a_comment_separates_no_cells() {
    for text in ["id;value\nA1;1\n;2\n", "sep=;\nid;value\nA1;1\n;2\n"] {
        let table = Table::new(text);
        let opened = PersistentMap::<String, u8, _>::new(table.backend().comments(';')).await;
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("there is no column `id`"), "{error}");
        assert!(!error.contains("title_lines"), "{error}");
    }
}

#[tokio::test]
async fn new_tables_for_spreadsheets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.csv");
    let backend = || CsvBackend::new(&path).separator(';').bom(true).decimal(',');
    let map = PersistentMap::new(backend()).await.unwrap();
    map.insert("Köln".to_string(), item(9.5)).await.unwrap();
    map.close().await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "\u{feff}key;name;price\nKöln;Lamp;9,5\n");
    let map = PersistentMap::<String, Item, _>::new(backend())
        .await
        .unwrap();
    assert_eq!(map.get("Köln"), Some(item(9.5)));
    map.close().await.unwrap();
}

#[tokio::test]
async fn empty_rows_are_counted_and_left_out_when_the_table_is_written() {
    let table = Table::new("id,name,count\nA1,a,1\n,,\nB2,b,2\n,,\n,,,\n");
    let builder = PersistentMap::<String, Counted, _>::builder(table.backend());
    let (map, report) = builder.open_with_report().await.unwrap();
    assert_eq!((map.len(), report.empty_rows), (2, 3));
    assert!(report.quarantined.is_empty());
    map.remove("B2").await.unwrap();
    map.close().await.unwrap();
    assert_eq!(table.text(), "id,name,count\nA1,a,1\n");

    let table = Table::new("id,value\n1,a\n,\n");
    let map = PersistentMap::<u64, String, _>::new(table.backend())
        .await
        .unwrap();
    assert_eq!(map.len(), 1);
    map.close().await.unwrap();
}

/// Entries of ours that look like what is skipped or refused in the tables of others.
#[tokio::test]
async fn our_own_rows_are_never_taken_for_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.csv");
    let backend = || CsvBackend::new(&path).comments('#');
    let map = PersistentMap::<String, String, _>::new(backend())
        .await
        .unwrap();
    let entries = [
        ("", ""),
        ("key", "value"),
        ("#a", "b"),
        ("\u{1a}", ""),
        ("\u{feff}key", "value"),
    ];
    for (key, value) in entries {
        map.insert(key.to_string(), value.to_string())
            .await
            .unwrap();
    }
    map.close().await.unwrap();
    for _ in 0..2 {
        let map = PersistentMap::<String, String, _>::new(backend())
            .await
            .unwrap();
        assert_eq!(map.len(), entries.len());
        for (key, value) in entries {
            assert_eq!(map.get(key).as_deref(), Some(value));
        }
        map.insert("z".to_string(), String::new()).await.unwrap();
        map.remove("z").await.unwrap();
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn headers_that_are_nearly_right_are_recognised() {
    for (header, words) in [
        (
            "ID,name,price",
            &[
                "line 1",
                "Did you mean the column `ID`",
                "key_column(\"ID\")",
            ][..],
        ),
        (
            "\u{feff}\u{feff}id,name,price",
            &["`\\u{feff}id`", "cannot be seen"],
        ),
        (
            "i\u{200b}d,name,price",
            &["`i\\u{200b}d`", "cannot be seen"],
        ),
        (
            "id,Name,price",
            &["`name` is missing", "Did you mean `Name`"],
        ),
        (
            "id,na\u{200b}me,price",
            &["`na\\u{200b}me`", "cannot be seen"],
        ),
        ("id,name,name,price", &["line 1", "two columns `name`"]),
        ("id,id,name,price", &["line 1", "two columns `id`"]),
        ("id:name:price", &["separator(':')"]),
        ("# x\nid,name,price", &["Line 2 has it", "comments('#')"]),
        (
            "Prices\n\nid,name,price",
            &["Line 3 has it", "title_lines(true)"],
        ),
        (
            ",name,price",
            &["first column has no name", "key_column(\"\")"],
        ),
    ] {
        let cells = match header
            .split(['\n'])
            .next_back()
            .unwrap()
            .matches(',')
            .count()
        {
            3 => "A1,x,x,1\n",
            _ => "A1,x,1\n",
        };
        assert_refused::<String, Item>(format!("{header}\n{cells}"), words).await;
    }
}

#[tokio::test]
async fn files_that_are_no_tables_are_named() {
    for (contents, words) in [
        (
            &b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20\0\0"[..],
            &["SQLite database", "SqliteBackend"][..],
        ),
        (b"\x1f\x8b\x08\0\0\0", &["gzip", "gunzip"]),
        (b"PK\x03\x04\x14\0xl/workbook.xml", &["Excel", "CSV UTF-8"]),
        (b"PK\x03\x04\x14\0a.csv", &["zip", "Unpack"]),
        (b"%PDF-1.7\n%\xe2\xe3", &["PDF", "Export"]),
        (b"<!DOCTYPE html>\n<html>", &["web page"]),
        (b"{\"a\": 1}\n", &["JSON"]),
        (
            b"\xff\xfei\0d\0,\0",
            &[
                "UTF-16",
                "iconv -f UTF-16 -t UTF-8 table.csv > table-utf8.csv",
            ],
        ),
        (b"i\0d\0,\0n\0", &["UTF-16LE", "iconv"]),
        (b"\0\0\0\0\0\0", &["not text"]),
        (
            b"id,name,price\nK\xf6ln,x,1\n",
            &["line 2", "column `id`", "iconv -f WINDOWS-1252"],
        ),
    ] {
        assert_refused::<String, Item>(contents, words).await;
    }
}

#[tokio::test]
async fn cells_that_could_be_something_else_are_refused_with_what_to_do() {
    for (cell, words) in [
        ("\"1,234\"", &["a comma", "thousands", "decimal(',')"][..]),
        ("\"1.234,56\"", &["Remove the points", "decimal(',')"]),
        ("\"1,234.56\"", &["Remove the signs that group"]),
        ("1 234", &["Remove the signs that group"]),
        ("1\u{a0}234", &["Remove the signs that group"]),
        ("1'234", &["Remove the signs that group"]),
        ("$9.50", &["other signs", "header"]),
        ("9.50 EUR", &["other signs"]),
        ("5%", &["percentage"]),
        ("(12.00)", &["parentheses", "`-` before it"]),
        ("0x10", &["hexadecimal"]),
        ("NA", &["found `NA`", "Option", "null_words([\"NA\"])"]),
        ("\\N", &["null_words"]),
        ("#REF!", &["formula"]),
        ("", &["empty", "Option"]),
        ("  ", &["empty", "Option"]),
        ("007", &["zero before it", "leading_zeros(true)"]),
        ("1e400", &["out of its range"]),
        ("1e-400", &["out of its range"]),
        ("secret", &["a number (f64)"]),
    ] {
        let words = [&["line 2", "\"Köln\"", "column `price`"], words].concat();
        assert_refused::<String, Item>(format!("id,name,price\nKöln,x,{cell}\n"), &words).await;
    }
    for (cell, words) in [
        ("1.23457E+17", &["exponent", "rounded"][..]),
        ("12345678901234567.0", &["large", "float"]),
        ("12.000", &["thousand"]),
        ("1.5", &["fraction", "f64"]),
        ("99999999999999999999999", &["range"]),
        ("02134", &["zero before it", "`String`"]),
        ("-1", &["range"]),
    ] {
        assert_refused::<String, u64>(
            format!("id,value\nA1,{cell}\n"),
            &[&["line 2"], words].concat(),
        )
        .await;
    }
    for (cell, words) in [
        ("yes", "bool_words(\"yes\", \"no\")"),
        ("FALSCH", "bool_words(\"WAHR\", \"FALSCH\")"),
        ("0", "bool_words(\"1\", \"0\")"),
    ] {
        assert_refused::<String, bool>(format!("id,value\nA1,{cell}\n"), &[words]).await;
    }
    assert_refused::<u64, String>(
        "id,value\n1.23457E+17,secret\n",
        &["line 2", "column `id`", "rounded"],
    )
    .await;
}

#[tokio::test]
async fn rows_of_another_form_are_refused_with_what_to_do() {
    for (rows, words) in [
        (
            "A1,x,1\nid,name,price\nB2,y,2\n",
            &["line 3", "header once more"][..],
        ),
        (
            "A1,x,1\n\u{feff}id,name,price\nB2,y,2\n",
            &["line 3", "header once more"],
        ),
        ("A1,\"x\ny\",1\nB2,y,secret\n", &["line 4"]),
        ("A1,x,1,\n", &["line 2", "uneven_rows(true)"]),
        (
            "A1,x\nB2,y,2\n",
            &["line 2", "found 2", "uneven_rows(true)"],
        ),
        ("A1,x,1\nB2,y", &["line 3", "cut off"]),
        ("A1,x,1\n(1 row)\n", &["line 3", "psql"]),
        ("A1,'x, y',1\n", &["line 2", "not into `'`"]),
        ("A1,x\rsecret,1\n", &["line 2", "carriage return"]),
        ("A1,\"x \\\"y\\\"\",1\n", &["line 2", "backslash"]),
        (
            "A1, \"x, y\",1\n",
            &["line 2", "spaces before the quotation mark"],
        ),
        ("A1,x,1\n# note\n", &["line 3", "comments('#')"]),
    ] {
        assert_refused::<String, Item>(format!("id,name,price\n{rows}"), words).await;
    }
    // With the option, too, a last row that may have been cut is none.
    let table = Table::new("id,name,count\nA1,x");
    let open = PersistentMap::<String, Counted, _>::new(table.backend().uneven_rows(true));
    persistent_map_testkit::assert_refused(&table.path, &["line 2", "cut off"], open).await;
}

#[tokio::test]
async fn variants_in_another_case_are_recognised() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Level {
        Low,
        High,
    }
    assert_refused::<String, Level>(
        "id,value\nA1,high\n",
        &["`Low`, `High`", "Did you mean `High`"],
    )
    .await;
}

#[tokio::test]
async fn an_entry_that_became_json_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let map = PersistentMap::<u8, Vec<u8>, _>::new(CsvBackend::new(dir.path().join("t.csv")))
        .await
        .unwrap();
    let error = map
        .insert(1, vec![200; 4 << 20])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("JSON") && error.contains("16777216"),
        "{error}"
    );
    map.close().await.unwrap();
}

/// Comments stay with their rows wherever a piece of the file ends, and lines are counted over it.
#[tokio::test]
async fn comments_and_lines_across_pieces() {
    let rows = (0..20_000).map(|n| format!("# of {n:05}, \"\nK{n:05},\"a\nb\"\n"));
    let contents: String = ["id,value\n".to_string()].into_iter().chain(rows).collect();
    let table = Table::new(&contents);
    let set = |table: &Table| table.backend().comments('#');
    let map = PersistentMap::<String, String, _>::new(set(&table))
        .await
        .unwrap();
    assert_eq!(map.len(), 20_000);
    map.insert("K10000".to_string(), "c".to_string())
        .await
        .unwrap();
    map.close().await.unwrap();
    assert_eq!(
        table.text(),
        contents.replace("K10000,\"a\nb\"", "K10000,c")
    );

    let table = Table::new(contents + "K19999,x\n");
    let open = PersistentMap::<String, String, _>::new(set(&table));
    let last = ["line 60002", "that of line 60000, too"];
    persistent_map_testkit::assert_refused(&table.path, &last, open).await;
}
