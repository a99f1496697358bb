#![doc = include_str!("../README.md")]

mod backend;
mod cell;
mod checkpoint;
#[cfg(test)]
mod crash;
mod disk;
mod journal;
mod load;
mod shape;
mod store;
mod table;
mod text;

pub use backend::CsvBackend;
