//! The contract as tests, a function for each behaviour: of any store, of stores of bytes, and of maps on a store.

pub(crate) mod bytes;
pub(crate) mod map;
pub(crate) mod store;
