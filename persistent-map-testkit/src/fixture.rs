//! How the kit gets at a backend.

use std::fmt::{self, Debug};
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use persistent_map_core::{Key, Result, StorageBackend, Value};

use crate::sample::Sample;

/// Opens the backend under test.
///
/// [`open_with`] makes one from a closure. Implement the trait yourself if the store does not live in a directory.
pub trait Fixture: Send + Sync + 'static {
    /// The key type to test with.
    type Key: Key + Sample + Debug;
    /// The value type to test with.
    type Value: Value + Sample + Debug + PartialEq;
    /// The backend.
    type Backend: StorageBackend<Self::Key, Self::Value>;

    /// Opens the store that lives in `dir`, or makes a new one there. Opening the same directory again gives the same
    /// store.
    fn open(&self, dir: &Path) -> impl Future<Output = Result<Self::Backend>> + Send;

    /// Makes in `to` what would be left of the store in `from` if its process were killed now.
    ///
    /// The default copies the files: what other processes can read is what survives a `kill -9`.
    ///
    /// # Errors
    /// The files cannot be copied.
    fn crash(&self, from: &Path, to: &Path) -> io::Result<()> {
        copy_files(from, to)
    }
}

/// A fixture that calls `open` with a directory.
///
/// ```
/// use persistent_map_memory::InMemoryBackend;
/// use persistent_map_testkit::{Item, check_all, open_with};
///
/// # #[tokio::main]
/// # async fn main() {
/// let fixture = open_with::<String, Item, _, _>(|_dir| async { Ok(InMemoryBackend::new()) });
/// assert!(check_all(fixture).await.iter().all(|verdict| verdict.failure.is_none()));
/// # }
/// ```
pub fn open_with<K, V, F, R>(open: F) -> OpenWith<K, V, F>
where
    F: Fn(PathBuf) -> R + Send + Sync + 'static,
    R: Future + Send,
{
    OpenWith {
        open,
        types: PhantomData,
    }
}

/// From [`open_with`].
pub struct OpenWith<K, V, F> {
    open: F,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, F> fmt::Debug for OpenWith<K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenWith").finish_non_exhaustive()
    }
}

impl<K, V, F, R, B> Fixture for OpenWith<K, V, F>
where
    K: Key + Sample + Debug,
    V: Value + Sample + Debug + PartialEq,
    F: Fn(PathBuf) -> R + Send + Sync + 'static,
    R: Future<Output = Result<B>> + Send,
    B: StorageBackend<K, V>,
{
    type Key = K;
    type Value = V;
    type Backend = B;

    async fn open(&self, dir: &Path) -> Result<B> {
        (self.open)(dir.to_path_buf()).await
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
