//! Where locks, atomic numbers and what belongs to a thread come from: from the standard library, and from a scheduler that
//! tries their orders where `persistent-map-schedules` builds these sources.

#[cfg(not(feature = "schedules"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread_local,
};

#[cfg(feature = "schedules")]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread_local,
};
