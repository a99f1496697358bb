//! All rows of a table, each checked against its checksum.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use persistent_map_core::{Location, Result, RowSink, RowVerdict};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, query_scalar};

use crate::connection::Connection;
use crate::database::Database;
use crate::failure::{damaged, storage};
use crate::schema::{LARGE_VALUE, ROWS_IN_CHUNK, Table};
use crate::transaction::Statement;
use crate::write::{checksum, settle};

/// Gives all rows to `rows`, and then moves those that are to be set aside and records the types that they were read as,
/// with one commit.
pub(crate) async fn load(
    database: &Database,
    table: &Table,
    location: &Location,
    record: Option<Statement>,
    rows: &mut dyn RowSink,
) -> Result<()> {
    let bad_keys = all(database, table, location, rows).await?;
    rows.finish()?;
    let mut connection = database.connection().await?;
    for key in &bad_keys {
        check_place(&mut connection, table, location, key).await?;
    }
    settle(&mut connection, table, record, &bad_keys, location).await
}

/// A damaged key may be out of order. Then its row cannot be found by it, and would stay where it is.
async fn check_place(
    connection: &mut Connection,
    table: &Table,
    location: &Location,
    key: &[u8],
) -> Result<()> {
    let found = query_scalar::<_, Vec<u8>>(AssertSqlSafe(Arc::clone(&table.one_value)))
        .bind(key)
        .fetch_optional(&mut connection.sqlite)
        .await
        .map_err(|error| storage(format!("reading {location}"), error))?;
    match found {
        Some(_) => Ok(()),
        None => Err(damaged(
            location,
            "a damaged row is out of order, so that it cannot be set aside",
        )),
    }
}

/// Gives all rows to `rows` as they are in the file, and changes nothing.
pub(crate) async fn back(
    database: &Database,
    table: &Table,
    location: &Location,
    rows: &mut dyn RowSink,
) -> Result<()> {
    all(database, table, location, rows).await.map(drop)
}

/// Gives all rows to `rows`, in the order of their keys' bytes. Returns the keys of those that are to be set aside.
///
/// Other maps of the file may commit between two chunks. This table stays as it is: only its map writes to it, and that
/// waits for the end of this.
async fn all(
    database: &Database,
    table: &Table,
    location: &Location,
    rows: &mut dyn RowSink,
) -> Result<Vec<Vec<u8>>> {
    let failed = |error| storage(format!("reading {location}"), error);
    let _scan = database.scan();
    let expected = count(database, table, location).await?;
    rows.expect(expected);

    let mut reader = Reader {
        rows,
        number: 0,
        bad_keys: Vec::new(),
    };
    let mut connection = database.connection().await?;
    let mut chunk = rows_behind(&mut connection.sqlite, table, None)
        .await
        .map_err(failed)?;
    drop(connection);
    while let Some(bytes) = chunk {
        let cut_off = || {
            let number = reader.number;
            damaged(
                location,
                format!("a row behind row {number} cannot be taken apart"),
            )
        };
        let mut rest = bytes.as_slice();
        let last = PackedRow::split_from(&mut rest).ok_or_else(cut_off)?;
        let (next, rows, taken) = {
            let mut connection = database.connection().await?;
            // SQLite has a thread of its own, and looks for the next rows while these are taken.
            let mut next = pin!(rows_behind(&mut connection.sqlite, table, Some(last.key)));
            let early = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
            let rows = PackedRow::split(rest, last).ok_or_else(cut_off)?;
            let small = rows.iter().map_while(|row| Some((row, row.value?)));
            let mut taken = 0;
            for (row, value) in small {
                reader.take(row, value)?;
                taken += 1;
            }
            let next = match early {
                Poll::Ready(next) => next,
                Poll::Pending => next.await,
            };
            (next, rows, taken)
        };
        for row in &rows[taken..] {
            if let Some(value) = row.value {
                reader.take(row, value)?;
            } else {
                let mut connection = database.connection().await?;
                let value = one_value(&mut connection.sqlite, table, row.key).await;
                drop(connection);
                reader.take(row, &value.map_err(failed)?)?;
            }
        }
        // Behind a damaged key there may be rows that have been read already, and so on without an end.
        if reader.number > expected {
            let reason =
                format!("it has {expected} rows, but more can be read: they are out of order");
            return Err(damaged(location, reason));
        }
        chunk = next.map_err(failed)?;
    }
    // Rows of a damaged table can drop out of a query without an error.
    if reader.number < expected {
        let found = reader.number;
        let reason = format!("it has {expected} rows, but only {found} can be read");
        return Err(damaged(location, reason));
    }
    Ok(reader.bad_keys)
}

