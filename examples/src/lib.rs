//! What the examples have in common.

mod any;

pub use airports::{AIRPORTS_CSV, Airport, Airports, ReadError, Result, data_file, read};
pub use any::{Kind, backend};
