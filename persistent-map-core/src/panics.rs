//! Code that we are given may panic; that fails the call, not the map.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::error::{Outcome, PersistentError, Result};

/// Runs foreign code. A panic becomes an error that says nothing was applied.
///
/// Nothing that `f` touches is used after its panic except through locks that release on unwinding.
pub(crate) fn contain<T>(during: &'static str, f: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        forget_payload(payload);
        PersistentError::Panicked {
            during,
            outcome: Outcome::NotApplied,
        }
    })
}

/// The same for a future: each poll is guarded, and after a panic it is dropped and not polled again.
pub(crate) async fn contain_async<T>(
    during: &'static str,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut future = pin!(future);
    std::future::poll_fn(
        move |context| match contain(during, || future.as_mut().poll(context)) {
            Ok(Poll::Ready(result)) => Poll::Ready(result),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panicked) => Poll::Ready(Err(panicked)),
        },
    )
    .await
}

/// The output of a future, or what it has panicked with.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| {
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match poll {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// Dropping a panic's payload runs foreign code once more, and a second panic there must not get out.
fn forget_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
