//! Processes that write to a store, and are killed.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use persistent_map_core::{PersistentError, PersistentMap, Result, StorageBackend, Survives};
use tokio::sync::RwLock;

use crate::fixture::Fixture;
use crate::stage::{Collect, MapOf, key, ok, value};

/// How many processes are killed: of each kind the same number.
const KILLS: u64 = 24;
/// Each task writes to keys of its own, so what they must hold is known without asking the store.
const TASKS: u64 = 4;
const KEYS: u64 = 8;
/// So many keys of a task are only written together, if the store takes batches.
const BATCH: u64 = 3;
/// Tells a process that it is the one to be killed, and where its store is.
const CHILD: &str = "PERSISTENT_MAP_TESTKIT_KILL";
/// Tells it what to write. Where it cannot do that, it writes as the others do.
const WORK: &str = "PERSISTENT_MAP_TESTKIT_WORK";
const CLEARS: &str = "clears";
const REPLACES: &str = "replaces";
/// A process that takes so long hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// Makes a test that kills processes while they write to the store: SIGKILL, where there are signals. What was answered
/// with `Ok` must be there, what was removed must stay gone, a batch must be there completely or not at all, and the store
/// must open again, each time. A store with atomic batches is also cleared and, if it can, replaced: it must be the old one
/// or the new one.
///
/// ```
/// # use persistent_map_memory::InMemoryBackend as MyBackend;
/// use persistent_map_testkit::{Item, kills, open_with};
///
/// kills!(acknowledged_writes_survive, open_with::<String, Item, _, _>(|_dir| async {
///     Ok(MyBackend::new())
/// }));
/// # fn main() {}
/// ```
///
/// The processes are the test's own program, started again with the name of this one test.
#[macro_export]
macro_rules! kills {
    ($test:ident, $fixture:expr) => {
        #[test]
        fn $test() {
            $crate::survives_kills(concat!(module_path!(), "::", stringify!($test)), &$fixture);
        }
    };
}

/// What [`kills!`](crate::kills) makes a test of. `test` is the path of the test that calls this, with its crate.
///
/// ```no_run
/// use persistent_map_memory::InMemoryBackend as MyBackend;
/// use persistent_map_testkit::{Item, open_with, survives_kills};
///
/// #[test]
/// #[ignore = "takes a minute"]
/// fn acknowledged_writes_survive() {
///     let fixture = open_with::<String, Item, _, _>(|_dir| async { Ok(MyBackend::new()) });
///     survives_kills(concat!(module_path!(), "::acknowledged_writes_survive"), &fixture);
/// }
/// ```
/// # Panics
/// If a promise was broken.
pub fn survives_kills<F: Fixture>(test: &str, fixture: &F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a tokio runtime");
    if let Some(dir) = std::env::var_os(CHILD) {
        runtime.block_on(write_until_killed(fixture, &PathBuf::from(dir)));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    // What a key may hold: the number of its value, or nothing. One state, or two after a kill.
    let mut known: Known = (0..TASKS * KEYS).map(|key| (key, vec![None])).collect();
    let mut random = fastrand::Rng::new();
    let mut answered = 0;
    for kill in 1..=KILLS {
        let work = ["", CLEARS, REPLACES][usize::try_from(kill % 3).unwrap_or_default()];
        let child = start(name, dir.path(), work);
        let lines = listen(child, &mut random);
        let notes = note(&mut known, &lines);
        answered += notes.answers;
        runtime.block_on(compare(
            fixture,
            dir.path(),
            &mut known,
            kill,
            notes.all_at_once,
        ));
    }
    assert!(
        answered > KILLS,
        "the processes have written next to nothing"
    );
}

type Known = HashMap<u64, Vec<Option<u64>>>;

fn start(test: &str, dir: &Path, work: &str) -> Child {
    let program = std::env::current_exe().expect("the path of this program");
    Command::new(program)
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(CHILD, dir)
        .env(WORK, work)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .expect("this program starts once more")
}

/// What a process says until it is killed. Most die while they write, some while they open.
fn listen(mut child: Child, random: &mut fastrand::Rng) -> Vec<String> {
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let (tell, heard) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            // A line without its end: the process died before the call that it speaks of.
            if line.ends_with('\n') && line.starts_with(['?', '!']) {
                let _ = tell.send(line.trim_end().to_string());
            }
            line.clear();
        }
    });
    let mut lines = Vec::new();
    if random.u8(..5) == 0 {
        thread::sleep(Duration::from_millis(random.u64(..30)));
    } else {
        let mut began = Instant::now();
        let count = random.u32(1..100);
        for at in 0..count {
            match heard.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(error) => panic!(
                    "a process hangs or has ended ({error}); its last words: {:?}",
                    lines.last()
                ),
            }
            if at == 0 {
                began = Instant::now();
            }
        }
        // A kill right behind a line would always find a call at its beginning.
        let some_calls = (began.elapsed() / count * 20).min(Duration::from_millis(50));
        thread::sleep(some_calls.mul_f64(random.f64()));
    }
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    lines.extend(heard.try_iter());
    lines
}

struct Notes {
    answers: u64,
    /// The last that was asked for changes all keys in one step, while nothing else was under way, and has no answer.
    all_at_once: bool,
}

/// Takes in what was asked for (`? keys value`) and what was answered (`! keys value`).
fn note(known: &mut Known, lines: &[String]) -> Notes {
    let mut notes = Notes {
        answers: 0,
        all_at_once: false,
    };
    for line in lines {
        let mut words = line.split(' ');
        let is_answer = words.next() == Some("!");
        let numbers: Vec<Option<u64>> = words.map(|word| word.parse().ok()).collect();
        let [Some(first), Some(last), value] = numbers[..] else {
            panic!("a process says {line:?}");
        };
        for key in first..=last {
            let states = known.entry(key).or_default();
            if is_answer {
                *states = vec![value];
            } else {
                states.push(value);
            }
        }
        notes.answers += u64::from(is_answer);
        notes.all_at_once = !is_answer && (first, last) == (0, TASKS * KEYS - 1);
    }
    notes
}

