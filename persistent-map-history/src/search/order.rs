//! The order as far as it goes: the calls that may come next, and steps forth and back.

use super::{Choice, Search, Step};
use crate::calls::{Optional, Required};

impl<'a> Search<'a> {
    /// The first required call that is not ordered.
    pub(super) fn first(&self) -> usize {
        self.next[self.calls.required.len()]
    }

    /// The first answer that is not explained: calls that began later come later.
    pub(super) fn deadline(&self) -> u64 {
        let returns = self.calls.returns.get(self.passed);
        returns.map_or(u64::MAX, |(stamp, _)| *stamp)
    }

    /// The required call, if it may come next. These are the first ones in the list.
    pub(super) fn candidate(&self, at: usize) -> Option<&'a Required> {
        let call = self.calls.required.get(at)?;
        (call.call <= self.deadline()).then_some(call)
    }

    /// The required calls that may come next.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &'a Required> {
        let mut at = self.first();
        std::iter::from_fn(move || {
            let call = self.candidate(at)?;
            at = self.next[at];
            Some(call)
        })
    }

    /// The optional call, if it may still have its place.
    pub(super) fn free(&self, at: usize) -> Option<&'a Optional> {
        let call = &self.calls.optional[at];
        (call.epoch >= self.epoch && !self.used.contains(call.bit)).then_some(call)
    }

    /// Takes a step.
    pub(super) fn place(&mut self, choice: Choice) {
        self.steps.push(Step {
            choice,
            state: self.state,
            epoch: self.epoch,
            passed: self.passed,
        });
        self.count(choice, false);
        match choice {
            Choice::Required(at) => {
                let call = &self.calls.required[at];
                self.state = call.op.apply(self.state).0;
                self.epoch = call.epoch;
                self.next[self.previous[at]] = self.next[at];
                self.previous[self.next[at]] = self.previous[at];
                let place = self.ahead.partition_point(|other| *other < call.rank);
                self.ahead.insert(place, call.rank);
                let ranks = (self.passed..).zip(&self.ahead);
                let passed = ranks.take_while(|(next, rank)| next == *rank).count();
                self.ahead.drain(..passed);
                self.passed += passed;
            }
            Choice::Optional(at) => {
                let call = &self.calls.optional[at];
                self.state = call.op.apply(self.state).0;
                self.epoch = self.epoch.max(call.epoch);
                self.used.insert(call.bit);
            }
        }
    }

    /// Takes back all steps but these first ones.
    pub(super) fn undo_to(&mut self, steps: usize) {
        while self.steps.len() > steps {
            let Some(step) = self.steps.pop() else { return };
            match step.choice {
                Choice::Required(at) => {
                    self.next[self.previous[at]] = at;
                    self.previous[self.next[at]] = at;
                    self.ahead.splice(..0, step.passed..self.passed);
                    let rank = self.calls.required[at].rank;
                    self.ahead.retain(|other| *other != rank);
                }
                Choice::Optional(at) => {
                    self.used.remove(self.calls.optional[at].bit);
                }
            }
            self.count(step.choice, true);
            self.state = step.state;
            self.epoch = step.epoch;
            self.passed = step.passed;
        }
    }

    fn count(&mut self, choice: Choice, more: bool) {
        match choice {
            Choice::Required(at) => {
                let call = &self.calls.required[at];
                self.values.want(call.wanted, more);
                self.values.make(call.left, more);
            }
            Choice::Optional(at) => self.values.make(self.calls.optional[at].op.puts(), more),
        }
    }
}
