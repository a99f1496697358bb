//! One initialiser at a time for each missing key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::cycle::{Flight, Waiting};
use crate::error::Result;
use crate::panics::contain;
use crate::sync::{Mutex, MutexGuard};

const CODE: &str = "`Hash`, `Eq` or `Clone` of a key";

/// The keys whose values are being made, and in which flight.
type Flying<K> = HashMap<K, (Flight, Arc<AsyncMutex<()>>)>;

pub(crate) struct Flights<K>(Mutex<Flying<K>>);

impl<K: Eq + Hash + Clone> Flights<K> {
    pub(crate) fn new() -> Self {
        Flights(Mutex::new(HashMap::new()))
    }

    /// Waits for the turn to make the value of `key`. Whoever made it before has been answered, has failed, or has given
    /// up. Refused to an initialiser that this key's value waits for.
    pub(crate) async fn turn(&self, key: &K) -> Result<Turn<'_, K>> {
        let (mut turn, mutex) = contain(CODE, || {
            let mut flying = self.flying();
            let entry = flying.entry(key.clone());
            let (flight, mutex) = entry.or_insert_with(|| (Flight::new(), Arc::default()));
            // Made before the wait, so that a caller who gives up leaves nothing behind.
            let turn = Turn {
                flights: self,
                key: key.clone(),
                flight: *flight,
                held: None,
                waiting: None,
            };
            (turn, Arc::clone(mutex))
        })?;
        match Waiting::begin(turn.flight) {
            Ok(waiting) => turn.waiting = Some(waiting),
            Err(error) => {
                // First, because whoever ends last takes the key off the table.
                drop(mutex);
                return Err(error);
            }
        }
        turn.held = Some(mutex.lock_owned().await);
        Ok(turn)
    }

    fn flying(&self) -> MutexGuard<'_, Flying<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make one value. The next in line gets it when this is dropped.
pub(crate) struct Turn<'a, K: Eq + Hash + Clone> {
    flights: &'a Flights<K>,
    key: K,
    flight: Flight,
    held: Option<OwnedMutexGuard<()>>,
    /// For as long as the initialiser that asked for this one has no answer.
    waiting: Option<Waiting>,
}

impl<K: Eq + Hash + Clone> Turn<'_, K> {
    /// Runs the initialiser.
    pub(crate) async fn make<T>(&self, init: impl Future<Output = T>) -> T {
        self.flight.make(init).await
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.held = None;
        self.waiting = None;
        let _ = contain(CODE, || {
            let mut flying = self.flights.flying();
            // Everybody in line holds a reference, besides the table's own.
            if flying
                .get(&self.key)
                .is_some_and(|(_, mutex)| Arc::strong_count(mutex) == 1)
            {
                flying.remove(&self.key);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PersistentError;

    #[tokio::test]
    async fn nothing_is_left_of_a_flight_that_has_ended_or_was_given_up() {
        let flights = Flights::new();
        let first = flights.turn(&1).await.unwrap();
        let mut second = Box::pin(flights.turn(&1));
        assert!(futures_poll_once(&mut second).await.is_none());
        drop(second);
        assert_eq!(flights.flying().len(), 1);
        drop(first);
        assert!(flights.flying().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_left_of_initialisers_that_ask_for_each_other() {
        let flights = Flights::new();
        let first = flights.turn(&1).await.unwrap();
        let circle = first.make(async {
            let second = flights.turn(&2).await.unwrap();
            second.make(async { flights.turn(&1).await.err() }).await
        });
        let error = circle.await.expect("it waits for itself");
        assert!(matches!(error, PersistentError::WouldDeadlock { .. }));
        drop(first);
        assert!(flights.flying().is_empty());
        let again = flights.turn(&2).await.unwrap();
        drop(again.make(flights.turn(&1)).await.unwrap());
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
