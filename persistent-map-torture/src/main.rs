//! `torture`: proofs of the map's promises that no test inside one healthy process can give, because they need a process
//! to be killed or a kernel to fail.
//!
//! Each proof is a subcommand in a file of its own. It plays the parent: it starts children of this same binary that
//! write to a store and say what they do, one line a call; it lets harm come to them; then it has a fresh process open
//! the store, and compares. The truth about the store (`oracle`) never lives in the store, nor in the process that is
//! harmed.
//!
//! Exit codes: 0 all promises kept, 1 one was broken, 2 the harness itself failed, 3 this machine cannot run the proof.

mod behind;
mod beside;
mod cancel;
mod dump;
mod failure;
mod harm;
mod hostile;
mod kill;
mod ledger;
mod linear;
mod load;
mod model;
mod oracle;
mod planted;
mod plot;
mod prefixes;
mod process;
mod protocol;
mod recode;
mod record;
mod sequence;
mod soak;
mod steps;
mod store;
mod truth;
mod vitals;
mod waits;
mod worker;

// They need strace, loop mounts or namespaces, which only Linux has.
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod disk_full;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod owners;
#[cfg(target_os = "linux")]
mod powercut;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

#[derive(Parser)]
#[command(
    name = "torture",
    about = "Kills processes, fails system calls and cuts the power under persistent-map, and checks what is left"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// SIGKILL at random moments, also while the store is opened or made
    Kill(kill::Args),
    /// SIGKILL while a table changes its codec, or while a map is copied
    Recode(recode::Args),
    /// The n-th fsync, write, .. fails, for n = 1, 2, 3, .. (by strace)
    #[cfg(target_os = "linux")]
    Faults(faults::Args),
    /// A disk that fills up and is relieved while the map stays open (needs root)
    #[cfg(target_os = "linux")]
    Diskfull(disk_full::Args),
    /// Every call dropped at any of its polls
    Cancel(cancel::Args),
    /// Recorded histories with callers that give up, errors and reopening: one order must explain each
    Linear(linear::Args),
    /// Sequences of all calls beside a `HashMap`, with stores that fail and maps that are opened again
    Model(model::Args),
    /// Mixed work for a long time: what the process takes of the machine must not grow
    Soak(soak::Args),
    /// Readers that never pause, full pools, calls that were given up, lost runtimes: every call answers within a bound
    Waits(waits::Args),
    /// Files that are damaged, crafted or foreign, opened in processes whose memory is measured
    Hostile(hostile::Args),
    /// The disk loses all that was not synced, at random moments (needs root)
    #[cfg(target_os = "linux")]
    Powercut(powercut::Args),
    /// Second starts while locks, journals, logs and directories are taken away, with links, mounts and containers
    #[cfg(target_os = "linux")]
    Owners(owners::Args),
    /// Owns a store, and says what it is told
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Owner(owners::OwnerArgs),
    /// Writes to a store and says what it does
    #[command(hide = true)]
    Worker(worker::Args),
    /// Writes to a store that follows memory, and says what it does
    #[command(hide = true)]
    Behind(behind::Args),
    /// Changes the codec of a table, and says when
    #[command(hide = true)]
    Recoder(recode::RecoderArgs),
    /// Copies a store into another one
    #[command(hide = true)]
    Copier(recode::CopierArgs),
    /// Opens the file of `recode` and says what is in it
    #[command(hide = true)]
    Inspect(recode::InspectArgs),
    /// Opens damaged stores and says what came of it
    #[command(hide = true)]
    HostileChild(hostile::ChildArgs),
    /// Plays a case of `waits`
    #[command(hide = true)]
    WaitsChild(waits::ChildArgs),
    /// Opens a store and says what is in it
    #[command(hide = true)]
    Dump(dump::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Kill(args) => kill::run(&args).map(Some),
        Command::Recode(args) => recode::run(&args).map(Some),
        Command::Cancel(args) => cancel::run(&args).map(Some),
        Command::Linear(args) => linear::run(&args).map(Some),
        Command::Model(args) => model::run(&args).map(Some),
        Command::Soak(args) => soak::run(&args).map(Some),
        Command::Waits(args) => waits::run(&args).map(Some),
        Command::Hostile(args) => hostile::run(&args).map(Some),
        #[cfg(target_os = "linux")]
        Command::Faults(args) => faults::run(&args).map(Some),
        #[cfg(target_os = "linux")]
        Command::Diskfull(args) => disk_full::run(&args).map(Some),
        #[cfg(target_os = "linux")]
        Command::Powercut(args) => powercut::run(&args).map(Some),
        #[cfg(target_os = "linux")]
        Command::Owners(args) => owners::run(&args).map(Some),
        #[cfg(target_os = "linux")]
        Command::Owner(args) => owners::own(&args).map(|()| None),
        Command::Worker(args) => worker::run(&args).map(|()| None),
        Command::Behind(args) => behind::run(&args).map(|()| None),
        Command::Recoder(args) => recode::recoder(&args).map(|()| None),
        Command::Copier(args) => recode::copier(&args).map(|()| None),
        Command::Inspect(args) => recode::inspect_file(&args).map(|()| None),
        Command::HostileChild(args) => hostile::open_them(&args).map(|()| None),
        Command::WaitsChild(args) => waits::child(&args).map(|()| None),
        Command::Dump(args) => dump::run(&args).map(|()| None),
    };
    match result {
        Ok(Some(figures)) => println!("{figures}"),
        Ok(None) => {}
        Err(failure) => {
            eprintln!("{failure}");
            return failure.exit_code();
        }
    }
    ExitCode::SUCCESS
}

/// For all that need no other one.
fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
}
