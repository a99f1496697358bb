//! An error of a system call never loses what was acknowledged, and never brings back what was not applied.

// strace is Linux's.
#![cfg(target_os = "linux")]

mod support;

#[test]
fn a_store_that_could_not_be_made_is_no_half_store() {
    support::must_hold("faults", &["--scenario", "create", "--points", "25"]);
}

#[test]
fn errors_while_writing_tell_the_truth() {
    support::must_hold("faults", &["--scenario", "write", "--points", "15"]);
}

#[test]
fn a_killed_store_is_recovered_and_closed_under_errors() {
    support::must_hold(
        "faults",
        &["--scenario", "recover-and-close", "--points", "15"],
    );
}

#[test]
fn a_map_that_swallows_errors_is_found_out() {
    support::must_find(
        "ack-failed",
        "faults",
        &["--scenario", "write", "--points", "3"],
    );
}

#[test]
fn a_map_whose_failed_commits_come_back_is_found_out() {
    support::must_find(
        "deny-stored",
        "faults",
        &["--scenario", "write", "--points", "1"],
    );
}

#[test]
fn errors_while_a_table_is_written_tell_the_truth() {
    for scenario in ["create", "write", "recover-and-close"] {
        let which = ["--backend", "csv", "--scenario", scenario];
        support::must_hold("faults", &[&which[..], &["--points", "10"]].concat());
    }
}

#[test]
fn a_table_whose_failed_commits_come_back_is_found_out() {
    let which = ["--backend", "csv", "--scenario", "write"];
    support::must_find(
        "deny-stored",
        "faults",
        &[&which[..], &["--points", "1"]].concat(),
    );
}
