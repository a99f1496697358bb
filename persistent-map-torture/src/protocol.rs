//! What a child tells its parent: one line a fact, one `write` a line, so that all lines up to the kill arrive whole.

use std::fmt;
use std::io::{self, Write as _};
use std::str::FromStr;

use persistent_map_core::{Outcome, PersistentError};

use crate::store::CodecName;

/// Keys contain no spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// The map is open.
    Opened,
    /// A call is about to be made.
    Attempt {
        key: String,
        version: u64,
        change: Change,
    },
    /// The call has returned `Ok`.
    Acknowledged { key: String, version: u64 },
    /// The call has returned an error.
    Failed {
        key: String,
        version: u64,
        why: Refusal,
    },
    /// A transaction is about to be made that moves an amount between two accounts and stores `version` under `key`.
    Move {
        key: String,
        version: u64,
        from: String,
        to: String,
        amount: u64,
    },
    /// An update is about to be made that adds one to a counter.
    Count { key: String },
    /// Such an update has returned `Ok`, and what it has made of the counter.
    Counted { key: String, count: u64 },
    /// The operation of this number of a task's sequence is about to be made.
    Operation { task: usize, number: u64 },
    /// An update or an operation has returned an error.
    Refused { call: String, why: Refusal },
    /// A flush has returned `Ok` that was called when each task had done so many operations.
    Flushed(Vec<u64>),
    /// What the child was started for begins.
    Begun,
    /// A change of the table to this codec is about to be made.
    Recoding(CodecName),
    /// The table is written with this codec.
    Written(CodecName),
    /// What kept the store from writing has been taken away.
    Relieved,
    /// An entry that the store has.
    Stored { key: String, version: u64 },
    /// A promise that the child itself saw broken.
    Broken(String),
    /// A file that is described like this is about to be opened.
    Opening(String),
    /// What came of all that was opened, by the order of its own.
    Tally(Vec<u64>),
    /// The child, a process of this id, owns the store since this time.
    Since { stamp: u64, process: u64 },
    /// What an error said to an owner.
    Told(String),
    /// The child has copied its own file, as other code of its process may.
    Copied,
    /// The child has done all that it was started for.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Put,
    Remove,
}

/// What the error of a failed call said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotApplied,
    Unknown,
    Poisoned,
}

impl Line {
    /// Whether it says what came of a call.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self,
            Line::Acknowledged { .. }
                | Line::Failed { .. }
                | Line::Counted { .. }
                | Line::Refused { .. }
                | Line::Flushed(_)
        )
    }
}

impl Refusal {
    /// What an error says of its call.
    pub(crate) fn of(error: &PersistentError) -> Self {
        match error {
            PersistentError::Poisoned { .. } => Refusal::Poisoned,
            error if error.outcome() == Outcome::NotApplied => Refusal::NotApplied,
            _ => Refusal::Unknown,
        }
    }

    fn named(name: &str) -> Option<Self> {
        let all = [Refusal::NotApplied, Refusal::Unknown, Refusal::Poisoned];
        all.into_iter().find(|why| format!("{why:?}") == name)
    }
}

