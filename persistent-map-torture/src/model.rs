//! Sequences of all calls of a map, one after the other, beside a `HashMap` that does the same: with stores that fail,
//! maps that are closed and dropped and opened again. A sequence that tells them apart is made shorter before it is shown.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use clap::ValueEnum;
use persistent_map_testkit::Fault;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::beside::{Played, play};
use crate::failure::Failure;
use crate::planted::Planted;
use crate::steps::{Step, call, step};
use crate::truth::Contradiction;

/// Most steps of a sequence.
const STEPS: usize = 40;
/// Those of a sequence that is played once for each of its writes and each fault.
const STEPS_WITH_EVERY_FAULT: usize = 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many sequences
    #[arg(long, default_value_t = 1000)]
    cases: u32,
    /// What keeps the entries; each in turn unless given
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// Play each sequence once for each of its writes and each way in which that can fail, once or from then on
    #[arg(long)]
    every_fault: bool,
    /// What decides the sequences; random unless given
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    Memory,
    /// A disk in memory
    Pretended,
    /// The same without atomic batches
    OneAtATime,
    Sqlite,
    Csv,
}

/// A map, and what is done with it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) store: Store,
    pub(crate) queue_capacity: usize,
    /// The longest delay in milliseconds, and the most entries that wait.
    pub(crate) behind: Option<(u64, usize)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) planted: Option<Planted>,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    // Planted panics of stores would fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("model: seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let config = Config {
        cases: args.cases,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);

    let started = Instant::now();
    let total = Cell::new(Played::default());
    let play = |case: &Case| {
        let played = runtime.block_on(play(case))?;
        total.set(total.get().and(played));
        Ok::<Played, Contradiction>(played)
    };
    let outcome = runner.run(&cases(args), |case| {
        play(&case).map_err(TestCaseError::fail)?;
        if args.every_fault {
            with_every_fault(&case, play).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(format!(
            "model: ok, seed {seed}, {} sequences, {}, {:.1} s",
            args.cases,
            total.get(),
            started.elapsed().as_secs_f64()
        )),
        Err(TestError::Fail(reason, case)) => Err(Failure::Violation(format!(
            "{reason}\n  {case:?}\n  again: torture model --cases {} --seed {seed}{}",
            args.cases,
            args.again()
        ))),
        Err(TestError::Abort(reason)) => Err(Failure::Trouble(reason.to_string())),
    }
}

/// Plays a case with the n-th write failing, for n = 1, 2, 3, .. until none fails.
fn with_every_fault(
    case: &Case,
    play: impl Fn(&Case) -> Result<Played, Contradiction>,
) -> Result<(), Contradiction> {
    let once = Fault::ALL.map(|fault| (fault, false));
    let from_then_on = Fault::ALL.map(|fault| (fault, true));
    for (fault, lasts) in once.into_iter().chain(from_then_on) {
        for nth in 1.. {
            let fail = Step::Fail { nth, fault, lasts };
            let mut case = case.clone();
            case.steps.insert(0, fail.clone());
            let played = play(&case).map_err(|what| format!("after {fail:?}: {what}"))?;
            if played.writes < nth {
                break;
            }
        }
    }
    Ok(())
}

fn cases(args: &Args) -> impl Strategy<Value = Case> + use<> {
    let stores = match args.store {
        Some(store) => vec![store],
        None => Store::value_variants().to_vec(),
    };
    let steps = if args.every_fault {
        let undisturbed = prop_oneof![
            10 => call().prop_map(Step::Call),
            1 => Just(Step::Flush),
            1 => Just(Step::Verify),
        ];
        prop::collection::vec(undisturbed, 1..STEPS_WITH_EVERY_FAULT).boxed()
    } else {
        prop::collection::vec(step(), 1..STEPS).boxed()
    };
    let behind = prop::option::of((0..4_u64, 1..6_usize));
    let planted = args.planted;
    (proptest::sample::select(stores), 1..5_usize, behind, steps).prop_map(
        move |(store, queue_capacity, behind, steps)| Case {
            store,
            queue_capacity,
            behind,
            steps,
            planted,
        },
    )
}

impl Args {
    /// The options beside seed and number, as they are written on the command line.
    fn again(&self) -> String {
        let store = self.store.and_then(|store| store.to_possible_value());
        let store = store.map_or_else(String::new, |store| {
            format!(" --store {}", store.get_name())
        });
        let every_fault = if self.every_fault {
            " --every-fault"
        } else {
            ""
        };
        store + every_fault
    }
}

/// For people to read, and to make a test of: keys and values are small numbers that mean nothing.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, queue of {}", self.store, self.queue_capacity)?;
        if let Some((delay, entries)) = self.behind {
            write!(f, ", stored {delay} ms or {entries} entries later")?;
        }
        self.steps
            .iter()
            .try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}
