//! Running the `torture` binary, and what to do where it cannot run.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) const TORTURE: &str = env!("CARGO_BIN_EXE_torture");

/// The exit code of `torture` for a promise that was broken.
const VIOLATION: i32 = 1;
/// The exit code of `torture` for a machine that cannot run the proof.
const CANNOT_RUN: i32 = 3;

/// Runs a proof that must hold. Skips it where the machine lacks something.
pub(crate) fn must_hold(proof: &str, arguments: &[&str]) {
    let output = run(proof, arguments);
    if output.status.code() == Some(CANNOT_RUN) {
        skip(proof, String::from_utf8_lossy(&output.stderr).trim_end());
    } else {
        assert!(
            output.status.success(),
            "torture {proof}: {}",
            output.status
        );
    }
}

/// Runs a proof with a planted bug, which it must find. It is the proof that is tested here.
pub(crate) fn must_find(bug: &str, proof: &str, arguments: &[&str]) {
    let arguments = [arguments, &["--planted", bug]].concat();
    let output = run(proof, &arguments);
    if output.status.code() == Some(CANNOT_RUN) {
        skip(proof, String::from_utf8_lossy(&output.stderr).trim_end());
        return;
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(VIOLATION), "{bug} was not found");
    for kept in stderr
        .lines()
        .filter_map(|line| line.trim().strip_prefix("kept: "))
    {
        std::fs::remove_dir_all(kept).expect("a violation names the directory that it keeps");
    }
}

/// Says loudly, past the capture of the test runner, that something was not proved. In CI that is a failure: a proof
/// that was skipped must not look like one that held.
pub(crate) fn skip(what: &str, why: &str) {
    let notice = format!("SKIPPED {what}: {why}\n");
    let _ = std::io::stderr().write_all(notice.as_bytes());
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{notice}");
}

/// Runs another subcommand of the binary.
pub(crate) fn torture<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(TORTURE)
        .args(arguments)
        .output()
        .expect("torture runs")
}

/// A process that has a store open. Dropping it kills it.
pub(crate) struct Holder {
    child: Child,
    /// All lines that it said until it was done.
    pub(crate) said: Vec<String>,
}

impl Holder {
    /// Starts a worker that makes 20 calls and then stays, with the store open.
    pub(crate) fn start(path: &Path) -> Self {
        let mut child = Command::new(TORTURE)
            .args(["worker", "--ops", "20", "--path"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("torture runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let said = stdout
            .lines()
            .map(|line| line.expect("text"))
            .take_while(|line| line != "D")
            .collect();
        Holder { child, said }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(proof: &str, arguments: &[&str]) -> Output {
    let output = Command::new(TORTURE)
        .arg(proof)
        .args(arguments)
        .args(seed())
        .output()
        .expect("torture runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The seed of an earlier run, to have it again. Without one the binary takes a random one and prints it.
fn seed() -> Vec<String> {
    std::env::var("TORTURE_SEED").map_or_else(|_| Vec::new(), |seed| vec!["--seed".into(), seed])
}
