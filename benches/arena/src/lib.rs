//! What each contender is asked to do, and how it is measured.
//!
//! A *contender* implements [`Store`]. A *trial* is one step by one contender in a process and a directory of its own. The
//! process prints its [`Figures`] as one line and ends. Two programs speak this command line, because the published
//! `persistent-map` 0.1.3 needs another SQLite than the product, and there can be only one in a program.

mod crew;
mod data;
mod gauge;
mod steps;
mod store;
mod trial;

pub use data::{Payload, Record, Text};
pub use gauge::Figures;
pub use store::{Outcome, Store};
pub use trial::{Step, Trial, compete};
