//! What competes with what, at which size, and which ratio is wanted.

use arena::Step;

use crate::contenders::Contender;
use crate::contenders::Contender::{
    Append, ByHand, Csv, CsvUnsynced, Dashmap, Fjall, Heed, Memory, PublishedCsv, PublishedMemory,
    PublishedSqlite, Redb, Sqlite, SqliteBehind,
};

pub(crate) struct Experiment {
    /// On the command line, and of its files.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) rounds: usize,
    pub(crate) entrants: Vec<Entrant>,
    pub(crate) measures: &'static [Measure],
    /// So many of them are plotted, from the first one on.
    pub(crate) plots: usize,
    pub(crate) goals: Vec<Goal>,
}

/// A contender in an experiment.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    pub(crate) contender: Contender,
    pub(crate) step: Step,
    /// How the store is made that the step works on.
    pub(crate) prepared: Prepared,
    pub(crate) entries: u64,
    pub(crate) tasks: usize,
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// It starts with nothing.
    No,
    /// Once for all rounds: the step leaves it as it is, or nearly so.
    Once(Step),
    /// Anew in each round.
    EachRound(Step),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Among the figures of a trial.
    pub(crate) key: &'static str,
    /// With the unit.
    pub(crate) heading: &'static str,
    pub(crate) more_is_better: bool,
}

/// How one figure should stand to another one.
pub(crate) struct Goal {
    /// As the report names it.
    pub(crate) work: &'static str,
    pub(crate) ours: (usize, Measure),
    pub(crate) theirs: (usize, Measure),
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// So many times as fast.
    AtLeast(f64),
    /// So many times as much.
    AtMost(f64),
}

const PER_SECOND: Measure = more("per_second", "calls/s");
const P50: Measure = less("p50_us", "p50, µs");
const P99: Measure = less("p99_us", "p99, µs");
const P999: Measure = less("p99.9_us", "p99.9, µs");
const GET: Measure = less("get_ns", "`get` (a copy), ns");
const READ: Measure = less("read_ns", "`with` (in place), ns");
const EACH: Measure = less("ns", "ns an entry");
const WITH_FLUSH: Measure = less("with_flush_ns", "ns an entry, with `flush`");
const SECONDS: Measure = less("seconds", "open, s");
const MEMORY: Measure = less("memory_bytes_each", "memory, bytes an entry");
const PEAK: Measure = less("peak_bytes_each", "peak at open, bytes an entry");
const DISK: Measure = less("disk_bytes_each", "disk, bytes an entry");

const CALLS: &[Measure] = &[PER_SECOND, P50, P99, P999];
const LOOK_UPS: &[Measure] = &[GET, READ];
const BURSTS: &[Measure] = &[EACH, WITH_FLUSH];
const GROWTH: &[Measure] = &[P50, SECONDS, P99, MEMORY, PEAK, DISK];
const OPENS: &[Measure] = &[SECONDS, MEMORY, PEAK, DISK];

const fn more(key: &'static str, heading: &'static str) -> Measure {
    Measure {
        key,
        heading,
        more_is_better: true,
    }
}

const fn less(key: &'static str, heading: &'static str) -> Measure {
    Measure {
        key,
        heading,
        more_is_better: false,
    }
}

/// All of them, in the order of the report.
pub(crate) fn experiments() -> Vec<Experiment> {
    let mut all = vec![
        look_ups("get-1", "Look-ups of one thread among 200,000 entries", 1),
        look_ups("get-2", "Look-ups of two threads among 200,000 entries", 2),
        inserts_of_one(),
        inserts_of_many(),
        batch(),
        opens("open-200k", "Opening a store of 200,000 entries", 200_000),
        opens("open-1m", "Opening a store of 1,000,000 entries", 1_000_000),
        bursts("burst-1", "Inserts at the speed of memory, one task", 1),
        bursts("burst-64", "Inserts at the speed of memory, 64 tasks", 64),
        growth(),
    ];
    all.extend([
        ycsb("ycsb-a", "YCSB A: 50 % reads, 50 % updates", Step::YcsbA),
        ycsb("ycsb-b", "YCSB B: 95 % reads, 5 % updates", Step::YcsbB),
        ycsb("ycsb-c", "YCSB C: reads", Step::YcsbC),
        ycsb(
            "ycsb-d",
            "YCSB D: 95 % reads of the latest, 5 % inserts",
            Step::YcsbD,
        ),
        ycsb(
            "ycsb-f",
            "YCSB F: 50 % reads, 50 % read-modify-writes",
            Step::YcsbF,
        ),
    ]);
    all
}