/// How many rows there are, after a look at the structure of the table if that is wanted.
async fn count(database: &Database, table: &Table, location: &Location) -> Result<u64> {
    let failed = |error| storage(format!("reading {location}"), error);
    let mut connection = database.connection().await?;
    // Those that SQLite has in memory say nothing of the file.
    connection.forget_pages().await.map_err(failed)?;
    if database.quick_check {
        let verdict: String = query_scalar(AssertSqlSafe(Arc::clone(&table.quick_check)))
            .fetch_one(&mut connection.sqlite)
            .await
            .map_err(failed)?;
        if verdict != "ok" {
            // Its first line only names the database.
            let finding = verdict.lines().last().unwrap_or_default();
            return Err(damaged(location, format!("SQLite says: {finding}")));
        }
    }
    let rows: i64 = query_scalar(AssertSqlSafe(Arc::clone(&table.count)))
        .fetch_one(&mut connection.sqlite)
        .await
        .map_err(failed)?;
    Ok(rows.unsigned_abs())
}

/// The next rows, packed; `None` if there are no more.
async fn rows_behind(
    sqlite: &mut SqliteConnection,
    table: &Table,
    key: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let rows = match key {
        None => query_scalar(AssertSqlSafe(Arc::clone(&table.first_rows))),
        Some(key) => query_scalar(AssertSqlSafe(Arc::clone(&table.next_rows))).bind(key),
    };
    rows.fetch_one(sqlite).await
}

async fn one_value(
    sqlite: &mut SqliteConnection,
    table: &Table,
    key: &[u8],
) -> Result<Vec<u8>, sqlx::Error> {
    query_scalar(AssertSqlSafe(Arc::clone(&table.one_value)))
        .bind(key)
        .fetch_one(sqlite)
        .await
}

struct Reader<'a> {
    rows: &'a mut dyn RowSink,
    number: u64,
    bad_keys: Vec<Vec<u8>>,
}

impl Reader<'_> {
    fn take(&mut self, row: &PackedRow<'_>, value: &[u8]) -> Result<()> {
        self.number += 1;
        let key = row.key;
        let keep = if u64::from(checksum(key, value)) == row.checksum {
            self.rows.row(self.number, key, value)?
        } else {
            self.rows.damaged(
                self.number,
                key,
                "its checksum does not match: the file was damaged, or changed by another program",
            )?;
            RowVerdict::SetAside
        };
        if keep == RowVerdict::SetAside {
            self.bad_keys.push(key.to_vec());
        }
        Ok(())
    }
}

/// One row as the chunk statement packs it: its key, its value, and three numbers.
struct PackedRow<'a> {
    /// As the integer column has it, so that damage to its upper half shows as well.
    checksum: u64,
    key: &'a [u8],
    /// Missing if it is large.
    value: Option<&'a [u8]>,
}

impl<'a> PackedRow<'a> {
    /// All rows of a chunk, whose last one has been split from it.
    fn split(mut chunk: &'a [u8], last: Self) -> Option<Vec<Self>> {
        let mut rows = Vec::with_capacity(ROWS_IN_CHUNK);
        rows.push(last);
        while !chunk.is_empty() {
            rows.push(Self::split_from(&mut chunk)?);
        }
        rows.reverse();
        Some(rows)
    }

    /// The last row.
    fn split_from(chunk: &mut &'a [u8]) -> Option<Self> {
        fn last<'a>(chunk: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
            chunk.split_off(chunk.len().checked_sub(bytes)?..)
        }
        let mut number = |digits| {
            let digits = std::str::from_utf8(last(chunk, digits)?).ok()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let checksum = number(16)?;
        let value_length = usize::try_from(number(8)?).ok()?;
        let key_length = usize::try_from(number(8)?).ok()?;
        let value = if value_length > LARGE_VALUE {
            None
        } else {
            Some(last(chunk, value_length)?)
        };
        let key = last(chunk, key_length)?;
        Some(PackedRow {
            checksum,
            key,
            value,
        })
    }
}
