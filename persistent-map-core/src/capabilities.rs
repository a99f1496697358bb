//! What a store can do.

/// What a store can do: the part of the contract that differs between stores.
///
/// ```
/// use persistent_map_core::{Capabilities, Survives};
///
/// let sql = Capabilities::one_at_a_time().with_atomic_batches().surviving(Survives::PowerLoss);
/// assert!(sql.atomic_batches && sql.survives >= Survives::ProcessKill);
/// let memory = Capabilities::resident();
/// assert!(memory.resident && !memory.not_resident().resident);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`apply`](crate::StorageBackend::apply) takes batches, all or nothing, and [`clear`](crate::StorageBackend::clear) is one step.
    pub atomic_batches: bool,
    /// What an acknowledged write survives.
    pub survives: Survives,
    /// There is no store: the map's memory is all there is, and the map never calls a write method. Whoever calls one all
    /// the same, as a wrapper that is [`not_resident`](Self::not_resident) does, must find again what was written.
    pub resident: bool,
}

impl Capabilities {
    /// No batches; an acknowledged write survives the end of the process. The least that a store can promise.
    pub const fn one_at_a_time() -> Self {
        Capabilities {
            atomic_batches: false,
            survives: Survives::ProcessKill,
            resident: false,
        }
    }

    /// No store at all.
    pub const fn resident() -> Self {
        Capabilities {
            atomic_batches: true,
            survives: Survives::Nothing,
            resident: true,
        }
    }

    /// The same, of a store that wants to be called: for wrappers that stand before a store which may be resident.
    #[must_use]
    pub const fn not_resident(mut self) -> Self {
        self.resident = false;
        self
    }

    /// Batches are applied all or nothing.
    #[must_use]
    pub const fn with_atomic_batches(mut self) -> Self {
        self.atomic_batches = true;
        self
    }

    /// What an acknowledged write survives.
    #[must_use]
    pub const fn surviving(mut self, survives: Survives) -> Self {
        self.survives = survives;
        self
    }
}

/// What an acknowledged write survives; each level includes those before it. Part of [`Capabilities`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Survives {
    /// It lives as long as the map, or its process.
    Nothing,
    /// It survives the end of the process at any instant (`kill -9`), as long as the machine keeps running.
    ProcessKill,
    /// It survives a power cut, on a disk that honours flush.
    PowerLoss,
}
