//! What was acknowledged survives SIGKILL. `TORTURE_SEED=<seed>` runs an earlier run again.

mod support;

#[test]
fn acknowledged_writes_survive_a_hundred_kills() {
    support::must_hold("kill", &["--kills", "100", "--tasks", "64"]);
}

#[test]
fn acknowledged_writes_to_a_table_survive_a_hundred_kills() {
    support::must_hold(
        "kill",
        &["--backend", "csv", "--kills", "100", "--tasks", "64"],
    );
}

#[test]
fn one_task_at_a_time_survives_kills_too() {
    support::must_hold("kill", &["--kills", "30", "--tasks", "1"]);
}

#[test]
fn a_map_that_acknowledges_before_the_commit_is_found_out() {
    support::must_find("ack-early", "kill", &["--kills", "100", "--tasks", "64"]);
}
