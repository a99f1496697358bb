//! The search for an order of the calls on one key.

use std::collections::HashMap;

use super::calls::{Calls, Epoch, Optional, Required};
use super::model::{Op, State};
use super::values::Values;

/// How many of the calls ordered last are told.
const TAIL: usize = 5;

/// An order that explains all answers.
pub(super) struct Order {
    /// The steps of the search.
    pub(super) tried: u64,
    /// The records ordered last.
    pub(super) tail: Vec<usize>,
}

/// Looks for an order.
pub(super) fn explain(calls: &Calls, start: State) -> Option<Order> {
    let mut search = Search::new(calls, start);
    search.run().then(|| Order {
        tried: search.tried,
        tail: search.tail(),
    })
}

#[derive(Clone, Copy)]
enum Choice {
    Required(usize),
    Optional(usize),
}

/// A call that was put in order, and what was so before.
struct Step {
    choice: Choice,
    state: State,
    epoch: usize,
    passed: usize,
}

/// A set of ordered calls from which the search goes on.
struct Frame {
    /// How many steps lead here.
    steps: usize,
    /// Where the optional calls begin that the steps end with.
    chain: usize,
    cursor: Cursor,
}

/// What is tried next.
enum Cursor {
    Required(usize),
    Optional(usize, Box<Targets>),
}

/// What an optional call has to bring about to be of use.
#[derive(Default)]
struct Targets {
    /// Any change may be of use.
    any: bool,
    /// Values that other calls need.
    values: Vec<u64>,
    /// Whether an optional call needs that there is none.
    absence: bool,
    /// How much the optional calls can add, all together.
    room: u128,
}

/// All but the optional calls of what the rest of the search depends on.
#[derive(PartialEq, Eq, Hash)]
struct Place {
    passed: usize,
    epoch: usize,
    state: State,
    ahead: Box<[usize]>,
}

