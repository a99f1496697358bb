//! What is measured, one file a step.

pub(crate) mod batch;
pub(crate) mod burst;
pub(crate) mod fill;
pub(crate) mod get;
pub(crate) mod insert;
pub(crate) mod open;
pub(crate) mod ycsb;
