//! A map on a full disk fails honestly, and goes on when there is room again.

// Loop mounts are Linux's.
#![cfg(target_os = "linux")]

mod support;

#[test]
fn a_map_goes_on_after_its_disk_was_full() {
    support::must_hold("diskfull", &["--rounds", "8"]);
}

#[test]
fn a_table_goes_on_after_its_disk_was_full() {
    support::must_hold("diskfull", &["--backend", "csv", "--rounds", "8"]);
}

#[test]
fn a_map_that_swallows_errors_is_found_out() {
    support::must_find("ack-failed", "diskfull", &["--rounds", "8"]);
}
