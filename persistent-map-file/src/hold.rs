//! Stores whose calls block: each has a thread of its own, so that none waits for a pool that its callers can fill.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use persistent_map_core::{PersistentError, Result};
use tokio::sync::oneshot;

/// An open store and the thread that works on it, until `close`.
///
/// The thread begins with [`open`](Self::open) and does one call after the other, in the order in which they are made. A call
/// is handed to it when its future is polled first, and one that is dropped after that takes nothing back. The thread ends when
/// the store is closed, or when the `Hold` is dropped and all calls are done; then it drops the store. It needs no runtime of
/// any kind.
///
/// ```
/// use persistent_map_core::PersistentError;
/// use persistent_map_file::Hold;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let hold = Hold::default();
/// // Any store that one thread at a time may use, and what else opening it tells.
/// let count = hold.open("opening", || Ok((vec![1, 2, 3], 3))).await?;
/// assert_eq!(count, 3);
///
/// let sum: i32 = hold.with("adding up", |store| Ok(store.iter().sum())).await?;
/// assert_eq!(sum, 6);
///
/// hold.close("closing", |store| { drop(store); Ok(()) }).await?;
/// hold.close("closing", |_| unreachable!("it is closed once")).await?;
/// let closed = hold.with("adding up", |store| Ok(store.len())).await;
/// assert!(matches!(closed, Err(PersistentError::Closed)));
/// # Ok(())
/// # }
/// ```
pub struct Hold<S>(Mutex<Option<Worker<S>>>);

/// The way to the thread of a store.
type Worker<S> = Sender<Job<S>>;

type Job<S> = Box<dyn FnOnce(&mut Option<S>) + Send>;

impl<S: Send + 'static> Hold<S> {
    /// Begins a thread, opens the store on it, and holds it in place of the one before, if there was one. `doing` is for the
    /// error: it says what failed.
    ///
    /// A future that is dropped before it has answered holds nothing: what was opened is dropped.
    ///
    /// # Errors
    /// What `open` says. If the thread cannot begin, a failure that has changed nothing; if `open` panics, one with an
    /// unknown outcome.
    pub async fn open<T: Send + 'static>(
        &self,
        doing: &'static str,
        open: impl FnOnce() -> Result<(S, T)> + Send + 'static,
    ) -> Result<T> {
        let (worker, jobs) = channel();
        begin(doing, move || work_off(&jobs))?;
        let opened = ask(&worker, move |place| {
            let (store, answer) = open()?;
            *place = Some(store);
            Ok(answer)
        });
        let answer = answer(doing, opened).await?;
        *self.worker() = Some(worker);
        Ok(answer)
    }

    /// Works on the store. The work is done to its end, also if nobody waits for it any more.
    ///
    /// # Errors
    /// What `work` says, and [`Closed`](PersistentError::Closed) without a store. If it panics, a failure with an unknown
    /// outcome; the store stays open.
    pub async fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = match &*self.worker() {
            Some(worker) => ask(worker, |store| {
                work(store.as_mut().ok_or(PersistentError::Closed)?)
            }),
            None => return Err(PersistentError::Closed),
        };
        answer(doing, done).await
    }

    /// Takes the store out, when the work on it is done, and closes it; then its thread ends. Without a store there is
    /// nothing to do.
    ///
    /// # Errors
    /// What `close` says. If it panics, a failure with an unknown outcome.
    pub async fn close(
        &self,
        doing: &'static str,
        close: impl FnOnce(S) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(worker) = self.worker().take() else {
            return Ok(());
        };
        let closed = ask(&worker, |store| store.take().map_or(Ok(()), close));
        drop(worker);
        answer(doing, closed).await
    }

    fn worker(&self) -> MutexGuard<'_, Option<Worker<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Default for Hold<S> {
    fn default() -> Self {
        Hold(Mutex::default())
    }
}

/// Without the store, which may hold secrets.
impl<S> fmt::Debug for Hold<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// Runs work that blocks on a thread of its own, once. It goes on to its end, also if nobody waits for it any more.
///
/// For calls that are rare and belong to no store that is open; those are [`Hold::with`]. Each begins a thread.
///
/// ```
/// use persistent_map_file::blocking;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// # let path = tempfile::NamedTempFile::new().unwrap();
/// let text = blocking("reading the settings", move || Ok(std::fs::read_to_string(path)?)).await?;
/// assert!(text.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What `work` says. If the thread cannot begin, a failure that has changed nothing; if `work` panics, one with an unknown
/// outcome.
pub async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, result) = oneshot::channel();
    begin(doing, move || drop(sender.send(work())))?;
    answer(doing, result).await
}

fn begin(doing: &'static str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name("persistent-map-file".to_string());
    match thread.spawn(work) {
        Ok(_) => Ok(()),
        Err(error) => Err(PersistentError::storage(doing, error)),
    }
}

