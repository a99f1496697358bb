//! SIGKILL while a table changes its codec, or while a map is copied: the table is readable with the old codec or with the
//! new one, the source of a copy is intact, and a copy that was killed can be completed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use persistent_map_core::{
    Bincode, Codec, Json, MessagePack, PersistentError, PersistentMap, StorageBackend, copy,
};
use persistent_map_sqlite::SqliteBackend;
use tempfile::TempDir;

use crate::dump::{Ending, listen, look_into, say_entry};
use crate::failure::Failure;
use crate::oracle::{Found, differences};
use crate::planted::Planted;
use crate::process::{self, Ended, Running};
use crate::protocol::{Line, say};
use crate::record::Record;
use crate::runtime;
use crate::store::{Backend, CodecName, open};

/// The table that is written anew, and one beside it.
const TABLE: &str = "entries";
const OTHER: &str = "other";
const ENTRIES: usize = 3000;
const OTHER_ENTRIES: usize = 500;
/// So many that a copy takes some commits.
const COPIED_ENTRIES: usize = 10_000;
/// Entries in one commit of a copy.
const BATCH: usize = 4096;
const MOST_KILLS_OF_A_FILE: u64 = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many children to kill
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// What the children do
    #[arg(long, value_enum, default_value_t = By::Codec)]
    by: By,
    /// What decides everything but the timing of the machine; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Where to put the files; the system's directory for temporary files unless given
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Write a table with another codec, and back
    Codec,
    /// Copy a map into another file
    Copy,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Codec => "codec",
            By::Copy => "copy",
        }
    }
}

#[derive(Default)]
struct Figures {
    files: u64,
    while_opening: u64,
    completed: u64,
    /// Kills within a change that has left the old codec, or only a part of the copy.
    before: u64,
    /// Kills within a change that was done and not answered yet.
    after: u64,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("recode: seed {seed}");
    let again = format!("recode --by {} --kills {}", args.by.name(), args.kills);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut figures = Figures::default();
    let started = Instant::now();
    let mut current: Option<Victim> = None;
    for kill in 0..args.kills {
        let mut victim = match current.take() {
            Some(victim) => victim,
            None => Victim::new(args, &mut rng, &mut figures)?,
        };
        let killed = match args.by {
            By::Codec => victim.kill_a_change(args, &mut rng, &mut figures),
            By::Copy => victim.kill_copies(&mut rng, &mut figures),
        };
        if let Err(failure) = killed {
            victim.dir.disable_cleanup(true);
            let context = format!("kill {kill}; again: torture {again} --seed {seed}");
            return Err(failure.at(&context, victim.dir.path()));
        }
        victim.kills_left -= 1;
        current = Some(victim).filter(|victim| victim.kills_left > 0);
    }
    let Figures {
        files,
        while_opening,
        completed,
        before,
        after,
    } = figures;
    Ok(format!(
        "{again}: ok, seed {seed}, {files} files, {while_opening} killed while opening, {before} with nothing or a part done, \
         {after} with all done and not answered, {completed} answered, {} ms a kill",
        started.elapsed().as_millis() / u128::from(args.kills.max(1)),
    ))
}

/// A directory with a file, and what must be in it.
struct Victim {
    dir: TempDir,
    path: PathBuf,
    expected: Found,
    codec: CodecName,
    kills_left: u64,
}

