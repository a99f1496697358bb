//! The options of a backend: how a table is read and written, and what a write is worth.

use std::path::Path;
use std::sync::Arc;

use persistent_map_core::Result;
use persistent_map_file::refused;

use crate::backend::CsvBackend;
use crate::cell::{PLAIN, Style};
use crate::shape::SharedShape;
use crate::text::Dialect;

/// What the user has set.
#[derive(Debug, Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option that a user may set by itself"
)]
pub(crate) struct Settings {
    pub(crate) key_column: String,
    pub(crate) sync: bool,
    pub(crate) guard_formulas: bool,
    pub(crate) keep_extra_columns: bool,
    pub(crate) keep_last_duplicate: bool,
    pub(crate) replay_onto_edited_table: bool,
    /// A journal may grow to the size of its table, and to this many bytes beside a small one, before the two are merged.
    pub(crate) merge_after: u64,
    /// How cells are written.
    pub(crate) style: Style,
    /// How rows are.
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Format {
    pub(crate) separator: Option<char>,
    pub(crate) bom: bool,
    pub(crate) comments: Option<char>,
    pub(crate) title_lines: bool,
    pub(crate) uneven_rows: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            key_column: "key".to_string(),
            sync: true,
            guard_formulas: false,
            keep_extra_columns: true,
            keep_last_duplicate: false,
            replay_onto_edited_table: false,
            merge_after: 4 << 20,
            style: PLAIN.clone(),
            format: Format::default(),
        }
    }
}

