//! What can go wrong, said so that the caller knows what to do next.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec::CodecError;
use crate::message::{brief, count, whole};
use crate::owner::Owner;
use crate::row::CorruptRow;

/// The result of every fallible call in this crate.
///
/// The error type has a default, so `Result<()>` is enough; `Result<(), PersistentError>` is the same type.
pub type Result<T, E = PersistentError> = std::result::Result<T, E>;

/// The cause of an error, which it dereferences to. Shared, because one failed commit answers every call that was part of
/// it.
///
/// ```
/// use std::io::{Error, ErrorKind};
///
/// use persistent_map_core::Cause;
///
/// let cause = Cause::new(Error::from(ErrorKind::PermissionDenied));
/// let error = cause.downcast_ref::<Error>();
/// assert_eq!(error.map(Error::kind), Some(ErrorKind::PermissionDenied));
/// assert_eq!(Cause::new("no such table").to_string(), "no such table");
/// ```
#[derive(Debug, Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync + 'static>);

impl Cause {
    /// Takes in an error, or a text.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync + 'static>>) -> Self {
        Cause(Arc::from(error.into()))
    }
}

// A type of its own, and no error itself, so that `source()` gives the error in it: an `Arc` could not be downcast.
impl Deref for Cause {
    type Target = dyn Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Where the call that failed has left the map: the answer to "may I retry?".
///
/// ```
/// use persistent_map_core::{Outcome, PersistentError};
///
/// fn what_next(error: &PersistentError) -> &'static str {
///     match error.outcome() {
///         Outcome::NotApplied => "put right what the error names, and call again",
///         Outcome::Unknown => "open the map again, and look",
///         _ => "call again for the rest",
///     }
/// }
/// assert_eq!(what_next(&PersistentError::WriterGone), "open the map again, and look");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Neither memory nor the store has the change, now or after a restart. The call may be repeated.
    NotApplied,
    /// The store may or may not have the change. The map refuses further writes with
    /// [`PersistentError::Poisoned`] until it is opened again; reads go on and show what was acknowledged before.
    Unknown,
    /// A part of the call was done, and memory and store agree on which: [`PersistentError::PartlyCleared`].
    Partly,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::NotApplied => "nothing was applied, and the call may be repeated",
            Outcome::Unknown => {
                "the store may or may not have the change. Open the map again to find out"
            }
            Outcome::Partly => "a part was applied",
        })
    }
}

