//! Where locks and atomic numbers come from: from the standard library, and from a scheduler that tries their orders where
//! `persistent-map-schedules` builds these sources.

#[cfg(not(feature = "schedules"))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(feature = "schedules")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
