//! One initialiser at a time for each missing key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::panics::contain;
use crate::sync::{Mutex, MutexGuard};

/// The keys whose values are being made.
pub(crate) struct Flights<K>(Mutex<HashMap<K, Arc<AsyncMutex<()>>>>);

impl<K: Eq + Hash + Clone> Flights<K> {
    pub(crate) fn new() -> Self {
        Flights(Mutex::new(HashMap::new()))
    }

    /// Waits for the turn to make the value of `key`. Whoever made it before has been answered, has failed, or has given
    /// up.
    pub(crate) async fn turn(&self, key: K) -> Turn<'_, K> {
        let mutex = Arc::clone(self.flying().entry(key.clone()).or_default());
        // Made before the wait, so that a caller who gives up leaves nothing behind.
        let mut turn = Turn {
            flights: self,
            key,
            held: None,
        };
        turn.held = Some(mutex.lock_owned().await);
        turn
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<K, Arc<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one value. The next in line gets it when this is dropped.
pub(crate) struct Turn<'a, K: Eq + Hash + Clone> {
    flights: &'a Flights<K>,
    key: K,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.held = None;
        let _ = contain("`Hash` or `Eq` of a key", || {
            let mut flying = self.flights.flying();
            // Everybody in line holds a reference, besides the table's own.
            if flying
                .get(&self.key)
                .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
            {
                flying.remove(&self.key);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_left_of_a_flight_that_has_ended_or_was_given_up() {
        let flights = Flights::new();
        let first = flights.turn(1).await;
        let mut second = Box::pin(flights.turn(1));
        assert!(futures_poll_once(&mut second).await.is_none());
        drop(second);
        assert_eq!(flights.flying().len(), 1);
        drop(first);
        assert!(flights.flying().is_empty());
    }

    async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
