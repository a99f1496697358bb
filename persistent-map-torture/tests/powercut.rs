//! What was acknowledged, flushed or read survives a power cut. `TORTURE_SEED=<seed>` runs an earlier run again.

// Loop mounts are Linux's.
#![cfg(target_os = "linux")]

mod support;

/// Fifteen cuts of one kind of store on each file system.
fn must_hold(backend: &str, more: &[&str]) {
    for file_system in ["ext4", "xfs"] {
        let dose = ["--fs", file_system, "--cuts", "15", "--backend", backend];
        support::must_hold("powercut", &[&dose, more].concat());
    }
}

/// On both file systems: a bug is found in a dose that the store without it survives.
fn must_find(bug: &str, more: &[&str]) {
    for file_system in ["ext4", "xfs"] {
        let dose = ["--fs", file_system, "--cuts", "100"];
        support::must_find(bug, "powercut", &[&dose, more].concat());
    }
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    must_hold("sqlite", &[]);
}

#[test]
fn acknowledged_writes_to_a_table_survive_power_cuts() {
    must_hold("csv", &[]);
}

#[test]
fn a_store_behind_its_map_is_left_without_holes_by_power_cuts() {
    must_hold("sqlite", &["--mode", "behind", "--tasks", "8"]);
}

#[test]
fn a_table_behind_its_map_is_left_without_holes_by_power_cuts() {
    must_hold("csv", &["--mode", "behind", "--tasks", "8"]);
}

/// Without a sync for each commit the latest writes may go, in order, but not those before a flush.
#[test]
fn stores_that_do_not_sync_each_commit_are_left_without_holes() {
    let more = ["--mode", "behind", "--tasks", "8", "--planted", "unsynced"];
    must_hold("sqlite", &more);
    must_hold("csv", &more);
}

#[test]
fn a_store_that_does_not_sync_what_it_acknowledges_is_found_out() {
    must_find("unsynced", &[]);
}

#[test]
fn a_table_that_does_not_sync_what_it_acknowledges_is_found_out() {
    must_find("unsynced", &["--backend", "csv"]);
}

#[test]
fn a_flush_that_answers_before_the_save_is_found_out() {
    must_find("ack-early", &["--mode", "behind", "--tasks", "8"]);
}
