//! All rows of a table, each checked against its checksum.

use std::sync::Arc;

use persistent_map_core::{Location, Result, RowSink, RowVerdict};
use sqlx::{AssertSqlSafe, query, query_scalar};

use crate::connection::Connection;
use crate::failure::{damaged, storage};
use crate::schema::{LARGE_VALUE, Table};
use crate::write::{checksum, set_aside};

/// Gives all rows to `rows`, and moves those that are to be set aside.
pub(crate) async fn load(
    connection: &mut Connection,
    table: &Table,
    location: &Location,
    quick_check: bool,
    rows: &mut dyn RowSink,
) -> Result<()> {
    let bad_keys = all(connection, table, location, quick_check, rows).await?;
    rows.finish()?;
    if bad_keys.is_empty() {
        return Ok(());
    }
    for key in &bad_keys {
        check_place(connection, table, location, key).await?;
    }
    set_aside(connection, table, &bad_keys, location).await
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
    connection: &mut Connection,
    table: &Table,
    location: &Location,
    quick_check: bool,
    rows: &mut dyn RowSink,
) -> Result<()> {
    // Pages that SQLite has in memory say nothing of the file.
    query("PRAGMA shrink_memory")
        .execute(&mut connection.sqlite)
        .await
        .map_err(|error| storage(format!("reading {location}"), error))?;
    all(connection, table, location, quick_check, rows)
        .await
        .map(drop)
}

/// Gives all rows to `rows`, in the order of their keys' bytes. Returns the keys of those that are to be set aside.
async fn all(
    connection: &mut Connection,
    table: &Table,
    location: &Location,
    quick_check: bool,
    rows: &mut dyn RowSink,
) -> Result<Vec<Vec<u8>>> {
    let failed = |error| storage(format!("reading {location}"), error);
    if quick_check {
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
    let expected: i64 = query_scalar(AssertSqlSafe(Arc::clone(&table.count)))
        .fetch_one(&mut connection.sqlite)
        .await
        .map_err(failed)?;
    let expected = expected.unsigned_abs();
    rows.expect(expected);

    let mut reader = Reader {
        rows,
        number: 0,
        last_key: None,
        bad_keys: Vec::new(),
    };
    loop {
        let next = match &reader.last_key {
            None => query_scalar(AssertSqlSafe(Arc::clone(&table.first_rows))),
            Some(key) => {
                query_scalar(AssertSqlSafe(Arc::clone(&table.next_rows))).bind(key.as_slice())
            }
        };
        let chunk: Option<Vec<u8>> = next
            .fetch_one(&mut connection.sqlite)
            .await
            .map_err(failed)?;
        let Some(chunk) = chunk else { break };
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            let row = PackedRow::split_from(&mut rest).ok_or_else(|| {
                let number = reader.number + 1;
                damaged(location, format!("row {number} cannot be taken apart"))
            })?;
            let large;
            let value = if let Some(value) = row.value {
                value
            } else {
                large = query_scalar::<_, Vec<u8>>(AssertSqlSafe(Arc::clone(&table.one_value)))
                    .bind(row.key)
                    .fetch_one(&mut connection.sqlite)
                    .await
                    .map_err(failed)?;
                large.as_slice()
            };
            reader.take(row.key, value, row.checksum)?;
        }
    }
    // Rows of a damaged table can drop out of a query without an error.
    if reader.number != expected {
        let found = reader.number;
        return Err(damaged(
            location,
            format!("it has {expected} rows, but only {found} can be read"),
        ));
    }
    Ok(reader.bad_keys)
}

struct Reader<'a> {
    rows: &'a mut dyn RowSink,
    number: u64,
    last_key: Option<Vec<u8>>,
    bad_keys: Vec<Vec<u8>>,
}

impl Reader<'_> {
    fn take(&mut self, key: &[u8], value: &[u8], stored_checksum: u64) -> Result<()> {
        self.number += 1;
        let keep = if u64::from(checksum(key, value)) == stored_checksum {
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
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        Ok(())
    }
}

/// One row as the chunk statement packs it.
struct PackedRow<'a> {
    /// As the integer column has it, so that damage to its upper half shows as well.
    checksum: u64,
    key: &'a [u8],
    /// Missing if it is large.
    value: Option<&'a [u8]>,
}

impl<'a> PackedRow<'a> {
    fn split_from(rest: &mut &'a [u8]) -> Option<Self> {
        let mut number = |digits| {
            let digits = std::str::from_utf8(rest.split_off(..digits)?).ok()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let key_length = usize::try_from(number(8)?).ok()?;
        let value_length = usize::try_from(number(8)?).ok()?;
        let checksum = number(16)?;
        let key = rest.split_off(..key_length)?;
        let value = if value_length > LARGE_VALUE {
            None
        } else {
            Some(rest.split_off(..value_length)?)
        };
        Some(PackedRow {
            checksum,
            key,
            value,
        })
    }
}
