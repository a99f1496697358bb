//! Mixed work for a long time in one process: what it takes of the machine must not grow, and every promise holds to the
//! end. Half of the time the map is closed and opened again and again, half of it it stays open: they leak differently.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use persistent_map_core::{Behind, WriteMode};

use crate::failure::Failure;
use crate::harm::Mode;
use crate::load::{KEYS, Load, look_over, verify};
use crate::plot;
use crate::record::Record;
use crate::runtime;
use crate::store::{Backend, MERGE_LATER, Map, open_with};
use crate::vitals::{Vitals, waiting};

/// How often the map is closed in the first half.
const CLOSES: u32 = 12;
const BETWEEN_SAMPLES: Duration = Duration::from_millis(250);
/// Fewer say nothing.
const SAMPLES: u32 = 200;
/// Samples between two looks at all that is stored.
const BETWEEN_LOOKS: u32 = 8;
const LEAKED_COPIES: u32 = 4;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// What keeps the entries
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    backend: Backend,
    /// When a write is stored
    #[arg(long, value_enum, default_value_t = Mode::Through)]
    mode: Mode,
    /// Tasks that call the map
    #[arg(long, default_value_t = 16)]
    tasks: u32,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// An SVG file to draw what was sampled
    #[arg(long)]
    plot: Option<PathBuf>,
    #[arg(long, hide = true)]
    planted: Option<Leak>,
}

/// Leaks to have, for tests that they are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Leak {
    /// Some copies of the entries of each map that was closed
    Entries,
    /// A descriptor of the store at each close
    Descriptor,
}

/// A run.
struct Soak<'a> {
    args: &'a Args,
    store: PathBuf,
    log: PathBuf,
    load: Load,
    vitals: Vitals,
    /// What a planted leak leaves.
    leaked: (Vec<Vec<(String, Record)>>, Vec<File>),
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("soak: seed {seed}");
    let runtime = runtime()?;
    let mut dir = tempfile::Builder::new().prefix("torture-soak-").tempdir()?;
    let mut soak = Soak {
        args,
        store: dir.path().join(args.backend.file_name()),
        log: dir.path().join(args.backend.log_name()),
        load: Load::new(args.tasks, seed),
        vitals: Vitals::new(),
        leaked: (Vec::new(), Vec::new()),
    };
    let which = format!(
        "soak --backend {} --mode {} --tasks {} --minutes {} --seed {seed}",
        args.backend.name(),
        args.mode.name(),
        args.tasks,
        args.minutes,
    );
    let ended = runtime.block_on(soak.live());
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::draw(&which, &soak.vitals))
            .map_err(|error| Failure::Trouble(format!("{}: {error}", path.display())))?;
    }
    ended.and_then(|()| soak.judge()).map_err(|failure| {
        dir.disable_cleanup(true);
        failure.at(&which, dir.path())
    })?;
    let (calls, dropped) = soak.load.calls();
    Ok(format!(
        "{which}: ok, {calls} calls ({dropped} dropped), closed {} times, {} samples, medians: {}; {:.1} s",
        CLOSES + 1,
        soak.vitals.times.len(),
        soak.vitals.summary(),
        soak.vitals.elapsed().as_secs_f64()
    ))
}

impl Soak<'_> {
    async fn live(&mut self) -> Result<(), Failure> {
        let half = Duration::try_from_secs_f64(self.args.minutes * 30.0)
            .map_err(|error| Failure::Trouble(format!("--minutes: {error}")))?;
        self.vitals.begin("while the map was closed and opened");
        for _ in 0..CLOSES {
            self.one_map(half / CLOSES, true).await?;
        }
        self.vitals.begin("while the map stayed open");
        self.one_map(half, false).await?;
        let map = self.open().await?;
        self.load.compare(&map)?;
        map.close().await?;
        Ok(())
    }

    /// The life of a map, from opening it to closing it. Unless it is `tended`, nobody asks it to tidy up, as a flush and a
    /// comparison with the store do.
    async fn one_map(&mut self, life: Duration, tended: bool) -> Result<(), Failure> {
        let map = self.open().await?;
        self.load.compare(&map)?;
        let end = Instant::now() + life;
        let pause =
            BETWEEN_SAMPLES.min(Duration::from_secs_f64(self.args.minutes * 60.0) / SAMPLES);
        let working = self.load.start(&map);
        let mut samples = 0;
        while Instant::now() < end {
            tokio::time::sleep(pause).await;
            let stats = map.stats();
            self.vitals.sample(&self.store, &self.log, &stats)?;
            self.check_waiting(waiting(&stats))?;
            samples += 1;
            if samples % BETWEEN_LOOKS == 0 {
                look_over(&map, self.args.tasks).await?;
                if tended {
                    map.flush().await?;
                    verify(&map).await?;
                }
            }
        }
        self.load.stop(working).await?;
        verify(&map).await?;
        // The comparison came after all calls, and stores first what they have left.
        let left = waiting(&map.stats());
        if left > 0 {
            return Err(Failure::Violation(format!(
                "{left} entries wait to be stored, and nobody writes"
            )));
        }
        map.close().await?;
        match self.args.planted {
            Some(Leak::Entries) => {
                let copies = (0..LEAKED_COPIES).map(|_| map.iter().collect());
                self.leaked.0.extend(copies);
            }
            Some(Leak::Descriptor) => self.leaked.1.push(File::open(&self.store)?),
            None => {}
        }
        Ok(())
    }

    /// With write-behind the disk decides how many entries wait, up to all of them twice: while a save goes on, with the
    /// latest change of each, they can all be changed again. Else the queue has places for so many and no more.
    fn check_waiting(&self, waiting: usize) -> Result<(), Failure> {
        let most = 2 * KEYS * self.args.tasks as usize;
        if self.args.mode == Mode::Behind && waiting > most {
            return Err(Failure::Violation(format!(
                "{waiting} entries wait to be stored, where {most} can at most"
            )));
        }
        Ok(())
    }

    async fn open(&self) -> Result<Map, Failure> {
        let mode = match self.args.mode {
            Mode::Through => WriteMode::Through,
            Mode::Behind => WriteMode::Behind(Behind::new()),
        };
        open_with(&self.store, mode, None, MERGE_LATER).await
    }

    fn judge(&self) -> Result<(), Failure> {
        let growth = self.vitals.growth();
        if growth.is_empty() {
            return Ok(());
        }
        Err(Failure::Violation(format!(
            "this grew (medians of thirds): {}",
            growth.join("; ")
        )))
    }
}
