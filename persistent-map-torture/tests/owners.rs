//! One owner, whatever comes to its files: a short dose of all harms on all backends. docs/reliability.md has the long runs.

#![cfg(target_os = "linux")] // It needs links, mounts and namespaces.

mod support;

#[test]
fn one_owner_acknowledges_whatever_comes_to_the_files() {
    // Fourteen harms, three backends.
    support::must_hold("owners", &["--rounds", "42"]);
}

#[test]
fn an_owner_who_acknowledges_what_failed_is_found_out() {
    for backend in ["csv", "sqlite", "sqlite-shared"] {
        let arguments = ["--harm", "lock", "--rounds", "10", "--backend", backend];
        support::must_find("ack-failed", "owners", &arguments);
    }
}