async fn compare<F: Fixture>(
    fixture: &F,
    dir: &Path,
    known: &mut Known,
    kill: u64,
    all_at_once: bool,
) {
    let backend = ok("opening after a kill", fixture.open(dir).await);
    let mut sink = Collect::default();
    ok("load after a kill", backend.load(&mut sink).await);
    sink.assert_clean("load after a kill");
    let capabilities = backend.capabilities();
    ok("close", backend.close().await);
    let found = |at: u64| {
        let found = sink.entries.get(&key::<F>(at));
        let states = &known[&at];
        let state = states
            .iter()
            .find(|state| found == state.map(value::<F>).as_ref());
        assert!(
            state.is_some() || capabilities.survives == Survives::Nothing,
            "after kill {kill} key {at} holds something else than what was answered last (value {:?}), or asked for \
             then ({:?})",
            states[0],
            &states[1..],
        );
        state.copied().unwrap_or(None)
    };
    let found: Vec<Option<u64>> = (0..TASKS * KEYS).map(found).collect();
    if all_at_once && capabilities.survives != Survives::Nothing {
        let is_all = |which: usize| {
            let mut keys = (0..).zip(&found);
            keys.all(|(key, state)| known[&key][which] == *state)
        };
        assert!(
            is_all(0) || is_all(1),
            "after kill {kill} a part of what changed all entries in one step (`clear` or `replace`) is there: {found:?}"
        );
    }
    if capabilities.atomic_batches {
        for task in 0..TASKS {
            let batch = &found[range(task, 0, BATCH)];
            assert!(
                batch.iter().all(|state| *state == batch[0]),
                "after kill {kill} a part of a batch is there: {batch:?}"
            );
        }
    }
    for (key, state) in (0..).zip(found) {
        known.insert(key, vec![state]);
    }
}

fn range(task: u64, from: u64, to: u64) -> std::ops::Range<usize> {
    let at = |key| usize::try_from(task * KEYS + key).expect("a small number");
    at(from)..at(to)
}

async fn write_until_killed<F: Fixture>(fixture: &F, dir: &Path) -> ! {
    // Its parent's end closes its standard input; it must not outlive a test that has failed.
    thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::abort();
    });
    let work = std::env::var(WORK).unwrap_or_default();
    if work == REPLACES {
        replace(fixture, dir).await;
    }
    let map: MapOf<F> = ok(
        "opening a map",
        PersistentMap::new(ok("open", fixture.open(dir).await)).await,
    );
    // Who has it alone may change all.
    let alone = (work == CLEARS && map.capabilities().atomic_batches).then(Arc::default);
    let writer = |task| tokio::spawn(write::<F>(map.clone(), task, alone.clone()));
    let writers = (0..TASKS).map(writer);
    for writer in writers.collect::<Vec<_>>() {
        let written = writer.await.expect("a task of the writing process");
        ok("writing", written);
    }
    unreachable!("writers write until they are killed");
}

/// Replaces all entries again and again; returns if the store cannot.
async fn replace<F: Fixture>(fixture: &F, dir: &Path) {
    let backend = ok("open", fixture.open(dir).await);
    ok("load", backend.load(&mut Collect::default()).await);
    let mut random = fastrand::Rng::new();
    while backend.capabilities().atomic_batches {
        let number = random.u64(..1 << 40);
        let all = 0..TASKS * KEYS;
        let entries = all.clone().map(|at| (key::<F>(at), value::<F>(number)));
        let replaced = backend.replace(entries.collect());
        let what = format!("0 {} {number}", all.end - 1);
        say(&format!("? {what}"));
        match replaced.await {
            Err(PersistentError::Unsupported { .. }) => break,
            replaced => ok("replace", replaced),
        }
        say(&format!("! {what}"));
    }
    ok("close", backend.close().await);
}

async fn write<F: Fixture>(map: MapOf<F>, task: u64, alone: Option<Arc<RwLock<()>>>) -> Result<()> {
    let takes_batches = map.capabilities().atomic_batches;
    let mut random = fastrand::Rng::new();
    loop {
        let _shared = match &alone {
            Some(alone) if task == 0 && random.bool() => {
                let _alone = alone.write().await;
                let what = format!("0 {} -", TASKS * KEYS - 1);
                say(&format!("? {what}"));
                map.clear().await?;
                say(&format!("! {what}"));
                continue;
            }
            Some(alone) => Some(alone.read().await),
            None => None,
        };
        let number = random.u64(..1 << 40);
        let mut at = task * KEYS + random.u64(..KEYS);
        let mut last = at;
        if takes_batches && at < task * KEYS + BATCH {
            (at, last) = (task * KEYS, task * KEYS + BATCH - 1);
        }
        let is_removal = random.u8(..4) == 0;
        let what = if is_removal {
            format!("{at} {last} -")
        } else {
            format!("{at} {last} {number}")
        };
        say(&format!("? {what}"));
        match (is_removal, at == last) {
            (true, true) => drop(map.remove(&key::<F>(at)).await?),
            (true, false) => drop(map.remove_many((at..=last).map(key::<F>)).await?),
            (false, true) => drop(map.insert(key::<F>(at), value::<F>(number)).await?),
            (false, false) => {
                let entries = (at..=last).map(|at| (key::<F>(at), value::<F>(number)));
                map.insert_many(entries).await?;
            }
        }
        say(&format!("! {what}"));
    }
}

/// Directly, because what is printed may be captured or kept in a buffer.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}
