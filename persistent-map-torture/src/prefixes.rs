//! What a store may hold that follows memory: for each task, what a beginning of its sequence leaves, at least as long as
//! the last acknowledged flush has seen it; and of each transaction all or nothing.

use crate::failure::Failure;
use crate::oracle::{Found, differences};
use crate::protocol::Line;
use crate::sequence::{Sequence, State, TOTAL, done_key, last_key};

pub(crate) struct Prefixes {
    tasks: Vec<Task>,
}

struct Task {
    sequence: Sequence,
    number: usize,
    /// So many operations were found stored, and this is what they leave.
    stored: u64,
    state: State,
    attempted: u64,
    flushed: u64,
}

impl Prefixes {
    pub(crate) fn new(seed: u64, tasks: usize) -> Self {
        let task = |number| Task {
            sequence: Sequence::new(seed, number, tasks),
            number,
            stored: 0,
            state: State::new(),
            attempted: 0,
            flushed: 0,
        };
        Prefixes {
            tasks: (0..tasks).map(task).collect(),
        }
    }

    /// How many operations of each task are stored.
    pub(crate) fn stored(&self) -> impl Iterator<Item = u64> {
        self.tasks.iter().map(|task| task.stored)
    }

    pub(crate) fn hear(&mut self, line: &Line) -> Result<(), Failure> {
        match line {
            Line::Operation { task, number } => match self.tasks.get_mut(*task) {
                Some(task) => task.attempted = *number,
                None => return Err(Failure::Trouble(format!("no task {task}"))),
            },
            Line::Flushed(numbers) => {
                for (task, &number) in self.tasks.iter_mut().zip(numbers) {
                    task.flushed = number;
                }
            }
            Line::Broken(what) => return Err(Failure::Violation(what.clone())),
            _ => {}
        }
        Ok(())
    }

    /// Compares the store with what it may hold. From then on what was found is certain. Returns how many operations were
    /// begun and are not stored.
    pub(crate) fn compare(&mut self, found: &Found) -> Result<u64, Failure> {
        let mut taken = 0;
        let strange =
            |key: &&String| *key != TOTAL && !self.tasks.iter().any(|task| task.sequence.owns(key));
        if let Some(key) = found.keys().find(strange) {
            return Err(Failure::Violation(format!("nobody asked for {key}")));
        }
        for task in &mut self.tasks {
            task.compare(found)?;
            taken += task.attempted - task.stored;
            task.attempted = task.stored;
            task.flushed = task.stored;
        }
        let done = |task: &Task| task.state.get(&done_key(task.number)).copied();
        let done: u64 = self.tasks.iter().filter_map(done).sum();
        let total = found.get(TOTAL).copied().unwrap_or(0);
        if total != done {
            return Err(Failure::Violation(format!(
                "half a transaction: the tasks have done {done} of them, and together they have counted {total}"
            )));
        }
        Ok(taken)
    }
}

impl Task {
    /// Looks for the beginning of the sequence that leaves what was found.
    fn compare(&mut self, found: &Found) -> Result<(), Failure> {
        let own = found.iter().filter(|(key, _)| self.sequence.owns(key));
        let own: State = own.map(|(key, &number)| (key.clone(), number)).collect();
        let last = last_key(self.number);
        let mut fitting = None;
        let mut closest = None;
        let mut state = self.state.clone();
        for number in self.stored..=self.attempted {
            if number > self.stored {
                self.sequence.operation(number).replay(&mut state);
            }
            // The longest one, because some operations change nothing.
            if state == own {
                fitting = Some(number);
            }
            if closest.is_none() && state.get(&last) == own.get(&last) {
                closest = Some((number, differences(&own, &state)));
            }
        }
        let Some(number) = fitting else {
            return Err(Failure::Violation(format!(
                "task {}: no beginning of its sequence leaves what is stored; it was known to have {} operations, {} were \
                 flushed, {} attempted; compared with {}",
                self.number,
                self.stored,
                self.flushed,
                self.attempted,
                closest.map_or("none".to_string(), |(number, differences)| format!(
                    "the first {number}: {differences}"
                ))
            )));
        };
        if number < self.flushed {
            return Err(Failure::Violation(format!(
                "task {}: the store has {number} operations, but {} were there at a flush that was acknowledged",
                self.number, self.flushed
            )));
        }
        for number in self.stored + 1..=number {
            self.sequence.operation(number).replay(&mut self.state);
        }
        self.stored = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Call;

    const SEED: u64 = 5;
    const TASKS: usize = 2;

    /// What is stored after so many operations of each task.
    fn state_after(numbers: [u64; TASKS]) -> Found {
        let mut found = Found::new();
        let mut total = 0;
        for (task, number) in numbers.into_iter().enumerate() {
            let sequence = Sequence::new(SEED, task, TASKS);
            let mut state = State::new();
            for number in 1..=number {
                sequence.operation(number).replay(&mut state);
            }
            total += state.get(&done_key(task)).copied().unwrap_or(0);
            found.extend(state);
        }
        if total > 0 {
            found.insert(TOTAL.to_string(), total);
        }
        found
    }

    /// Both tasks have begun 200 operations, and 100 were flushed.
    fn verdict(found: &Found) -> Result<(), Failure> {
        let mut prefixes = Prefixes::new(SEED, TASKS);
        for number in 1..=200 {
            for task in 0..TASKS {
                prefixes.hear(&Line::Operation { task, number })?;
            }
        }
        prefixes.hear(&Line::Flushed(vec![100; TASKS]))?;
        prefixes.compare(found).map(drop)
    }

    #[test]
    fn any_moment_after_the_flush_may_be_there() {
        for numbers in [[100, 100], [200, 100], [137, 181], [200, 200]] {
            assert!(verdict(&state_after(numbers)).is_ok());
        }
    }

    #[test]
    fn what_was_flushed_or_never_begun_tells() {
        // Some operations change nothing, but not so many in a row.
        assert!(verdict(&state_after([80, 100])).is_err());
        assert!(verdict(&state_after([100, 220])).is_err());
        assert!(verdict(&Found::new()).is_err());
    }

    #[test]
    fn a_hole_tells() {
        let full = state_after([150, 150]);
        for key in full.keys() {
            let mut hole = full.clone();
            hole.remove(key);
            assert!(verdict(&hole).is_err(), "{key}");
            hole.insert(key.clone(), u64::MAX);
            assert!(verdict(&hole).is_err(), "{key}");
        }
    }

    #[test]
    fn the_total_of_another_moment_tells() {
        let sequence = Sequence::new(SEED, 0, TASKS);
        let is_transaction =
            |number: &u64| matches!(sequence.operation(*number).call, Call::Transaction(..));
        let number = (150..200).find(is_transaction).unwrap();
        let mut torn = state_after([number, 150]);
        let before = state_after([number - 1, 150])[TOTAL];
        torn.insert(TOTAL.to_string(), before);
        assert!(verdict(&torn).is_err());
    }

    #[test]
    fn what_was_seen_once_stays() {
        let mut prefixes = Prefixes::new(SEED, TASKS);
        for number in 1..=200 {
            prefixes.hear(&Line::Operation { task: 0, number }).unwrap();
        }
        prefixes.compare(&state_after([150, 0])).unwrap();
        assert!(prefixes.compare(&state_after([120, 0])).is_err());
    }
}
