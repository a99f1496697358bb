//! Files that are no tables: what they are, and what to do with them.

/// What a file is by its first bytes, and what to do about it. No table begins like this.
pub(super) fn binary(head: &[u8]) -> Option<(&'static str, &'static str)> {
    const SAVE: &str = "Open it in a spreadsheet, and save the sheet as \"CSV UTF-8\"";
    const UNPACK: &str = "Unpack it, and name the table that comes out";
    let is = |start: &[u8]| head.starts_with(start);
    Some(if is(b"SQLite format 3\0") {
        (
            "it is a SQLite database",
            "Open it with `SqliteBackend`, or name another file",
        )
    } else if is(b"PK\x03\x04") {
        let has = |name: &[u8]| head.windows(name.len()).any(|part| part == name);
        if has(b"xl/") || has(b"[Content_Types].xml") {
            ("it is an Excel workbook (xlsx)", SAVE)
        } else if has(b"opendocument.spreadsheet") {
            ("it is an OpenDocument spreadsheet (ods)", SAVE)
        } else {
            ("it is a zip archive", UNPACK)
        }
    } else if is(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        ("it is an old Excel workbook (xls)", SAVE)
    } else if is(b"\x1f\x8b") {
        (
            "it is compressed with gzip",
            "Unpack it (`gunzip`), and name the table that comes out",
        )
    } else if is(b"\x28\xb5\x2f\xfd") {
        (
            "it is compressed with zstd",
            "Unpack it (`unzstd`), and name the table that comes out",
        )
    } else if is(b"BZh") && head.get(4..10) == Some(b"\x31\x41\x59\x26\x53\x59") {
        (
            "it is compressed with bzip2",
            "Unpack it (`bunzip2`), and name the table that comes out",
        )
    } else if is(b"\xfd7zXZ\0") {
        (
            "it is compressed with xz",
            "Unpack it (`unxz`), and name the table that comes out",
        )
    } else if is(b"7z\xbc\xaf\x27\x1c") {
        ("it is a 7z archive", UNPACK)
    } else if is(b"%PDF-") {
        (
            "it is a PDF document",
            "Export the table as CSV from the program that made the document",
        )
    } else if is(b"PAR1") || is(b"ARROW1\0\0") {
        (
            "it is a Parquet or Arrow file",
            "Write the table as CSV with the program that made it (pandas: `to_csv`)",
        )
    } else {
        return None;
    })
}

/// The same for texts. A header could begin like this, so only a file without one is asked.
pub(super) fn text(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = &head[..head.len().min(512)];
    let start = String::from_utf8_lossy(start).to_ascii_lowercase();
    let start = start.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let is = |begin: &str| start.starts_with(begin);
    Some(if is("<!doctype html") || is("<html") || is("<head") {
        (
            "it is a web page",
            "The address of the download gave a page (an error or a login, perhaps): open it in a browser, and load the table itself",
        )
    } else if is("<?xml") || is("<") {
        (
            "it is XML",
            "Export the data as CSV from the program that made it",
        )
    } else if is("{\\rtf") {
        (
            "it is a text document (RTF)",
            "Save it as plain text, with the ending `.csv`",
        )
    } else if is("{") || is("[{") || is("[[") || is("[\"") {
        (
            "it is JSON",
            "Read it with serde_json and insert its entries, or convert it to a table with a header",
        )
    } else if is("version https://git-lfs") {
        (
            "it is a pointer of Git LFS",
            "Get the file itself with `git lfs pull`",
        )
    } else if is("-- mysql dump")
        || is("-- postgresql")
        || is("--\n-- postgresql")
        || is("create table")
        || is("insert into")
    {
        (
            "it is a dump in SQL",
            "Export the table as CSV with a header from the database",
        )
    } else {
        return None;
    })
}
