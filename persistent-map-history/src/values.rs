//! Who needs a value, and who can still put it: where a value is gone for good, the search turns back at once.

use crate::model::{Op, State};

/// How often each value is still needed and can still be put.
pub(super) struct Values {
    /// The values, sorted.
    known: Vec<u64>,
    wanted: Vec<usize>,
    makers: Vec<usize>,
    /// How much the optional calls can add, all together.
    room: u128,
}

impl Values {
    pub(super) fn new(mut values: Vec<u64>, room: u128) -> Self {
        values.sort_unstable();
        values.dedup();
        Values {
            wanted: vec![0; values.len()],
            makers: vec![0; values.len()],
            known: values,
            room,
        }
    }

    /// The calls that need this value are one more, or one less.
    pub(super) fn want(&mut self, state: State, more: bool) {
        if let Some(at) = self.find(state) {
            change(&mut self.wanted[at], more);
        }
    }

    /// The calls that put this value are one more, or one less.
    pub(super) fn make(&mut self, state: State, more: bool) {
        if let Some(at) = self.find(state) {
            change(&mut self.makers[at], more);
        }
    }

    /// Whether a call still needs this, and nothing can lead there from what the key holds now.
    pub(super) fn is_lost(&self, state: State, now: State) -> bool {
        let (Some(at), Some(value)) = (self.find(state), state) else {
            return false;
        };
        let leads_here = |from: u64| u128::from(value.wrapping_sub(from)) <= self.room;
        if self.wanted[at] == 0 || now.is_some_and(leads_here) {
            return false;
        }
        // Values from which adding leads here: those before this one in a circle.
        let count = self.known.len();
        let circle = (0..count).map(|back| (at + count - back) % count);
        !circle
            .take_while(|at| leads_here(self.known[*at]))
            .any(|at| self.makers[at] > 0)
    }

    fn find(&self, state: State) -> Option<usize> {
        self.known.binary_search(&state?).ok()
    }
}

fn change(count: &mut usize, more: bool) {
    if more {
        *count += 1;
    } else {
        *count -= 1;
    }
}

/// Lets all values that make no difference be the same one, so that more calls are equal.
pub(super) struct Unseen {
    /// The values that make a difference, sorted.
    seen: Vec<u64>,
    room: u128,
    instead: Option<u64>,
}

impl Unseen {
    pub(super) fn new(mut seen: Vec<u64>, room: u128) -> Self {
        seen.sort_unstable();
        Unseen {
            seen,
            room,
            instead: None,
        }
    }

    pub(super) fn replace(&mut self, op: Op) -> Op {
        match op.puts() {
            Some(value) if !self.is_seen(value) => op.putting(*self.instead.get_or_insert(value)),
            _ => op,
        }
    }

    /// Whether it makes a difference, itself or what can be made of it by adding.
    fn is_seen(&self, value: u64) -> bool {
        let next = self.seen.partition_point(|seen| *seen < value);
        let next = self.seen.get(next).or(self.seen.first());
        next.is_some_and(|seen| u128::from(seen.wrapping_sub(value)) <= self.room)
    }
}
