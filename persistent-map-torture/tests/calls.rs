//! Short doses of what needs no process to kill: dropped calls, and histories. `TORTURE_SEED=<seed>` runs an earlier run
//! again.

mod support;

#[test]
fn no_dropped_call_is_done_in_half_or_wedges_a_map() {
    support::must_hold("cancel", &["--drops", "40000"]);
}

#[test]
fn one_order_explains_each_history() {
    for (store, histories) in [("pretended", "150"), ("sqlite", "20"), ("csv", "20")] {
        support::must_hold("linear", &["--store", store, "--histories", histories]);
    }
}
