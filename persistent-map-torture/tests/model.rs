//! A map answers what a `HashMap` would, whatever its store does, and after an error what the error says.
//! `TORTURE_SEED=<seed>` runs an earlier run again.

mod support;

#[test]
fn a_map_is_a_hash_map_that_is_opened_again() {
    support::must_hold("model", &["--cases", "250"]);
}

#[test]
fn each_write_may_fail_in_each_way() {
    for (store, cases) in [("pretended", "20"), ("one-at-a-time", "20"), ("csv", "3")] {
        let arguments = ["--every-fault", "--store", store, "--cases", cases];
        support::must_hold("model", &arguments);
    }
}

#[test]
fn a_store_that_keeps_half_of_what_has_failed_is_found_out() {
    let arguments = ["--store", "pretended", "--cases", "500"];
    support::must_find("split-commit", "model", &arguments);
}
