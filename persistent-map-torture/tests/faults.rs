//! An error of a system call never loses what was acknowledged, and never brings back what was not applied.

// strace is Linux's.
#![cfg(target_os = "linux")]

mod support;

#[test]
fn errors_of_system_calls_tell_the_truth() {
    support::must_hold("faults", &["--points", "12"]);
}

#[test]
fn a_map_that_swallows_errors_is_found_out() {
    support::must_find("ack-failed", "faults", &["--points", "3"]);
}

#[test]
fn a_map_whose_failed_commits_come_back_is_found_out() {
    support::must_find("deny-stored", "faults", &["--points", "1"]);
}
