//! No call waits for ever: a short dose of the situations in which maps have hung. `TORTURE_SEED=<seed>` runs an earlier
//! run again.

mod support;

fn waits(backend: &str, mode: &str) {
    let arguments = ["--backend", backend, "--mode", mode, "--seconds", "0.5"];
    support::must_hold("waits", &arguments);
}

#[test]
fn every_call_answers_in_memory() {
    waits("memory", "through");
}

#[test]
fn every_call_answers_beside_a_database() {
    waits("sqlite", "through");
    waits("sqlite", "behind");
}

#[test]
fn every_call_answers_beside_a_table() {
    waits("csv", "through");
    waits("csv", "behind");
}

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
