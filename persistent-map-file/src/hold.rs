//! Stores whose calls block: worked on by other threads than the async ones.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use persistent_map_core::{PersistentError, Result};

/// An open store, until it is taken out by `close`. Clones share it.
///
/// ```
/// use persistent_map_core::PersistentError;
/// use persistent_map_file::Hold;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistent_map_core::Result<()> {
/// let hold = Hold::new(vec![1, 2, 3]); // any store that one thread at a time may use
/// let sum: i32 = hold.with("adding up", |store| Ok(store.iter().sum())).await?;
/// assert_eq!(sum, 6);
///
/// // A store that is opened again in the place of the one before.
/// let before = hold.take();
/// hold.put(vec![4, 5]);
/// assert_eq!(before, Some(vec![1, 2, 3]));
///
/// hold.close("closing", |store| { drop(store); Ok(()) }).await?;
/// hold.close("closing", |_| unreachable!("it is closed once")).await?;
/// let closed = hold.with("adding up", |store| Ok(store.len())).await;
/// assert!(matches!(closed, Err(PersistentError::Closed)));
/// # Ok(())
/// # }
/// ```
pub struct Hold<S>(Arc<Mutex<Option<S>>>);

impl<S: Send + 'static> Hold<S> {
    /// A store that is open.
    pub fn new(store: S) -> Self {
        let hold = Hold::default();
        hold.put(store);
        hold
    }

    /// Puts in a store that has been opened.
    pub fn put(&self, store: S) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    /// Takes the store out. Blocks the thread while it is worked on.
    pub fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Works on the store, as [`blocking`] does. `doing` is for the error: it says what failed.
    ///
    /// # Errors
    /// What `work` says, [`Closed`](PersistentError::Closed) without a store, and those of [`blocking`].
    pub async fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let hold = self.clone();
        blocking(doing, move || {
            let mut store = hold.0.lock().unwrap_or_else(PoisonError::into_inner);
            work(store.as_mut().ok_or(PersistentError::Closed)?)
        })
        .await
    }

    /// Takes the store out, when the work on it is done, and closes it. Without a store there is nothing to do.
    ///
    /// # Errors
    /// What `close` says, and those of [`blocking`].
    pub async fn close(
        &self,
        doing: &'static str,
        close: impl FnOnce(S) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let hold = self.clone();
        blocking(doing, move || hold.take().map_or(Ok(()), close)).await
    }
}

impl<S> Clone for Hold<S> {
    fn clone(&self) -> Self {
        Hold(Arc::clone(&self.0))
    }
}

impl<S> Default for Hold<S> {
    fn default() -> Self {
        Hold(Arc::default())
    }
}

/// Without the store, which may hold secrets.
impl<S> fmt::Debug for Hold<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// Runs work that blocks off the async threads. Once it has begun it goes on to its end, also if nobody waits for it any
/// more.
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
/// What `work` says. If it panics, a failure with an unknown outcome; if the runtime ends before it begins, one that has
/// changed nothing.
pub async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            let never_began = error.is_cancelled();
            let error = PersistentError::storage(doing, error);
            Err(if never_began { error } else { error.unknown() })
        }
    }
}