fn look_ups(name: &'static str, title: &'static str, threads: usize) -> Experiment {
    let entrant = |contender, prepared| Entrant {
        contender,
        step: Step::Get,
        prepared,
        entries: 200_000,
        tasks: threads,
        seconds: 1.0,
    };
    let stored = Prepared::Once(Step::Fill);
    Experiment::new(name, title, LOOK_UPS)
        .rounds(9)
        .entrants([
            entrant(Sqlite, stored),
            entrant(Memory, Prepared::No),
            entrant(Dashmap, Prepared::No),
            entrant(PublishedSqlite, stored),
            entrant(Redb, stored),
            entrant(Fjall, stored),
            entrant(Heed, stored),
        ])
        .goal(
            "`get` beside DashMap's, with a copy",
            (Sqlite, GET),
            (Dashmap, GET),
            Bound::AtLeast(0.95),
        )
        .goal(
            "`with` beside the fastest copy",
            (Sqlite, READ),
            (Dashmap, GET),
            Bound::AtLeast(1.0),
        )
}

fn inserts(name: &'static str, title: &'static str, tasks: usize) -> Experiment {
    let contenders = [
        Sqlite,
        Csv,
        CsvUnsynced,
        PublishedSqlite,
        PublishedCsv,
        ByHand,
        Redb,
        Fjall,
        Heed,
        Append,
    ];
    Experiment::new(name, title, CALLS).entrants(contenders.map(|contender| Entrant {
        contender,
        step: Step::Insert,
        prepared: Prepared::No,
        entries: 0,
        tasks,
        seconds: 1.5,
    }))
}

fn inserts_of_one() -> Experiment {
    let speed = PER_SECOND;
    inserts("insert-1", "Inserts of one task", 1)
        .goal(
            "one task, SQLite, beside rusqlite by hand",
            (Sqlite, speed),
            (ByHand, speed),
            Bound::AtLeast(0.9),
        )
        .goal(
            "one task, SQLite, beside 0.1.3",
            (Sqlite, speed),
            (PublishedSqlite, speed),
            Bound::AtLeast(2.0),
        )
        .goal(
            "one task, CSV with sync off, beside 0.1.3's CSV",
            (CsvUnsynced, speed),
            (PublishedCsv, speed),
            Bound::AtLeast(1.0),
        )
}

fn inserts_of_many() -> Experiment {
    let speed = PER_SECOND;
    inserts("insert-64", "Inserts of 64 tasks", 64)
        .goal(
            "64 tasks, SQLite, beside 0.1.3",
            (Sqlite, speed),
            (PublishedSqlite, speed),
            Bound::AtLeast(40.0),
        )
        .goal(
            "64 tasks, SQLite, beside fjall",
            (Sqlite, speed),
            (Fjall, speed),
            Bound::AtLeast(5.0),
        )
        .goal(
            "64 tasks, SQLite, beside redb",
            (Sqlite, speed),
            (Redb, speed),
            Bound::AtLeast(12.0),
        )
        .goal(
            "64 tasks, CSV, beside append + fdatasync",
            (Csv, speed),
            (Append, speed),
            Bound::AtLeast(15.0),
        )
}

fn batch() -> Experiment {
    let contenders = [Sqlite, Csv, ByHand, Redb, Fjall, Heed];
    Experiment::new("batch", "200,000 entries with one commit", &[EACH])
        .entrants(contenders.map(|contender| Entrant {
            contender,
            step: Step::Batch,
            prepared: Prepared::No,
            entries: 200_000,
            tasks: 1,
            seconds: 0.0,
        }))
        .goal(
            "200,000 at once, SQLite, beside rusqlite by hand",
            (Sqlite, EACH),
            (ByHand, EACH),
            Bound::AtLeast(1.0),
        )
}

fn opens(name: &'static str, title: &'static str, entries: u64) -> Experiment {
    let contenders = [
        Sqlite,
        Csv,
        PublishedSqlite,
        ByHand,
        Redb,
        Fjall,
        Heed,
        Dashmap,
    ];
    Experiment::new(name, title, OPENS)
        .entrants(contenders.map(|contender| Entrant {
            contender,
            step: Step::Open,
            prepared: match contender {
                Dashmap => Prepared::No,
                _ => Prepared::Once(Step::Fill),
            },
            entries,
            tasks: 1,
            seconds: 0.0,
        }))
        .goal(
            "open, SQLite, beside 0.1.3",
            (Sqlite, SECONDS),
            (PublishedSqlite, SECONDS),
            Bound::AtLeast(1.5),
        )
        .goal(
            "open, SQLite, beside rusqlite by hand",
            (Sqlite, SECONDS),
            (ByHand, SECONDS),
            Bound::AtLeast(0.8),
        )
        .goal(
            "memory of an entry beside DashMap",
            (Sqlite, MEMORY),
            (Dashmap, MEMORY),
            Bound::AtMost(1.1),
        )
}

