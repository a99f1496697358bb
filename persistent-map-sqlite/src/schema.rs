//! The tables, and the agreement on what their bytes mean.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use persistent_map_core::{Format, Location, PersistentError, Result};
use persistent_map_file::{LockFile, create_anew, refused, sync_directory_of};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, query, query_scalar, raw_sql,
};

use crate::connection::Connection;
use crate::failure::{damaged, storage};
use crate::file::{APPLICATION_ID, FORMAT_VERSION, draft_of};
use crate::transaction::{Statement, bind};

const TABLES: &str = "
    CREATE TABLE persistent_map_maps (
        name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE,
        codec TEXT NOT NULL,
        key_type TEXT NOT NULL,
        value_type TEXT NOT NULL,
        description INTEGER NOT NULL,
        checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE persistent_map_state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        in_use INTEGER NOT NULL,
        barrier INTEGER NOT NULL
    ) STRICT;
    INSERT INTO persistent_map_state VALUES (1, 0, 0);
    CREATE TABLE persistent_map_quarantine (
        id INTEGER PRIMARY KEY,
        map TEXT NOT NULL,
        key ANY,
        value ANY,
        checksum ANY,
        set_aside_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
    ) STRICT;
";

/// One map's table: its name, and the statements on it.
pub(crate) struct Table {
    name: String,
    /// By the number of rows: 1, 2, 4 .. 512. Few sizes, so that SQLite's prepared statements are used again.
    pub(crate) upsert: Vec<Arc<str>>,
    pub(crate) delete: Vec<Arc<str>>,
    pub(crate) clear: Arc<str>,
    pub(crate) count: Arc<str>,
    /// Rows in the order of their keys, as many as fit into a blob; and those behind a key.
    pub(crate) first_rows: Arc<str>,
    pub(crate) next_rows: Arc<str>,
    pub(crate) one_value: Arc<str>,
    pub(crate) set_aside: [Arc<str>; 2],
    pub(crate) quick_check: Arc<str>,
}

/// Values of up to so many bytes are read in chunks; larger ones one by one.
pub(crate) const LARGE_VALUE: usize = 16 << 10;

/// Two chunks are in memory at a time.
pub(crate) const ROWS_IN_CHUNK: usize = 1000;

impl Table {
    /// The largest number of rows in one statement is 2 to the power of this.
    pub(crate) const MAX_ROWS_LOG2: u32 = 9;