struct Search<'a> {
    calls: &'a Calls,
    tried: u64,
    /// What the key holds after the steps.
    state: State,
    /// The last epoch that a step is of.
    epoch: usize,
    /// How many answers, from the first, are explained without a gap.
    passed: usize,
    /// The ranks of the others that are explained, sorted. They began before the first that is missing was answered, so
    /// they are never more than run at once.
    ahead: Vec<usize>,
    /// The required calls that are not ordered yet: a list in a circle, through the index after the last.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The optional calls that are ordered, a bit each.
    used: Vec<u64>,
    /// What the calls that are not ordered need and can put.
    values: Values,
    steps: Vec<Step>,
    /// From where nothing was found, with which optional calls used: sets of which none contains another.
    failed: HashMap<Place, Vec<Box<[u64]>>>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a Calls, start: State) -> Self {
        let circle = calls.required.len() + 1;
        Search {
            calls,
            tried: 0,
            state: start,
            epoch: 0,
            passed: 0,
            ahead: Vec::new(),
            next: (0..circle).map(|at| (at + 1) % circle).collect(),
            previous: (0..circle).map(|at| (at + circle - 1) % circle).collect(),
            used: vec![0; calls.words],
            values: calls.values(),
            steps: Vec::new(),
            failed: HashMap::new(),
        }
    }

    fn run(&mut self) -> bool {
        let wanted = self.calls.required.iter().map(|call| call.wanted);
        if { wanted }.any(|wanted| self.values.is_lost(wanted, self.state)) {
            return false;
        }
        self.absorb();
        let mut frames = vec![self.frame(self.steps.len())];
        while self.passed < self.calls.returns.len() {
            let Some(frame) = frames.last_mut() else {
                return false;
            };
            self.undo_to(frame.steps);
            let Some(choice) = self.choose(frame) else {
                self.note_failure();
                frames.pop();
                continue;
            };
            let mut chain = frame.chain;
            self.tried += 1;
            self.place(choice);
            if self.has_lost(choice) {
                continue;
            }
            if self.absorb() || matches!(choice, Choice::Required(_)) {
                chain = self.steps.len();
            }
            if !self.has_failed() {
                frames.push(self.frame(chain));
            }
        }
        true
    }

    /// The records ordered last.
    fn tail(&self) -> Vec<usize> {
        let tail = self.steps.len().saturating_sub(TAIL);
        let record = |step: &Step| match step.choice {
            Choice::Required(at) => self.calls.required[at].record,
            Choice::Optional(at) => self.calls.optional[at].record,
        };
        self.steps[tail..].iter().map(record).collect()
    }

    fn frame(&self, chain: usize) -> Frame {
        Frame {
            steps: self.steps.len(),
            chain,
            cursor: Cursor::Required(self.first()),
        }
    }

    /// The first required call that is not ordered.
    fn first(&self) -> usize {
        self.next[self.calls.required.len()]
    }

    /// The first answer that is not explained: calls that began later come later.
    fn deadline(&self) -> u64 {
        let returns = self.calls.returns.get(self.passed);
        returns.map_or(u64::MAX, |(stamp, _)| *stamp)
    }

    /// The required call, if it may come next. These are the first ones in the list.
    fn candidate(&self, at: usize) -> Option<&'a Required> {
        let call = self.calls.required.get(at)?;
        (call.call <= self.deadline()).then_some(call)
    }

    fn candidates(&self) -> impl Iterator<Item = &'a Required> {
        let mut at = self.first();
        std::iter::from_fn(move || {
            let call = self.candidate(at)?;
            at = self.next[at];
            Some(call)
        })
    }

    /// The optional call, if it may still have its place.
    fn free(&self, at: usize) -> Option<&'a Optional> {
        let call = &self.calls.optional[at];
        let used = self.used[call.bit / 64] & (1 << (call.bit % 64)) != 0;
        (!used && call.epoch >= self.epoch).then_some(call)
    }

    /// Orders what was answered that it changed nothing, where that is right: as good here as anywhere later. In a new
    /// epoch it is so only if it does not end the time of an optional call.
    fn absorb(&mut self) -> bool {
        let mut any = false;
        let mut at = self.first();
        while let Some(call) = self.candidate(at) {
            if call.changed_nothing
                && call.op.apply(self.state).1 == call.answer
                && !self.ends_time(call)
            {
                self.place(Choice::Required(at));
                any = true;
            }
            at = self.next[at];
        }
        any
    }

    fn ends_time(&self, call: &Required) -> bool {
        let Epoch { optional: end, .. } = self.calls.epochs[call.epoch];
        let Epoch { optional, .. } = self.calls.epochs[self.epoch];
        (optional..end).any(|at| self.free(at).is_some())
    }

    fn choose(&self, frame: &mut Frame) -> Option<Choice> {
        let chain = &self.steps[frame.chain..];
        if let Cursor::Required(cursor) = &mut frame.cursor {
            while let Some(call) = self.candidate(*cursor) {
                let at = *cursor;
                *cursor = self.next[at];
                let outcome = call.op.apply(self.state);
                // If the same comes of it without the optional calls before it, they were in vain.
                let is_same = |step: &Step| call.op.apply(step.state) == outcome;
                if outcome.1 == call.answer && !chain.iter().any(is_same) {
                    return Some(Choice::Required(at));
                }
            }
            let first = self.calls.epochs[self.epoch].optional;
            frame.cursor = Cursor::Optional(first, Box::new(self.targets(first)));
        }
        let Cursor::Optional(cursor, targets) = &mut frame.cursor else {
            return None;
        };
        while let Some(call) = self.calls.optional.get(*cursor) {
            if call.call > self.deadline() {
                return None;
            }
            let at = *cursor;
            *cursor += 1;
            let after = call.op.apply(self.state).0;
            let is_same = |step: &Step| step.state == after || call.op.apply(step.state).0 == after;
            if after != self.state
                && self.free(at).is_some()
                && call.twin.is_none_or(|twin| self.free(twin).is_none())
                && self.is_of_use(after, targets)
                && !chain.iter().any(is_same)
            {
                return Some(Choice::Optional(at));
            }
        }
        None
    }

    fn targets(&self, first: usize) -> Targets {
        let mut targets = Targets::default();
        for call in self.candidates() {
            // Where it begins an epoch it may be right now and still not be ordered.
            targets.any |= call.epoch > self.epoch && matches!(call.op, Op::RemoveIf(_));
            targets.values.extend(call.fitting);
        }
        let mut conditional = Vec::new();
        let deadline = self.deadline();
        let calls = self.calls.optional[first..].iter().zip(first..);
        for (call, at) in calls.take_while(|(call, _)| call.call <= deadline) {
            if self.free(at).is_some() {
                targets.room += u128::from(call.op.adds());
                if call.op.compares_with().is_some() || call.op.heeds_absence() {
                    conditional.push(call.op);
                }
            }
        }
        // What an optional call needs is of use if that is which it makes of it.
        loop {
            let before = conditional.len();
            conditional.retain(|op| {
                let needed = op.compares_with();
                let is_useful = self.is_of_use(op.apply(needed).0, &targets);
                if is_useful {
                    match needed {
                        Some(value) => targets.values.push(value),
                        None => targets.absence = true,
                    }
                }
                !is_useful
            });
            if conditional.len() == before {
                return targets;
            }
        }
    }

    /// Whether another call needs that the key holds this, or what can be made of it by adding.
    fn is_of_use(&self, after: State, targets: &Targets) -> bool {
        let leads_to =
            |value: u64, wanted: &u64| u128::from(wanted.wrapping_sub(value)) <= targets.room;
        targets.any
            || match after {
                None => targets.absence,
                Some(value) => targets.values.iter().any(|wanted| leads_to(value, wanted)),
            }
            || { self.candidates() }.any(|call| call.op.apply(after).1 == call.answer)
    }

    /// Whether the step took away what another call needs, for good.
    fn has_lost(&self, choice: Choice) -> bool {
        let before = self.steps.last().and_then(|step| step.state);
        let spent = match choice {
            Choice::Required(_) => None,
            Choice::Optional(at) => self.calls.optional[at].op.puts(),
        };
        [before, spent]
            .into_iter()
            .any(|value| value != self.state && self.values.is_lost(value, self.state))
    }

    fn place(&mut self, choice: Choice) {
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
                self.used[call.bit / 64] |= 1 << (call.bit % 64);
            }
        }
    }

    fn undo_to(&mut self, steps: usize) {
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
                    let bit = self.calls.optional[at].bit;
                    self.used[bit / 64] &= !(1 << (bit % 64));
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

    fn here(&self) -> Place {
        Place {
            passed: self.passed,
            epoch: self.epoch,
            state: self.state,
            ahead: self.ahead.as_slice().into(),
        }
    }

    /// The optional calls that are used, without those whose time has gone.
    fn used(&self) -> &[u64] {
        let used = &self.used[self.calls.epochs[self.epoch].word..];
        let end = used.iter().rposition(|word| *word != 0);
        &used[..end.map_or(0, |last| last + 1)]
    }

    fn has_failed(&self) -> bool {
        let used = self.used();
        self.failed
            .get(&self.here())
            .is_some_and(|failed| failed.iter().any(|fewer| is_subset(fewer, used)))
    }

    fn note_failure(&mut self) {
        let used: Box<[u64]> = self.used().into();
        let failed = self.failed.entry(self.here()).or_default();
        failed.retain(|more| !is_subset(&used, more));
        failed.push(used);
    }
}

fn is_subset(fewer: &[u64], more: &[u64]) -> bool {
    fewer.len() <= more.len()
        && fewer
            .iter()
            .zip(more)
            .all(|(fewer, more)| fewer & !more == 0)
}
