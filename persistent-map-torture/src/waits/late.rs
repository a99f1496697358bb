//! Where a process stands whose call is late: what the map says of itself, and what its threads do.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A map that hangs may hang this question, too.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lines to add to what is said of a call that is late.
pub(super) fn whereabouts(describe: Option<Box<dyn Fn() -> String + Send>>) -> String {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(describe.map(|describe| describe()));
    });
    let stats = match told.recv_timeout(PATIENCE) {
        Ok(Some(stats)) => stats,
        Ok(None) => "no map is open".to_string(),
        Err(_) => "does not answer, either".to_string(),
    };
    format!("\n  its stats: {stats}\n  its threads: {}", threads())
}

/// How many threads of which name do what, as Linux tells it.
fn threads() -> String {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return "not to be told on this system".to_string();
    };
    let mut counts = BTreeMap::new();
    for task in tasks.flatten() {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = read("stat");
        let state = status
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        let name = read("comm").trim().to_string();
        *counts.entry((name, state.unwrap_or('?'))).or_insert(0_u32) += 1;
    }
    let said = counts
        .iter()
        .map(|((name, state), count)| format!("{count} {name} ({state})"));
    said.collect::<Vec<_>>().join(", ")
}
