//! The calls of a map, and what each makes of a `HashMap`.

use std::collections::HashMap;

use persistent_map_core::{DynBackend, PersistentError, PersistentMap};
use persistent_map_testkit::Fault;
use proptest::prelude::*;

pub(crate) const KEYS: u64 = 5;

pub(crate) type State = HashMap<u64, u64>;
pub(crate) type Map = PersistentMap<u64, u64, DynBackend<u64, u64>>;

/// One step of a sequence.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Call(Call),
    /// All that is accepted must be stored after it.
    Flush,
    /// Memory is compared with the store.
    Verify,
    /// And opened again.
    Close,
    /// And opened again.
    Drop,
    /// A write of the store fails, counted from the next one; and those after it, if it lasts.
    Fail {
        nth: u64,
        fault: Fault,
        lasts: bool,
    },
    Heal,
}

/// A call that may change entries.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Insert(u64, u64),
    Remove(u64),
    /// Adds this much.
    Update(u64, u64),
    /// Adds the second one to what is there, or to the first.
    UpdateOrInsert(u64, u64, u64),
    /// Removes the entry, or puts this one.
    Toggle(u64, u64),
    InsertIfAbsent(u64, u64),
    CompareAndSwap(u64, Option<u64>, Option<u64>),
    /// Like `CompareAndSwap`, with what is there.
    Swap(u64, Option<u64>),
    /// If the value is odd.
    RemoveIfOdd(u64),
    GetOrInsert(u64, u64),
    InsertMany(Vec<(u64, u64)>),
    RemoveMany(Vec<u64>),
    RetainEven,
    Clear,
    /// These changes, and whether they are kept.
    Transaction(Vec<(u64, Option<u64>)>, bool),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Done,
    Value(Option<u64>),
    Swapped(Result<(), Option<u64>>),
    Count(usize),
    /// What a transaction has read before each of its changes.
    Read(Vec<Option<u64>>),
    RolledBack,
}

/// Few keys, and few values, so that calls meet.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => call().prop_map(Step::Call),
        2 => Just(Step::Flush),
        2 => Just(Step::Verify),
        2 => Just(Step::Close),
        2 => Just(Step::Drop),
        2 => (1..6_u64, proptest::sample::select(&Fault::ALL), prop::bool::weighted(0.3))
            .prop_map(|(nth, fault, lasts)| Step::Fail { nth, fault, lasts }),
        1 => Just(Step::Heal),
    ]
}

/// A call without faults around it.
pub(crate) fn call() -> impl Strategy<Value = Call> {
    let key = || 0..KEYS;
    let value = || 0..10_u64;
    let perhaps = move || prop::option::of(value());
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Call::Insert(key, value)),
        2 => key().prop_map(Call::Remove),
        2 => (key(), 1..3_u64).prop_map(|(key, add)| Call::Update(key, add)),
        1 => (key(), value(), 1..3_u64).prop_map(|(key, first, add)| Call::UpdateOrInsert(key, first, add)),
        1 => (key(), value()).prop_map(|(key, value)| Call::Toggle(key, value)),
        1 => (key(), value()).prop_map(|(key, value)| Call::InsertIfAbsent(key, value)),
        1 => (key(), perhaps(), perhaps()).prop_map(|(key, old, new)| Call::CompareAndSwap(key, old, new)),
        1 => (key(), perhaps()).prop_map(|(key, new)| Call::Swap(key, new)),
        1 => key().prop_map(Call::RemoveIfOdd),
        1 => (key(), value()).prop_map(|(key, value)| Call::GetOrInsert(key, value)),
        2 => prop::collection::vec((key(), value()), 0..5).prop_map(Call::InsertMany),
        1 => prop::collection::vec(key(), 0..5).prop_map(Call::RemoveMany),
        2 => Just(Call::RetainEven),
        2 => Just(Call::Clear),
        2 => (prop::collection::vec((key(), perhaps()), 0..5), prop::bool::weighted(0.8))
            .prop_map(|(changes, commit)| Call::Transaction(changes, commit)),
    ]
}

