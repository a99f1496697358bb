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
///
/// ```
/// use std::collections::HashMap;
/// use std::io;
/// use std::path::{Path, PathBuf};
/// use std::sync::Mutex;
///
/// use persistent_map_testkit::{Disk, DiskBackend, Fixture, Item, check_all};
///
/// /// A server with databases, say. Directories are names here.
/// #[derive(Default)]
/// struct Server(Mutex<HashMap<PathBuf, Disk<String, Item>>>);
///
/// impl Server {
///     fn database(&self, dir: &Path) -> Disk<String, Item> {
///         self.0.lock().unwrap().entry(dir.to_path_buf()).or_default().clone()
///     }
/// }
///
/// impl Fixture for Server {
///     type Key = String;
///     type Value = Item;
///     type Backend = DiskBackend<String, Item>;
///
///     async fn open(&self, dir: &Path) -> persistent_map_core::Result<Self::Backend> {
///         Ok(self.database(dir).backend())
///     }
///     fn crash(&self, from: &Path, to: &Path) -> io::Result<()> {
///         let left = self.database(from).copy();
///         self.0.lock().unwrap().insert(to.to_path_buf(), left);
///         Ok(())
///     }
///     fn has_lock(&self) -> bool {
///         false // it lets in whoever comes
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// let verdicts = check_all(Server::default()).await;
/// # let failed: Vec<_> = verdicts.iter().filter(|verdict| verdict.failure.is_some()).collect();
/// # assert!(failed.is_empty(), "{failed:?}");
/// # }
/// ```
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

    /// Whether the store refuses a second owner, as it must where two could open it. (One that survives nothing is not
    /// asked.)
    ///
    /// Default: it does.
    fn has_lock(&self) -> bool {
        true
    }
}

/// A fixture that calls `open` with a directory. For an example see [`check_all`](crate::check_all) and
/// [`conformance!`](crate::conformance).
pub fn open_with<K, V, F, R>(open: F) -> OpenWith<K, V, F>
where
    F: Fn(PathBuf) -> R + Send + Sync + 'static,
    R: Future + Send,
{
    OpenWith {
        open,
        has_lock: true,
        types: PhantomData,
    }
}

/// From [`open_with`].
pub struct OpenWith<K, V, F> {
    open: F,
    has_lock: bool,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V, F> OpenWith<K, V, F> {
    /// Says that the store lets in whoever comes, so that nobody asks it to refuse a second owner.
    ///
    /// ```
    /// use persistent_map_memory::InMemoryBackend as MyBackend;
    /// use persistent_map_testkit::{Fixture, Item, open_with};
    ///
    /// let fixture = open_with::<String, Item, _, _>(|_dir| async { Ok(MyBackend::new()) });
    /// assert!(!fixture.without_lock().has_lock());
    /// ```
    #[must_use]
    pub fn without_lock(mut self) -> Self {
        self.has_lock = false;
        self
    }
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

    fn has_lock(&self) -> bool {
        self.has_lock
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
