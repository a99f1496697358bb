//! What the examples have in common, and the parts of the `airports` example that are worth a test.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

mod airport;
mod any;
mod store;

pub use airport::{AIRPORTS_CSV, Airport, Airports, ReadError, read};
pub use any::{Kind, backend};
pub use store::{Mismatch, Store};

/// For code that meets errors of several kinds and only passes them on.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The path of a file in the folder `example-data` of the workspace, whatever the current directory is. The environment
/// variable `EXAMPLE_DATA` names another folder.
///
/// # Errors
/// The folder cannot be made.
pub fn data_file(name: &str) -> io::Result<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("EXAMPLE_DATA")
        .map_or_else(|| examples.with_file_name("example-data"), PathBuf::from);
    fs::create_dir_all(&folder).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("making {}: {error}", folder.display()),
        )
    })?;
    Ok(folder.join(name))
}
