//! The `persistent-map` that was published as 0.1.3, behind the command line of a contender.

mod backend;

use std::path::Path;
use std::process::ExitCode;

use arena::{Figures, Outcome, Payload, Store, Trial, compete};
use clap::{Parser, ValueEnum};
use persistent_map::PersistentMap;
use persistent_map::csv::CsvBackend as Csv;
use persistent_map::in_memory::InMemoryBackend as Memory;
use persistent_map::sqlite::SqliteBackend as Sqlite;

use crate::backend::Backend;

#[derive(Parser)]
struct Cli {
    contender: Contender,
    #[command(flatten)]
    trial: Trial,
}

#[derive(Clone, Copy, ValueEnum)]
enum Contender {
    PublishedSqlite,
    PublishedCsv,
    PublishedMemory,
}

fn main() -> ExitCode {
    let Cli { contender, trial } = Cli::parse();
    match run(contender, &trial) {
        Ok(figures) => {
            println!("{}", serde_json::json!(figures));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(contender: Contender, trial: &Trial) -> Outcome<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        match contender {
            Contender::PublishedSqlite => compete::<Map<_, Sqlite>, Map<_, Sqlite>>(trial).await,
            Contender::PublishedCsv => compete::<Map<_, Csv>, Map<_, Csv>>(trial).await,
            Contender::PublishedMemory => compete::<Map<_, Memory>, Map<_, Memory>>(trial).await,
        }
    })
}

struct Map<V: Payload, B: Backend<V>>(PersistentMap<String, V, B>);

impl<V: Payload, B: Backend<V>> Store<V> for Map<V, B> {
    const BLOCKS: bool = false;

    async fn open(directory: &Path) -> Outcome<Self> {
        let backend = B::open(directory).await?;
        Ok(Map(PersistentMap::new(backend).await?))
    }

    async fn insert(&self, key: String, value: V) -> Outcome<()> {
        self.0.insert(key, value).await?;
        Ok(())
    }

    /// It has no way to do this atomically.
    async fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> Outcome<()> {
        let key = key.to_owned();
        if let Some(mut value) = self.0.get(&key) {
            change(&mut value);
            self.0.insert(key, value).await?;
        }
        Ok(())
    }

    async fn fill(&self, entries: Vec<(String, V)>) -> Outcome<()> {
        if B::CAN_FILL {
            return self.0.backend().fill(entries).await;
        }
        for (key, value) in entries {
            self.0.insert(key, value).await?;
        }
        Ok(())
    }

    fn get(&self, key: &String) -> Outcome<Option<V>> {
        Ok(self.0.get(key))
    }

    async fn flush(&self) -> Outcome<()> {
        Ok(self.0.flush().await?)
    }
}
