//! What a round has shown, from what its owners have said and what a fresh process finds.

use std::collections::HashSet;

use super::round::{Owner, Round, stored};
use crate::failure::Failure;
use crate::protocol::Line;

#[derive(Default)]
pub(super) struct Figures {
    pub(super) owners: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    pub(super) told: u64,
    pub(super) acknowledged: u64,
    pub(super) lost_with_log: u64,
    pub(super) out_of_reach: u64,
    pub(super) nameless: u64,
}

/// A call that was acknowledged.
struct Call<'a> {
    key: &'a str,
    attempted: u64,
    answered: u64,
}

/// What one owner has said.
struct Account<'a> {
    place: usize,
    since: Option<u64>,
    process: u64,
    found: HashSet<String>,
    /// It has said all that it found.
    is_complete: bool,
    acknowledged: Vec<Call<'a>>,
    told: Option<&'a str>,
    refused: Option<&'a str>,
}

fn violation<T>(text: String) -> Result<T, Failure> {
    Err(Failure::Violation(text))
}

impl<'a> Account<'a> {
    fn of(number: usize, owner: &'a Owner) -> Result<Self, Failure> {
        let Some(ended) = &owner.ended else {
            return Err(Failure::Trouble(format!("owner {number} has not ended")));
        };
        let mut account = Account {
            place: owner.place,
            since: None,
            process: 0,
            found: stored(&ended.said),
            is_complete: ended.said(&Line::Begun),
            acknowledged: Vec::new(),
            told: None,
            refused: None,
        };
        let mut attempted = std::collections::HashMap::new();
        let mut failed = None;
        for line in &ended.said {
            match line {
                Line::Since { stamp, process } => {
                    (account.since, account.process) = (Some(*stamp), *process);
                }
                Line::Attempt { key, version, .. } => {
                    attempted.insert(key.as_str(), *version);
                }
                Line::Acknowledged { key, version } => {
                    let attempted = attempted.get(key.as_str()).copied().unwrap_or(0);
                    if failed.is_some_and(|failed| failed < attempted) {
                        return violation(format!(
                            "owner {number} acknowledges {key} after it was told: {:?}",
                            account.told
                        ));
                    }
                    account.acknowledged.push(Call {
                        key,
                        attempted,
                        answered: *version,
                    });
                }
                Line::Failed { version, .. } => failed = failed.or(Some(*version)),
                Line::Told(why) => account.told = account.told.or(Some(why)),
                _ => {}
            }
        }
        let is_error = ended.status.code() == Some(Failure::TROUBLE.into());
        if is_error && account.since.is_none() {
            account.refused = Some(ended.stderr.trim_end());
        } else if !owner.killed && !ended.status.success() {
            return violation(format!(
                "owner {number} ended by itself: {}, {}",
                ended.status,
                ended.stderr.trim_end()
            ));
        }
        Ok(account)
    }
}

pub(super) fn judge(round: &Round, figures: &mut Figures) -> Result<(), Failure> {
    let accounts: Vec<Account<'_>> = round
        .owners
        .iter()
        .enumerate()
        .map(|(number, owner)| Account::of(number, owner))
        .collect::<Result<_, _>>()?;
    for account in &accounts {
        figures.owners += u64::from(account.since.is_some());
        figures.refused += u64::from(account.refused.is_some());
        figures.unanswered += u64::from(account.since.is_none() && account.refused.is_none());
        figures.told += u64::from(account.told.is_some());
        figures.acknowledged += account.acknowledged.len() as u64;
    }
    if round.expected.unjudged {
        figures.out_of_reach += 1;
        return Ok(());
    }
    check_refusals(round, &accounts, figures)?;
    check_told(round, &accounts)?;
    check_one_at_a_time(round, &accounts)?;
    for (number, place) in round.places.iter().enumerate() {
        let found = round.look(number)?;
        if let Some(key) = place.before.difference(&found).next() {
            return violation(format!("{key} is gone, which was there before"));
        }
        let of_it = accounts.iter().filter(|account| account.place == number);
        for account in of_it {
            check_found(round, account, &found, "a fresh process", Some(figures))?;
        }
    }
    Ok(())
}

