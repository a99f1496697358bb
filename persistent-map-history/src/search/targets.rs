//! Which optional calls are worth a try.

use super::Search;
use crate::calls::Optional;
use crate::model::{Op, State};

/// What an optional call has to bring about to be of use.
#[derive(Default)]
pub(super) struct Targets {
    /// Any change may be of use.
    any: bool,
    /// Values that other calls need.
    values: Vec<u64>,
    /// Whether an optional call needs that there is none.
    absence: bool,
    /// How much the optional calls can add, all together.
    room: u128,
}

impl Search<'_> {
    /// What is of use here. The needs of optional calls that are used already count too: so a failure is not due to these.
    pub(super) fn targets(&self, first: usize) -> Targets {
        let mut targets = Targets::default();
        for call in self.candidates() {
            // Where it begins an epoch it may be right now and still not be ordered.
            targets.any |= call.epoch > self.epoch && matches!(call.op, Op::RemoveIf(_));
            targets.values.extend(call.fitting);
        }
        let mut conditional = Vec::new();
        let deadline = self.deadline();
        let calls = self.calls.optional[first..].iter();
        for Optional { op, .. } in calls.take_while(|call| call.call <= deadline) {
            targets.room += u128::from(op.adds());
            if op.compares_with().is_some() || op.heeds_absence() {
                conditional.push(*op);
            }
        }
        // What an optional call needs is of use if what it makes of it is.
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
    pub(super) fn is_of_use(&self, after: State, targets: &Targets) -> bool {
        let leads_to =
            |value: u64, wanted: &u64| u128::from(wanted.wrapping_sub(value)) <= targets.room;
        targets.any
            || match after {
                None => targets.absence,
                Some(value) => targets.values.iter().any(|wanted| leads_to(value, wanted)),
            }
            || self.candidates().any(|call| {
                let outcome = call.op.apply(after);
                outcome.1 == call.answer && outcome != call.op.apply(self.state)
            })
    }
}
