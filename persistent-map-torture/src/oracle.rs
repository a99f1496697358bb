//! What the store must hold, from nothing but what was said before the harm.

use std::collections::{BTreeMap, BTreeSet};

use crate::failure::Failure;
use crate::ledger::{self, Ledger};
use crate::protocol::{Change, Line, Refusal};

/// What a store was found to hold: key and version.
pub(crate) type Found = BTreeMap<String, u64>;

/// For each key the state that is certain, and those that are possible on top of it.
#[derive(Default)]
pub(crate) struct Oracle {
    keys: BTreeMap<String, History>,
    ledger: Ledger,
}

#[derive(Default)]
struct History {
    /// The last acknowledged state; `None`: there is no such entry.
    settled: Option<u64>,
    /// Changes after it whose outcome nobody has told, oldest first.
    open: Vec<(u64, Option<u64>)>,
}

impl Oracle {
    /// Takes in what a child has said. Says what is wrong if a line by itself breaks a promise.
    pub(crate) fn hear(&mut self, line: &Line) -> Result<(), Failure> {
        self.ledger.hear(line)?;
        match line {
            Line::Attempt {
                key,
                version,
                change,
            } => {
                let state = match change {
                    Change::Put => Some(*version),
                    Change::Remove => None,
                };
                self.history(key).open.push((*version, state));
            }
            Line::Move { key, version, .. } => {
                self.history(key).open.push((*version, Some(*version)));
            }
            Line::Acknowledged { key, version } => self.history(key).acknowledge(*version),
            Line::Failed { key, version, why } => match why {
                Refusal::NotApplied | Refusal::Poisoned => {
                    self.history(key).open.retain(|(open, _)| open != version);
                }
                Refusal::Unknown => {}
            },
            Line::Broken(what) => return Err(Failure::Violation(what.clone())),
            _ => {}
        }
        Ok(())
    }

    /// Compares the store with what it must hold. From then on what was found is certain: who has seen it once must see
    /// it again.
    pub(crate) fn compare(&mut self, found: &Found) -> Result<(), Failure> {
        let own = found.keys().filter(|key| !ledger::is_shared(key));
        let keys: BTreeSet<String> = self.keys.keys().chain(own).cloned().collect();
        for key in keys {
            let stored = found.get(&key).copied();
            self.allows(&key, stored)?;
            *self.history(&key) = History {
                settled: stored,
                open: Vec::new(),
            };
        }
        self.ledger.compare(found)
    }

    /// Says what is wrong if a key cannot be found in this state by now.
    pub(crate) fn allows(&self, key: &str, stored: Option<u64>) -> Result<(), Failure> {
        let unknown = History::default();
        let history = self.keys.get(key).unwrap_or(&unknown);
        if history.settled == stored || history.open.iter().any(|&(_, state)| state == stored) {
            return Ok(());
        }
        let open = history.open.iter().map(|&(version, state)| match state {
            Some(_) => format!("version {version}"),
            None => format!("removed as version {version}"),
        });
        Err(Failure::Violation(format!(
            "key {key}: the store has {}, acknowledged was {}, possible after it: {:?}",
            show(stored),
            show(history.settled),
            open.collect::<Vec<_>>()
        )))
    }

    fn history(&mut self, key: &str) -> &mut History {
        self.keys.entry(key.to_string()).or_default()
    }
}

impl History {
    /// Also settles what was tried before: calls for one key are made one after the other.
    fn acknowledge(&mut self, version: u64) {
        if let Some(at) = self.open.iter().position(|&(open, _)| open == version) {
            self.settled = self.open[at].1;
            self.open.drain(..=at);
        }
    }
}

/// The first few keys in which two states differ, for people to read.
pub(crate) fn differences(stored: &Found, expected: &Found) -> String {
    const SHOWN: usize = 5;
    let keys: BTreeSet<&String> = stored.keys().chain(expected.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|&key| stored.get(key) != expected.get(key));
    let lines: Vec<String> = differ
        .map(|key| {
            let [stored, expected] = [stored, expected].map(|state| show(state.get(key).copied()));
            format!("{key}: {stored}, not {expected}")
        })
        .collect();
    let more = lines.len().saturating_sub(SHOWN);
    format!("{} ({more} more)", lines[..lines.len() - more].join("; "))
}

fn show(state: Option<u64>) -> String {
    state.map_or_else(
        || "no entry".to_string(),
        |version| format!("version {version}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(said: &[&str], stored: &[(&str, u64)]) -> Result<(), Failure> {
        let mut oracle = Oracle::default();
        for line in said {
            oracle.hear(&line.parse().map_err(Failure::Trouble)?)?;
        }
        let found = stored
            .iter()
            .map(|&(key, version)| (key.to_string(), version));
        oracle.compare(&found.collect())
    }

    #[test]
    fn an_acknowledged_entry_must_be_there() {
        let said = ["A k 1 put", "K k 1"];
        assert!(verdict(&said, &[("k", 1)]).is_ok());
        assert!(verdict(&said, &[]).is_err());
        assert!(verdict(&said, &[("k", 2)]).is_err());
    }

    #[test]
    fn an_unanswered_change_may_be_there_or_not() {
        let said = ["A k 1 put", "K k 1", "A k 2 put"];
        assert!(verdict(&said, &[("k", 1)]).is_ok());
        assert!(verdict(&said, &[("k", 2)]).is_ok());
        assert!(verdict(&said, &[]).is_err());
    }

    #[test]
    fn an_acknowledged_removal_must_not_come_back() {
        let said = ["A k 1 put", "K k 1", "A k 2 remove", "K k 2"];
        assert!(verdict(&said, &[]).is_ok());
        assert!(verdict(&said, &[("k", 1)]).is_err());
    }

    #[test]
    fn what_was_not_applied_must_not_be_there() {
        for refusal in ["NotApplied", "Poisoned"] {
            let failed = format!("E k 1 {refusal}");
            assert!(verdict(&["A k 1 put", &failed], &[]).is_ok());
            assert!(verdict(&["A k 1 put", &failed], &[("k", 1)]).is_err());
        }
        assert!(verdict(&["A k 1 put", "E k 1 Unknown"], &[("k", 1)]).is_ok());
    }

    #[test]
    fn nobody_asked_for_this_key() {
        assert!(verdict(&[], &[("k", 1)]).is_err());
    }

    #[test]
    fn what_was_seen_once_stays() {
        let mut oracle = Oracle::default();
        oracle.hear(&"A k 1 put".parse().unwrap()).unwrap();
        oracle
            .compare(&Found::from([("k".to_string(), 1)]))
            .unwrap();
        assert!(oracle.compare(&Found::new()).is_err());
    }
}
