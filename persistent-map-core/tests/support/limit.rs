//! A test that waits for ever must fail, and say where it stood.

use std::io::Write as _;
use std::panic::Location;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Far more than any test takes on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

/// While it lives, the test that made it has this long to come to its end; after that the test program ends with an error.
/// For what no `timeout` can end: a thread that waits.
pub struct Limit {
    stood: Arc<Mutex<String>>,
    _running: Sender<()>,
}

#[track_caller]
pub fn limit() -> Limit {
    limit_of(LIMIT)
}

#[track_caller]
pub fn limit_of(limit: Duration) -> Limit {
    let began = format!("its beginning, {}", Location::caller());
    let stood = Arc::new(Mutex::new(began));
    let (running, ended) = channel();
    let test = thread::current().name().unwrap_or("a test").to_string();
    let watch = {
        let stood = Arc::clone(&stood);
        move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let stood = stood.lock().unwrap();
                // Past what captures the output of tests that have not ended.
                let _ = writeln!(
                    std::io::stderr(),
                    "test {test} has not ended within {limit:?}; it stood at {stood}"
                );
                std::process::exit(101);
            }
        }
    };
    thread::spawn(watch);
    Limit {
        stood,
        _running: running,
    }
}

impl Limit {
    /// Notes where the test is now.
    #[track_caller]
    pub fn at(&self, step: &str) {
        *self.stood.lock().unwrap() = format!("{step}, {}", Location::caller());
    }
}
