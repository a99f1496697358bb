//! What a process takes of the machine does not grow with the time that it works. A few seconds find what leaks fast;
//! docs/reliability.md has the long runs.

mod support;

fn soak(backend: &str, mode: &str) {
    let arguments = ["--backend", backend, "--mode", mode, "--minutes", "0.1"];
    support::must_hold("soak", &arguments);
}

#[test]
fn nothing_grows_beside_a_database() {
    soak("sqlite", "through");
}

#[test]
fn nothing_grows_beside_a_table() {
    soak("csv", "through");
}

#[test]
fn nothing_grows_in_maps_whose_store_follows() {
    soak("sqlite", "behind");
    soak("csv", "behind");
}

// Only Linux tells what a process takes.
#[cfg(target_os = "linux")]
#[test]
fn what_each_map_leaves_behind_is_found_out() {
    for leak in ["entries", "descriptor"] {
        support::must_find(leak, "soak", &["--minutes", "0.1"]);
    }
}
