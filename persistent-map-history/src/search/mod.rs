//! The search for an order of the calls on one key.

mod order;
mod targets;

use std::collections::HashMap;

use crate::bits::{Bits, is_subset};
use crate::calls::Calls;
use crate::model::State;
use crate::values::Values;

use self::targets::Targets;

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
    /// Nothing is found from here as long as these optional calls are used, as bits.
    blame: Bits,
    /// That is so only if nothing is found after these fewer steps either.
    relies_on: usize,
}

/// What is tried next.
enum Cursor {
    Required(usize),
    Optional(usize, Box<Targets>),
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
    used: Bits,
    /// What the calls that are not ordered need and can put.
    values: Values,
    steps: Vec<Step>,
    /// From where nothing was found, and with which optional calls used: sets of which none contains another.
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
            used: Bits::default(),
            values: calls.values(),
            steps: Vec::new(),
            failed: HashMap::new(),
        }
    }

    fn run(&mut self) -> bool {
        let mut wanted = self.calls.required.iter().map(|call| call.wanted);
        if wanted.any(|wanted| self.values.is_lost(wanted, self.state)) {
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
                self.give_up(&mut frames);
                continue;
            };
            let mut chain = frame.chain;
            self.tried += 1;
            self.place(choice);
            if let Some(value) = self.lost(choice) {
                self.accuse(frame, 0, self.makers(value).from(0));
                continue;
            }
            if self.absorb() || matches!(choice, Choice::Required(_)) {
                chain = self.steps.len();
            }
            match self.failure() {
                Some(used) => self.accuse(frame, self.first_word(), used),
                None => frames.push(self.frame(chain)),
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
            blame: Bits::default(),
            relies_on: usize::MAX,
        }
    }

    /// Orders what was answered that it changed nothing, where that is right: as good here as anywhere later. Not so if it
    /// begins an epoch, which ends the time of optional calls.
    fn absorb(&mut self) -> bool {
        let mut any = false;
        let mut at = self.first();
        while let Some(call) = self.candidate(at) {
            if call.changed_nothing
                && call.op.apply(self.state).1 == call.answer
                && call.epoch == self.epoch
            {
                self.place(Choice::Required(at));
                any = true;
            }
            at = self.next[at];
        }
        any
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
                if outcome.1 != call.answer {
                    continue;
                }
                match chain.iter().rposition(is_same) {
                    None => return Some(Choice::Required(at)),
                    Some(place) => frame.relies_on = frame.relies_on.min(frame.chain + place),
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
            {
                match chain.iter().rposition(is_same) {
                    None => return Some(Choice::Optional(at)),
                    Some(place) => frame.relies_on = frame.relies_on.min(frame.chain + place),
                }
            }
        }
        None
    }

    /// What the step took away for good, though another call needs it.
    fn lost(&self, choice: Choice) -> Option<u64> {
        let before = self.steps.last().and_then(|step| step.state);
        let spent = match choice {
            Choice::Required(_) => None,
            Choice::Optional(at) => self.calls.optional[at].op.puts(),
        };
        let mut values = [before, spent].into_iter();
        values
            .find(|value| *value != self.state && self.values.is_lost(*value, self.state))
            .flatten()
    }

    /// The optional calls that are used and could else put this, or what can be made this by adding.
    fn makers(&self, value: u64) -> Bits {
        let mut makers = Bits::default();
        let first = self.calls.epochs[self.epoch].optional;
        for call in &self.calls.optional[first..] {
            let leads_there = |put: u64| u128::from(value.wrapping_sub(put)) <= self.calls.room;
            if call.op.puts().is_some_and(leads_there) && self.used.contains(call.bit) {
                makers.insert(call.bit);
            }
        }
        makers
    }

    fn here(&self) -> Place {
        Place {
            passed: self.passed,
            epoch: self.epoch,
            state: self.state,
            ahead: self.ahead.as_slice().into(),
        }
    }

    /// The word of `used` from which on the calls are whose time has not ended.
    fn first_word(&self) -> usize {
        self.calls.epochs[self.epoch].word
    }

    /// The optional calls with which nothing was found from here, if these are used.
    fn failure(&self) -> Option<&[u64]> {
        let used = self.used.from(self.first_word());
        let failed = self.failed.get(&self.here())?.iter();
        failed
            .map(AsRef::as_ref)
            .find(|fewer| is_subset(fewer, used))
    }

    /// Nothing is found from where the last frame is.
    fn give_up(&mut self, frames: &mut Vec<Frame>) {
        let Some(mut frame) = frames.pop() else {
            return;
        };
        if let Cursor::Optional(_, targets) = &frame.cursor {
            self.blame_missing(&mut frame.blame, targets);
        }
        let word = self.first_word();
        let is_known = frame.relies_on >= frame.steps;
        let used = if is_known { &frame.blame } else { &self.used };
        let used: Box<[u64]> = used.from(word).into();
        let failed = self.failed.entry(self.here()).or_default();
        failed.retain(|more| !is_subset(&used, more));
        failed.push(used);
        if let Some(parent) = frames.last_mut() {
            parent.relies_on = parent.relies_on.min(frame.relies_on);
            self.accuse(parent, word, frame.blame.from(word));
        }
    }

    /// The used calls that would be tried here if they were not.
    fn blame_missing(&self, blame: &mut Bits, targets: &Targets) {
        let first = self.calls.epochs[self.epoch].optional;
        let deadline = self.deadline();
        let calls = self.calls.optional[first..].iter();
        for call in calls.take_while(|call| call.call <= deadline) {
            let is_last = call
                .next_twin
                .is_none_or(|twin| self.calls.optional[twin].call > deadline);
            let after = call.op.apply(self.state).0;
            if is_last
                && self.used.contains(call.bit)
                && after != self.state
                && self.is_of_use(after, targets)
            {
                blame.insert(call.bit);
            }
        }
    }

    /// Nothing is found after the step that was taken from a frame, as long as these calls are used. So nothing is found
    /// by this step from the frame, as long as the others are and the step would use the same one.
    fn accuse(&self, frame: &mut Frame, word: usize, used: &[u64]) {
        let step = &self.steps[frame.steps];
        frame.blame.add(word, used);
        if let Choice::Optional(at) = step.choice
            && let call = &self.calls.optional[at]
            && frame.blame.remove(call.bit)
            && let Some(twin) = call.twin.map(|twin| &self.calls.optional[twin])
            && twin.epoch >= step.epoch
        {
            frame.blame.insert(twin.bit);
        }
    }
}
