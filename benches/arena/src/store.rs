//! What a contender can do.

use std::error::Error;
use std::path::Path;

use crate::data::Payload;

/// A contender that fails has no figures; the error says why.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A store of entries, as an application would use it: an answer to a write is worth what the contender promises.
pub trait Store<V: Payload>: Sized + Send + Sync + 'static {
    /// Whether calls block. Then each of the tasks is a thread, which spares the contender a hop to one.
    const BLOCKS: bool;

    /// Opens the store in this directory, or makes it.
    fn open(directory: &Path) -> impl Future<Output = Outcome<Self>> + Send;

    /// Stores one entry.
    fn insert(&self, key: String, value: V) -> impl Future<Output = Outcome<()>> + Send;

    /// Changes the value of an entry that is there, atomically if the contender can.
    fn update(
        &self,
        key: &str,
        change: impl Fn(&mut V) + Send + Sync + 'static,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Stores new entries, all with one commit if the contender can.
    fn fill(&self, entries: Vec<(String, V)>) -> impl Future<Output = Outcome<()>> + Send;

    /// A value of one's own.
    ///
    /// # Errors
    /// What the store says.
    #[expect(clippy::ptr_arg, reason = "0.1.3 looks up by `&String` alone")]
    fn get(&self, key: &String) -> Outcome<Option<V>>;

    /// What `look` makes of a value, without a copy of it if the contender can.
    ///
    /// # Errors
    /// What the store says.
    fn read<R>(&self, key: &String, look: impl FnOnce(&V) -> R) -> Outcome<Option<R>> {
        Ok(self.get(key)?.as_ref().map(look))
    }

    /// Stores what was accepted and is not stored yet.
    fn flush(&self) -> impl Future<Output = Outcome<()>> + Send {
        async { Ok(()) }
    }

    /// Brings the store to rest.
    fn close(self) -> impl Future<Output = Outcome<()>> + Send {
        async { Ok(()) }
    }
}
