//! The smaller contract, for stores that keep bytes.

use std::fmt;

use async_trait::async_trait;

use crate::capabilities::Capabilities;
use crate::codec::Codec;
use crate::error::{PersistentError, Result};
use crate::row::Location;

/// A store for bytes. Implement it, and [`StorageBackend<K, V>`](crate::StorageBackend) follows for every key and value
/// type: encoding, the check that a value can be read back, and the check of the types at open are done for you.
///
/// The contract is that of [`StorageBackend`](crate::StorageBackend): one caller at a time, `Ok` means stored, `Err`
/// means not applied unless marked unknown. On top of it:
///
/// - The format (codec and types) that a store was first loaded with is kept with the data and compared at each load.
/// - Keys are opaque. The store neither decodes nor sorts them by meaning; it may sort by bytes. A key may have no bytes;
///   put one before each if the store minds.
/// - Each row should carry a checksum, so that a flipped byte is reported and not served.
///
/// `persistent-map-sqlite` is the reference implementation, and the module `guide` of `persistent-map-testkit` a walk-through.
///
/// # Example
///
/// ```
/// use std::collections::BTreeMap;
/// use std::hash::{DefaultHasher, Hash, Hasher};
/// use std::sync::Mutex;
/// use persistent_map_core::*;
///
/// /// Stands for a store of bytes that commits a batch as a whole.
/// #[derive(Default)]
/// struct Shelf(Mutex<Content>);
///
/// #[derive(Default)]
/// struct Content {
///     format: Option<String>,
///     rows: BTreeMap<Vec<u8>, (u64, Vec<u8>)>, // each with its checksum
///     set_aside: Vec<(Vec<u8>, Vec<u8>)>,
/// }
///
/// fn checksum(key: &[u8], value: &[u8]) -> u64 {
///     let mut hasher = DefaultHasher::new(); // in a file: one that is the same in each version
///     (key, value).hash(&mut hasher);
///     hasher.finish()
/// }
///
/// fn insert(content: &mut Content, key: &[u8], value: &[u8]) {
///     content.rows.insert(key.to_vec(), (checksum(key, value), value.to_vec()));
/// }
///
/// /// Gives all rows to `rows`. Returns the keys of those that cannot be read.
/// fn read(content: &Content, rows: &mut dyn RowSink) -> Result<Vec<Vec<u8>>> {
///     rows.expect(content.rows.len() as u64);
///     let mut unreadable = Vec::new();
///     for (number, (key, (sum, value))) in (1..).zip(&content.rows) {
///         if *sum != checksum(key, value) {
///             rows.damaged(number, key, "the checksum is wrong")?;
///             unreadable.push(key.clone());
///         } else if rows.row(number, key, value)? == RowVerdict::SetAside {
///             unreadable.push(key.clone());
///         }
///     }
///     Ok(unreadable)
/// }
///
/// #[async_trait]
/// impl ByteStore for Shelf {
///     type Codec = Bincode;
///
///     fn codec(&self) -> &Bincode {
///         &Bincode
///     }
///     fn location(&self) -> Location {
///         Location { file: None, table: Some("shelf".to_string()) }
///     }
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::one_at_a_time().with_atomic_batches()
///     }
///     fn check(&self, key_bytes: usize, _: usize) -> Result<()> {
///         match key_bytes {
///             0..=1024 => Ok(()),
///             bytes => Err(PersistentError::too_large("key", bytes, 1024)),
///         }
///     }
///     async fn load(&self, format: &Format, rows: &mut dyn RowSink) -> Result<()> {
///         let mut content = self.0.lock().unwrap();
///         if let Some(found) = &content.format {
///             format.compare_text(found, &self.location())?;
///         }
///         let unreadable = read(&content, rows)?;
///         rows.finish()?;
///         content.format = Some(format.to_text()); // only now: a load that fails changes nothing
///         for key in unreadable {
///             let row = content.rows.remove(&key).map(|(_, value)| (key, value));
///             content.set_aside.extend(row);
///         }
///         Ok(())
///     }
///     async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()> {
///         let mut content = self.0.lock().unwrap();
///         for write in batch {
///             match write.value {
///                 Some(value) => insert(&mut content, write.key, value),
///                 None => drop(content.rows.remove(write.key)),
///             }
///         }
///         Ok(()) // after the commit
///     }
///     async fn clear(&self) -> Result<()> {
///         self.0.lock().unwrap().rows.clear();
///         Ok(())
///     }
///     async fn read_back(&self, rows: &mut dyn RowSink) -> Result<()> {
///         read(&self.0.lock().unwrap(), rows).map(drop)
///     }
///     async fn replace(&self, format: &Format, rows: &[ByteWrite<'_>]) -> Result<()> {
///         let mut content = self.0.lock().unwrap();
///         *content = Content { format: Some(format.to_text()), ..Content::default() };
///         for row in rows {
///             insert(&mut content, row.key, row.value.unwrap_or_default());
///         }
///         Ok(())
///     }
///     async fn flush(&self) -> Result<()> {
///         Ok(()) // nothing is buffered
///     }
///     async fn close(&self) -> Result<()> {
///         Ok(()) // nothing is held
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(Shelf::default()).await?; // for keys and values of any type
/// map.insert_many([("a".to_string(), 1.5), ("b".to_string(), 2.5)]).await?;
/// assert_eq!(map.verify().await?, 2);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a backend for these types of keys and values",
    label = "implements neither `ByteStore` nor `StorageBackend<K, V>` for this `K` and `V`",
    note = "a map needs a backend, such as `SqliteBackend`, of which `new` is awaited and may fail: `SqliteBackend::new(path).await?`; \
            one of your own implements `StorageBackend<K, V>` for the types of \
            its entries, or `ByteStore` for all types"
)]
#[async_trait]
pub trait ByteStore: Send + Sync + 'static {
    /// The codec that keys and values are written with.
    type Codec: Codec;

    /// The codec that keys and values are written with.
    fn codec(&self) -> &Self::Codec;

    /// File and table, for messages.
    fn location(&self) -> Location;

    /// What the store can do. Constant for the life of the store.
    fn capabilities(&self) -> Capabilities;

    /// Refuses an entry that the store cannot take, by its sizes in bytes. Called before the write is queued.
    ///
    /// Default: all sizes are taken.
    ///
    /// # Errors
    /// [`TooLarge`](crate::PersistentError::TooLarge).
    fn check(&self, key_bytes: usize, value_bytes: usize) -> Result<()> {
        let _ = (key_bytes, value_bytes);
        Ok(())
    }

    /// Compares `format` with what the data was written in ([`Format::compare`]), gives all rows to `rows`, and makes
    /// durable what was recovered.
    ///
    /// - A row with a bad checksum: [`RowSink::damaged`].
    /// - After the last row: [`RowSink::finish`]. If it fails, return its error and leave all rows where they are.
    /// - Only after `finish` has answered `Ok`: keep `format`, if it is not what is kept already. The rows may turn out not
    ///   to be of it, and then the types that they are of must still open the store.
    /// - Rows that the sink has answered with [`RowVerdict::SetAside`]: then moved to where they are neither loaded again
    ///   nor lost, before `load` returns. Best with the commit that keeps the format. A store that has no place for them
    ///   answers [`Unsupported`](crate::PersistentError::Unsupported) and changes nothing.
    /// - An error of the sink: stop and return it.
    ///
    /// # Errors
    /// [`Mismatch`](crate::PersistentError::Mismatch) if the format differs (the data is left as it is, and the sink gets
    /// no row), what the sink says, or the store's own failure.
    async fn load(&self, format: &Format, rows: &mut dyn RowSink) -> Result<()>;

    /// Applies a batch in order. All of it or nothing, if [`capabilities`](Self::capabilities) says so; otherwise the
    /// batch has at most one write.
    ///
    /// # Errors
    /// Nothing was applied, unless the error is marked unknown.
    async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()>;

    /// Removes all rows, or none.
    ///
    /// # Errors
    /// Nothing was removed, unless the error is marked unknown.
    async fn clear(&self) -> Result<()>;

    /// Gives all rows to `rows` as they are stored now. Called between two writes; it changes nothing.
    ///
    /// - A row with a bad checksum: [`RowSink::damaged`].
    /// - An error of the sink: stop and return it.
    /// - Nothing is set aside, whatever the sink says of a row, and [`RowSink::finish`] is not called.
    ///
    /// # Errors
    /// What the sink says, or the store's own failure.
    async fn read_back(&self, rows: &mut dyn RowSink) -> Result<()>;

    /// Replaces all rows by `rows`, with one commit, and records `format` for what they are. Called after
    /// [`load`](Self::load) with an older format has succeeded.
    ///
    /// Default: [`Unsupported`](crate::PersistentError::Unsupported).
    ///
    /// # Errors
    /// Nothing was changed, unless the error is marked unknown.
    async fn replace(&self, format: &Format, rows: &[ByteWrite<'_>]) -> Result<()> {
        let _ = (format, rows);
        Err(PersistentError::unsupported("a change of types in place"))
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Something that was accepted could not be written.
    async fn flush(&self) -> Result<()>;

    /// Releases files, locks and connections. A second call has nothing to do.
    ///
    /// # Errors
    /// Something could not be released in an orderly way.
    async fn close(&self) -> Result<()>;
}

/// What the bytes of a store mean. Kept with the data, compared at each load: a store keeps [`to_text`](Self::to_text), and
/// gives it to [`compare_text`](Self::compare_text) when it is opened again.
///
/// ```
/// use persistent_map_core::{Format, Location};
///
/// let format = Format { description: 1, codec: "bincode".into(), key: "str".into(), value: "{a:u8,\n:é}".into() };
/// let (text, place) = (format.to_text(), Location::of_file("app.db"));
/// format.compare_text(&text, &place)?;
/// assert!(format.compare_text(&text[1..], &place).is_err());
/// # Ok::<(), persistent_map_core::PersistentError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The version of the way in which types are described. Descriptions of different versions cannot be compared: take
    /// the new one.
    pub description: u32,
    /// [`Codec::id`].
    pub codec: String,
    /// [`Codec::fingerprint`] of the key type.
    pub key: String,
    /// [`Codec::fingerprint`] of the value type.
    pub value: String,
}

