//! What a task does in which order: a list without end that follows from a seed, so that the state after any beginning of
//! it can be told.

use std::collections::BTreeMap;

/// Keys of all tasks together.
const KEYS: usize = 300;
/// Keys that a task has at least.
const FEWEST_KEYS: usize = 16;
/// Counts the transactions of all tasks. Each of them changes it.
pub(crate) const TOTAL: &str = "total";

/// Each key with the number that is stored under it.
pub(crate) type State = BTreeMap<String, u64>;

pub(crate) struct Sequence {
    seed: u64,
    task: usize,
    keys: usize,
}

/// One call on the map. What it stores names the operation, by its number.
pub(crate) struct Operation {
    pub(crate) number: u64,
    pub(crate) call: Call,
    /// For what has no part in the state.
    pub(crate) rng: fastrand::Rng,
    task: usize,
}

pub(crate) enum Call {
    Insert(String),
    Remove(String),
    /// Adds its number to what is there.
    Update(String),
    /// All of them, and the task's own counter.
    InsertMany(Vec<String>),
    RemoveMany(Vec<String>),
    /// Moves what is under the first key to the second, and counts itself.
    Transaction(String, String),
    /// The same, but it ends in an error.
    GivenUp(String, String),
}

impl Sequence {
    pub(crate) fn new(seed: u64, task: usize, tasks: usize) -> Self {
        Sequence {
            seed: seed.wrapping_add(task as u64),
            task,
            keys: (KEYS / tasks).max(FEWEST_KEYS),
        }
    }

    /// The operation of this number; the first one is 1.
    pub(crate) fn operation(&self, number: u64) -> Operation {
        let mut rng =
            fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut key = || format!("t{}-k{}", self.task, rng.usize(..self.keys));
        let (first, second) = (key(), key());
        let count = match rng.u8(..16) {
            0 => rng.usize(1..=self.keys),
            _ => rng.usize(1..=8),
        };
        let kind = rng.u8(..100);
        let mut keys = || {
            let keys = (0..count).map(|_| format!("t{}-k{}", self.task, rng.usize(..self.keys)));
            keys.collect()
        };
        let call = match kind {
            0..30 => Call::Insert(first),
            30..40 => Call::Remove(first),
            40..55 => Call::Update(first),
            55..70 => Call::InsertMany(keys()),
            70..75 => Call::RemoveMany(keys()),
            75..95 => Call::Transaction(first, second),
            _ => Call::GivenUp(first, second),
        };
        Operation {
            number,
            call,
            rng,
            task: self.task,
        }
    }

    /// Whether a key is one of this task.
    pub(crate) fn owns(&self, key: &str) -> bool {
        let rest = key.strip_prefix('t').and_then(|key| key.split_once('-'));
        rest.is_some_and(|(task, _)| task.parse() == Ok(self.task))
    }
}

impl Operation {
    /// The number of the last batch or transaction of the task is under this key.
    pub(crate) fn last_key(&self) -> String {
        last_key(self.task)
    }

    /// What it makes of the keys that it changes, if it is not given up. `read` tells what is there.
    pub(crate) fn changes(&self, read: impl Fn(&str) -> Option<u64>) -> Vec<(String, Option<u64>)> {
        let number = Some(self.number);
        let same = |keys: &[String], state| -> Vec<_> {
            let keys = keys.iter().cloned();
            keys.map(|key| (key, state)).collect()
        };
        match &self.call {
            Call::Insert(key) => vec![(key.clone(), number)],
            Call::Remove(key) => vec![(key.clone(), None)],
            Call::Update(key) => match read(key) {
                Some(old) => vec![(key.clone(), Some(old.wrapping_add(self.number)))],
                None => vec![],
            },
            Call::InsertMany(keys) => {
                let mut changes = same(keys, number);
                changes.push((self.last_key(), number));
                changes
            }
            Call::RemoveMany(keys) => same(keys, None),
            Call::Transaction(from, to) | Call::GivenUp(from, to) => {
                let moved = read(from).unwrap_or(0).wrapping_add(self.number);
                let one_more = |key: &str| Some(read(key).unwrap_or(0) + 1);
                let done = done_key(self.task);
                vec![
                    (from.clone(), None),
                    (to.clone(), Some(moved)),
                    (self.last_key(), number),
                    (TOTAL.to_string(), one_more(TOTAL)),
                    (done.clone(), one_more(&done)),
                ]
            }
        }
    }

    /// Does to `state` what it does to the entries of its task.
    pub(crate) fn replay(&self, state: &mut State) {
        if matches!(self.call, Call::GivenUp(..)) {
            return;
        }
        for (key, number) in self.changes(|key| state.get(key).copied()) {
            match number {
                _ if key == TOTAL => {}
                Some(number) => drop(state.insert(key, number)),
                None => drop(state.remove(&key)),
            }
        }
    }
}

pub(crate) fn last_key(task: usize) -> String {
    format!("t{task}-last")
}

/// Counts the transactions of one task.
pub(crate) fn done_key(task: usize) -> String {
    format!("t{task}-done")
}
