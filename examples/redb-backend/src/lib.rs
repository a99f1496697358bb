//! Maps in a [redb](https://www.redb.org) file: a backend as somebody outside of this project would write it, on the public
//! contract alone. `file.rs` is from a path to an open database, and back; `tests/` holds the whole against the contract,
//! against `kill -9` and flipped bytes.

mod file;

use std::path::{Path, PathBuf};

use persistent_map_core::{
    Bincode, ByteStore, ByteWrite, Capabilities, Encoded, Format, Location, Result, RowSink,
    RowVerdict, Survives, async_trait,
};
use persistent_map_file::{Hold, resolve};
use redb::{
    Error, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction,
};

use crate::file::Store;

type Bytes = &'static [u8];
type Row = (Vec<u8>, Vec<u8>);

const ENTRIES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("entries");
const SET_ASIDE: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("set_aside");
/// What the bytes mean.
const FORMAT: TableDefinition<'_, (), &str> = TableDefinition::new("format");

/// Entries in a redb file. An acknowledged write survives a power cut.
#[derive(Debug)]
pub struct RedbBackend {
    path: PathBuf,
    /// Calls of redb block, so they are made on a thread of their own.
    hold: Hold<Store>,
}

impl RedbBackend {
    /// Opens the file at `path`, or makes a new one.
    ///
    /// # Errors
    /// Somebody else has it open, or it is not a file of redb.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = resolve(path.as_ref())?;
        let target = path.clone();
        let hold = Hold::default();
        let open = move || Ok((Store::open(&target)?, ()));
        hold.open("opening a database", open).await?;
        Ok(RedbBackend { path, hold })
    }

    /// One durable transaction. What fails before the commit goes with its transaction: not applied. A commit that fails may
    /// be on the disk all the same: unknown.
    async fn commit<T: Send + 'static>(
        &self,
        doing: &'static str,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T> {
        let work = move |store: &mut Store| {
            let begin = || {
                let transaction = store.database.begin_write()?;
                let done = change(&transaction)?;
                Ok((transaction, done))
            };
            let (transaction, done) = begin().map_err(|error| store.failed(doing, error))?;
            match transaction.commit() {
                Ok(()) => Ok(done),
                Err(error) => Err(store.failed(doing, error.into()).unknown()),
            }
        };
        self.hold.with(doing, work).await
    }

    /// Gives all rows to `rows`. Returns the keys of those that are to be set aside.
    async fn read(&self, rows: &mut dyn RowSink) -> Result<Vec<Vec<u8>>> {
        let begin = |store: &mut Store| {
            let read = || {
                let table = store.database.begin_read()?.open_table(ENTRIES)?;
                Ok((table.len()?, table.range_owned::<Bytes>(..)?))
            };
            read().map_err(|error| store.failed("reading", error))
        };
        let (count, mut range) = self.hold.with("reading", begin).await?;
        rows.expect(count);
        let (mut number, mut aside) = (0, Vec::new());
        loop {
            // The sink stays in this task and redb blocks, so rows go from one to the other in pieces.
            let next = move |store: &mut Store| {
                let piece = range.by_ref().take(256).map(|row| {
                    let (key, value) = row?;
                    Ok((key.value().to_vec(), value.value().to_vec()))
                });
                let piece: Result<Vec<Row>, Error> = piece.collect();
                let piece = piece.map_err(|error| store.failed("reading", error))?;
                Ok((range, piece))
            };
            let (rest, piece) = self.hold.with("reading", next).await?;
            if piece.is_empty() {
                return Ok(aside);
            }
            range = rest;
            for (key, value) in piece {
                number += 1;
                if rows.row(number, &key, &value)? == RowVerdict::SetAside {
                    aside.push(key);
                }
            }
        }
    }
}

#[async_trait]
impl ByteStore for RedbBackend {
    type Codec = Bincode;

    fn codec(&self) -> &Bincode {
        &Bincode
    }

    fn location(&self) -> Location {
        Location::of_file(&self.path)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::one_at_a_time()
            .with_atomic_batches()
            .surviving(Survives::PowerLoss)
    }

    async fn load(&self, format: &Format, rows: &mut dyn RowSink) -> Result<()> {
        let found = |store: &mut Store| {
            let read = || {
                let table = store.database.begin_read()?.open_table(FORMAT)?;
                Ok(table.get(())?.map(|text| text.value().to_string()))
            };
            read().map_err(|error| store.failed("reading types", error))
        };
        if let Some(found) = self.hold.with("reading types", found).await? {
            format.compare_text(&found, &self.location())?;
        }
        let aside = self.read(rows).await?;
        rows.finish()?;
        let format = format.to_text();
        // A commit in any case: it also syncs what a killed process has left in the kernel's memory only.
        self.commit("recording types", move |transaction| {
            transaction
                .open_table(FORMAT)?
                .insert((), format.as_str())?;
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut set_aside = transaction.open_table(SET_ASIDE)?;
            for key in &aside {
                if let Some(value) = entries.remove(key.as_slice())? {
                    set_aside.insert(key.as_slice(), value.value())?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn apply(&self, batch: &[ByteWrite<'_>]) -> Result<()> {
        let batch: Vec<_> = batch.iter().map(Encoded::from).collect();
        self.commit("writing", move |transaction| write(transaction, &batch))
            .await
    }

    async fn clear(&self) -> Result<()> {
        self.commit("clearing", |transaction| {
            transaction.delete_table(ENTRIES)?;
            write(transaction, &[])
        })
        .await
    }

    async fn read_back(&self, rows: &mut dyn RowSink) -> Result<()> {
        self.read(rows).await.map(drop)
    }

    async fn replace(&self, format: &Format, rows: &[ByteWrite<'_>]) -> Result<()> {
        let format = format.to_text();
        let rows: Vec<_> = rows.iter().map(Encoded::from).collect();
        self.commit("replacing", move |transaction| {
            transaction.delete_table(ENTRIES)?;
            transaction
                .open_table(FORMAT)?
                .insert((), format.as_str())?;
            write(transaction, &rows)
        })
        .await
    }

    async fn flush(&self) -> Result<()> {
        Ok(()) // Each commit is on the disk when it returns.
    }

    async fn close(&self) -> Result<()> {
        self.hold.close("closing", Store::close).await
    }
}

fn write(transaction: &WriteTransaction, batch: &[Encoded]) -> Result<(), Error> {
    let mut entries = transaction.open_table(ENTRIES)?;
    for write in batch {
        match write.value() {
            Some(value) => entries.insert(write.key(), value)?,
            None => entries.remove(write.key())?,
        };
    }
    Ok(())
}
