//! Who competes, and what an answer of theirs is worth.

mod append;
mod by_hand;
mod dashmap;
mod fjall;
mod heed;
mod product;
mod redb;

use arena::{Figures, Outcome, Trial, compete};
use clap::ValueEnum;

use crate::contenders::product::Product;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    Sqlite,
    SqliteBehind,
    Csv,
    CsvUnsynced,
    Memory,
    PublishedSqlite,
    PublishedCsv,
    PublishedMemory,
    ByHand,
    Redb,
    Fjall,
    Heed,
    Append,
    Dashmap,
}

/// What survives of acknowledged writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) kill: &'static str,
    pub(crate) power_cut: &'static str,
}

const DURABLE: Promise = Promise {
    kill: "all",
    power_cut: "all",
};
/// Written, and not synced.
const WRITTEN: Promise = Promise {
    kill: "all",
    power_cut: "not the latest",
};
/// In memory for a while. The state of one moment comes back.
const FOLLOWS: Promise = Promise {
    kill: "not the latest",
    power_cut: "not the latest",
};
const VOLATILE: Promise = Promise {
    kill: "none",
    power_cut: "none",
};

impl Contender {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Contender::Sqlite => "persistent-map, SQLite",
            Contender::SqliteBehind => "persistent-map, SQLite, behind",
            Contender::Csv => "persistent-map, CSV",
            Contender::CsvUnsynced => "persistent-map, CSV, sync off",
            Contender::Memory => "persistent-map, in memory",
            Contender::PublishedSqlite => "0.1.3, SQLite",
            Contender::PublishedCsv => "0.1.3, CSV",
            Contender::PublishedMemory => "0.1.3, in memory",
            Contender::ByHand => "rusqlite by hand",
            Contender::Redb => "redb",
            Contender::Fjall => "fjall, SyncData",
            Contender::Heed => "heed (LMDB)",
            Contender::Append => "append + fdatasync",
            Contender::Dashmap => "bare DashMap",
        }
    }

    pub(crate) fn promise(self) -> Promise {
        match self {
            Contender::Sqlite
            | Contender::Csv
            | Contender::ByHand
            | Contender::Redb
            | Contender::Fjall
            | Contender::Heed
            | Contender::Append => DURABLE,
            Contender::CsvUnsynced => WRITTEN,
            Contender::SqliteBehind => FOLLOWS,
            // What its settings say: the rollback journal is deleted, and its directory is not synced.
            Contender::PublishedSqlite => Promise {
                kill: "all",
                power_cut: "not the latest",
            },
            // A row that a kill tears is read as another value.
            Contender::PublishedCsv => Promise {
                kill: "rows may be torn",
                power_cut: "no promise",
            },
            Contender::Memory | Contender::PublishedMemory | Contender::Dashmap => VOLATILE,
        }
    }

    /// Whether it is part of the product.
    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Contender::Sqlite
                | Contender::SqliteBehind
                | Contender::Csv
                | Contender::CsvUnsynced
                | Contender::Memory
        )
    }

    /// Whether it has a program of its own.
    pub(crate) fn is_published(self) -> bool {
        matches!(
            self,
            Contender::PublishedSqlite | Contender::PublishedCsv | Contender::PublishedMemory
        )
    }

    /// What the command line calls it.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) async fn compete(self, trial: &Trial) -> Outcome<Figures> {
        match self {
            Contender::Sqlite => ours::<product::Sqlite>(trial).await,
            Contender::SqliteBehind => ours::<product::SqliteBehind>(trial).await,
            Contender::Csv => ours::<product::Csv>(trial).await,
            Contender::CsvUnsynced => ours::<product::CsvUnsynced>(trial).await,
            Contender::Memory => ours::<product::Memory>(trial).await,
            Contender::ByHand => compete::<by_hand::ByHand<_>, by_hand::ByHand<_>>(trial).await,
            Contender::Redb => compete::<redb::Redb, redb::Redb>(trial).await,
            Contender::Fjall => compete::<fjall::Fjall, fjall::Fjall>(trial).await,
            Contender::Heed => compete::<heed::Heed, heed::Heed>(trial).await,
            Contender::Append => compete::<append::Append, append::Append>(trial).await,
            Contender::Dashmap => compete::<dashmap::Bare<_>, dashmap::Bare<_>>(trial).await,
            Contender::PublishedSqlite | Contender::PublishedCsv | Contender::PublishedMemory => {
                Err("0.1.3 has a program of its own, `published`".into())
            }
        }
    }
}

async fn ours<Kind>(trial: &Trial) -> Outcome<Figures>
where
    Kind: product::Open,
    Kind::Backend: persistent_map::StorageBackend<String, arena::Text>
        + persistent_map::StorageBackend<String, arena::Record>,
{
    compete::<Product<arena::Text, Kind>, Product<arena::Record, Kind>>(trial).await
}