impl Victim {
    fn new(args: &Args, rng: &mut fastrand::Rng, figures: &mut Figures) -> Result<Self, Failure> {
        figures.files += 1;
        let mut builder = tempfile::Builder::new();
        builder.prefix("torture-recode-");
        let dir = match &args.dir {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        let path = dir.path().join(Backend::Sqlite.file_name());
        let tables: &[_] = match args.by {
            By::Codec => &[(TABLE, ENTRIES), (OTHER, OTHER_ENTRIES)],
            By::Copy => &[(TABLE, COPIED_ENTRIES)],
        };
        let mut expected = Found::new();
        for &(table, entries) in tables {
            let written = block_on(write(&path, table, entries, rng))?;
            match args.by {
                By::Codec => expected.extend(in_table(table, written)),
                By::Copy => expected = written,
            }
        }
        Ok(Victim {
            dir,
            path,
            expected,
            codec: CodecName::Bincode,
            kills_left: rng.u64(1..=MOST_KILLS_OF_A_FILE),
        })
    }

    fn kill_a_change(
        &mut self,
        args: &Args,
        rng: &mut fastrand::Rng,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let others = CodecName::ALL.into_iter();
        let others: Vec<_> = others.filter(|&codec| codec != self.codec).collect();
        let to = others[rng.usize(..others.len())];
        let mut command = process::myself()?;
        command.arg("recoder").arg(&self.path);
        command.args(["--from", self.codec.name(), "--to", to.name()]);
        if let Some(planted) = args.planted {
            command.args(["--planted", &planted.name()]);
        }
        let is_begin = |line: &Line| matches!(line, Line::Recoding(_));
        let child = kill(&mut command, is_begin, 60_000, rng, figures)?;

        let mut begun = None;
        for line in &child.said {
            match line {
                Line::Recoding(codec) => begun = Some(*codec),
                Line::Written(codec) => {
                    figures.completed += 1;
                    (self.codec, begun) = (*codec, None);
                }
                _ => {}
            }
        }
        let (found, codec) = inspect(&self.path, an_ending(rng))?;
        if codec != self.codec && Some(codec) != begun {
            return Err(Failure::Violation(format!(
                "the table is written with {}, and it was {}; the change that was going on: {begun:?}",
                codec.name(),
                self.codec.name()
            )));
        }
        if begun.is_some() {
            figures.before += u64::from(codec == self.codec);
            figures.after += u64::from(codec != self.codec);
        }
        self.codec = codec;
        self.must_be_all("the file", &found)
    }

    fn kill_copies(
        &mut self,
        rng: &mut fastrand::Rng,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let backend = if rng.bool() {
            Backend::Sqlite
        } else {
            Backend::Csv
        };
        let copies = self.dir.path().join("copies");
        std::fs::create_dir(&copies)?;
        let to = copies.join(backend.file_name());
        // A copy that was killed is begun again, and sometimes killed again.
        for attempt in 0..rng.u8(1..=2) {
            let mut command = self.copier(&to)?;
            let child = kill(
                &mut command,
                |line| *line == Line::Begun,
                120_000,
                rng,
                figures,
            )?;
            self.must_be_all("the source", &look_into(&self.path, an_ending(rng))?)?;
            let found = look_into(&to, an_ending(rng))?;
            self.must_be_a_part(&found)?;
            let is_all = found.len() == self.expected.len();
            if attempt == 0 && !is_all && found.len() % BATCH != 0 {
                return Err(Failure::Violation(format!(
                    "the copy has {} entries: half a batch",
                    found.len()
                )));
            }
            if child.said(&Line::Done) {
                figures.completed += 1;
                self.must_be_all("the copy", &found)?;
            } else if child.said(&Line::Begun) {
                figures.after += u64::from(is_all);
                figures.before += u64::from(!is_all);
            }
        }
        let mut command = self.copier(&to)?;
        command.arg("--close");
        let child = Running::start(&mut command)?.finish()?;
        if !child.status.success() {
            return Err(Failure::Violation(format!(
                "the copy cannot be completed: {}, {}",
                child.status,
                child.stderr.trim_end()
            )));
        }
        self.must_be_all("the source", &look_into(&self.path, Ending::Closed)?)?;
        self.must_be_all("the copy", &look_into(&to, Ending::Closed)?)?;
        std::fs::remove_dir_all(copies)?;
        Ok(())
    }

    fn copier(&self, to: &Path) -> Result<Command, Failure> {
        let mut command = process::myself()?;
        command.arg("copier").arg(&self.path).arg(to);
        Ok(command)
    }

    fn must_be_all(&self, what: &str, found: &Found) -> Result<(), Failure> {
        if *found == self.expected {
            return Ok(());
        }
        Err(Failure::Violation(format!(
            "{what} has {} entries, and {} were stored: {}",
            found.len(),
            self.expected.len(),
            differences(found, &self.expected)
        )))
    }

    fn must_be_a_part(&self, found: &Found) -> Result<(), Failure> {
        let is_strange =
            |(key, version): &(&String, &u64)| self.expected.get(*key) != Some(*version);
        if let Some((key, version)) = found.iter().find(is_strange) {
            return Err(Failure::Violation(format!(
                "the copy has version {version} of key {key}, which the source has not"
            )));
        }
        Ok(())
    }
}

/// Starts a child and kills it: while it opens its files, or at most so many microseconds after it says that it begins.
fn kill(
    command: &mut Command,
    is_begin: impl Fn(&Line) -> bool,
    within_us: u64,
    rng: &mut fastrand::Rng,
    figures: &mut Figures,
) -> Result<Ended, Failure> {
    let while_opening = rng.u8(..5) == 0;
    let mut child = Running::start(command)?;
    if while_opening {
        thread::sleep(Duration::from_micros(rng.u64(..10_000)));
    } else {
        child.wait_for(&is_begin)?;
        thread::sleep(Duration::from_micros(rng.u64(..within_us)));
    }
    let child = child.kill()?;
    if !child.was_killed() {
        return Err(Failure::Violation(format!(
            "the child ended before it was killed: {}, {}",
            child.status,
            child.stderr.trim_end()
        )));
    }
    figures.while_opening += u64::from(!child.said.iter().any(is_begin));
    Ok(child)
}

fn an_ending(rng: &mut fastrand::Rng) -> Ending {
    if rng.bool() {
        Ending::Closed
    } else {
        Ending::Killed
    }
}

fn in_table(table: &str, entries: Found) -> impl Iterator<Item = (String, u64)> {
    let entries = entries.into_iter();
    entries.map(move |(key, version)| (format!("{table}/{key}"), version))
}

/// Makes a table, and says what is in it.
async fn write(
    path: &Path,
    table: &str,
    entries: usize,
    rng: &mut fastrand::Rng,
) -> Result<Found, Failure> {
    let backend = SqliteBackend::builder(path).table(table).open().await?;
    let map = PersistentMap::<String, Record, _>::new(backend).await?;
    let records: BTreeMap<String, Record> = (0..entries)
        .map(|number| {
            let key = format!("k{number}");
            let record = Record::new(&key, rng.u64(..), rng.usize(60..400));
            (key, record)
        })
        .collect();
    let version = |(key, record): (&String, &Record)| (key.clone(), record.version());
    let written = records.iter().map(version).collect();
    map.insert_many(records).await?;
    map.close().await?;
    Ok(written)
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime()?.block_on(work)
}

/// Has a fresh process say what is in both tables, and how the one is written.
fn inspect(path: &Path, ending: Ending) -> Result<(Found, CodecName), Failure> {
    let mut command = process::myself()?;
    command.arg("inspect").arg(path);
    let (said, found) = listen(&mut command, ending)?;
    let codecs = said.iter().filter_map(|line| match line {
        Line::Written(codec) => Some(*codec),
        _ => None,
    });
    match *codecs.collect::<Vec<_>>().as_slice() {
        [codec] => Ok((found, codec)),
        ref codecs => Err(Failure::Violation(format!(
            "the table opens with these codecs, and not with one: {codecs:?}"
        ))),
    }
}

#[derive(clap::Args)]
pub(crate) struct RecoderArgs {
    path: PathBuf,
    #[arg(long)]
    from: CodecName,
    #[arg(long)]
    to: CodecName,
    #[arg(long)]
    planted: Option<Planted>,
}

/// The child that writes a table with another codec, and back, until it is killed.
pub(crate) fn recoder(args: &RecoderArgs) -> Result<(), Failure> {
    process::die_with_parent();
    block_on(async {
        let backend = SqliteBackend::builder(&args.path).table(TABLE);
        let mut backend = match args.from {
            CodecName::Bincode => Recoded::Bincode(backend.open().await?),
            CodecName::Json => Recoded::Json(backend.codec(Json).open().await?),
            CodecName::MessagePack => {
                Recoded::MessagePack(backend.codec(MessagePack).open().await?)
            }
        };
        say(&Line::Opened);
        for codec in [args.to, args.from].into_iter().cycle() {
            say(&Line::Recoding(codec));
            if args.planted == Some(Planted::AckEarly) {
                say(&Line::Written(codec));
            }
            backend = match backend {
                Recoded::Bincode(backend) => change(backend, codec).await?,
                Recoded::Json(backend) => change(backend, codec).await?,
                Recoded::MessagePack(backend) => change(backend, codec).await?,
            };
            say(&Line::Written(codec));
        }
        Ok(())
    })
}

enum Recoded {
    Bincode(SqliteBackend<Bincode>),
    Json(SqliteBackend<Json>),
    MessagePack(SqliteBackend<MessagePack>),
}

async fn change<C: Codec>(
    backend: SqliteBackend<C>,
    codec: CodecName,
) -> Result<Recoded, PersistentError> {
    Ok(match codec {
        CodecName::Bincode => {
            Recoded::Bincode(backend.change_codec::<String, Record, _>(Bincode).await?)
        }
        CodecName::Json => Recoded::Json(backend.change_codec::<String, Record, _>(Json).await?),
        CodecName::MessagePack => Recoded::MessagePack(
            backend
                .change_codec::<String, Record, _>(MessagePack)
                .await?,
        ),
    })
}

#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    path: PathBuf,
    /// Stay, with the store open, until killed
    #[arg(long)]
    hold: bool,
}

