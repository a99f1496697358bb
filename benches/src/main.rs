//! `bench`: measures persistent-map beside others.
//!
//! `run` lets contenders compete, in turns within each round, each in a process and a directory of its own; it keeps what
//! they measured in `results/`, and puts tables and plots of it into `docs/`. What contenders do is in `arena`, what
//! competes with what in `plan`.

mod contenders;
mod machine;
mod plan;
mod plot;
mod referee;
mod report;
mod results;

use std::path::PathBuf;
use std::process::ExitCode;

use arena::{Outcome, Trial};
use clap::{Parser, Subcommand};

use crate::contenders::Contender;

#[derive(Parser)]
#[command(name = "bench", about = "Measures persistent-map beside others")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, and writes the report
    Run(RunArgs),
    /// Writes the report from what was measured before
    Report,
    /// One step by one contender
    #[command(hide = true)]
    Trial {
        contender: Contender,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// Experiments; all if none is named
    experiments: Vec<String>,
    /// Only see that everything runs: tiny, once, without a report
    #[arg(long)]
    quick: bool,
    /// Rounds, in place of what each experiment has
    #[arg(long)]
    rounds: Option<usize>,
    /// Where stores are put: on the disk that is to be measured
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/stores"))]
    directory: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Report => report::write(),
        Command::Trial { contender, trial } => compete(contender, &trial),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs) -> Outcome<()> {
    let all = plan::experiments();
    for name in &args.experiments {
        if !all.iter().any(|experiment| experiment.name == *name) {
            let names: Vec<_> = all.iter().map(|experiment| experiment.name).collect();
            return Err(
                format!("there is no experiment `{name}`, but {}", names.join(", ")).into(),
            );
        }
    }
    let chosen = all.into_iter().filter(|experiment| {
        args.experiments.is_empty() || args.experiments.iter().any(|name| experiment.name == *name)
    });
    for mut experiment in chosen {
        if args.quick {
            experiment.shrink();
        }
        experiment.rounds = args.rounds.unwrap_or(experiment.rounds);
        let results = referee::hold(&experiment, &args.directory)?;
        if !args.quick {
            results.save(experiment.name)?;
        }
    }
    if args.quick { Ok(()) } else { report::write() }
}

fn compete(contender: Contender, trial: &Trial) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()?;
    let figures = runtime.block_on(contender.compete(trial))?;
    println!("{}", serde_json::json!(figures));
    Ok(())
}