/// Who is refused is told who has it.
fn check_refusals(
    round: &Round,
    accounts: &[Account<'_>],
    figures: &mut Figures,
) -> Result<(), Failure> {
    let expected = &round.expected;
    for (number, refusal) in accounts
        .iter()
        .enumerate()
        .filter_map(|(number, account)| Some((number, account.refused?)))
    {
        let has_cause = expected
            .refusals
            .iter()
            .any(|cause| refusal.contains(cause));
        if has_cause {
            continue;
        }
        if refusal.contains("not left a name") {
            figures.nameless += 1;
            continue;
        }
        let names_owner = accounts.iter().any(|owner| {
            owner.since.is_some() && refusal.contains(&format!("process {} (", owner.process))
        });
        if !names_owner {
            return violation(format!(
                "start {number} is not told who has the store: {refusal}"
            ));
        }
        if expected.in_container && !refusal.contains("(in another container)") {
            return violation(format!(
                "start {number} is not told that a container has it: {refusal}"
            ));
        }
    }
    let all_refused = accounts.iter().all(|account| account.refused.is_some());
    if all_refused {
        return violation(format!("all starts are refused: {:?}", accounts[0].refused));
    }
    Ok(())
}

/// The first one is told by its next call, and nobody is who has lost nothing.
fn check_told(round: &Round, accounts: &[Account<'_>]) -> Result<(), Failure> {
    if let Some(after) = round.expected.told_after {
        let late = accounts[0]
            .acknowledged
            .iter()
            .find(|call| call.attempted > after);
        if let Some(call) = late {
            return violation(format!(
                "the first owner acknowledges {}, which it began {} us after it had lost the store",
                call.key,
                (call.attempted - after) / 1000
            ));
        }
    }
    if let Some(after) = round.expected.told_after {
        let mut next = accounts[1..].iter();
        let next = next.find(|next| next.since > Some(after) && next.told.is_some());
        if let Some(told) = next.and_then(|next| next.told) {
            return violation(format!(
                "the next owner, who has lost nothing, is told: {told}"
            ));
        }
    }
    let told = accounts.iter().find_map(|account| account.told);
    match told {
        Some(told) if round.expected.harmless => violation(format!(
            "an owner is told of a harm that did not come: {told}"
        )),
        _ => Ok(()),
    }
}

/// What begins after the next one has opened is not acknowledged, and the next one finds all that was.
fn check_one_at_a_time(round: &Round, accounts: &[Account<'_>]) -> Result<(), Failure> {
    for earlier in accounts {
        for later in accounts {
            let (Some(_), Some(since)) = (earlier.since, later.since) else {
                continue;
            };
            if earlier.place != later.place || earlier.since >= later.since {
                continue;
            }
            let mut late = earlier.acknowledged.iter();
            if let Some(call) = late.find(|call| call.attempted > since) {
                return violation(format!(
                    "two owners: {} was begun {} us after another process had opened the store, and acknowledged",
                    call.key,
                    (call.attempted - since) / 1000
                ));
            }
            if later.is_complete {
                check_found(round, earlier, &later.found, "the next owner", None)?;
            }
        }
    }
    Ok(())
}

/// `found` has all that this owner has acknowledged, but for what the harm explains.
fn check_found(
    round: &Round,
    account: &Account<'_>,
    found: &HashSet<String>,
    who: &str,
    mut figures: Option<&mut Figures>,
) -> Result<(), Failure> {
    for call in &account.acknowledged {
        if found.contains(call.key) {
            continue;
        }
        let attempted = call.attempted;
        let with_log = round.expected.log_lost_at.is_some_and(|at| attempted < at);
        let between = round.expected.out_of_reach;
        let out_of_reach = between.is_some_and(|(from, to)| attempted < to && from < call.answered);
        if !with_log && !out_of_reach {
            return violation(format!(
                "{who} does not find {}, which was acknowledged{}",
                call.key,
                account
                    .told
                    .map_or_else(String::new, |told| format!("; its owner was told: {told}"))
            ));
        }
        if let Some(figures) = &mut figures {
            figures.lost_with_log += u64::from(with_log);
            figures.out_of_reach += u64::from(out_of_reach && !with_log);
        }
    }
    Ok(())
}
