//! Options for tables as other people and their programs write them.

use crate::backend::CsvBackend;

/// # Tables as others write them
///
/// What a table does not say by itself is said by an option. A table is written as it was found.
impl CsvBackend {
    /// What stands before the fraction of a number: `.` unless set, or `,` as in the tables of most of Europe. Numbers are
    /// written in the same way.
    ///
    /// A number with the other sign is refused, and so is one with groups of thousands: `1.234` and `1,234` are never guessed.
    /// Numbers in JSON (in lists, say) always have a point. Another sign than these two is refused by the open.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key;value\r\nlamp;9,5\r\n")?;
    /// let map = PersistentMap::<String, f64, _>::new(CsvBackend::new(&path).decimal(',')).await?;
    /// assert_eq!(map.get("lamp"), Some(9.5));
    /// map.insert("chair".to_string(), 20.25).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "key;value\r\nchair;20,25\r\nlamp;9,5\r\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn decimal(mut self, sign: char) -> Self {
        self.settings.style.decimal = sign;
        self
    }

    /// Words that mean nothing where an `Option` is read: `NA`, `NULL`, `\N`, `-`. Case counts. None unless set; an empty cell
    /// always means `None`.
    ///
    /// `None` is written as the first of them. A text that is such a word gets two quotation marks (`""`) before it inside of
    /// `Some`, as an empty one does, so that all values come back. Keep the words as they are once a table was written with
    /// them.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value\na,NA\nb,3\n")?;
    /// let map = PersistentMap::<String, Option<u32>, _>::new(CsvBackend::new(&path).null_words(["NA", "-"])).await?;
    /// assert_eq!(map.get("a"), Some(None));
    /// map.insert("b".to_string(), None).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "key,value\na,NA\nb,NA\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn null_words<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.settings.style.null_words = words.into_iter().map(Into::into).collect();
        self
    }

    /// Words for true and false, beside these two: `yes` and `no`, `1` and `0`, `WAHR` and `FALSCH`. They are read in any case
    /// of ASCII letters, and written as they are given here.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value\na,yes\n")?;
    /// let map = PersistentMap::<String, bool, _>::new(CsvBackend::new(&path).bool_words("yes", "no")).await?;
    /// assert_eq!(map.get("a"), Some(true));
    /// map.insert("b".to_string(), false).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "key,value\na,yes\nb,no\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn bool_words(mut self, yes: impl Into<String>, no: impl Into<String>) -> Self {
        self.settings.style.bool_words = Some((yes.into(), no.into()));
        self
    }

    /// Whether a number may have zeros before it (`007`); it may not unless set, because that is a code as a rule (of a place, of
    /// an article), and would lose them when its row is written. Keys are numbers without zeros in any case.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value\njanuary,01\n")?;
    /// assert!(PersistentMap::<String, u8, _>::new(CsvBackend::new(&path)).await.is_err());
    /// let map = PersistentMap::<String, u8, _>::new(CsvBackend::new(&path).leading_zeros(true)).await?;
    /// assert_eq!(map.get("january"), Some(1));
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn leading_zeros(mut self, allowed: bool) -> Self {
        self.settings.style.leading_zeros = allowed;
        self
    }

    /// The letter that begins a comment: lines that begin with it are no rows. None unless set.
    ///
    /// They are kept: those before the header where they are, others before the row that follows them (and they go when it is
    /// removed), the last ones at the end. A row of the map that begins with the letter is put in quotation marks. Keep the letter
    /// as it is once a table was written with it. It must be an ASCII sign, else the open is refused.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "# exported in May\nkey,value\n# the best\na,1\n")?;
    /// let map = PersistentMap::<String, u32, _>::new(CsvBackend::new(&path).comments('#')).await?;
    /// map.insert("a".to_string(), 2).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "# exported in May\nkey,value\n# the best\na,2\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn comments(mut self, sign: char) -> Self {
        self.settings.format.comments = Some(sign);
        self
    }

    /// Whether lines may stand before the header: a title, a date. They may not unless set. The header is then the first of the
    /// first 21 lines that has the key's column, and what stands before it is kept.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "Prices of May\n\nkey,value\na,1\n")?;
    /// let map = PersistentMap::<String, u32, _>::new(CsvBackend::new(&path).title_lines(true)).await?;
    /// map.insert("b".to_string(), 2).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "Prices of May\n\nkey,value\na,1\nb,2\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn title_lines(mut self, allowed: bool) -> Self {
        self.settings.format.title_lines = allowed;
        self
    }

    /// Whether rows may have another number of cells than the header: cells that are missing at the end are read as empty, and
    /// empty ones too many are left out. They may not unless set, because a row that was cut off looks the same. A short row at the
    /// end of a file without a line end is refused in any case.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// std::fs::write(&path, "key,value,remark\na,1\nb,2,,\n")?;
    /// let map = PersistentMap::<String, u32, _>::new(CsvBackend::new(&path).uneven_rows(true)).await?;
    /// assert_eq!(map.get("b"), Some(2));
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn uneven_rows(mut self, allowed: bool) -> Self {
        self.settings.format.uneven_rows = allowed;
        self
    }

    /// What separates the cells of a new table; `,` unless set. A table that is there keeps its own: `,`, `;`, a tab or `|` is
    /// found by its header, another one when it is named here. It must be an ASCII sign, else the open is refused.
    ///
    /// European spreadsheets expect `;` (and [`decimal`](Self::decimal)`(',')`), and [`bom`](Self::bom) for letters that are not
    /// ASCII.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let backend = CsvBackend::new(&path).separator(';').bom(true);
    /// let map = PersistentMap::new(backend).await?;
    /// map.insert("Köln".to_string(), 1).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "\u{feff}key;value\nKöln;1\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn separator(mut self, sign: char) -> Self {
        self.settings.format.separator = Some(sign);
        self
    }

    /// Whether a new table begins with a byte order mark, by which spreadsheets know that it is UTF-8; it does not unless set. A
    /// table that is there keeps its own.
    ///
    /// ```
    /// # use persistent_map_core::{PersistentMap, Result};
    /// # use persistent_map_csv::CsvBackend;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let map = PersistentMap::new(CsvBackend::new(&path).bom(true)).await?;
    /// map.insert("a".to_string(), 1).await?;
    /// map.flush().await?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "\u{feff}key,value\na,1\n");
    /// # map.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn bom(mut self, bom: bool) -> Self {
        self.settings.format.bom = bom;
        self
    }
}
