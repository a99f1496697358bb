//! A process that may not write gets one clear line, and changes nothing.

// setpriv is Linux's; root itself is not refused by permissions.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::Holder;
use tempfile::TempDir;

/// A directory of its own for each case, and a copy of the binary that everybody may run.
struct Stage {
    dir: TempDir,
    torture: PathBuf,
}

impl Stage {
    /// None where this process cannot become another user.
    fn set() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let torture = dir.path().join("torture");
        fs::copy(support::TORTURE, &torture).unwrap();
        let stage = Stage { dir, torture };
        let probe = as_nobody(&stage.torture).arg("--help").output();
        let why = match &probe {
            Ok(output) if output.status.success() => return Some(stage),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        support::skip(
            "refused",
            &format!("needs root and setpriv: {}", why.trim_end()),
        );
        None
    }

    /// A directory with a store that was closed.
    fn with_store(&self, name: &str) -> PathBuf {
        let path = self.directory(name).join("app.db");
        let worker = support::torture([
            "worker".as_ref(),
            "--ops".as_ref(),
            "20".as_ref(),
            "--close".as_ref(),
            "--path".as_ref(),
            path.as_os_str(),
        ]);
        assert!(worker.status.success());
        path
    }

    fn directory(&self, name: &str) -> PathBuf {
        let directory = self.dir.path().join(name);
        fs::create_dir(&directory).unwrap();
        set_mode(&directory, 0o755);
        directory
    }

    /// Opens `path` as nobody, which must fail with one line that has all of `words`, and leave all files as they are.
    fn refuses(&self, path: &Path, words: &[&str]) {
        let directory = path.parent().unwrap();
        let before = contents(directory);
        let output: Output = as_nobody(&self.torture)
            .arg("dump")
            .arg(path)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in: {stderr}");
        }
        assert_eq!(contents(directory), before, "{stderr}");
    }
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(program);
    command
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn in_a_directory_that_may_not_be_written() {
    let Some(stage) = Stage::set() else { return };
    let path = stage.with_store("read-only");
    stage.refuses(&path, &["app.db", "Permission denied", "writable"]);
}

#[test]
fn a_new_store_in_a_directory_that_may_not_be_written() {
    let Some(stage) = Stage::set() else { return };
    let path = stage.directory("empty").join("app.db");
    stage.refuses(&path, &["app.db", "Permission denied", "writable"]);
}

#[test]
fn a_file_that_may_be_read_but_not_written() {
    let Some(stage) = Stage::set() else { return };
    let path = stage.with_store("read-only-file");
    set_mode(path.parent().unwrap(), 0o777);
    set_mode(&path, 0o444);
    fs::remove_file(path.with_extension("db.lock")).unwrap();
    stage.refuses(&path, &["app.db", "Permission denied"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    let Some(stage) = Stage::set() else { return };
    let path = stage.with_store("secret");
    set_mode(path.parent().unwrap(), 0o777);
    set_mode(&path, 0o600);
    fs::remove_file(path.with_extension("db.lock")).unwrap();
    stage.refuses(&path, &["app.db", "Permission denied"]);
}

#[test]
fn a_killed_store_in_a_directory_that_may_not_be_written() {
    let Some(stage) = Stage::set() else { return };
    let path = stage.directory("killed").join("app.db");
    drop(Holder::start(&path));
    stage.refuses(&path, &["app.db", "Permission denied", "writable"]);
}