/// Every error of `persistent-map`.
///
/// [`outcome`](PersistentError::outcome) tells what became of the change. No variant carries or prints a value; keys
/// appear only in [`Corrupt`](PersistentError::Corrupt), where they are needed to find the row.
///
/// The type is cheap to clone, so that all calls of a failed group get the same first cause.
///
/// ```
/// use persistent_map_core::{Outcome, PersistentError};
///
/// let full = std::io::Error::new(std::io::ErrorKind::StorageFull, "disk full");
/// let error = PersistentError::storage("writing 3 entries", full);
/// assert_eq!(error.outcome(), Outcome::NotApplied);
/// assert_eq!(error.unknown().outcome(), Outcome::Unknown);
/// ```
#[doc = include_str!("../docs/errors.md")]
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PersistentError {
    /// The store failed. `outcome` says whether the change may have happened all the same.
    #[error("the store failed while {doing}: {cause}; {outcome}", cause = whole(&**.cause))]
    Storage {
        /// What the store was doing, with the file or table where there is one.
        doing: String,
        /// Whether the change may have happened.
        outcome: Outcome,
        /// The store's own error.
        #[source]
        cause: Cause,
    },

    /// A key or value that could be written but not read back, refused before anything was written.
    #[error(
        "the {part} of type `{type_name}` cannot be stored with the codec {codec}: {cause}. {advice}",
        cause = whole(.cause)
    )]
    Unstorable {
        /// `"key"` or `"value"`.
        part: &'static str,
        /// The Rust type.
        type_name: &'static str,
        /// The codec that was tried.
        codec: &'static str,
        /// Which serde attribute is the likely reason, and which codec handles it.
        advice: &'static str,
        /// What the codec said.
        #[source]
        cause: CodecError,
    },

    /// An entry larger than the store takes, refused before anything was written.
    #[error(
        "the {part} of {bytes} bytes is larger than the store takes ({limit} bytes). Store it in parts, or keep it in a \
         file and store its name"
    )]
    TooLarge {
        /// `"key"`, `"value"` or `"entry"`, and what became of it on the way to the store if that made it larger.
        part: &'static str,
        /// Its encoded size in bytes.
        bytes: u64,
        /// The largest size the store takes, in bytes.
        limit: u64,
    },

    /// A stored row that is damaged or does not fit the map's types.
    #[error("cannot read {row}. {advice}", row = .0, advice = .0.advice())]
    Corrupt(Box<CorruptRow>),

    /// A store that is damaged as a whole, so that no row of it can be trusted.
    #[error(
        "{place} is damaged: {reason}. Restore the file from a backup (and move a `-wal` or `.journal` file away that is not from the same backup)"
    )]
    Damaged {
        /// The file and table.
        place: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The store was written with another codec or for other types.
    #[error("{place} holds {found}, but was opened as {expected}. {advice}")]
    Mismatch {
        /// The file and table.
        place: String,
        /// What the map asked for.
        expected: String,
        /// What the store says it holds.
        found: String,
        /// What to do next.
        advice: String,
    },

    /// A path that cannot be used as a store: not ours, too new, a directory, no permission. The file is untouched.
    #[error("cannot use {}: {reason}. {advice}", .path.display())]
    Refused {
        /// The path as it was resolved.
        path: PathBuf,
        /// What was found there.
        reason: String,
        /// What to do next.
        advice: String,
        /// The operating system's or driver's error, where there is one. `reason` says it too.
        #[source]
        cause: Option<Cause>,
    },

    /// The store is open already, here or in another process.
    #[error(
        "{} is already open, by {owner}. {advice}",
        .path.display(),
        advice = .owner.advice()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who has it, as far as can be told.
        owner: Owner,
    },

    /// An earlier write ended with an unknown outcome, so this one was refused: nothing was applied by it.
    #[error(
        "the map only reads since an earlier failure, and refused this: {reason}. Open the map again to write, and to see \
         what became of that change",
        reason = brief(.first)
    )]
    Poisoned {
        /// The failure that started it. It never changes while the map is open.
        #[source]
        first: Arc<PersistentError>,
    },

    /// The map was closed, or its runtime has ended. Nothing was applied.
    #[error(
        "the map is closed, or the runtime that it was opened in has ended (each `#[tokio::test]` has one of its own); open it \
         again to write"
    )]
    Closed,

    /// The runtime that the map was opened in ended before it answered.
    #[error(
        "the runtime that the map was opened in ended before it answered; {}",
        Outcome::Unknown
    )]
    WriterGone,

    /// The backend cannot do this. Nothing was applied.
    #[error(
        "the backend does not support {what}; nothing was applied. Use a backend that does, or do without"
    )]
    Unsupported {
        /// What was asked for.
        what: String,
    },

    /// Code that this crate was given (serde, `Hash`, `Eq`, `Clone`, a backend) panicked.
    #[error("{during} panicked; {outcome}")]
    Panicked {
        /// Whose code it was.
        during: &'static str,
        /// Whether the change may have happened.
        outcome: Outcome,
    },

    /// The call would have waited for the code that made it: it is one of [blocking](crate::Blocking) on a thread that runs
    /// async code, or was made inside of a closure or an initialiser that the map is waiting for. Nothing was applied.
    #[error("a call {place} would wait for itself; nothing was applied. {advice}")]
    WouldDeadlock {
        /// Where it was made.
        place: &'static str,
        /// What to do instead.
        advice: &'static str,
    },

    /// `clear` or `retain` stopped half way on a backend that removes one entry at a time. Memory and store agree.
    #[error(
        "only {removed} removed, from memory and store alike, because {reason}. Repeat the call to remove the rest",
        removed = count(*.removed, "entry was", "entries were"),
        reason = brief(.cause)
    )]
    PartlyCleared {
        /// How many entries are gone from both memory and store.
        removed: u64,
        /// Why it stopped.
        #[source]
        cause: Arc<PersistentError>,
    },

    /// The store of a map in [`WriteMode::Behind`](crate::WriteMode::Behind) does not take what was accepted.
    ///
    /// From a write: it was refused, and nothing of it was applied. From `flush`: the entries are kept in memory and tried
    /// again. From `close`: the entries are in memory only, and lost with it.
    #[error(
        "{entries} accepted and not stored, because {reason}. A map that is open keeps them and tries again; one that was \
         closed has lost them",
        entries = count(*.entries, "entry was", "entries were"),
        reason = brief(.cause)
    )]
    Unsaved {
        /// How many entries are in memory and not in the store.
        entries: u64,
        /// The first failure since the store last worked.
        #[source]
        cause: Arc<PersistentError>,
    },

    /// The store does not hold what the map holds: found by [`verify`](crate::PersistentMap::verify).
    #[error(
        "the store is not what the map holds: {missing} missing, {other} with another value, {unexpected} too many. Another \
         program has changed it, or the backend does not keep its contract. Copy the map to a new store",
        missing = count(*.missing, "entry", "entries"),
    )]
    NotAsWritten {
        /// Entries of the map that the store lacks.
        missing: u64,
        /// Entries with a different value.
        other: u64,
        /// Stored entries that the map has not.
        unexpected: u64,
    },

    /// The map was opened outside of a tokio runtime, or in one without what it needs.
    #[error(
        "no tokio runtime: open the map inside `#[tokio::main]`, or inside `Runtime::block_on` of a runtime that was built with `enable_time`"
    )]
    NoRuntime,
}

