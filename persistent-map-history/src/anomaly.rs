//! The words for a history that has no explanation.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use crate::calls::{Calls, epoch};
use crate::history::{End, Record};
use crate::model::{Answer, Holds, Op, State};
use crate::search::explain;

/// How many calls of one kind are shown.
const SHOWN: usize = 8;

/// A history that no order of its calls explains. From [`History::check`](crate::History::check).
///
/// Its text names the key and shows, one call a line and with their stamps: the end of an order of what was answered
/// before, the first answer that has no place in any, what the key may hold by then, the writes that ran at the same time,
/// and those that may have put what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    key: u64,
    text: String,
}

impl Anomaly {
    /// The records cannot be explained.
    pub(super) fn new(key: u64, records: &[Record], reopens: &[u64], start: State) -> Self {
        let answered = |(at, record): (usize, &Record)| match record.end {
            End::Returned(..) => Some((record.end(reopens)?, at)),
            _ => None,
        };
        let mut answers: Vec<_> = records.iter().enumerate().filter_map(answered).collect();
        answers.sort_unstable();
        // Of the beginnings of the history, by its answers, the shortest that cannot be explained.
        let (mut explained, mut refused) = (0, answers.len());
        while refused - explained > 1 {
            let middle = usize::midpoint(explained, refused);
            let cut = first_answers(records, &answers[..middle], answers[middle - 1].0);
            match explain(&Calls::new(&cut, reopens), start) {
                Some(_) => explained = middle,
                None => refused = middle,
            }
        }
        let (end, at) = answers[explained];
        let before = first_answers(records, &answers[..explained], end);
        let order = explain(&Calls::new(&before, reopens), start);
        let report = Report {
            key,
            records,
            reopens,
            at,
            explained,
            answers: answers.len(),
            tail: order.map(|order| order.tail).unwrap_or_default(),
            states: possible(before, reopens, start, at, end),
        };
        Anomaly {
            key,
            text: report.to_string(),
        }
    }

    /// The key whose history it is. Other keys may have anomalies as well. For an example see
    /// [`History`](crate::History).
    pub fn key(&self) -> u64 {
        self.key
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Anomaly {}

/// The calls that began before a stamp, without the other answers.
fn first_answers(records: &[Record], answers: &[(u64, usize)], until: u64) -> Vec<Record> {
    let begun = records.partition_point(|record| record.call < until);
    let mut cut = records[..begun].to_vec();
    for record in &mut cut {
        if let End::Returned(..) = record.end {
            record.end = End::Unanswered;
        }
    }
    for (_, at) in answers {
        cut[*at].end = records[*at].end;
    }
    cut
}

/// Some of what the key may hold when a call is answered, apart from what that call does.
fn possible(
    mut records: Vec<Record>,
    reopens: &[u64],
    start: State,
    at: usize,
    answered: u64,
) -> BTreeSet<State> {
    records[at].end = End::Failed(answered);
    let left = |record: &Record| match record.end {
        End::Unanswered => record.op.puts(),
        End::Returned(_, answer) => record.op.left(answer).or(record.op.fitting(answer)),
        End::Failed(_) => None,
    };
    let latest = records.iter().rev().filter_map(left).take(SHOWN);
    let states: BTreeSet<_> = latest.map(Some).chain([None, start]).collect();
    let holds = |state: &State| {
        let mut records = records.clone();
        records.push(Record {
            op: Op::Get,
            call: answered,
            end: End::Returned(u64::MAX, Answer::Value(*state)),
            ..records[at]
        });
        explain(&Calls::new(&records, reopens), start).is_some()
    };
    states.into_iter().filter(holds).take(SHOWN).collect()
}

struct Report<'a> {
    key: u64,
    records: &'a [Record],
    reopens: &'a [u64],
    /// The answer that is not explained.
    at: usize,
    /// The answers before it.
    explained: usize,
    /// All answers.
    answers: usize,
    /// The end of an order of those before it.
    tail: Vec<usize>,
    states: BTreeSet<State>,
}

impl Report<'_> {
    /// The calls that a reader needs: as indices, so that they are in the order of their first stamps.
    fn shown(&self) -> BTreeSet<usize> {
        let refused = &self.records[self.at];
        let end = refused.end(self.reopens).unwrap_or(u64::MAX);
        let wanted = match refused.end {
            End::Returned(_, answer) => refused.op.fitting(answer),
            _ => None,
        };
        let left = |record: &Record| match record.end {
            End::Returned(_, answer) => record.op.left(answer),
            _ => record.op.puts(),
        };
        let writes = || {
            let records = self.records.iter().enumerate().rev();
            records.filter(|(_, record)| record.call < end && !record.op.is_read())
        };
        let overlapping = writes().filter(|(_, record)| {
            record
                .end(self.reopens)
                .is_none_or(|end| end > refused.call)
        });
        let sources = writes().filter(|(_, record)| wanted.is_some() && left(record) == wanted);
        let overlapping = overlapping.take(SHOWN).map(|(at, _)| at);
        let sources = sources.take(SHOWN).map(|(at, _)| at);
        let tail = self.tail.iter().copied();
        overlapping
            .chain(sources)
            .chain(tail)
            .chain([self.at])
            .collect()
    }

    fn line(&self, at: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record {
            task,
            op,
            call,
            end,
            ..
        } = self.records[at];
        match end {
            End::Returned(stamp, answer) => {
                write!(f, "\n  [{call}, {stamp}] task {task}: {op} -> {answer}")?;
            }
            End::Failed(stamp) => {
                write!(
                    f,
                    "\n  [{call}, {stamp}] task {task}: {op}, failed with nothing applied"
                )?;
            }
            End::Unanswered => {
                write!(f, "\n  [{call}, ..] task {task}: {op}, unanswered")?;
                if let Some(reopened) = self.records[at].end(self.reopens) {
                    write!(f, ", its time ended at {reopened}")?;
                }
            }
        }
        if at == self.at {
            let mut states = String::new();
            for state in &self.states {
                let or = if states.is_empty() { "" } else { " or " };
                write!(states, "{or}{}", Holds(*state))?;
            }
            write!(f, "  <-- cannot be, the key holds {states}")?;
        } else if let Some(place) = self.tail.iter().position(|tail| *tail == at) {
            let place = self.tail.len() - place;
            write!(
                f,
                "  (ordered {})",
                if place == 1 {
                    "last".to_string()
                } else {
                    format!("{place} from the end")
                }
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            key,
            explained,
            answers,
            ..
        } = self;
        write!(
            f,
            "key {key}: no order of its calls explains all answers; of {answers} the first {explained} have one, with the \
             next there is none"
        )?;
        for at in self.shown() {
            self.line(at, f)?;
        }
        let call = self.records[self.at].call;
        if let Some(last) = epoch(self.reopens, call).checked_sub(1) {
            write!(f, "\n  reopened at {}", self.reopens[last])?;
        }
        Ok(())
    }
}
