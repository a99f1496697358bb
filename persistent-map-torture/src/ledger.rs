//! What all tasks of a worker share: accounts between which transactions move amounts, and counters that updates count
//! up. Of both the exact state is known, whatever order the calls of the tasks had.

use std::collections::{BTreeMap, BTreeSet};

use crate::failure::Failure;
use crate::oracle::{Found, differences};
use crate::protocol::{Line, Refusal};

const ACCOUNTS: usize = 16;
const COUNTERS: usize = 4;
/// More than is ever taken.
const BALANCE: u64 = 1 << 40;
/// Stored in one step with the accounts and counters when they are made.
pub(crate) const MADE: &str = "ledger";

pub(crate) fn account(number: usize) -> String {
    format!("account-{number}")
}

fn counter(number: usize) -> String {
    format!("counter-{number}")
}

/// All accounts and counters as they are made.
pub(crate) fn made() -> impl Iterator<Item = (String, u64)> {
    let accounts = (0..ACCOUNTS).map(|number| (account(number), BALANCE));
    accounts.chain((0..COUNTERS).map(|number| (counter(number), 0)))
}

/// Whether it is an account or a counter.
pub(crate) fn is_shared(key: &str) -> bool {
    key.starts_with("account-") || key.starts_with("counter-")
}

pub(crate) fn two_accounts(rng: &mut fastrand::Rng) -> (String, String) {
    let from = rng.usize(..ACCOUNTS);
    let to = (from + rng.usize(1..ACCOUNTS)) % ACCOUNTS;
    (account(from), account(to))
}

pub(crate) fn one_counter(rng: &mut fastrand::Rng) -> String {
    counter(rng.usize(..COUNTERS))
}

/// What the accounts and counters must be.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Once they were found: the balances, and the counts.
    balances: BTreeMap<String, u64>,
    counts: BTreeMap<String, u64>,
    /// Since then.
    moves: Vec<Move>,
    counting: BTreeMap<String, Counting>,
}

/// One transaction. It is stored if its task's last stored version is its own or a later one.
struct Move {
    key: String,
    version: u64,
    from: String,
    to: String,
    amount: u64,
}

#[derive(Default)]
struct Counting {
    attempts: u64,
    acknowledged: BTreeSet<u64>,
}

impl Ledger {
    pub(crate) fn hear(&mut self, line: &Line) -> Result<(), Failure> {
        match line.clone() {
            Line::Move {
                key,
                version,
                from,
                to,
                amount,
            } => self.moves.push(Move {
                key,
                version,
                from,
                to,
                amount,
            }),
            Line::Failed { key, version, why } if why != Refusal::Unknown => {
                self.moves
                    .retain(|done| (&done.key, done.version) != (&key, version));
            }
            Line::Count { key } => self.counting.entry(key).or_default().attempts += 1,
            Line::Counted { key, count } => {
                let counting = self.counting.entry(key.clone()).or_default();
                if !counting.acknowledged.insert(count) {
                    return Err(Failure::Violation(format!(
                        "{key}: two updates have both counted to {count}"
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn compare(&mut self, found: &Found) -> Result<(), Failure> {
        if found.contains_key(MADE) && self.balances.is_empty() {
            let (accounts, counters) = made().partition(|(key, _)| key.starts_with("account-"));
            (self.balances, self.counts) = (accounts, counters);
        }
        for done in std::mem::take(&mut self.moves) {
            let stored = found.get(&done.key);
            if stored.is_some_and(|&version| version >= done.version) {
                *self.balance(&done.from)? -= done.amount;
                *self.balance(&done.to)? += done.amount;
            }
        }
        let mut counting = std::mem::take(&mut self.counting);
        for (key, count) in &mut self.counts {
            let Counting {
                attempts,
                acknowledged,
            } = counting.remove(key).unwrap_or_default();
            let stored = found.get(key).copied().unwrap_or(0);
            let least = (*count + acknowledged.len() as u64)
                .max(acknowledged.last().map_or(0, |&last| last));
            let most = *count + attempts;
            if !(least..=most).contains(&stored) {
                return Err(Failure::Violation(format!(
                    "{key}: the store has {stored}, at least {least} was acknowledged and at most {most} attempted"
                )));
            }
            *count = stored;
        }
        let shared: Found = found
            .iter()
            .filter(|(key, _)| is_shared(key))
            .map(|(key, &number)| (key.clone(), number))
            .collect();
        let expected = self.balances.iter().chain(&self.counts);
        let expected: Found = expected
            .map(|(key, &number)| (key.clone(), number))
            .collect();
        if shared == expected {
            return Ok(());
        }
        let sum = |of: &Found| -> u64 {
            let accounts = of.iter().filter(|(key, _)| key.starts_with("account-"));
            accounts.map(|(_, balance)| balance).sum()
        };
        Err(Failure::Violation(format!(
            "half a transaction: the accounts sum up to {}, not {}; stored and expected: {}",
            sum(&shared),
            sum(&expected),
            differences(&shared, &expected)
        )))
    }

    fn balance(&mut self, account: &str) -> Result<&mut u64, Failure> {
        let known = self.balances.get_mut(account);
        known.ok_or_else(|| Failure::Violation(format!("a stored transaction, but no {account}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: [&str; 4] = [
        "M t0-moves 7 account-0 account-1 5",
        "I counter-0",
        "I counter-0",
        "N counter-0 1",
    ];

    fn verdict(said: &[&str], changed: &[(&str, u64)]) -> Result<(), Failure> {
        let mut ledger = Ledger::default();
        for line in said {
            ledger.hear(&line.parse().map_err(Failure::Trouble)?)?;
        }
        let mut found: Found = made().collect();
        found.insert(MADE.to_string(), 1);
        found.extend(
            changed
                .iter()
                .map(|&(key, number)| (key.to_string(), number)),
        );
        ledger.compare(&found)
    }

    #[test]
    fn a_transaction_is_there_completely_or_not_at_all() {
        let (less, more) = (("account-0", BALANCE - 5), ("account-1", BALANCE + 5));
        let (moves, count) = (("t0-moves", 7), ("counter-0", 1));
        assert!(verdict(&SAID, &[count]).is_ok());
        assert!(verdict(&SAID, &[count, less, more, moves]).is_ok());
        assert!(verdict(&SAID, &[count, less, more]).is_err());
        assert!(verdict(&SAID, &[count, less, moves]).is_err());
        assert!(verdict(&SAID, &[count, moves]).is_err());
    }

    #[test]
    fn a_counter_is_between_what_was_acknowledged_and_what_was_attempted() {
        for (stored, is_possible) in [(0, false), (1, true), (2, true), (3, false)] {
            assert_eq!(
                verdict(&SAID, &[("counter-0", stored)]).is_ok(),
                is_possible
            );
        }
        assert!(verdict(&["N counter-0 1", "N counter-0 1"], &[]).is_err());
    }
}
