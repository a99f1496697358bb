//! The parts of the `airports` program that are worth a test, and what other examples use of it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

mod airport;
mod store;

pub use airport::{AIRPORTS_CSV, Airport, Airports, ReadError, read};
pub use store::{Mismatch, Store};

/// For code that meets errors of several kinds and only passes them on.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The path of a file in the folder `example-data` of the workspace, whatever the current directory is. The environment
/// variable `EXAMPLE_DATA` names another folder.
///
/// # Errors
/// The folder cannot be made.
pub fn data_file(name: &str) -> io::Result<PathBuf> {
    let folder = std::env::var_os("EXAMPLE_DATA").map_or_else(
        || {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            let workspace = package.ancestors().nth(2).unwrap_or(package);
            workspace.join("example-data")
        },
        PathBuf::from,
    );
    fs::create_dir_all(&folder).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("making {}: {error}", folder.display()),
        )
    })?;
    Ok(folder.join(name))
}