impl PersistentError {
    /// A failure of the store while `doing` something, which has changed nothing.
    ///
    /// For authors of backends: name the file in `doing`, and let an [`io::Error`](std::io::Error) be among the causes where
    /// there is one, by which [`is_storage_full`](PersistentError::is_storage_full) knows a full disk. Add
    /// [`unknown`](PersistentError::unknown) where the change may have happened all the same.
    pub fn storage(
        doing: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync + 'static>>,
    ) -> Self {
        PersistentError::Storage {
            doing: doing.into(),
            outcome: Outcome::NotApplied,
            cause: Cause::new(cause),
        }
    }

    /// The backend does not do `what`.
    ///
    /// ```
    /// use persistent_map_core::PersistentError;
    ///
    /// let error = PersistentError::unsupported("ordered keys").to_string();
    /// assert!(error.starts_with("the backend does not support ordered keys; nothing was applied"));
    /// ```
    pub fn unsupported(what: impl Into<String>) -> Self {
        PersistentError::Unsupported { what: what.into() }
    }

    /// The refusal of what only a store with atomic batches can do.
    ///
    /// ```
    /// use persistent_map_core::PersistentError;
    ///
    /// let error = PersistentError::no_batches().to_string();
    /// assert!(error.contains("several entries in one step (atomic batches)"));
    /// ```
    pub fn no_batches() -> Self {
        Self::unsupported("changing several entries in one step (atomic batches)")
    }

    /// The `part` of an entry (`"key"`, `"value"` or `"entry"`) has more bytes than the store takes.
    ///
    /// ```
    /// use persistent_map_core::PersistentError;
    ///
    /// let error = PersistentError::too_large("key", 70_000, 65_535).to_string();
    /// assert!(error.contains("the key of 70000 bytes is larger than the store takes (65535 bytes)"));
    /// ```
    pub fn too_large(part: &'static str, bytes: usize, limit: usize) -> Self {
        PersistentError::TooLarge {
            part,
            bytes: bytes as u64,
            limit: limit as u64,
        }
    }

    /// The store at `place` (a path, or a [`Location`](crate::Location)) is damaged as a whole.
    ///
    /// ```
    /// use persistent_map_core::{Location, PersistentError};
    ///
    /// let error = PersistentError::damaged(Location::of_file("app.db"), "its header is cut off");
    /// assert!(error.to_string().starts_with("app.db is damaged: its header is cut off. Restore"));
    /// ```
    pub fn damaged(place: impl fmt::Display, reason: impl Into<String>) -> Self {
        PersistentError::Damaged {
            place: place.to_string(),
            reason: reason.into(),
        }
    }

    /// Somebody has the store at `path` already: `owner`, as far as can be told. A name alone is that of another process; see
    /// [`Owner`].
    ///
    /// ```
    /// use persistent_map_core::PersistentError;
    ///
    /// let error = PersistentError::in_use("app.db", "process 17");
    /// assert!(error.to_string().starts_with("app.db is already open, by process 17"));
    /// ```
    pub fn in_use(path: impl Into<PathBuf>, owner: impl Into<Owner>) -> Self {
        PersistentError::InUse {
            path: path.into(),
            owner: owner.into(),
        }
    }

    /// The same failure, marked: the store may have the change all the same.
    ///
    /// Only failures of the store can be unknown; every other error is returned as it is.
    #[must_use]
    pub fn unknown(self) -> Self {
        match self {
            PersistentError::Storage { doing, cause, .. } => PersistentError::Storage {
                doing,
                outcome: Outcome::Unknown,
                cause,
            },
            PersistentError::Panicked { during, .. } => PersistentError::Panicked {
                during,
                outcome: Outcome::Unknown,
            },
            other => other,
        }
    }

