#![doc = include_str!("../README.md")]

use std::task::{Context, Poll, Waker};
use std::time::Duration;

mod behaviours;
mod conformance;
mod disk;
mod faulty;
mod fixture;
pub mod guide;
mod kill;
mod refusal;
mod sample;
mod stage;

pub use behaviours::{bytes::*, map::*, store::*};
pub use conformance::{Verdict, check_all, check_all_bytes};
pub use disk::{Disk, DiskBackend};
pub use faulty::{Fault, Faults, Faulty, Stillness};
pub use fixture::{Fixture, OpenWith, open_with};
pub use kill::survives_kills;
pub use refusal::assert_refused;
pub use sample::{Item, Odd, Sample};

/// Used by the macros.
#[doc(hidden)]
pub mod __private {
    pub use tokio;
}

/// Polls a future a number of times, then drops it. Tells whether it had finished by then.
///
/// This is what a timeout, an abort or a `select!` does to a caller, at a chosen moment. The future's wake-ups go
/// nowhere, so between two polls other tasks are given time to run. Dropping it drops `future`.
///
/// ```
/// # use persistent_map_core::*;
/// # use persistent_map_testkit::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let map = PersistentMap::new(Disk::new().backend()).await?;
/// assert!(drop_after_polls(map.insert("a".to_string(), 1), 1).await.is_none()); // queued, not answered
/// map.flush().await?;
/// assert_eq!(map.get("a"), Some(1)); // done all the same
/// # Ok(())
/// # }
/// ```
pub async fn drop_after_polls<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let poll = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    None
}
