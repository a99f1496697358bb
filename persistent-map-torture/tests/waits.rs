//! No call waits for ever: a short dose of the situations in which maps have hung, each with the stores that it is about.
//! `TORTURE_SEED=<seed>` runs an earlier run again.

mod support;

fn waits(backend: &str, mode: &str, cases: &[&str]) {
    let mut arguments = vec!["--backend", backend, "--mode", mode, "--seconds", "0.2"];
    arguments.extend(cases.iter().flat_map(|case| ["--case", *case]));
    support::must_hold("waits", &arguments);
}

/// So that the test does not wait for as long as a caller may.
fn must_find(bug: &str, arguments: &[&str]) {
    support::must_find(bug, "waits", &[arguments, &["--answer", "4"]].concat());
}

#[test]
fn every_call_answers_in_memory() {
    let cases = [
        "readers",
        "nested",
        "initialisers",
        "closures",
        "dropped-runtime",
    ];
    waits("memory", "through", &cases);
}

#[test]
fn every_call_answers_beside_a_database() {
    waits("sqlite", "through", &["readers", "small-pool", "closures"]);
    waits("sqlite", "behind", &["snapshots", "closures"]);
}

#[test]
fn every_call_answers_beside_a_table() {
    waits("csv", "through", &["small-pool", "dropped-runtime"]);
    waits("csv", "behind", &["nested", "second-runtime"]);
}

#[test]
fn a_store_that_does_not_answer_is_found_out() {
    must_find("silent", &["--case", "second-runtime"]);
}

#[test]
fn a_store_that_needs_the_pool_of_tokio_is_found_out() {
    must_find("pool", &["--case", "small-pool"]);
}

#[test]
fn writes_that_give_no_turn_are_found_out() {
    must_find("unconstrained", &["--case", "busy", "--backend", "memory"]);
}
