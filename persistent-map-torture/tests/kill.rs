//! What was acknowledged survives SIGKILL, of transactions all or nothing, and a store that follows memory is left without
//! holes. `TORTURE_SEED=<seed>` runs an earlier run again.

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

/// As many kills of one task, whose whole order is known, as of several.
fn behind(backend: &str) {
    for tasks in ["1", "8"] {
        let which = ["--mode", "behind", "--backend", backend];
        let dose = ["--kills", "25", "--tasks", tasks];
        support::must_hold("kill", &[which, dose].concat());
    }
}

#[test]
fn a_store_behind_its_map_is_left_without_holes_by_fifty_kills() {
    behind("sqlite");
}

#[test]
fn a_table_behind_its_map_is_left_without_holes_by_fifty_kills() {
    behind("csv");
}

#[test]
fn a_flush_that_answers_before_the_save_is_found_out() {
    let arguments = ["--mode", "behind", "--kills", "300", "--tasks", "8"];
    support::must_find("ack-early", "kill", &arguments);
}

#[test]
fn a_save_in_two_commits_is_found_out() {
    let arguments = ["--mode", "behind", "--kills", "100", "--tasks", "8"];
    support::must_find("split-commit", "kill", &arguments);
}

#[test]
fn a_transaction_in_two_commits_is_found_out() {
    let arguments = ["--kills", "100", "--tasks", "64"];
    support::must_find("split-commit", "kill", &arguments);
}

#[test]
fn a_table_whose_change_of_codec_is_killed_has_the_old_one_or_the_new_one() {
    support::must_hold("recode", &["--kills", "20"]);
}

#[test]
fn a_copy_that_was_killed_can_be_completed() {
    support::must_hold("recode", &["--by", "copy", "--kills", "5"]);
}

#[test]
fn a_change_of_codec_that_answers_before_the_commit_is_found_out() {
    support::must_find("ack-early", "recode", &["--kills", "50"]);
}
