//! What the map's own code costs: maps over a store that does nothing, and what they are measured by.

mod store;
mod work;

pub use store::Nothing;
pub use work::{Entries, Work, entries, map, map_behind};
