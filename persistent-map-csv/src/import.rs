//! Tables that persistent-map 0.1 has written.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use csv_async::{AsyncReaderBuilder, ByteRecord};
use persistent_map_core::codec::CodecError;
use persistent_map_core::{Key, PersistentError, Result, Value};
use persistent_map_file::{Import, OpenFile, blocking, refused, resolve};

/// The entries of a table that persistent-map 0.1 has written. The file is only read.
///
/// Such a table has no header: each row is a key and the fields of its value. It grew with each write, and of the rows with
/// one key the last one counts. Keys are parsed as 0.1 did it, with [`FromStr`].
///
/// ```
/// use persistent_map_core::PersistentMap;
/// use persistent_map_csv::{CsvBackend, import_0_1};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (old, new) = (dir.path().join("old.csv"), dir.path().join("new.csv"));
/// # std::fs::write(&old, "ann,1\nbob,2\nann,3\n").unwrap();
/// let map = PersistentMap::<String, u64, _>::new(CsvBackend::new(&new)).await?;
/// map.insert_many(import_0_1(&old).await?).await?;
/// assert_eq!(map.get("ann"), Some(3));
/// # map.close().await
/// # }
/// ```
///
/// What 0.1 wrote cannot tell `Some("")` from `None`; both come back as `None`.
///
/// # Errors
/// [`Refused`](PersistentError::Refused): the file cannot be read, or has lines that are no entries; they are named.
pub async fn import_0_1<K, V>(path: impl AsRef<Path>) -> Result<HashMap<K, V>>
where
    K: Key + FromStr,
    V: Value,
{
    let path = resolve(path.as_ref())?;
    let file = path.clone();
    let read = move || {
        let _look = OpenFile::look(&file)?;
        fs::read(&file).map_err(|error| unreadable(&file, error))
    };
    let table = blocking("reading a table", read).await?;
    let mut import = Import::new("line", true);
    let mut reader = AsyncReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .create_reader(table.as_slice());
    let mut row = ByteRecord::new();
    let mut last = (0, String::new());
    while reader
        .read_byte_record(&mut row)
        .await
        .map_err(|error| PersistentError::storage(format!("reading {}", path.display()), error))?
    {
        let line = row.position().map_or(0, csv_async::Position::line);
        let key = String::from_utf8_lossy(row.get(0).unwrap_or_default()).into_owned();
        match row.deserialize::<(String, V)>(None) {
            Ok((key, value)) => import.row(line, &key, Ok::<V, String>(value)),
            Err(error) => {
                let reason = CodecError::new(reason(&error));
                import.bad_row(line, &key, &reason.to_string());
            }
        }
        last = (line, key);
    }
    // Each row was written with its end.
    if table.last().is_some_and(|byte| *byte != b'\n') {
        let reason = "the file ends without the end of this line, so it may be cut off; add the end if it is complete";
        import.bad_row(last.0, &last.1, reason);
    }
    import.finish(&path)
}

/// Without the position, which is said already.
fn reason(error: &csv_async::Error) -> String {
    match error.kind() {
        csv_async::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> PersistentError {
    let advice = "Name a file that persistent-map 0.1 has written";
    refused(path, "it cannot be read", advice, Some(error))
}
