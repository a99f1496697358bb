//! How a run can end other than well.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use persistent_map_core::PersistentError;

/// Told apart by exit code, so that a test can skip what cannot run without hiding what is broken.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A promise was broken.
    Violation(String),
    /// Something went wrong that says nothing about the promises. For a child: its store gave an error.
    Trouble(String),
    /// The machine lacks what the proof needs.
    #[cfg(target_os = "linux")]
    CannotRun(String),
}

impl Failure {
    /// What a child exits with when its store gives an error.
    pub(crate) const TROUBLE: u8 = 2;

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Violation(_) => 1,
            Failure::Trouble(_) => Self::TROUBLE,
            #[cfg(target_os = "linux")]
            Failure::CannotRun(_) => 3,
        })
    }

    /// Says where a violation can be looked at and how it can be run again; `context` is added to any other failure too.
    pub(crate) fn at(self, context: &str, kept: &Path) -> Self {
        let add = |text: String| format!("{text}\n  in: {context}\n  kept: {}", kept.display());
        match self {
            Failure::Violation(text) => Failure::Violation(add(text)),
            Failure::Trouble(text) => Failure::Trouble(add(text)),
            #[cfg(target_os = "linux")]
            unable @ Failure::CannotRun(_) => unable,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Violation(text) => write!(f, "VIOLATION: {text}"),
            Failure::Trouble(text) => write!(f, "error: {text}"),
            #[cfg(target_os = "linux")]
            Failure::CannotRun(text) => write!(f, "cannot run here: {text}"),
        }
    }
}

impl From<PersistentError> for Failure {
    fn from(error: PersistentError) -> Self {
        Failure::Trouble(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Trouble(error.to_string())
    }
}
