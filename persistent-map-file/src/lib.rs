#![doc = include_str!("../README.md")]

mod advice;
mod hold;
mod import;
mod lock;
mod path;

pub use advice::{cure, unusable};
pub use hold::{Hold, blocking};
pub use import::Import;
pub use lock::{LockFile, PATIENCE, RETRY};
pub use path::{
    identity, is_regular_file, refused, regular, resolve, sync_directory_of, with_suffix,
};