impl Call {
    /// Does it to a `HashMap`.
    pub(crate) fn apply(&self, state: &mut State) -> Answer {
        match self.clone() {
            Call::Insert(key, value) => Answer::Value(state.insert(key, value)),
            Call::Remove(key) => Answer::Value(state.remove(&key)),
            Call::Update(key, add) => Answer::Value(state.get_mut(&key).map(|value| {
                *value += add;
                *value
            })),
            Call::UpdateOrInsert(key, first, add) => {
                let value = state.entry(key).or_insert(first);
                *value += add;
                Answer::Value(Some(*value))
            }
            Call::Toggle(key, value) => {
                let new = state.remove(&key).is_none().then_some(value);
                set(state, key, new);
                Answer::Value(new)
            }
            Call::InsertIfAbsent(key, value) => {
                let old = state.get(&key).copied();
                state.entry(key).or_insert(value);
                Answer::Value(old)
            }
            Call::CompareAndSwap(key, expected, new) => {
                let old = state.get(&key).copied();
                if old != expected {
                    return Answer::Swapped(Err(old));
                }
                set(state, key, new);
                Answer::Swapped(Ok(()))
            }
            Call::Swap(key, new) => {
                set(state, key, new);
                Answer::Swapped(Ok(()))
            }
            Call::RemoveIfOdd(key) => {
                let odd = state.get(&key).is_some_and(|value| value % 2 == 1);
                Answer::Value(if odd { state.remove(&key) } else { None })
            }
            Call::GetOrInsert(key, value) => {
                Answer::Value(Some(*state.entry(key).or_insert(value)))
            }
            Call::InsertMany(entries) => {
                let before = state.len();
                state.extend(entries);
                Answer::Count(state.len() - before)
            }
            Call::RemoveMany(keys) => {
                let before = state.len();
                state.retain(|key, _| !keys.contains(key));
                Answer::Count(before - state.len())
            }
            Call::RetainEven => {
                let before = state.len();
                state.retain(|_, value| value.is_multiple_of(2));
                Answer::Count(before - state.len())
            }
            Call::Clear => {
                state.clear();
                Answer::Done
            }
            Call::Transaction(changes, commit) => {
                let before = state.clone();
                let read = changes.into_iter().map(|(key, new)| {
                    let old = state.get(&key).copied();
                    set(state, key, new);
                    old
                });
                let read = read.collect();
                if commit {
                    return Answer::Read(read);
                }
                *state = before;
                Answer::RolledBack
            }
        }
    }

    /// Whether it speaks of several entries by name.
    pub(crate) fn is_of_many(&self) -> bool {
        matches!(
            self,
            Call::InsertMany(_) | Call::RemoveMany(_) | Call::Transaction(..)
        )
    }

    /// Whether it may remove all entries.
    pub(crate) fn is_of_all(&self) -> bool {
        matches!(self, Call::RetainEven | Call::Clear)
    }

    /// Does it to a map.
    pub(crate) async fn make(&self, map: &Map) -> Result<Answer, PersistentError> {
        Ok(match self.clone() {
            Call::Insert(key, value) => Answer::Value(map.insert(key, value).await?),
            Call::Remove(key) => Answer::Value(map.remove(&key).await?),
            Call::Update(key, add) => {
                let change = move |value: &mut u64| {
                    *value += add;
                    *value
                };
                Answer::Value(map.update(&key, change).await?)
            }
            Call::UpdateOrInsert(key, first, add) => {
                let change = move |value: &mut u64| {
                    *value += add;
                    *value
                };
                Answer::Value(Some(map.update_or_insert(key, first, change).await?))
            }
            Call::Toggle(key, value) => {
                let change = move |old: Option<u64>| old.is_none().then_some(value);
                Answer::Value(map.compute(key, change).await?)
            }
            Call::InsertIfAbsent(key, value) => {
                Answer::Value(map.insert_if_absent(key, value).await?)
            }
            Call::CompareAndSwap(key, expected, new) => {
                Answer::Swapped(map.compare_and_swap(key, expected, new).await?)
            }
            Call::Swap(key, new) => {
                Answer::Swapped(map.compare_and_swap(key, map.get(&key), new).await?)
            }
            Call::RemoveIfOdd(key) => {
                Answer::Value(map.remove_if(&key, |value| value % 2 == 1).await?)
            }
            Call::GetOrInsert(key, value) => {
                let made = map.get_or_insert_with(key, || async move { value });
                Answer::Value(Some(made.await?))
            }
            Call::InsertMany(entries) => Answer::Count(map.insert_many(entries).await?),
            Call::RemoveMany(keys) => Answer::Count(map.remove_many(keys).await?),
            Call::RetainEven => {
                Answer::Count(map.retain(|_, value| value.is_multiple_of(2)).await?)
            }
            Call::Clear => {
                map.clear().await?;
                Answer::Done
            }
            Call::Transaction(changes, commit) => {
                let transaction = map.transaction(move |transaction| {
                    let changes = changes.iter();
                    let read = changes.map(|&(key, new)| match new {
                        Some(value) => transaction.insert(key, value),
                        None => transaction.remove(&key),
                    });
                    let read = read.collect();
                    if commit {
                        Ok(read)
                    } else {
                        Err(Undone::Wanted)
                    }
                });
                match transaction.await {
                    Ok(read) => Answer::Read(read),
                    Err(Undone::Wanted) => Answer::RolledBack,
                    Err(Undone::Store(error)) => return Err(error),
                }
            }
        })
    }
}

/// Why a transaction was undone.
enum Undone {
    Wanted,
    Store(PersistentError),
}

impl From<PersistentError> for Undone {
    fn from(error: PersistentError) -> Self {
        Undone::Store(error)
    }
}

fn set(state: &mut State, key: u64, new: Option<u64>) {
    match new {
        Some(value) => state.insert(key, value),
        None => state.remove(&key),
    };
}