impl Settings {
    /// Whether a table can be written like this.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let Format {
            separator,
            comments,
            ..
        } = self.format;
        let refused = |what: &str, sign: char, advice: &str| {
            Err(refused(
                path,
                format!("{sign:?} cannot be its {what}"),
                advice,
                None,
            ))
        };
        let is_sign = |sign: char| sign.is_ascii() && !matches!(sign, '"' | '\r' | '\n');
        match (separator, comments, self.style.decimal) {
            (_, _, sign) if !matches!(sign, '.' | ',') => {
                refused("decimal sign", sign, "Give `decimal` a point or a comma")
            }
            (Some(sign), _, _) if !is_sign(sign) || sign.is_ascii_alphanumeric() => refused(
                "separator",
                sign,
                "Give `separator` an ASCII sign, as `';'`",
            ),
            (separator, Some(sign), _) if !is_sign(sign) || sign == separator.unwrap_or(',') => {
                refused(
                    "sign of comments",
                    sign,
                    "Give `comments` an ASCII sign that is not the separator, as `'#'`",
                )
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn separator(&self) -> Option<u8> {
        self.format
            .separator
            .and_then(|sign| u8::try_from(sign).ok())
    }

    pub(crate) fn comments(&self) -> Option<u8> {
        self.format
            .comments
            .and_then(|sign| u8::try_from(sign).ok())
    }

    /// How a new table is written.
    pub(crate) fn new_dialect(&self) -> Dialect {
        Dialect {
            delimiter: self.separator().unwrap_or(b','),
            crlf: false,
            bom: self.format.bom,
            comment: self.comments(),
        }
    }
}

impl CsvBackend {
    /// The column that holds the keys; `key` unless set. This is how an existing spreadsheet opens as a map: name the
    /// column that identifies a row. Spaces around the names of a header do not count.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "city,value\nOslo,709000\n")?;
    /// let inhabitants = PersistentMap::<String, u64, _>::new(CsvBackend::new(&path).key_column("city")).await?;
    /// assert_eq!(inhabitants.get("Oslo"), Some(709_000));
    /// # inhabitants.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn key_column(mut self, name: impl Into<String>) -> Self {
        self.settings.key_column = name.into().trim().to_string();
        self.shape = Arc::new(SharedShape::new(self.settings.key_column.clone()));
        self
    }

    /// Whether each commit is synced to the disk before it is acknowledged; on unless set.
    ///
    /// Without, an acknowledged write survives the end of the process at any instant; a power cut may take the latest
    /// writes since the last `flush`, never the table. `flush` and checkpoints are synced either way.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).sync(false)).await?;
    /// map.insert("a".to_string(), 1).await?; // survives a kill
    /// map.flush().await?; // survives a power cut
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.settings.sync = sync;
        self
    }

    /// Whether text that a spreadsheet would run as a formula (it begins with `=`, `+`, `-` or `@`, also in full width, or
    /// with a tab or a line end, and is no number) is written with a `'` before it. Off unless set.
    ///
    /// For files with text from strangers that people open in a spreadsheet. The map never sees the mark, and files may
    /// be opened with and without the option in turn. Rows that are in the file already are marked by the next
    /// checkpoint.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).guard_formulas(true)).await?;
    /// map.insert(1, "=1+1".to_string()).await?;
    /// map.close().await?;
    /// assert_eq!(map.get(&1).as_deref(), Some("=1+1"));
    /// assert_eq!(std::fs::read_to_string(&path)?, "key,value\n1,'=1+1\n");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn guard_formulas(mut self, guard: bool) -> Self {
        self.settings.guard_formulas = guard;
        self
    }

    /// Whether a table may have columns that are no field of the value; it may unless set. Their cells are kept as they
    /// are: also when the row's value changes, and lost only when the row is removed.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value,remark\nOslo,709000,since 2023\n")?;
    /// let table = CsvBackend::new(&path).keep_extra_columns(false);
    /// let refused = PersistentMap::<String, u64, _>::new(table).await.unwrap_err();
    /// assert!(refused.to_string().contains("remark"));
    ///
    /// let inhabitants = PersistentMap::<String, u64, _>::new(CsvBackend::new(&path)).await?;
    /// inhabitants.insert("Oslo".to_string(), 724_000).await?;
    /// inhabitants.close().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "key,value,remark\nOslo,724000,since 2023\n");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keep_extra_columns(mut self, keep: bool) -> Self {
        self.settings.keep_extra_columns = keep;
        self
    }

    /// Of rows with one key, whether the last one stays; unless set, the first does. The others are set aside if the map is
    /// opened with [`OnCorrupt::Quarantine`](persistent_map_core::OnCorrupt), and an error if it is not. Rows that cannot be
    /// read do not count.
    ///
    /// The table is read three times then, and 64 bits for each key are kept while it is. Keys that are written differently
    /// and equal all the same, by the type's `Eq`, are outside of this: the first of them stays.
    ///
    /// ```
    /// # use persistent_map_core::{OnCorrupt, PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value\nOslo,709000\nBergen,291000\nOslo,724000\n")?;
    /// let table = CsvBackend::new(&path).keep_last_duplicate(true);
    /// let (map, report) = PersistentMap::<String, u64, _>::builder(table)
    ///     .on_corrupt(OnCorrupt::Quarantine)
    ///     .open_with_report()
    ///     .await?;
    /// assert_eq!(map.get("Oslo"), Some(724_000));
    /// assert_eq!(report.quarantined[0].row, 2); // the line
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keep_last_duplicate(mut self, keep: bool) -> Self {
        self.settings.keep_last_duplicate = keep;
        self
    }

    /// Opens a table that was changed by somebody else after a crash had left writes in the journal, and makes those
    /// writes to it: where both have changed a row, the journal wins. Off unless set; then such a table is refused.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// # let backend = || CsvBackend::new(&path);
    /// # let map = PersistentMap::new(backend()).await?;
    /// # map.insert("a".to_string(), 1).await?;
    /// # map.close().await?;
    /// // After a crash, and after an editor has saved the table, once:
    /// let map = PersistentMap::<String, u64, _>::new(backend().replay_onto_edited_table(true)).await?;
    /// assert_eq!(map.get("a"), Some(1));
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn replay_onto_edited_table(mut self, replay: bool) -> Self {
        self.settings.replay_onto_edited_table = replay;
        self
    }

    /// How large the journal of a small table may grow before the two are merged, in bytes; 4 MiB unless set. Beside a
    /// larger table it may grow to the size of the table.
    ///
    /// A merge goes on beside the writes, and takes the disk from them. With less there are more merges, and a start after a
    /// crash has less to do.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).merge_after(64 << 10)).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn merge_after(mut self, bytes: u64) -> Self {
        self.settings.merge_after = bytes;
        self
    }
}