/// Tells the parent. A parent who has gone ends the child.
pub(crate) fn say(line: &Line) {
    let text = format!("{line}\n");
    let mut stdout = io::stdout().lock();
    // Standard output passes a buffer that ends a line on as it is: one `write`.
    if stdout.write_all(text.as_bytes()).is_err() || stdout.flush().is_err() {
        std::process::abort();
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Opened => write!(f, "O"),
            Line::Attempt {
                key,
                version,
                change: Change::Put,
            } => write!(f, "A {key} {version} put"),
            Line::Attempt {
                key,
                version,
                change: Change::Remove,
            } => write!(f, "A {key} {version} remove"),
            Line::Acknowledged { key, version } => write!(f, "K {key} {version}"),
            Line::Failed { key, version, why } => write!(f, "E {key} {version} {why:?}"),
            Line::Move {
                key,
                version,
                from,
                to,
                amount,
            } => write!(f, "M {key} {version} {from} {to} {amount}"),
            Line::Count { key } => write!(f, "I {key}"),
            Line::Counted { key, count } => write!(f, "N {key} {count}"),
            Line::Operation { task, number } => write!(f, "P {task} {number}"),
            Line::Refused { call, why } => write!(f, "Q {call} {why:?}"),
            Line::Flushed(numbers) => write_numbers(f, "F", numbers),
            Line::Begun => write!(f, "B"),
            Line::Recoding(codec) => write!(f, "C {}", codec.name()),
            Line::Written(codec) => write!(f, "W {}", codec.name()),
            Line::Relieved => write!(f, "R"),
            Line::Stored { key, version } => write!(f, "S {key} {version}"),
            Line::Broken(what) => write!(f, "X {}", what.replace('\n', " ")),
            Line::Opening(what) => write!(f, "L {what}"),
            Line::Tally(counts) => write_numbers(f, "T", counts),
            Line::Since { stamp, process } => write!(f, "U {stamp} {process}"),
            Line::Told(what) => write!(f, "Y {}", what.replace('\n', " ")),
            Line::Copied => write!(f, "Z"),
            Line::Done => write!(f, "D"),
        }
    }
}

fn write_numbers(f: &mut fmt::Formatter<'_>, letter: &str, numbers: &[u64]) -> fmt::Result {
    f.write_str(letter)?;
    numbers.iter().try_for_each(|number| write!(f, " {number}"))
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("not a line of ours: {text:?}");
        if let Some(what) = text.strip_prefix("X ") {
            return Ok(Line::Broken(what.to_string()));
        }
        if let Some(what) = text.strip_prefix("Y ") {
            return Ok(Line::Told(what.to_string()));
        }
        if let Some(what) = text.strip_prefix("L ") {
            return Ok(Line::Opening(what.to_string()));
        }
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| unknown());
        let numbers = |words: &[&str]| -> Result<Vec<u64>, String> {
            words.iter().map(|word| number(word)).collect()
        };
        let refusal = |word: &str| Refusal::named(word).ok_or_else(unknown);
        Ok(match *words.as_slice() {
            ["O"] => Line::Opened,
            ["A", key, version, change] => Line::Attempt {
                key: key.to_string(),
                version: number(version)?,
                change: match change {
                    "put" => Change::Put,
                    "remove" => Change::Remove,
                    _ => return Err(unknown()),
                },
            },
            ["K", key, version] => Line::Acknowledged {
                key: key.to_string(),
                version: number(version)?,
            },
            ["E", key, version, why] => Line::Failed {
                key: key.to_string(),
                version: number(version)?,
                why: refusal(why)?,
            },
            ["M", key, version, from, to, amount] => Line::Move {
                key: key.to_string(),
                version: number(version)?,
                from: from.to_string(),
                to: to.to_string(),
                amount: number(amount)?,
            },
            ["I", key] => Line::Count {
                key: key.to_string(),
            },
            ["N", key, count] => Line::Counted {
                key: key.to_string(),
                count: number(count)?,
            },
            ["P", task, operation] => Line::Operation {
                task: task.parse().map_err(|_| unknown())?,
                number: number(operation)?,
            },
            ["Q", call, why] => Line::Refused {
                call: call.to_string(),
                why: refusal(why)?,
            },
            ["F", ref words @ ..] => Line::Flushed(numbers(words)?),
            ["T", ref words @ ..] => Line::Tally(numbers(words)?),
            ["B"] => Line::Begun,
            ["C", codec] => Line::Recoding(CodecName::named(codec).ok_or_else(unknown)?),
            ["W", codec] => Line::Written(CodecName::named(codec).ok_or_else(unknown)?),
            ["R"] => Line::Relieved,
            ["S", key, version] => Line::Stored {
                key: key.to_string(),
                version: number(version)?,
            },
            ["U", stamp, process] => Line::Since {
                stamp: number(stamp)?,
                process: number(process)?,
            },
            ["Z"] => Line::Copied,
            ["D"] => Line::Done,
            _ => return Err(unknown()),
        })
    }
}