    /// Whether the store refuses an entry for what it is, and takes others.
    pub(crate) fn is_about_one_entry(&self) -> bool {
        matches!(
            self,
            PersistentError::Unstorable { .. } | PersistentError::TooLarge { .. }
        )
    }

    /// Whether the store is sound and holds other types than those that were asked for.
    pub(crate) fn is_about_types(&self) -> bool {
        match self {
            PersistentError::Mismatch { .. } => true,
            PersistentError::Corrupt(row) => row.intact,
            _ => false,
        }
    }

    /// This failure, of a call that had removed some entries one by one before it.
    pub(crate) fn after_removing(self, removed: u64) -> Self {
        if removed == 0 || self.outcome() == Outcome::Unknown {
            return self;
        }
        PersistentError::PartlyCleared {
            removed,
            cause: Arc::new(self),
        }
    }

    /// What became of the change that the call asked for.
    pub fn outcome(&self) -> Outcome {
        match self {
            PersistentError::Storage { outcome, .. }
            | PersistentError::Panicked { outcome, .. } => *outcome,
            PersistentError::WriterGone => Outcome::Unknown,
            PersistentError::PartlyCleared { .. } => Outcome::Partly,
            _ => Outcome::NotApplied,
        }
    }

    /// Whether this error, or one of its causes, is a disk that is full or a quota that is used up.
    ///
    /// Then somebody has to make room. What to do after that says [`outcome`](PersistentError::outcome): if nothing was
    /// applied, the same map takes the call again.
    ///
    /// Finds an [`io::Error`](std::io::Error) of the kind [`StorageFull`](std::io::ErrorKind::StorageFull) or
    /// [`QuotaExceeded`](std::io::ErrorKind::QuotaExceeded), which the backends of this project have as a cause then; so
    /// should others. `false` does not rule a full disk out: a driver may tell of a failed write and not why.
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    ///
    /// use persistent_map_core::PersistentError;
    ///
    /// let failed = |kind| PersistentError::storage("writing app.csv", Error::from(kind));
    /// assert!(failed(ErrorKind::StorageFull).is_storage_full());
    /// assert!(!failed(ErrorKind::PermissionDenied).is_storage_full());
    /// ```
    pub fn is_storage_full(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            next = error.source();
            if let Some(error) = error.downcast_ref::<io::Error>() {
                if matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                ) {
                    return true;
                }
                // Its source is that of the error in it, which would be left out.
                next = error.get_ref().map(|inner| inner as _).or(next);
            }
        }
        false
    }
}

/// The same text as `Display`: it is what `fn main() -> Result<()>` prints, and people shall be able to read it.
impl fmt::Debug for PersistentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A failed file operation, taken to have changed nothing: so that `?` works in a simple backend.
impl From<std::io::Error> for PersistentError {
    fn from(error: std::io::Error) -> Self {
        PersistentError::storage("reading or writing a file", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has an error as its source, as those of drivers do.
    #[derive(Debug, thiserror::Error)]
    #[error("the driver failed")]
    struct Driver(#[source] io::Error);

    #[test]
    fn a_full_disk_is_found_behind_any_number_of_errors() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let failed = PersistentError::storage("writing x", Driver(full()));
        let nested = PersistentError::storage("writing x", io::Error::other(full()));
        let deeper = io::Error::other(io::Error::other(Driver(full())));
        let quota = io::Error::from(ErrorKind::QuotaExceeded);
        for error in [
            failed.clone().unknown(),
            PersistentError::Unsaved {
                entries: 1,
                cause: Arc::new(failed.clone()),
            },
            PersistentError::Poisoned {
                first: Arc::new(failed.clone()),
            },
            failed.after_removing(1),
            PersistentError::Refused {
                path: "x".into(),
                reason: String::new(),
                advice: String::new(),
                cause: Some(Cause::new(full())),
            },
            nested,
            PersistentError::storage("writing x", deeper),
            quota.into(),
        ] {
            assert!(error.is_storage_full(), "{error}");
        }
        let other = || io::Error::from(ErrorKind::WriteZero);
        for error in [
            PersistentError::storage("writing x", Driver(other())),
            PersistentError::storage("writing x", io::Error::other(other())),
            PersistentError::storage("writing x", "disk full"),
            PersistentError::Closed,
        ] {
            assert!(!error.is_storage_full(), "{error}");
        }
    }
}
