//! Each error of the file system comes with the cure that fits it, provoked for real.

// Mounts, attributes and the numbers of errors are Linux's.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A database, and a table.
const FILES: [&str; 2] = ["app.db", "app.csv"];

/// Opens `path` with a command that ends with `torture dump`, which must fail with one line that has all of `words`.
fn fails(command: &mut Command, path: &Path, words: &[&str]) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}: {stderr}",
        path.display()
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{}: no {word:?} in: {stderr}",
            path.display()
        );
    }
}

fn dump(path: &Path) -> Command {
    let mut command = Command::new(support::TORTURE);
    command.arg("dump").arg(path);
    command
}

/// A store that was closed.
fn store(directory: &Path, file: &str) -> PathBuf {
    let path = directory.join(file);
    let arguments = ["worker", "--ops", "5", "--close", "--path"];
    let mut worker = Command::new(support::TORTURE);
    assert!(
        worker
            .args(arguments)
            .arg(&path)
            .output()
            .unwrap()
            .status
            .success()
    );
    path
}

#[test]
fn a_name_that_is_too_long_is_to_be_shorter() {
    let dir = tempfile::tempdir().unwrap();
    for ending in ["db", "csv"] {
        let path = dir.path().join(format!("{}.{ending}", "n".repeat(300)));
        fails(&mut dump(&path), &path, &["shorter"]);
    }
}

#[test]
fn links_in_a_circle_are_to_be_corrected() {
    let dir = tempfile::tempdir().unwrap();
    for file in FILES {
        let path = dir.path().join(file);
        symlink(&path, &path).unwrap();
        fails(&mut dump(&path), &path, &["Correct the links"]);
    }
}

#[test]
fn a_file_on_the_way_is_told_from_a_directory_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for file in FILES {
        let path = dir.path().join("file").join(file);
        fails(&mut dump(&path), &path, &["something on the way is a file"]);
        let path = dir.path().join("missing").join(file);
        fails(&mut dump(&path), &path, &["Make the directory first"]);
    }
}

/// At some limit the store's own files are the first that cannot be opened; below it the process does not start.
#[test]
fn a_process_with_too_many_open_files_is_told_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    for file in FILES {
        let path = store(dir.path(), file);
        let mut said = Vec::new();
        for limit in 4..24 {
            let output = Command::new("sh")
                .args(["-c", "ulimit -n \"$1\"; exec \"$2\" dump \"$3\"", "sh"])
                .arg(limit.to_string())
                .arg(support::TORTURE)
                .arg(&path)
                .output()
                .unwrap();
            said.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let told = said
            .iter()
            .filter(|text| text.contains("raise its limit (`ulimit -n`)"));
        assert_ne!(told.count(), 0, "{file}: {said:#?}");
    }
}

/// A directory on a read-only mount, in a namespace of its own, which takes root.
#[test]
fn a_read_only_file_system_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for file in FILES {
        let path = store(dir.path(), file);
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; exec \"$2\" dump \"$3\"";
        command.args(["-m", "sh", "-c", script, "sh"]);
        command.arg(dir.path()).arg(support::TORTURE).arg(&path);
        let probe = command.output();
        if !probe.is_ok_and(|output| output.status.code() == Some(2)) {
            support::skip("cures", "needs root, unshare and bind mounts");
            return;
        }
        fails(&mut command, &path, &["is mounted read-only"]);
    }
}