/// The child that says what is in both tables, and with which codecs the one can be read.
pub(crate) fn inspect_file(args: &InspectArgs) -> Result<(), Failure> {
    if args.hold {
        process::die_with_parent();
    }
    block_on(async {
        let file = SqliteBackend::builder(&args.path)
            .table(OTHER)
            .open()
            .await?;
        let mut opened = 0;
        for codec in CodecName::ALL {
            let read = match codec {
                CodecName::Bincode => say_entries(&file, TABLE, Bincode).await,
                CodecName::Json => say_entries(&file, TABLE, Json).await,
                CodecName::MessagePack => say_entries(&file, TABLE, MessagePack).await,
            };
            match read {
                Ok(()) => {
                    opened += 1;
                    say(&Line::Written(codec));
                }
                Err(PersistentError::Mismatch { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if opened == 0 {
            say(&Line::Broken("the table opens with no codec".to_string()));
        }
        say_entries(&file, OTHER, Bincode).await?;
        say(&Line::Done);
        if args.hold {
            process::wait_to_be_killed();
        }
        StorageBackend::<String, Record>::close(&file).await?;
        Ok(())
    })
}

async fn say_entries<C: Codec>(
    file: &SqliteBackend,
    table: &str,
    codec: C,
) -> Result<(), PersistentError> {
    let backend = file.table_with_codec(table, codec).await?;
    let map = PersistentMap::<String, Record, _>::new(backend).await?;
    for (key, record) in &map {
        say_entry(&format!("{table}/"), &key, &record);
    }
    map.close().await
}

#[derive(clap::Args)]
pub(crate) struct CopierArgs {
    from: PathBuf,
    to: PathBuf,
    /// Close both maps at the end, instead of waiting to be killed
    #[arg(long)]
    close: bool,
}

/// The child that copies a map.
pub(crate) fn copier(args: &CopierArgs) -> Result<(), Failure> {
    if !args.close {
        process::die_with_parent();
    }
    block_on(async {
        let from = open(&args.from).await?;
        let to = open(&args.to).await?;
        say(&Line::Begun);
        copy(&from, &to).await?;
        say(&Line::Done);
        if !args.close {
            process::wait_to_be_killed();
        }
        from.close().await?;
        to.close().await?;
        Ok(())
    })
}
