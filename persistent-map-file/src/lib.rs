#![doc = include_str!("../README.md")]

mod advice;
mod beside;
mod hold;
mod import;
mod lock;
mod open_files;
mod owner;
mod path;
mod place;

pub use advice::{cure, unusable};
pub use beside::{create_anew, open_itself};
pub use hold::{Hold, blocking};
pub use import::Import;
pub use lock::{LockFile, PATIENCE, RETRY};
pub use open_files::OpenFile;
pub use path::{
    identity, is_regular_file, refused, regular, resolve, sync_directory_of, with_suffix,
};
pub use place::check_place;