/// A store's thread: until there is nobody who could ask for more.
fn work_off<S>(jobs: &Receiver<Job<S>>) {
    let mut store = None;
    for job in jobs {
        // Whoever waits for it is told: nothing was sent.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut store)));
    }
}

fn ask<S, T: Send + 'static>(
    worker: &Worker<S>,
    work: impl FnOnce(&mut Option<S>) -> Result<T> + Send + 'static,
) -> oneshot::Receiver<Result<T>> {
    let (sender, result) = oneshot::channel();
    // The thread is there as long as it can be asked.
    let _ = worker.send(Box::new(move |store| drop(sender.send(work(store)))));
    result
}

async fn answer<T>(doing: &'static str, result: oneshot::Receiver<Result<T>>) -> Result<T> {
    result.await.unwrap_or_else(|_| {
        let panic = io::Error::other("the code that did it has panicked");
        Err(PersistentError::storage(doing, panic).unknown())
    })
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    /// Long enough for a busy machine.
    const LIMIT: Duration = Duration::from_mins(1);

    /// A store that tells when it is dropped.
    struct Told(Vec<u32>, mpsc::Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(());
        }
    }

    /// Without a runtime of any kind.
    fn block_on<F: Future>(future: F) -> F::Output {
        struct Unpark(thread::Thread);

        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }

        let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    fn open() -> (Hold<Told>, mpsc::Receiver<()>) {
        let (sender, dropped) = mpsc::channel();
        let hold = Hold::default();
        block_on(hold.open("opening", move || Ok((Told(Vec::new(), sender), ())))).unwrap();
        (hold, dropped)
    }

    #[test]
    fn it_needs_no_runtime_and_ends_with_its_store() {
        let (hold, dropped) = open();
        block_on(hold.with("adding", |store| {
            store.0.push(1);
            Ok(())
        }))
        .unwrap();
        let closed = hold.close("closing", |store| {
            assert_eq!(store.0, [1]);
            Ok(())
        });
        block_on(closed).unwrap();
        dropped.recv_timeout(LIMIT).unwrap();

        let (hold, dropped) = open();
        drop(hold);
        dropped.recv_timeout(LIMIT).unwrap();
    }

    /// The work of a future that was dropped is done, in its order; its store is dropped after it.
    #[test]
    fn a_future_that_is_dropped_takes_nothing_back() {
        let (hold, dropped) = open();
        let (go, gone) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        {
            let mut first = pin!(hold.with("waiting", move |store| {
                let _ = gone.recv();
                store.0.push(1);
                Ok(())
            }));
            let mut second = pin!(hold.with("looking", move |store| {
                tell.send(store.0.clone()).unwrap();
                Ok(())
            }));
            let context = &mut Context::from_waker(Waker::noop());
            assert!(first.as_mut().poll(context).is_pending());
            assert!(second.as_mut().poll(context).is_pending());
        }
        drop(hold);
        assert!(dropped.try_recv().is_err());
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), [1]);
        dropped.recv_timeout(LIMIT).unwrap();
    }

    /// What was opened for nobody is not kept open.
    #[test]
    fn an_open_that_is_dropped_holds_nothing() {
        let (sender, dropped) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let hold = Hold::default();
        {
            let mut opening = pin!(hold.open("opening", move || {
                let _ = gone.recv();
                Ok((Told(Vec::new(), sender), ()))
            }));
            let context = &mut Context::from_waker(Waker::noop());
            assert!(opening.as_mut().poll(context).is_pending());
        }
        go.send(()).unwrap();
        dropped.recv_timeout(LIMIT).unwrap();
        let closed = block_on(hold.with("looking", |_| Ok(())));
        assert!(matches!(closed, Err(PersistentError::Closed)));
    }

    #[test]
    fn a_panic_fails_its_call_only() {
        let (hold, dropped) = open();
        let failed = block_on(hold.with("adding", |store| -> Result<()> {
            store.0.push(1);
            panic!("on purpose")
        }))
        .unwrap_err();
        assert_eq!(
            failed.outcome(),
            persistent_map_core::Outcome::Unknown,
            "{failed}"
        );
        assert!(failed.to_string().contains("adding"), "{failed}");
        let found = block_on(hold.with("looking", |store| Ok(store.0.clone())));
        assert_eq!(found.unwrap(), [1]);
        let failed = block_on(hold.close("closing", |_| panic!("on purpose")));
        assert!(failed.is_err());
        dropped.recv_timeout(LIMIT).unwrap();
    }

    #[test]
    fn it_works_on_after_the_runtime_in_which_it_was_opened() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let hold = runtime.block_on(async {
            let hold = Hold::default();
            hold.open("opening", || Ok((1, ()))).await.unwrap();
            hold
        });
        drop(runtime);
        assert_eq!(
            block_on(hold.with("looking", |store| Ok(*store))).unwrap(),
            1
        );
    }
}