    pub(crate) fn new(name: &str, path: &Path) -> Result<Self> {
        let valid = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let lower = name.to_ascii_lowercase();
        let reserved = lower.starts_with("sqlite_") || lower.starts_with("persistent_map_");
        if !valid || reserved {
            return Err(refused(
                path,
                format!("`{}` cannot be the name of a map", name.escape_debug()),
                "Use 1 to 64 ASCII letters, digits, `_` and `-`, and none of the beginnings `sqlite_` and `persistent_map_`",
                None,
            ));
        }
        let sizes = || (0..=Self::MAX_ROWS_LOG2).map(|log2| 1usize << log2);
        // One blob for many rows: a row through the driver costs more than all the rest of reading it. Each row is its
        // key, its value if that is not too large, and three numbers in hexadecimal: at its end, so that the last row, behind
        // which the next ones are, is found at once.
        let chunk = |from: &str| {
            format!(
                "SELECT CAST(group_concat(key || iif(length(value) > {LARGE_VALUE}, '', value) || \
                 printf('%08x%08x%016x', length(key), length(value), checksum), '') AS BLOB) \
                 FROM (SELECT key, value, checksum FROM \"{name}\" {from} ORDER BY key LIMIT {ROWS_IN_CHUNK})"
            )
        };
        let repeat = |part: &str, times| vec![part; times].join(",");
        Ok(Table {
            upsert: sizes()
                .map(|rows| {
                    format!(
                        "INSERT INTO \"{name}\" (key, value, checksum) \
                         SELECT column1, column2, column3 FROM (VALUES {}) WHERE column1 IS NOT NULL \
                         ON CONFLICT (key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
                        repeat("(?,?,?)", rows)
                    )
                    .into()
                })
                .collect(),
            delete: sizes()
                .map(|rows| {
                    format!("DELETE FROM \"{name}\" WHERE key IN ({})", repeat("?", rows)).into()
                })
                .collect(),
            clear: format!("DELETE FROM \"{name}\"").into(),
            count: format!("SELECT count(*) FROM \"{name}\"").into(),
            first_rows: chunk("").into(),
            next_rows: chunk("WHERE key > ?").into(),
            one_value: format!("SELECT value FROM \"{name}\" WHERE key = ?").into(),
            set_aside: [
                format!(
                    "INSERT INTO persistent_map_quarantine (map, key, value, checksum) \
                     SELECT '{name}', key, value, checksum FROM \"{name}\" WHERE key = ?"
                )
                .into(),
                format!("DELETE FROM \"{name}\" WHERE key = ?").into(),
            ],
            quick_check: format!("SELECT quick_check FROM pragma_quick_check('{name}') LIMIT 1").into(),
            name: name.to_string(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn create(&self) -> String {
        format!(
            "CREATE TABLE \"{}\" (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL) \
             STRICT, WITHOUT ROWID",
            self.name
        )
    }
}

/// Makes a new database. It gets its name when it is complete and on the disk, so a crash on the way leaves no half one.
pub(crate) async fn create(lock: &LockFile) -> Result<()> {
    let path = lock.target();
    let draft = draft_of(path);
    let failed = |error: std::io::Error| {
        refused(
            path,
            "it cannot be created",
            "Check the permissions of the directory and the space on the disk",
            Some(error),
        )
    };
    // In place of a draft that a crash has left; nobody else makes one while we have the lock. Not by SQLite, which would
    // follow a link that somebody has planted.
    drop(create_anew(&draft, path).map_err(failed)?);
    let doing = || format!("creating {}", path.display());
    let mut sqlite = SqliteConnectOptions::new()
        .filename(&draft)
        .create_if_missing(false)
        // A draft needs no journal to be recovered from. And all of it must be in the one file at the commit, which says
        // so if that fails: what fails when a log is merged at closing is not told.
        .pragma("journal_mode", "MEMORY")
        .pragma("synchronous", "FULL")
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|error| storage(doing(), error))?;
    let created = create_on(&mut sqlite).await;
    let closed = sqlite.close().await;
    created
        .and(closed)
        .map_err(|error| storage(doing(), error))?;
    take_name(&draft, path)
        .and_then(|()| sync_directory_of(path))
        .map_err(failed)
}

/// Like a rename, but never over a file that somebody else has put there meanwhile, where the file system can do that.
fn take_name(draft: &Path, path: &Path) -> std::io::Result<()> {
    match fs::hard_link(draft, path) {
        Ok(()) => fs::remove_file(draft),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => fs::rename(draft, path),
    }
}

/// Makes our tables in an empty database.
pub(crate) async fn create_on(sqlite: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let script = format!(
        "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
    );
    raw_sql(AssertSqlSafe(script))
        .execute(sqlite)
        .await
        .map(drop)
}

/// Whether the last owner did not close it, going by the main file alone. Changes nothing and makes no file.
pub(crate) async fn was_left_open(path: &Path) -> Result<bool> {
    let failed = |error| storage(format!("reading the state of {}", path.display()), error);
    // Immutable, as it is while we have the lock: so SQLite neither locks it nor looks for a log.
    let mut sqlite = SqliteConnectOptions::new()
        .filename(path)
        .immutable(true)
        .read_only(true)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    let in_use = query_scalar("SELECT in_use = 1 FROM persistent_map_state")
        .fetch_one(&mut sqlite)
        .await;
    let closed = sqlite.close().await;
    let in_use = in_use.map_err(failed)?;
    closed.map_err(failed)?;
    Ok(in_use)
}

/// Compares the types of a map with those that its table was made for, or makes the table. A table that exists is not
/// changed: what is returned records its types anew, once all rows have turned out to be of them.
pub(crate) async fn agree_on_format(
    connection: &mut Connection,
    table: &Table,
    format: &Format,
    location: &Location,
    accept_other_types: bool,
) -> Result<Option<Statement>> {
    let Some(found) = recorded_format(connection, table, location).await? else {
        create_table(connection, table, format, location).await?;
        return Ok(None);
    };
    if found.description == format.description && !accept_other_types {
        compare(&found, format, location)?;
        return Ok(None);
    }
    compare_codecs(&found, format, location)?;
    let is_news = found != *format;
    is_news.then(|| update_record(table, format)).transpose()
}

/// What a map's bytes mean; `None` if its table was not made yet.
pub(crate) async fn recorded_format(
    connection: &mut Connection,
    table: &Table,
    location: &Location,
) -> Result<Option<Format>> {
    let failed = |error| storage(format!("reading what {location} holds"), error);
    let sqlite = &mut connection.sqlite;
    let recorded = query(
        "SELECT codec, key_type, value_type, description, checksum FROM persistent_map_maps WHERE name = ?",
    )
    .bind(table.name())
    .fetch_optional(&mut *sqlite)
    .await
    .map_err(failed)?;
    // Not from `sqlite_schema`, which has no index: with thousands of tables, to look through it is most of opening one.
    let table_exists: bool = query_scalar("SELECT count(*) > 0 FROM pragma_table_info(?)")
        .bind(table.name())
        .fetch_one(&mut *sqlite)
        .await
        .map_err(failed)?;
    match (recorded, table_exists) {
        (None, false) => Ok(None),
        (Some(row), true) => {
            let text = |column| row.try_get::<String, _>(column).map_err(failed);
            let found = Format {
                codec: text(0)?,
                key: text(1)?,
                value: text(2)?,
                description: row.try_get(3).map_err(failed)?,
            };
            let checksum: i64 = row.try_get(4).map_err(failed)?;
            if checksum == format_checksum(&found) {
                return Ok(Some(found));
            }
            Err(damaged(
                location,
                "its record of codec and types fails its checksum",
            ))
        }
        (None, true) => Err(damaged(
            location,
            "the table has no record of codec and types",
        )),
        (Some(_), false) => Err(damaged(location, "its table is missing")),
    }
}

/// Writes down that a map's bytes mean something else from now on.
pub(crate) fn update_record(table: &Table, format: &Format) -> Result<Statement> {
    record(
        "UPDATE persistent_map_maps SET codec = ?2, key_type = ?3, value_type = ?4, description = ?5, \
         checksum = ?6 WHERE name = ?1",
        table,
        format,
    )
}

async fn create_table(
    connection: &mut Connection,
    table: &Table,
    format: &Format,
    location: &Location,
) -> Result<()> {
    let create = (table.create().into(), SqliteArguments::default());
    let insert = record(
        "INSERT INTO persistent_map_maps (name, codec, key_type, value_type, description, checksum) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        table,
        format,
    )?;
    let doing = || format!("making {location}");
    connection.commit(vec![create, insert], doing).await
}

fn compare(found: &Format, expected: &Format, location: &Location) -> Result<()> {
    compare_codecs(found, expected, location)?;
    for (part, found, expected, upgrade) in [
        (
            "keys",
            &found.key,
            &expected.key,
            "open it with the type that it was written for, and insert its entries into a new table",
        ),
        (
            "values",
            &found.value,
            &expected.value,
            "open it with the type that it was written for, or upgrade the values with `Builder::migrate`",
        ),
    ] {
        if found != expected {
            return Err(PersistentError::Mismatch {
                place: location.to_string(),
                expected: format!("{part} of type {expected}"),
                found: format!("{part} of type {found}"),
                advice: format!(
                    "If the type has changed, {upgrade}. A field that was only renamed keeps its stored name with \
                     `#[serde(rename = \"..\")]`, or is accepted once with \
                     `SqliteBackend::builder(..).accept_other_types(true)`"
                ),
            });
        }
    }
    Ok(())
}

fn compare_codecs(found: &Format, expected: &Format, location: &Location) -> Result<()> {
    if found.codec == expected.codec {
        return Ok(());
    }
    Err(PersistentError::Mismatch {
        place: location.to_string(),
        expected: format!("codec {}", expected.codec),
        found: format!("codec {}", found.codec),
        advice: "Open it with the codec that it was written with, or change that once with `SqliteBackend::change_codec`"
            .to_string(),
    })
}

/// Writes down what a map's bytes mean. `sql` takes the name first, then the parts of the format.
fn record(sql: &str, table: &Table, format: &Format) -> Result<Statement> {
    let mut arguments = SqliteArguments::default();
    for text in [table.name(), &format.codec, &format.key, &format.value] {
        bind(&mut arguments, text)?;
    }
    bind(&mut arguments, format.description)?;
    bind(&mut arguments, format_checksum(format))?;
    Ok((sql.into(), arguments))
}

fn format_checksum(format: &Format) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&format.description.to_le_bytes());
    for part in [&format.codec, &format.key, &format.value] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    i64::from(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scan from the beginning for each chunk would make opening a map quadratic.
    #[tokio::test]
    async fn reading_goes_on_where_it_stopped_without_a_scan() {
        let mut sqlite = SqliteConnectOptions::new()
            .in_memory(true)
            .connect()
            .await
            .unwrap();
        let table = Table::new("t", Path::new("t.db")).unwrap();
        let create = AssertSqlSafe(table.create());
        query(create).execute(&mut sqlite).await.unwrap();
        for (sql, wanted) in [
            (&table.first_rows, "SCAN t"),
            (&table.next_rows, "SEARCH t USING PRIMARY KEY (key>?)"),
            (&table.one_value, "SEARCH t USING PRIMARY KEY (key=?)"),
            (&table.delete[3], "SEARCH t USING PRIMARY KEY (key=?)"),
        ] {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let plan = query(explain).fetch_all(&mut sqlite).await.unwrap();
            let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(steps.iter().any(|step| step == wanted), "{sql}: {steps:?}");
            assert!(
                !steps.iter().any(|step| step.contains("TEMP")),
                "{sql}: {steps:?}"
            );
        }
    }
}