fn bursts(name: &'static str, title: &'static str, tasks: usize) -> Experiment {
    let contenders = [SqliteBehind, Memory, PublishedMemory, Dashmap];
    Experiment::new(name, title, BURSTS)
        .rounds(9)
        .entrants(contenders.map(|contender| Entrant {
            contender,
            step: Step::Burst,
            prepared: Prepared::No,
            entries: 400_000,
            tasks,
            seconds: 0.0,
        }))
        .goal(
            "write-behind beside DashMap",
            (SqliteBehind, EACH),
            (Dashmap, EACH),
            Bound::AtLeast(0.5),
        )
        .goal(
            "in memory beside 0.1.3",
            (Memory, EACH),
            (PublishedMemory, EACH),
            Bound::AtLeast(1.0),
        )
}

const SIZES: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

fn growth() -> Experiment {
    let title = "One task inserts into ever more entries, SQLite";
    Experiment::new("growth", title, GROWTH)
        .rounds(3)
        .plots(2)
        .entrants(SIZES.map(|entries| Entrant {
            contender: Sqlite,
            step: Step::OpenInsert,
            prepared: Prepared::Once(Step::FillInOrder),
            entries,
            tasks: 1,
            seconds: 1.5,
        }))
        .goal_between(
            "an insert among 1,000,000 beside one among 10,000",
            (2, P50),
            (0, P50),
            Bound::AtMost(1.5),
        )
        .goal_between(
            "an insert among 10,000,000 beside one among 10,000",
            (3, P50),
            (0, P50),
            Bound::AtMost(1.5),
        )
        .goal_between(
            "opening 10,000,000 beside opening 1,000,000",
            (3, SECONDS),
            (2, SECONDS),
            Bound::AtMost(11.0),
        )
}

fn ycsb(name: &'static str, title: &'static str, step: Step) -> Experiment {
    let contenders = [Sqlite, PublishedSqlite, Redb, Fjall, Heed];
    Experiment::new(name, title, CALLS).entrants(contenders.map(|contender| Entrant {
        contender,
        step,
        prepared: Prepared::EachRound(Step::FillRecords),
        entries: 50_000,
        tasks: 64,
        seconds: 1.5,
    }))
}

impl Experiment {
    fn new(name: &'static str, title: &'static str, measures: &'static [Measure]) -> Self {
        Experiment {
            name,
            title,
            rounds: 5,
            entrants: Vec::new(),
            measures,
            plots: 1,
            goals: Vec::new(),
        }
    }

    fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    fn plots(mut self, plots: usize) -> Self {
        self.plots = plots;
        self
    }

    fn entrants(mut self, entrants: impl IntoIterator<Item = Entrant>) -> Self {
        self.entrants.extend(entrants);
        self
    }

    fn goal(
        self,
        work: &'static str,
        ours: (Contender, Measure),
        theirs: (Contender, Measure),
        bound: Bound,
    ) -> Self {
        let place = |contender| {
            let mut entrants = self.entrants.iter();
            let place = entrants.position(|entrant| entrant.contender == contender);
            place.expect("goals are about entrants")
        };
        let (ours, theirs) = ((place(ours.0), ours.1), (place(theirs.0), theirs.1));
        self.goal_between(work, ours, theirs, bound)
    }

    fn goal_between(
        mut self,
        work: &'static str,
        ours: (usize, Measure),
        theirs: (usize, Measure),
        bound: Bound,
    ) -> Self {
        self.goals.push(Goal {
            work,
            ours,
            theirs,
            bound,
        });
        self
    }

    /// To the size that shows whether it runs.
    pub(crate) fn shrink(&mut self) {
        self.rounds = 1;
        for entrant in &mut self.entrants {
            entrant.entries /= 200;
            entrant.seconds /= 50.0;
        }
    }

    /// Whether one contender appears at several sizes.
    pub(crate) fn is_about_size(&self) -> bool {
        self.entrants
            .windows(2)
            .all(|pair| pair[0].contender == pair[1].contender)
    }
}
