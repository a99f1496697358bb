//! From a batch to a commit.

use std::sync::Arc;

use persistent_map_core::{ByteWrite, Format, Location, Result};
use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;

use crate::connection::Connection;
use crate::schema::{Table, update_record};
use crate::transaction::{Statement, bind};

/// The checksum of a row: CRC-32 over the key's length, the key and the value, so that a byte cannot move between them
/// unnoticed.
pub(crate) fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// Applies a batch with one commit.
pub(crate) async fn batch(
    connection: &mut Connection,
    table: &Table,
    batch: &[ByteWrite<'_>],
    location: &Location,
) -> Result<()> {
    let statements = statements(table, batch)?;
    let doing = || match batch.len() {
        1 => format!("writing an entry to {location}"),
        count => format!("writing {count} entries to {location}"),
    };
    connection.commit(statements, doing).await
}

/// Removes all rows with one commit.
pub(crate) async fn clear(
    connection: &mut Connection,
    table: &Table,
    location: &Location,
) -> Result<()> {
    let statement = (Arc::clone(&table.clear), SqliteArguments::default());
    let doing = || format!("clearing {location}");
    connection.commit(vec![statement], doing).await
}

/// Puts these rows in the place of all there are, and `format` in the place of what the table was written in, with one
/// commit.
pub(crate) async fn replace(
    connection: &mut Connection,
    table: &Table,
    format: &Format,
    rows: &[ByteWrite<'_>],
    location: &Location,
) -> Result<()> {
    let mut all = vec![(Arc::clone(&table.clear), SqliteArguments::default())];
    all.extend(statements(table, rows)?);
    all.push(update_record(table, format)?);
    let doing = || format!("replacing the entries of {location} by {}", rows.len());
    connection.commit(all, doing).await
}

/// Does what a load leaves to do, with one commit: the record of the types, and rows moved to where they are kept and not
/// read.
pub(crate) async fn settle(
    connection: &mut Connection,
    table: &Table,
    record: Option<Statement>,
    set_aside: &[Vec<u8>],
    location: &Location,
) -> Result<()> {
    let mut statements: Vec<_> = record.into_iter().collect();
    for key in set_aside {
        for sql in &table.set_aside {
            let mut arguments = SqliteArguments::default();
            bind(&mut arguments, key.as_slice())?;
            statements.push((Arc::clone(sql), arguments));
        }
    }
    if statements.is_empty() {
        return Ok(());
    }
    let doing = || match set_aside.len() {
        0 => format!("recording the types of {location}"),
        1 => format!("setting aside a row of {location}"),
        rows => format!("setting aside {rows} rows of {location}"),
    };
    connection.commit(statements, doing).await
}

/// The last write of each key, in key order (neighbours share pages). Statements have fixed sizes, so that SQLite has them
/// prepared; what is left of one is filled up with rows that are none, because each statement is a way to SQLite's thread
/// and back, and a single one needs no BEGIN and COMMIT.
fn statements(table: &Table, batch: &[ByteWrite<'_>]) -> Result<Vec<Statement>> {
    let mut last: Vec<usize> = (0..batch.len()).collect();
    last.sort_unstable_by(|&a, &b| batch[a].key.cmp(batch[b].key).then(b.cmp(&a)));
    last.dedup_by(|&mut later, &mut kept| batch[later].key == batch[kept].key);

    let writes = || last.iter().map(|&index| &batch[index]);
    let upserts: Vec<_> = writes().filter(|write| write.value.is_some()).collect();
    let deletes: Vec<_> = writes().filter(|write| write.value.is_none()).collect();

    let mut statements = Vec::new();
    for (kind, rows) in [(&table.upsert, upserts), (&table.delete, deletes)] {
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let log2 = rest.len().next_power_of_two().ilog2();
            let log2 = log2.min(Table::MAX_ROWS_LOG2);
            let size = 1 << log2;
            let (now, later) = rest.split_at(size.min(rest.len()));
            rest = later;
            let mut arguments = SqliteArguments::default();
            for write in now {
                bind(&mut arguments, write.key)?;
                if let Some(value) = write.value {
                    bind(&mut arguments, value)?;
                    bind(&mut arguments, i64::from(checksum(write.key, value)))?;
                }
            }
            let columns = arguments.len() / now.len();
            for _ in arguments.len()..size * columns {
                bind(&mut arguments, None::<&[u8]>)?;
            }
            statements.push((Arc::clone(&kind[log2 as usize]), arguments));
        }
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write<'a>(key: &'a str, value: Option<&'a str>) -> ByteWrite<'a> {
        ByteWrite {
            key: key.as_bytes(),
            value: value.map(str::as_bytes),
        }
    }

    #[test]
    fn a_batch_becomes_few_statements_of_fixed_sizes() {
        let table = Table::new("t", Path::new("t.db")).unwrap();
        let keys: Vec<String> = (0..1037).map(|n| n.to_string()).collect();
        let batch: Vec<_> = keys.iter().map(|key| write(key, Some("v"))).collect();
        let sizes: Vec<usize> = statements(&table, &batch)
            .unwrap()
            .iter()
            .map(|(_, arguments)| arguments.len() / 3)
            .collect();
        assert_eq!(sizes, [512, 512, 16]);
    }

    #[test]
    fn only_the_last_write_of_a_key_is_sent() {
        let table = Table::new("t", Path::new("t.db")).unwrap();
        let batch = [
            write("a", Some("1")),
            write("b", Some("1")),
            write("a", None),
            write("b", Some("2")),
        ];
        let sent = statements(&table, &batch).unwrap();
        assert_eq!(sent.len(), 2);
        assert!(sent[0].0.starts_with("INSERT") && sent[0].1.len() == 3);
        assert!(sent[1].0.starts_with("DELETE") && sent[1].1.len() == 1);
    }
}
