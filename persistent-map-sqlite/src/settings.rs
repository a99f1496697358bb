//! What a database can be set to.

use std::path::PathBuf;

use persistent_map_core::Survives;

#[derive(Debug, Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own in the builder"
)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) shared_reads: bool,
    pub(crate) page_cache_bytes: u64,
    pub(crate) quick_check: bool,
    pub(crate) accept_missing_wal: bool,
    pub(crate) accept_other_types: bool,
}

impl Settings {
    pub(crate) fn new(path: PathBuf) -> Self {
        Settings {
            path,
            synchronous: Synchronous::default(),
            shared_reads: false,
            page_cache_bytes: 8 << 20,
            quick_check: true,
            accept_missing_wal: false,
            accept_other_types: false,
        }
    }
}

/// When SQLite asks the disk to keep a commit
/// ([`PRAGMA synchronous`](https://www.sqlite.org/pragma.html#pragma_synchronous)).
///
/// ```
/// # use persistent_map_core::{PersistentMap, Result, Survives};
/// # use persistent_map_sqlite::{SqliteBackend, Synchronous};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.db");
/// let backend = SqliteBackend::builder(&path).synchronous(Synchronous::Normal).open().await?;
/// let map = PersistentMap::new(backend).await?;
/// map.insert("a".to_string(), 1).await?; // survives the end of the process
/// map.flush().await?; // survives a power cut
/// assert_eq!(map.capabilities().survives, Survives::ProcessKill);
/// # map.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// At each commit: it survives a power cut.
    #[default]
    Full,
    /// At `flush`, at `close`, and when the log is merged, every 4 MiB: it survives the end of the process; a power cut may
    /// take the latest commits. A sync that fails is told by the write or the `flush` that asked for it, with an
    /// [unknown](persistent_map_core::Outcome::Unknown) outcome, and ends writing to the file.
    Normal,
}

impl Synchronous {
    pub(crate) fn survives(self) -> Survives {
        match self {
            Synchronous::Full => Survives::PowerLoss,
            Synchronous::Normal => Survives::ProcessKill,
        }
    }
}
