//! Calls that would wait for themselves, as far as a thread can know that: those from inside of code that the map itself is
//! waiting for.

use std::cell::{Cell, RefCell};

use crate::error::{PersistentError, Result};
use crate::gate::is_reading;
use crate::sync::thread_local;

thread_local! {
    /// How many these are. What is asked by each call.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The maps whose closures this thread is in.
    static CLOSURES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, this thread is in a closure that a map has been given, and that map changes nothing else.
pub(crate) struct InClosure(());

impl InClosure {
    /// Of the map that is known by this number.
    pub(crate) fn of(map: usize) -> Self {
        CLOSURES.with(|maps| maps.borrow_mut().push(map));
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        InClosure(())
    }
}

impl Drop for InClosure {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
        CLOSURES.with(|maps| maps.borrow_mut().pop());
    }
}

/// Refuses to wait inside of a read, of whatever map: it holds what writers wait for.
pub(crate) fn check_not_reading() -> Result<()> {
    if is_reading() {
        return Err(PersistentError::WouldDeadlock {
            place: "inside of `with`",
            advice: "Write when `with` has returned; to change the value in place, use `update`",
        });
    }
    Ok(())
}

/// Refuses to wait for the map that is known by this number, where it waits for this thread.
pub(crate) fn check_may_wait(map: usize) -> Result<()> {
    check_not_reading()?;
    if DEPTH.with(Cell::get) > 0 && CLOSURES.with(|maps| maps.borrow().contains(&map)) {
        return Err(PersistentError::WouldDeadlock {
            place: "inside of a closure of the same map",
            advice: "Make all changes in the closure itself, with `transaction`, or call when it has returned",
        });
    }
    Ok(())
}
