//! Initialisers that wait for each other's values: the last one to ask is told, and nobody waits for ever.

use std::cell::Cell;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{PersistentError, Result};
use crate::sync::thread_local;

/// Who waits for whom: the value that is being made, and the value that its initialiser asks for. Of all maps, because
/// initialisers may ask other maps. Without a circle, because none is let in. Not the scheduler's: nobody is stopped while
/// holding it.
static WAITS: Mutex<Vec<(Flight, Flight)>> = Mutex::new(Vec::new());

thread_local! {
    /// The value whose initialiser this thread is running; of several inside of each other, the innermost.
    static MAKING: Cell<Option<Flight>> = const { Cell::new(None) };
}

/// The making of one value, among all of the process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight(u64);

impl Flight {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Flight(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs the initialiser. What it asks for meanwhile, this value waits for.
    pub(crate) async fn make<T>(self, init: impl Future<Output = T>) -> T {
        let mut init = pin!(init);
        std::future::poll_fn(|context| {
            let _making = Making::begin(self);
            init.as_mut().poll(context)
        })
        .await
    }
}

/// While it lives, this thread runs an initialiser.
struct Making {
    before: Option<Flight>,
}

impl Making {
    fn begin(flight: Flight) -> Self {
        Making {
            before: MAKING.with(|making| making.replace(Some(flight))),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        MAKING.with(|making| making.set(self.before));
    }
}

/// While it lives, the value that was being made here waits for another one.
pub(crate) struct Waiting(Option<(Flight, Flight)>);

impl Waiting {
    /// Waits for `flight`, unless that waits for what is being made here.
    pub(crate) fn begin(flight: Flight) -> Result<Self> {
        let Some(made_here) = MAKING.with(Cell::get) else {
            return Ok(Waiting(None));
        };
        let mut waits = waits();
        if waits_for(&waits, flight, made_here) {
            return Err(PersistentError::WouldDeadlock {
                place: "inside of an initialiser",
                advice: "The value that it asks for waits for the one that it makes; let one of them be made without the other",
            });
        }
        waits.push((made_here, flight));
        Ok(Waiting(Some((made_here, flight))))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(wait) = self.0 {
            let mut waits = waits();
            if let Some(place) = waits.iter().position(|other| *other == wait) {
                waits.swap_remove(place);
            }
        }
    }
}

fn waits() -> MutexGuard<'static, Vec<(Flight, Flight)>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `flight` is, or waits for, `goal`: by itself, or by those that it waits for.
fn waits_for(waits: &[(Flight, Flight)], flight: Flight, goal: Flight) -> bool {
    let mut reached = vec![flight];
    let mut looked_at = 0;
    while let Some(&waiting) = reached.get(looked_at) {
        if waiting == goal {
            return true;
        }
        for (_, next) in waits.iter().filter(|(from, _)| *from == waiting) {
            if !reached.contains(next) {
                reached.push(*next);
            }
        }
        looked_at += 1;
    }
    false
}
