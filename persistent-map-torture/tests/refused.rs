//! A process that may not write gets one clear line, and changes nothing.

// setpriv is Linux's; root itself is not refused by permissions.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::Holder;
use tempfile::TempDir;

/// A database, and a table.
const FILES: [&str; 2] = ["app.db", "app.csv"];

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

    /// A directory with a store that was closed, of the kind that its name says.
    fn with_store(&self, name: &str, file: &str) -> PathBuf {
        let path = self.directory(&format!("{name}-{file}")).join(file);
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

    /// Opens `path` as nobody.
    fn refuses(&self, path: &Path, words: &[&str]) {
        let mut dump = as_nobody(&self.torture);
        refuses(dump.arg("dump").arg(path), path, words);
    }
}

/// Runs what opens `path`, which must fail with one line that has all of `words`, and leave all files as they are, but for an
/// empty lock file.
fn refuses(dump: &mut Command, path: &Path, words: &[&str]) {
    let directory = path.parent().unwrap();
    let before = contents(directory);
    let output = dump.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
    assert_eq!(contents(directory), before, "{stderr}");
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(program);
    command
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .filter(|(path, contents)| {
            path.extension().is_none_or(|end| end != "lock") || !contents.is_empty()
        })
        .collect()
}

#[test]
fn in_a_directory_that_may_not_be_written() {
    let Some(stage) = Stage::set() else { return };
    for file in FILES {
        let path = stage.with_store("read-only", file);
        stage.refuses(
            &path,
            &[file, "Permission denied", "belongs to user 0 (root)"],
        );
    }
}

#[test]
fn a_new_store_in_a_directory_that_may_not_be_written() {
    let Some(stage) = Stage::set() else { return };
    let directory = stage.directory("empty");
    for file in FILES {
        stage.refuses(
            &directory.join(file),
            &[file, "Permission denied", "writable"],
        );
    }
}

#[test]
fn a_file_that_may_not_be_written_or_not_even_read() {
    let Some(stage) = Stage::set() else { return };
    for file in FILES {
        for mode in [0o444, 0o600] {
            let path = stage.with_store(&format!("{mode:o}"), file);
            set_mode(path.parent().unwrap(), 0o777);
            set_mode(&path, mode);
            fs::remove_file(lock_of(&path)).unwrap();
            stage.refuses(&path, &[file, "Permission denied"]);
        }
    }
}

#[test]
fn a_killed_store_in_a_directory_that_may_not_be_written() {
    let Some(stage) = Stage::set() else { return };
    for file in FILES {
        let path = stage.directory(&format!("killed-{file}")).join(file);
        drop(Holder::start(&path));
        stage.refuses(
            &path,
            &[file, "Permission denied", "belongs to user 0 (root)"],
        );
    }
}

/// Root itself is refused by this one, and so it needs nobody.
#[test]
fn a_file_or_directory_that_is_immutable() {
    let Some(stage) = Stage::set() else { return };
    for file in FILES {
        for of_directory in [false, true] {
            let path = stage.with_store(&format!("immutable-{of_directory}"), file);
            fs::remove_file(lock_of(&path)).unwrap();
            let directory = path.parent().unwrap();
            let target = if of_directory { directory } else { &path };
            let Some(_immutable) = Immutable::make(target) else {
                return;
            };
            let mut dump = Command::new(&stage.torture);
            dump.arg("dump").arg(&path);
            refuses(&mut dump, &path, &[file, "Operation not permitted"]);
        }
    }
}

/// A file with the attribute `i`, until this is dropped.
struct Immutable(PathBuf);

impl Immutable {
    /// None where the file system has no such thing.
    fn make(path: &Path) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(path).output();
        match made {
            Ok(output) if output.status.success() => Some(Immutable(path.to_path_buf())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                support::skip("immutable files", why.trim_end());
                None
            }
            Err(error) => {
                support::skip("immutable files", &format!("chattr: {error}"));
                None
            }
        }
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}
