//! Random calls on a map, recorded.

use std::hash::BuildHasher;

use persistent_map_core::{Outcome, PersistentError, PersistentMap, StorageBackend};
use persistent_map_testkit::drop_after_polls;

use crate::history::{Call, History};
use crate::model::{Answer, Op, Rule};

/// One task's part of a [`History`]: makes `calls` random calls of all kinds on the keys below `keys`, one after the
/// other, gives up on some of them at a random poll, and records what becomes of each. Stops early when the map refuses
/// writes for good.
///
/// Run some of these at once on one map, with different tasks, and then [`check`](History::check) the history.
///
/// ```
/// use persistent_map_core::PersistentMap;
/// use persistent_map_history::{History, make_random_calls};
/// use persistent_map_testkit::Disk;
///
/// # #[tokio::main]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let map = PersistentMap::new(Disk::new().backend()).await?;
/// let history = History::new();
/// let seed = 1;
/// tokio::join!(
///     make_random_calls(&map, &history, 0, 100, 2, seed),
///     make_random_calls(&map, &history, 1, 100, 2, seed),
/// );
/// assert!(history.check().is_ok());
/// # Ok(())
/// # }
/// ```
pub async fn make_random_calls<B, S>(
    map: &PersistentMap<u64, u64, B, S>,
    history: &History,
    task: usize,
    calls: u32,
    keys: u64,
    seed: u64,
) where
    B: StorageBackend<u64, u64>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    let mut random = fastrand::Rng::with_seed(seed ^ (task as u64).wrapping_mul(0x9e37_79b9));
    // No two calls write the same value, so that reads tell which call they have seen.
    let mut fresh = (seed << 40) + ((task as u64) << 24);
    for _ in 0..calls {
        let key = random.u64(..keys);
        fresh += 1;
        // A value that may well be there, for calls that ask for one.
        let present = map.get(&key);
        let op = match random.u8(..12) {
            0 | 1 => Op::Get,
            2 => Op::Contains,
            3 | 4 => Op::Insert(fresh),
            5 => Op::Remove,
            6 => Op::InsertIfAbsent(fresh),
            7 => Op::CompareAndSwap {
                expected: present,
                new: random.bool().then_some(fresh),
            },
            8 => Op::Update(1 << 20),
            9 => Op::RemoveIf(present.unwrap_or(fresh)),
            10 => Op::Compute(Rule::Toggle(fresh)),
            _ => Op::Compute(Rule::Set(Some(fresh))),
        };
        let patience = (random.u8(..8) == 0).then(|| random.usize(..4));
        let call = history.call(task, key, op);
        let answered = answer(map, key, op);
        let result = match patience {
            Some(polls) => drop_after_polls(answered, polls).await,
            None => Some(answered.await),
        };
        if !record(call, result) {
            return;
        }
        if random.u8(..4) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Returns whether there is a point in going on.
fn record(call: Call, result: Option<Result<Answer, PersistentError>>) -> bool {
    match result {
        Some(Ok(answer)) => call.returned(answer),
        Some(Err(error)) if error.outcome() == Outcome::NotApplied => {
            call.failed();
            return !matches!(
                error,
                PersistentError::Poisoned { .. } | PersistentError::Closed
            );
        }
        Some(Err(_)) | None => call.unanswered(),
    }
    true
}

async fn answer<B, S>(
    map: &PersistentMap<u64, u64, B, S>,
    key: u64,
    op: Op,
) -> Result<Answer, PersistentError>
where
    B: StorageBackend<u64, u64>,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    Ok(match op {
        Op::Get => map.get(&key).into(),
        Op::Contains => map.contains_key(&key).into(),
        Op::Insert(value) => map.insert(key, value).await?.into(),
        Op::Remove => map.remove(&key).await?.into(),
        Op::InsertIfAbsent(value) => map.insert_if_absent(key, value).await?.into(),
        Op::CompareAndSwap { expected, new } => {
            map.compare_and_swap(key, expected, new).await?.into()
        }
        Op::Update(add) => {
            let change = move |value: &mut u64| {
                *value = value.wrapping_add(add);
                *value
            };
            map.update(&key, change).await?.into()
        }
        Op::RemoveIf(expected) => map
            .remove_if(&key, move |value| *value == expected)
            .await?
            .into(),
        Op::Compute(rule) => map
            .compute(key, move |value| match rule {
                Rule::Set(new) => new,
                Rule::Toggle(new) => match value {
                    Some(_) => None,
                    None => Some(new),
                },
                Rule::AddOr { add, or } => Some(value.map_or(or, |value| value.wrapping_add(add))),
            })
            .await?
            .into(),
    })
}
