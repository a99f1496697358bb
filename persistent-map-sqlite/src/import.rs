//! Databases that persistent-map 0.1 has written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::str::FromStr;

use persistent_map_core::codec::CodecError;
use persistent_map_core::{Key, PersistentError, Result, Value};
use persistent_map_file::{Import, OpenFile, is_regular_file, refused, resolve};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, query};

/// The table of a database of version 0.1, as it is written in the file.
const TABLE: &[u8] = b"CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL)";

/// The entries of a database that persistent-map 0.1 has written. The file is only read.
///
/// Such a database has one table, of keys as text and values as JSON. Keys are parsed as 0.1 did it, with [`FromStr`].
///
/// ```no_run
/// use persistent_map_core::PersistentMap;
/// use persistent_map_sqlite::{SqliteBackend, import_0_1};
///
/// # async fn example() -> persistent_map_core::Result<()> {
/// let map = PersistentMap::<String, u64, _>::new(SqliteBackend::new("new.db").await?).await?;
/// map.insert_many(import_0_1("old.db").await?).await?;
/// # map.close().await
/// # }
/// ```
///
/// # Errors
/// - [`Refused`](PersistentError::Refused): it is no such database, or has rows that are no entries; they are named, with
///   their `rowid`.
/// - [`InUse`](PersistentError::InUse): a map of this process has the file open.
pub async fn import_0_1<K, V>(path: impl AsRef<Path>) -> Result<HashMap<K, V>>
where
    K: Key + FromStr,
    V: Value,
{
    const NAME: &str = "Name a file that persistent-map 0.1 has written";
    let path = resolve(path.as_ref())?;
    if !is_regular_file(&path)? {
        return Err(refused(&path, "there is no such file", NAME, None));
    }
    // To close it would take the locks of a map that has it open here.
    let _look = OpenFile::look(&path)?;
    // Before SQLite sees it, which makes files beside some kinds of databases even to read them.
    let first_page = File::open(&path).and_then(|file| first_page(&file));
    let first_page = first_page.map_err(|error| unreadable(&path, &error.into()))?;
    if !is_of_version_0_1(&first_page) {
        let reason = "it is not a database that persistent-map 0.1 has written";
        return Err(refused(&path, reason, NAME, None));
    }
    // https://www.sqlite.org/fileformat.html#file_format_version_numbers
    if first_page[18..20] != [1, 1] {
        return Err(refused(
            &path,
            "another program has given it a write-ahead log",
            "Copy it, let a SQLite tool run `PRAGMA journal_mode = DELETE` on the copy, and import that",
            None,
        ));
    }
    let mut import = Import::new("row", false);
    let connected = SqliteConnectOptions::new()
        .filename(&path)
        .read_only(true)
        .disable_statement_logging()
        .connect()
        .await;
    let read = match connected {
        Ok(mut sqlite) => {
            let read = rows(&mut sqlite).await;
            let closed = sqlite.close().await;
            read.and_then(|rows| closed.map(|()| rows))
        }
        Err(error) => Err(error),
    };
    for row in read.map_err(|error| unreadable(&path, &error))? {
        let (number, key) = (row.try_get::<i64, _>(0), row.try_get::<String, _>(1));
        let number = number.unwrap_or_default().unsigned_abs();
        match (key, row.try_get::<String, _>(2)) {
            (Ok(key), Ok(json)) => {
                let value = serde_json::from_str(&json);
                let value = value.map_err(|error| CodecError::new(error.to_string()));
                import.row(number, &key, value);
            }
            (key, _) => import.bad_row(number, &key.unwrap_or_default(), "a cell is no text"),
        }
    }
    import.finish(&path)
}

/// Whether a database begins like one of version 0.1: with its table.
pub(crate) fn is_of_version_0_1(first_page: &[u8]) -> bool {
    first_page.windows(TABLE.len()).any(|part| part == TABLE)
}

/// The header of a database, and behind it what describes the tables of a small one.
pub(crate) fn first_page(file: &File) -> io::Result<Vec<u8>> {
    let mut page = Vec::with_capacity(4096);
    file.take(4096).read_to_end(&mut page)?;
    Ok(page)
}

/// All rows of one moment.
async fn rows(sqlite: &mut SqliteConnection) -> Result<Vec<SqliteRow>, sqlx::Error> {
    query("SELECT rowid, key, value FROM kv ORDER BY rowid")
        .fetch_all(sqlite)
        .await
}

fn unreadable(path: &Path, error: &sqlx::Error) -> PersistentError {
    // https://www.sqlite.org/rescode.html#readonly_rollback
    const READONLY_ROLLBACK: &str = "776";
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(String::from));
    if code.as_deref() == Some(READONLY_ROLLBACK) {
        return refused(
            path,
            "its last owner was killed while it wrote, and the file is to be set back from the `-journal` file beside it",
            "Copy both files, open the copy once with any SQLite tool, and import that",
            None,
        );
    }
    refused(
        path,
        format!("it cannot be read: {error}"),
        "Restore it from a backup, or name a file that persistent-map 0.1 has written",
        None,
    )
}