impl Format {
    /// Compares with the format that was found in the store at `place`. `Ok` says that the data can be read, and that this
    /// format is to be recorded in the place of `found` if it is not the same.
    ///
    /// ```
    /// use persistent_map_core::{Format, Location, PersistentError};
    ///
    /// let found = Format { description: 1, codec: "bincode".into(), key: "str".into(), value: "u64".into() };
    /// let asked = Format { value: "u32".into(), ..found.clone() };
    /// assert!(found.compare(&found, &Location::default()).is_ok());
    /// let refused = asked.compare(&found, &Location::default());
    /// assert!(matches!(refused, Err(PersistentError::Mismatch { .. })));
    /// ```
    ///
    /// # Errors
    /// [`Mismatch`](PersistentError::Mismatch): another codec, or other types.
    pub fn compare(&self, found: &Format, place: &Location) -> Result<()> {
        let comparable = self.description == found.description;
        let (part, expected, found) = if self.codec != found.codec {
            ("codec", &self.codec, &found.codec)
        } else if comparable && self.key != found.key {
            ("keys of type", &self.key, &found.key)
        } else if comparable && self.value != found.value {
            ("values of type", &self.value, &found.value)
        } else {
            return Ok(());
        };
        Err(PersistentError::Mismatch {
            place: place.to_string(),
            expected: format!("{part} {expected}"),
            found: format!("{part} {found}"),
            advice: "Open it with the codec and the types that it was written with. A field that was only renamed keeps \
                     its stored name with `#[serde(rename = \"..\")]`"
                .to_string(),
        })
    }

