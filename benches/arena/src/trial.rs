//! One step by one contender, as it stands on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::data::{Record, Text};
use crate::gauge::Figures;
use crate::steps::{batch, burst, fill, get, insert, open, ycsb};
use crate::store::{Outcome, Store};

/// One step by one contender.
#[derive(Debug, Clone, Args)]
pub struct Trial {
    /// What to do
    #[arg(long)]
    pub step: Step,
    /// Where the store is
    #[arg(long)]
    pub directory: PathBuf,
    /// Entries of the store, or to be written
    #[arg(long)]
    pub entries: u64,
    /// Tasks that work at the same time
    #[arg(long)]
    pub tasks: usize,
    /// How long, for steps that go on until the time is up
    #[arg(long)]
    pub seconds: f64,
}

/// What a contender does in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Makes a store with entries
    Fill,
    /// The same in the order of the keys: a B-tree takes ten million entries in no order for hours
    FillInOrder,
    /// A store with the records of YCSB
    FillRecords,
    /// Reads entries
    Get,
    /// Inserts new entries, one a call
    Insert,
    /// Inserts new entries as fast as memory takes them, and stores them afterwards
    Burst,
    /// Inserts all entries at once
    Batch,
    /// Opens a store
    Open,
    /// Opens a store, and inserts new entries, one a call
    OpenInsert,
    /// 50 % reads, 50 % updates
    YcsbA,
    /// 95 % reads, 5 % updates
    YcsbB,
    /// Reads
    YcsbC,
    /// 95 % reads of the latest, 5 % inserts
    YcsbD,
    /// 50 % reads, 50 % reads that are followed by an update
    YcsbF,
}

/// Has a contender do a step, with texts or with records, and returns what was measured.
///
/// # Errors
/// What the contender says.
pub async fn compete<S: Store<Text>, R: Store<Record>>(trial: &Trial) -> Outcome<Figures> {
    match trial.step {
        Step::Fill => fill::run::<Text, S>(trial, false).await,
        Step::FillInOrder => fill::run::<Text, S>(trial, true).await,
        Step::FillRecords => fill::run::<Record, R>(trial, false).await,
        Step::Get => get::run::<S>(trial).await,
        Step::Insert => insert::run::<S>(trial).await,
        Step::Burst => burst::run::<S>(trial).await,
        Step::Batch => batch::run::<S>(trial).await,
        Step::Open => open::run::<S>(trial).await,
        Step::OpenInsert => {
            let mut figures = open::run::<S>(trial).await?;
            figures.extend(insert::run::<S>(trial).await?);
            Ok(figures)
        }
        Step::YcsbA | Step::YcsbB | Step::YcsbC | Step::YcsbD | Step::YcsbF => {
            ycsb::run::<R>(trial).await
        }
    }
}

impl Trial {
    /// The trial as arguments of the command that does it.
    pub fn arguments(&self) -> Vec<String> {
        let step = self.step.to_possible_value();
        vec![
            format!(
                "--step={}",
                step.as_ref().map_or("", |step| step.get_name())
            ),
            format!("--directory={}", self.directory.display()),
            format!("--entries={}", self.entries),
            format!("--tasks={}", self.tasks),
            format!("--seconds={}", self.seconds),
        ]
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
