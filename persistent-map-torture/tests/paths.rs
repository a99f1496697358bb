//! Paths of all kinds, for databases and tables: what is no file is refused within seconds, by one line that says so, and
//! an odd name is a name.

// Links, pipes and sockets are made by calls that other systems do not have.
#![cfg(unix)]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const FILES: [&str; 2] = ["app.db", "app.csv"];
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens `path`, and returns what stands on standard error.
fn refused(path: &Path) -> String {
    let before = names(path);
    let mut dump = Command::new(support::TORTURE)
        .arg("dump")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while dump.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            dump.kill().unwrap();
            panic!("{} hangs", path.display());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let output = dump.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}: {stderr}",
        path.display()
    );
    assert_eq!(names(path), before, "files were made or removed: {stderr}");
    stderr
}

fn names(path: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(path.parent().unwrap()).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn what_is_no_file_is_refused() {
    type Make = fn(&Path);
    let kinds: [(&str, Make, &str); 8] = [
        (
            "directory",
            |path| fs::create_dir(path).unwrap(),
            "it is a directory",
        ),
        ("pipe", make_pipe, "not a regular file"),
        (
            "socket",
            |path| drop(UnixListener::bind(path).unwrap()),
            "not a regular file",
        ),
        (
            "device",
            |path| symlink("/dev/zero", path).unwrap(),
            "not a regular file",
        ),
        (
            "dangling",
            |path| symlink("nowhere", path).unwrap(),
            "a link to a file that does not exist",
        ),
        (
            "loop",
            |path| symlink(path, path).unwrap(),
            "the path cannot be resolved",
        ),
        (
            "alone",
            |path| fs::remove_dir(path.parent().unwrap()).unwrap(),
            "Make the directory first",
        ),
        (
            "below a file",
            |path| {
                let directory = path.parent().unwrap();
                fs::remove_dir(directory).unwrap();
                fs::write(directory, "").unwrap();
            },
            "Not a directory",
        ),
    ];
    for file in FILES {
        for (name, make, words) in kinds {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("home").join(file);
            fs::create_dir(path.parent().unwrap()).unwrap();
            make(&path);
            let error = refused(&path);
            assert!(error.contains(words), "{name}: {error}");
            assert_eq!(error.lines().count(), 1, "{name}: {error}");
        }
    }
}

/// Something else has the name of a file that belongs to a store.
#[test]
fn what_is_no_file_beside_a_store_is_refused() {
    for (file, suffixes) in [
        ("app.db", [".lock", "-wal"]),
        ("app.csv", [".lock", ".journal"]),
    ] {
        for suffix in suffixes {
            for make in [make_pipe, |path: &Path| fs::create_dir(path).unwrap()] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join(file);
                assert!(work(&path));
                let other = beside(&path, suffix);
                if suffix == ".lock" {
                    fs::remove_file(&other).unwrap();
                }
                make(&other);
                let before = fs::read(&path).unwrap();
                let error = refused(&path);
                assert!(error.contains(file), "{suffix}: {error}");
                assert_eq!(fs::read(&path).unwrap(), before, "{suffix}: {error}");
                assert!(other.exists(), "{suffix}: {error}");
            }
        }
    }
}

#[test]
fn an_odd_name_is_a_name() {
    for file in FILES {
        for odd in [
            "a b",
            " ",
            "-x",
            "'\"",
            "100%?mode=memory#b&c",
            "a\nb",
            "\u{1f980} ünï",
            "..",
            "$(true)",
            "a\\b",
            &"x".repeat(200),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(format!("{odd}{file}"));
            assert!(work(&path), "{odd:?}");
            let dump = support::torture(["dump".as_ref(), path.as_os_str()]);
            assert!(dump.status.success(), "{odd:?}");
            assert!(dump.stdout.starts_with(b"O\nS "), "{odd:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(300) + file);
        let error = refused(&long);
        assert!(error.contains("Give it a shorter name"), "{error}");
    }
}

/// SQLite takes UTF-8 only, and says so; a table has no such limit.
#[test]
fn a_name_that_is_not_utf_8() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join(OsStr::from_bytes(b"\xff.db"));
    assert!(refused(&database).contains("not valid UTF-8"));
    let table = dir.path().join(OsStr::from_bytes(b"\xff.csv"));
    assert!(work(&table));
    let dump = support::torture(["dump".as_ref(), table.as_os_str()]);
    assert!(dump.status.success() && dump.stdout.starts_with(b"O\nS "));
}

/// Makes a store and writes to it.
fn work(path: &Path) -> bool {
    let arguments = ["worker", "--ops", "5", "--close", "--path"].map(OsStr::new);
    let arguments = arguments.into_iter().chain([path.as_os_str()]);
    support::torture(arguments).status.success()
}