    /// Compares with the text of a format, from [`to_text`](Self::to_text), that was found in the store at `place`.
    ///
    /// # Errors
    /// As for [`compare`](Self::compare), and [`Damaged`](PersistentError::Damaged) for a text that is no format.
    pub fn compare_text(&self, found: &str, place: &Location) -> Result<()> {
        let found = Format::from_text(found).ok_or_else(|| {
            PersistentError::damaged(place, "its record of codec and types cannot be read")
        })?;
        self.compare(&found, place)
    }

    /// The format as a text for a store to keep, and to [compare](Self::compare_text) at the next load.
    pub fn to_text(&self) -> String {
        let parts = [&self.codec, &self.key, &self.value];
        let parts = parts.map(|part| format!("{}:{part}", part.len()));
        format!("{}:{}", self.description, parts.concat())
    }

    fn from_text(text: &str) -> Option<Format> {
        let (description, mut rest) = text.split_once(':')?;
        let mut part = || {
            let (length, text) = rest.split_once(':')?;
            let (part, after) = text.split_at_checked(length.parse().ok()?)?;
            rest = after;
            Some(part.to_string())
        };
        let format = Format {
            description: description.parse().ok()?,
            codec: part()?,
            key: part()?,
            value: part()?,
        };
        rest.is_empty().then_some(format)
    }
}

