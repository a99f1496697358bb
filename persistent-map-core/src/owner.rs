//! Who has a store that somebody else asks for.

use std::fmt;

/// Who has a store that is already open: in [`InUse`](crate::PersistentError::InUse). Its text names the owner; its variant
/// decides what the error advises.
///
/// For authors of backends: a `&str` or `String` is an [`Other`](Owner::Other).
///
/// ```
/// use persistent_map_core::{Owner, PersistentError};
///
/// let here = PersistentError::in_use("app.db", Owner::ThisProcess("a map of table `users`".into()));
/// assert!(here.to_string().contains("by this very process: a map of table `users`. Close that map first"));
///
/// let elsewhere = PersistentError::in_use("app.db", "process 17 (shop)");
/// assert!(elsewhere.to_string().contains("by process 17 (shop). One process at a time can have it"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// A map or backend of the process that asks: which one, as far as it is known.
    ThisProcess(String),
    /// Another process, or somebody of whom nothing is known for certain.
    Other(String),
}

impl Owner {
    /// What whoever asks can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Owner::ThisProcess(_) => {
                "Close that map first (`close().await`), or share it by `clone()`"
            }
            Owner::Other(_) => {
                "One process at a time can have it: stop that one, or ask it for the entries"
            }
        }
    }
}

impl From<String> for Owner {
    fn from(name: String) -> Self {
        Owner::Other(name)
    }
}

impl From<&str> for Owner {
    fn from(name: &str) -> Self {
        Owner::Other(name.to_string())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::ThisProcess(which) => write!(f, "this very process: {which}"),
            Owner::Other(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::PersistentError;

    #[test]
    fn the_advice_goes_by_the_owner_and_not_by_the_words_of_its_name() {
        let text = |owner: Owner| PersistentError::in_use("x.db", owner).to_string();
        let named = "process 17 (this process, this very process)";
        assert!(!text(named.into()).contains("Close that map"));
        assert!(text(Owner::ThisProcess("process 17".into())).contains("Close that map"));
    }
}
