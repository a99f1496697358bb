//! The calls on one key, sorted into those that have to be explained and those that may help.

use std::collections::HashMap;

use crate::history::{End, Record};
use crate::model::{Answer, Op, State};
use crate::values::{Unseen, Values};

/// A call that was answered: it has its place in the order.
pub(super) struct Required {
    pub(super) record: usize,
    pub(super) op: Op,
    pub(super) answer: Answer,
    pub(super) call: u64,
    pub(super) epoch: usize,
    /// Its place among the answers.
    pub(super) rank: usize,
    /// The value that it needs to be answered so.
    pub(super) wanted: State,
    /// The value that is good enough to be answered so.
    pub(super) fitting: State,
    /// The value that it puts.
    pub(super) left: State,
    pub(super) changed_nothing: bool,
}

/// A write that was not answered: it may have a place in the order.
pub(super) struct Optional {
    pub(super) record: usize,
    pub(super) op: Op,
    pub(super) call: u64,
    pub(super) epoch: usize,
    /// The same write, begun before this one: used first.
    pub(super) twin: Option<usize>,
    /// The same write, begun after this one.
    pub(super) next_twin: Option<usize>,
    /// Its place in a set of bits.
    pub(super) bit: usize,
}

/// Where an epoch begins: the time between two openings of the map.
#[derive(Clone, Copy)]
pub(super) struct Epoch {
    /// The first optional call.
    pub(super) optional: usize,
    /// Its word in a set of bits.
    pub(super) word: usize,
}

pub(super) struct Calls {
    /// By first stamp.
    pub(super) required: Vec<Required>,
    /// By first stamp.
    pub(super) optional: Vec<Optional>,
    /// The required calls by last stamp, and this stamp.
    pub(super) returns: Vec<(u64, usize)>,
    pub(super) epochs: Vec<Epoch>,
    /// How much the optional calls can add, all together.
    pub(super) room: u128,
}

impl Calls {
    /// The records are sorted by their first stamp, the stamps of reopening too.
    pub(super) fn new(records: &[Record], reopens: &[u64]) -> Self {
        let mut calls = Calls {
            required: Vec::new(),
            optional: Vec::new(),
            returns: Vec::new(),
            epochs: Vec::new(),
            room: 0,
        };
        let mut bits = 0;
        for (index, record) in records.iter().enumerate() {
            let (op, call) = (record.op, record.call);
            let epoch = epoch(reopens, call);
            calls.begin_epoch(epoch, &mut bits);
            match record.end {
                End::Returned(_, answer) => {
                    let end = record.end(reopens).unwrap_or(u64::MAX);
                    calls.returns.push((end, calls.required.len()));
                    calls.required.push(Required {
                        record: index,
                        op,
                        answer,
                        call,
                        epoch,
                        rank: 0,
                        wanted: op.wanted(answer),
                        fitting: op.fitting(answer),
                        left: op.left(answer),
                        changed_nothing: op.changed_nothing(answer),
                    });
                }
                End::Unanswered if !op.is_read() => {
                    calls.optional.push(Optional {
                        record: index,
                        op,
                        call,
                        epoch,
                        twin: None,
                        next_twin: None,
                        bit: bits,
                    });
                    bits += 1;
                }
                End::Unanswered | End::Failed(_) => {}
            }
        }
        calls.begin_epoch(reopens.len(), &mut bits);
        let added = calls.optional.iter().map(|call| u128::from(call.op.adds()));
        calls.room = added.sum();
        calls.returns.sort_unstable();
        for (rank, (_, at)) in calls.returns.iter().enumerate() {
            calls.required[*at].rank = rank;
        }
        calls.find_twins();
        calls
    }

    fn begin_epoch(&mut self, epoch: usize, bits: &mut usize) {
        while self.epochs.len() <= epoch {
            *bits = bits.next_multiple_of(64);
            self.epochs.push(Epoch {
                optional: self.optional.len(),
                word: *bits / 64,
            });
        }
    }

    fn find_twins(&mut self) {
        let required = self.required.iter().flat_map(|call| {
            let compares_with = call.op.compares_with();
            compares_with.into_iter().chain(call.fitting)
        });
        let optional = self.optional.iter();
        let seen = required.chain(optional.filter_map(|call| call.op.compares_with()));
        let mut unseen = Unseen::new(seen.collect(), self.room);
        let mut twins = HashMap::new();
        for at in 0..self.optional.len() {
            let call = &mut self.optional[at];
            call.op = unseen.replace(call.op);
            call.twin = twins.insert(call.op, at);
            if let Some(twin) = call.twin {
                self.optional[twin].next_twin = Some(at);
            }
        }
    }

    /// What all calls together need and can put.
    pub(super) fn values(&self) -> Values {
        let required = self.required.iter();
        let named = required.flat_map(|call| call.wanted.into_iter().chain(call.left));
        let put = self.optional.iter().filter_map(|call| call.op.puts());
        let mut values = Values::new(named.chain(put).collect(), self.room);
        for call in &self.required {
            values.want(call.wanted, true);
            values.make(call.left, true);
        }
        for call in &self.optional {
            values.make(call.op.puts(), true);
        }
        values
    }
}

/// The epoch of a call: how often the map had been reopened before.
pub(super) fn epoch(reopens: &[u64], call: u64) -> usize {
    reopens.partition_point(|at| *at < call)
}

impl Record {
    /// The stamp after which the call does not take effect any more, if there is one.
    pub(super) fn end(&self, reopens: &[u64]) -> Option<u64> {
        let reopened = reopens.get(epoch(reopens, self.call)).copied();
        match self.end {
            End::Unanswered => reopened,
            End::Failed(at) => Some(at),
            End::Returned(at, _) => Some(reopened.map_or(at, |reopened| at.min(reopened))),
        }
    }
}
