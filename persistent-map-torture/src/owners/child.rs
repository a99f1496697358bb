//! The child: it opens a store, perhaps with types of before in it, writes entries that have its number, and says what it is
//! told, until it is told to end.

use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use persistent_map_core::{PersistentMap, StorageBackend};
use persistent_map_csv::CsvBackend;
use persistent_map_sqlite::SqliteBackend;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::planted::Planted;
use crate::process::die_with_parent;
use crate::protocol::{Change, Line, Refusal, say};
use crate::runtime;
use crate::store::MERGE_SOON;

/// Calls after one that has told that the store is lost. None may be acknowledged.
const CALLS_AFTER_IT: u32 = 5;
const WRITERS: u64 = 2;
/// Calls between two flushes.
const BETWEEN_FLUSHES: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Csv,
    Sqlite,
    SqliteShared,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Csv, Kind::Sqlite, Kind::SqliteShared];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Csv => "csv",
            Kind::Sqlite => "sqlite",
            Kind::SqliteShared => "sqlite-shared",
        }
    }

    pub(super) fn file_name(self) -> &'static str {
        match self {
            Kind::Csv => "app.csv",
            Kind::Sqlite | Kind::SqliteShared => "app.db",
        }
    }
}

#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct OwnerArgs {
    #[arg(long)]
    path: PathBuf,
    #[arg(long, value_enum)]
    kind: Kind,
    /// Where orders are found: files of a name
    #[arg(long)]
    orders: PathBuf,
    #[arg(long)]
    id: u64,
    /// When to open the store
    #[arg(long, default_value_t = 0)]
    at: u64,
    #[arg(long)]
    unsynced: bool,
    #[arg(long)]
    accept_missing_wal: bool,
    /// Only say what is there
    #[arg(long)]
    look: bool,
    /// Make a store of the types of before
    #[arg(long)]
    before: bool,
    #[arg(long)]
    planted: Option<Planted>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Before {
    number: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    number: u64,
    owner: u64,
}

/// By a clock that all processes of the machine share, in nanoseconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

pub(crate) fn own(args: &OwnerArgs) -> Result<(), Failure> {
    die_with_parent();
    runtime()?.block_on(async {
        let early = Duration::from_nanos(args.at.saturating_sub(now()));
        thread::sleep(early.saturating_sub(Duration::from_millis(1)));
        while now() < args.at {
            std::hint::spin_loop();
        }
        match args.kind {
            Kind::Csv => {
                let backend = CsvBackend::new(&args.path).sync(!args.unsynced);
                live(args, backend.merge_after(MERGE_SOON)).await
            }
            Kind::Sqlite | Kind::SqliteShared => {
                let backend = SqliteBackend::builder(&args.path)
                    .shared_reads(args.kind == Kind::SqliteShared)
                    .accept_missing_wal(args.accept_missing_wal);
                live(args, backend.open().await?).await
            }
        }
    })
}

async fn live<B>(args: &OwnerArgs, backend: B) -> Result<(), Failure>
where
    B: StorageBackend<String, Before> + StorageBackend<String, Entry> + 'static,
{
    if args.before {
        let map: PersistentMap<String, Before, B> = PersistentMap::new(backend).await?;
        for number in 0..3 {
            map.insert(format!("before-{number}"), Before { number })
                .await?;
        }
        map.close().await?;
        return Ok(());
    }
    let map: PersistentMap<String, Entry, B> = PersistentMap::builder(backend)
        .migrate(|before: Before| Entry {
            number: before.number,
            owner: 0,
        })
        .open()
        .await?;
    say(&Line::Since {
        stamp: now(),
        process: process::id().into(),
    });
    for (key, entry) in &map {
        say(&Line::Stored {
            key,
            version: entry.number,
        });
    }
    say(&Line::Begun);
    if !args.look {
        let is_told = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(Writer::new(args, writer, &map, &is_told).write()))
            .collect();
        for writer in writers {
            let ended = writer.await;
            ended.map_err(|error| Failure::Trouble(format!("a writer: {error}")))?;
        }
    }
    if let Err(error) = map.close().await {
        say(&Line::Told(error.to_string()));
    }
    say(&Line::Done);
    Ok(())
}

/// One of the tasks that write.
struct Writer<B> {
    map: PersistentMap<String, Entry, B>,
    orders: PathBuf,
    path: PathBuf,
    owner: u64,
    number: u64,
    has_copied: bool,
    is_told: Arc<AtomicBool>,
    planted: Option<Planted>,
}

impl<B> Writer<B>
where
    B: StorageBackend<String, Entry> + 'static,
{
    fn new(
        args: &OwnerArgs,
        writer: u64,
        map: &PersistentMap<String, Entry, B>,
        is_told: &Arc<AtomicBool>,
    ) -> Self {
        Writer {
            map: map.clone(),
            orders: args.orders.clone(),
            path: args.path.clone(),
            owner: args.id,
            number: writer,
            has_copied: false,
            is_told: Arc::clone(is_told),
            planted: args.planted,
        }
    }

    async fn write(mut self) {
        let mut left = CALLS_AFTER_IT;
        let mut number = 0;
        while !self.is_ordered("stop") {
            if self.number == 0 && !self.has_copied && self.is_ordered("copy") {
                self.has_copied = true;
                let copied = std::fs::copy(&self.path, self.orders.join("copy"));
                say(&copied.map_or_else(
                    |error| Line::Told(format!("copying: {error}")),
                    |_| Line::Copied,
                ));
            }
            if self.is_told.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            self.insert(number).await;
            number += 1;
            if self.number == 0 && number % BETWEEN_FLUSHES == 0 {
                self.flush().await;
            }
        }
    }

    async fn insert(&self, number: u64) {
        let key = format!("o{}-{}-{number}", self.owner, self.number);
        say(&Line::Attempt {
            key: key.clone(),
            version: now(),
            change: Change::Put,
        });
        let owner = self.owner;
        let result = self.map.insert(key.clone(), Entry { number, owner }).await;
        let version = now();
        match result {
            Err(_) if self.planted == Some(Planted::AckFailed) => {
                say(&Line::Acknowledged { key, version });
            }
            Ok(_) => say(&Line::Acknowledged { key, version }),
            Err(error) => {
                self.is_told.store(true, Ordering::SeqCst);
                let why = Refusal::of(&error);
                say(&Line::Told(error.to_string()));
                say(&Line::Failed { key, version, why });
            }
        }
    }

    async fn flush(&self) {
        if let Err(error) = self.map.flush().await {
            self.is_told.store(true, Ordering::SeqCst);
            say(&Line::Told(error.to_string()));
        }
    }

    fn is_ordered(&self, what: &str) -> bool {
        let order = format!("{what}-{}", self.owner);
        self.orders.join(order).exists()
    }
}
