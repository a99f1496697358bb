//! What is done with bytes from strangers: by the fuzzers in `fuzz_targets`, and with the inputs of `corpus` by a test.
//!
//! Each function takes any bytes at all, and panics if something is not as it must be. A fuzzer needs `cargo fuzz`:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none csv_table -- -max_total_time=300
//! ```
//!
//! Without one, a target runs the files that it is given: `cargo run -p persistent-map-fuzz --bin csv_table -- FILE`.

pub mod frames;
mod targets;

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

pub use targets::{codecs, csv_files, csv_journal, csv_table, sqlite_file};

/// A target: what is done with some bytes.
pub type Target = fn(&[u8]);

/// All targets, by their names.
pub const TARGETS: [(&str, Target); 5] = [
    ("codecs", codecs),
    ("csv_table", csv_table),
    ("csv_journal", csv_journal),
    ("csv_files", csv_files),
    ("sqlite_file", sqlite_file),
];

/// Makes a target of this name the program: for a fuzzer, or for the files that it is given.
#[macro_export]
macro_rules! fuzz {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::$target(bytes));

        #[cfg(not(fuzzing))]
        fn main() {
            for file in std::env::args_os().skip(1) {
                $crate::$target(&std::fs::read(file).expect("a file that can be read"));
            }
        }
    };
}

/// The inputs that are kept for a target.
///
/// # Panics
/// If they cannot be read.
pub fn corpus(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry of the directory").path())
        .collect();
    files.sort();
    files
}

fn equal<T: PartialEq + Debug>(left: &T, right: &T, what: &str) {
    assert!(left == right, "{what}: {left:?} and {right:?}");
}