/// One change of one row: an insert if it has a value, a removal if it has none. For an example see [`ByteStore`].
///
/// A batch that goes to another thread must own its bytes:
///
/// ```
/// use persistent_map_core::{ByteWrite, Encoded};
///
/// let batch = [ByteWrite { key: b"a", value: Some(b"1") }, ByteWrite { key: b"b", value: None }];
/// let owned: Vec<Encoded> = batch.iter().map(Encoded::from).collect();
/// std::thread::spawn(move || assert_eq!(owned[0].value(), Some(&b"1"[..]))).join().unwrap();
/// ```
#[derive(Clone, Copy)]
pub struct ByteWrite<'a> {
    /// The key's bytes.
    pub key: &'a [u8],
    /// The value's bytes, or `None` for a removal.
    pub value: Option<&'a [u8]>,
}

/// Sizes only: the bytes may be secret.
impl fmt::Debug for ByteWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteWrite")
            .field("key_bytes", &self.key.len())
            .field("value_bytes", &self.value.map(<[u8]>::len))
            .finish()
    }
}

/// Where [`ByteStore::load`] puts the rows it finds. For an example see [`ByteStore`].
pub trait RowSink: Send {
    /// How many rows will come. May be an estimate, may be left out.
    fn expect(&mut self, rows: u64);

    /// Takes one undamaged row. `number` counts from 1 in reading order.
    ///
    /// # Errors
    /// The open fails. Pass the error on.
    fn row(&mut self, number: u64, key: &[u8], value: &[u8]) -> Result<RowVerdict>;

    /// Takes the report of a damaged row. If it answers `Ok`, the row is to be set aside.
    ///
    /// # Errors
    /// The open fails. Pass the error on.
    fn damaged(&mut self, number: u64, key: &[u8], reason: &str) -> Result<()>;

    /// Called once by [`ByteStore::load`], after the last row, and never by [`ByteStore::read_back`].
    ///
    /// # Errors
    /// None of the rows is of the map's types, so it is not their fault: nothing may be set aside. Pass the error on.
    fn finish(&mut self) -> Result<()>;
}

/// What is to become of a row. For an example see [`ByteStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum RowVerdict {
    /// It is an entry of the map.
    Loaded,
    /// It does not decode: to be moved out of the way.
    SetAside,
}
