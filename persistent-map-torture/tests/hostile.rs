//! Short doses of files that are damaged or crafted, and paths of all kinds. `TORTURE_SEED=<seed>` runs an earlier run again.

mod support;

#[test]
fn a_damaged_store_is_refused_or_right() {
    let mut arguments = vec!["--corruptions", "2000"];
    // A disk that is asked to keep each write would take most of the time.
    if std::path::Path::new("/dev/shm").is_dir() {
        arguments.extend(["--dir", "/dev/shm"]);
    }
    support::must_hold("hostile", &arguments);
}
