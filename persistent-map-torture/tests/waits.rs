//! No call waits for ever: bugs that make one wait are found out. `TORTURE_SEED=<seed>` runs an earlier
//! run again.

mod support;

#[test]
fn a_store_that_does_not_answer_is_found_out() {
    support::must_find("silent", "waits", &["--case", "second-runtime"]);
}

#[test]
fn a_store_that_needs_the_pool_of_tokio_is_found_out() {
    support::must_find("pool", "waits", &["--case", "small-pool"]);
}

#[test]
fn writes_that_give_no_turn_are_found_out() {
    let arguments = ["--case", "busy", "--backend", "memory"];
    support::must_find("unconstrained", "waits", &arguments);
}
