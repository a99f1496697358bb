//! Has contenders compete: in turns, each in a process and a directory of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use arena::{Figures, Outcome, Step, Trial};
use tempfile::TempDir;

use crate::machine;
use crate::plan::{Entrant, Experiment, Prepared};
use crate::results::Results;

/// Holds all rounds of an experiment.
pub(crate) fn hold(experiment: &Experiment, directory: &Path) -> Outcome<Results> {
    fs::create_dir_all(directory)?;
    println!("{}", experiment.title);
    let entrants = &experiment.entrants;
    let programs = Programs::find(entrants)?;
    let mut stores: Vec<Option<TempDir>> = Vec::new();
    for entrant in entrants {
        stores.push(match entrant.prepared {
            Prepared::Once(step) => Some(programs.prepare(entrant, step, directory)?),
            _ => None,
        });
    }
    let mut rounds = Vec::new();
    for round in 0..experiment.rounds {
        let mut figures = vec![Figures::new(); entrants.len()];
        for turn in 0..entrants.len() {
            // Another one begins in each round, so that nobody always comes after the same one.
            let number = (turn + round) % entrants.len();
            let entrant = &entrants[number];
            let own;
            let store = match (&stores[number], entrant.prepared) {
                (Some(store), _) => store.path(),
                (None, Prepared::EachRound(step)) => {
                    own = programs.prepare(entrant, step, directory)?;
                    own.path()
                }
                _ => {
                    own = TempDir::new_in(directory)?;
                    own.path()
                }
            };
            figures[number] = programs.run(entrant, entrant.step, store)?;
            if let Some(value) = figures[number].get(experiment.measures[0].key) {
                println!(
                    "  round {}: {}: {value:.1} {}",
                    round + 1,
                    entrant.label(),
                    experiment.measures[0].heading
                );
            }
        }
        rounds.push(figures);
    }
    Ok(Results {
        machine: machine::describe(directory),
        entrants: entrants.iter().map(Entrant::id).collect(),
        rounds,
    })
}

/// The programs that know the contenders.
struct Programs {
    own: PathBuf,
    published: Option<PathBuf>,
}

impl Programs {
    fn find(entrants: &[Entrant]) -> Outcome<Self> {
        let published = entrants
            .iter()
            .any(|entrant| entrant.contender.is_published());
        Ok(Programs {
            own: env::current_exe()?,
            published: published.then(build_published).transpose()?,
        })
    }

    /// A new store with the entries that are asked for.
    fn prepare(&self, entrant: &Entrant, step: Step, directory: &Path) -> Outcome<TempDir> {
        let store = TempDir::new_in(directory)?;
        self.run(entrant, step, store.path())?;
        // What the kernel has still to write must not disturb what comes next. Elsewhere it may.
        if cfg!(unix) {
            Command::new("sync").status()?;
        }
        Ok(store)
    }

    fn run(&self, entrant: &Entrant, step: Step, store: &Path) -> Outcome<Figures> {
        let trial = Trial {
            step,
            directory: store.to_path_buf(),
            entries: entrant.entries,
            tasks: entrant.tasks,
            seconds: entrant.seconds,
        };
        let mut command = match &self.published {
            Some(published) if entrant.contender.is_published() => Command::new(published),
            _ => {
                let mut command = Command::new(&self.own);
                command.arg("trial");
                command
            }
        };
        let name = entrant.contender.name();
        let output = command
            .arg(&name)
            .args(trial.arguments())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("{name} has failed at {step:?}: {}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn build_published() -> Outcome<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("published/Cargo.toml");
    // Beside the directory of this program: `target/release/bench`.
    let own = env::current_exe()?;
    let profile = own.parent().ok_or("this program has no directory")?;
    let target = profile.with_file_name("published");
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--manifest-path",
        ])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !built.success() {
        return Err("0.1.3 cannot be built".into());
    }
    Ok(target.join("release/published"))
}
