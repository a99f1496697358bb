//! Airports in a map that is kept in a SQLite file.
//!
//! A second map in the same file remembers that a load was completed. Without it nobody could tell a load that was
//! interrupted, which has to go on, from entries that were lost, which must not be mended in silence.

use std::error::Error;
use std::fmt;
use std::path::Path;

use persistent_map::sqlite::SqliteBackend;
use persistent_map::{OpenReport, PersistentMap};
use tokio::task::JoinSet;

use crate::Result;
use crate::airport::{Airport, Airports};

/// How many tasks write at the same time. They share commits: more tasks, fewer commits.
const TASKS: usize = 64;

/// The key in the map of completed loads.
const LOADED: &str = "airports";

/// The stored airports.
#[derive(Debug)]
pub struct Store {
    /// By IATA code.
    pub airports: PersistentMap<String, Airport, SqliteBackend>,
    /// How many airports there were in a load that was completed.
    loads: PersistentMap<String, u64, SqliteBackend>,
}

impl Store {
    /// Opens the store, or makes an empty one, and says what opening the airports has found.
    ///
    /// # Errors
    /// The file cannot be used.
    pub async fn open(path: &Path) -> Result<(Self, OpenReport)> {
        let backend = SqliteBackend::new(path).await?;
        let loads = PersistentMap::new(backend.table("loads").await?).await?;
        let (airports, report) = PersistentMap::builder(backend).open_with_report().await?;
        Ok((Store { airports, loads }, report))
    }

    /// Whether a load has been completed.
    pub fn is_complete(&self) -> bool {
        self.loads.contains_key(LOADED)
    }

    /// Inserts the airports that are missing, from many tasks, and returns how many these were. Calls `stored` after
    /// each. May be interrupted at any point and called again.
    ///
    /// # Errors
    /// An airport could not be stored. Others may have been.
    pub async fn load(&self, airports: &Airports, mut stored: impl FnMut()) -> Result<u64> {
        let mut missing = airports
            .iter()
            .filter(|(code, _)| !self.airports.contains_key(*code));
        let mut inserts = JoinSet::new();
        let mut count = 0;
        loop {
            while inserts.len() < TASKS
                && let Some((code, airport)) = missing.next()
            {
                let map = self.airports.clone();
                let (code, airport) = (code.clone(), airport.clone());
                inserts.spawn(async move { map.insert(code, airport).await });
            }
            let Some(insert) = inserts.join_next().await else {
                break;
            };
            insert??;
            count += 1;
            stored();
        }
        self.loads
            .insert(LOADED.to_string(), airports.len() as u64)
            .await?;
        Ok(count)
    }

    /// Compares all entries, in both directions: those of `airports` with the stored ones, and the other way round.
    ///
    /// # Errors
    /// They are not equal.
    pub fn verify(&self, airports: &Airports) -> Result<(), Mismatch> {
        let mut mismatch = Mismatch::default();
        for (code, airport) in airports {
            match self.airports.with(code, |stored| stored == airport) {
                Some(true) => {}
                Some(false) => mismatch.different.push(code.clone()),
                None => mismatch.missing.push(code.clone()),
            }
        }
        mismatch.unknown = self.airports.keys().collect();
        mismatch.unknown.retain(|code| !airports.contains_key(code));
        if mismatch == Mismatch::default() {
            Ok(())
        } else {
            Err(mismatch)
        }
    }

    /// Writes out everything and releases the file.
    ///
    /// # Errors
    /// The file could not be closed in an orderly way.
    pub async fn close(&self) -> Result<()> {
        self.loads.close().await?;
        self.airports.close().await?;
        Ok(())
    }
}

/// Codes of entries that differ between the map and the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// In the file, not in the map.
    pub missing: Vec<String>,
    /// In both, with different values.
    pub different: Vec<String>,
    /// In the map, not in the file.
    pub unknown: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the map differs from the file:")?;
        let kinds = [
            ("not in the map", &self.missing),
            ("with another value in the map", &self.different),
            ("only in the map", &self.unknown),
        ];
        for (kind, codes) in kinds.into_iter().filter(|(_, codes)| !codes.is_empty()) {
            const SHOWN: usize = 5;
            let first = codes[..codes.len().min(SHOWN)].join(", ");
            let more = if codes.len() > SHOWN { ", …" } else { "" };
            write!(f, " {} {kind} ({first}{more});", codes.len())?;
        }
        f.write_str(" delete the map's file to load it again")
    }
}

impl Error for Mismatch {}
