//! The examples are killed, and go on where they were.
//!
//! They are run as they are: `cargo test` builds them, but not if it is given the name of a test.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// An example at work. Dropping it kills it: SIGKILL, where there are signals.
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(example: &str, data: &Path) -> Self {
        let test = std::env::current_exe().expect("the path of this test");
        let folder = test.ancestors().nth(2).expect("the folder of the target");
        let program = folder.join("examples").join(example);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{example}.rs"));
        let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        assert!(
            time(&program) > time(&source),
            "{} is missing or older than its source; `cargo build --examples` makes it",
            program.display()
        );
        let mut child = Command::new(&program)
            .env("EXAMPLE_DATA", data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an example starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Running {
            child,
            stdin,
            stdout,
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it listens");
    }

    fn hear(&mut self) -> String {
        self.stdout.next().expect("it goes on").expect("text")
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    /// Lets it come to its end, and gives what it had left to say.
    fn finish(self) -> Vec<String> {
        let mut this = std::mem::ManuallyDrop::new(self);
        let lines = this.stdout.by_ref().map(|line| line.expect("text"));
        let lines = lines.collect();
        assert!(this.child.wait().expect("an end").success());
        lines
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_job_queue_does_each_job_once_however_often_it_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let mut interrupted = 0;
    for milliseconds in [0, 20, 60, 100, 150, 200] {
        let mut queue = Running::start("job_queue", data.path());
        let found = queue.hear();
        let count = found.split_whitespace().nth(2).unwrap();
        interrupted += count.parse::<u32>().unwrap();
        queue.expect("working");
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
    let mut queue = Running::start("job_queue", data.path());
    assert_ne!(queue.hear(), "0 jobs, 0 were interrupted");
    let said = queue.finish();
    assert_eq!(said[1], "the sum of 1 to 2000 is 2001000");
    assert!(
        interrupted > 0,
        "no job was being worked on when it was killed"
    );
}

#[test]
fn flags_stay_as_they_were_turned() {
    let data = tempfile::tempdir().unwrap();
    let mut flags = Running::start("feature_flags", data.path());
    flags.expect("dark-mode is off, beta is off");
    for state in ["on", "off", "on"] {
        flags.say(&format!("{state} dark-mode"));
        flags.expect(&format!("dark-mode is {state}"));
    }
    drop(flags);

    let mut flags = Running::start("feature_flags", data.path());
    flags.expect("dark-mode is on, beta is off");
    flags.say("on nonsense");
    flags.expect("type `on NAME` or `off NAME`; there are dark-mode and beta");
    flags.say("on beta");
    flags.expect("beta is on");
}

#[test]
fn a_limit_holds_over_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let mut limiter = Running::start("rate_limiter", data.path());
    limiter.expect("0 clients are known");
    limiter.say("ann 3");
    limiter.expect("ann: 3 of 3 allowed");
    limiter.say("bob 100");
    limiter.expect("bob: 5 of 100 allowed");
    drop(limiter);

    let mut limiter = Running::start("rate_limiter", data.path());
    limiter.expect("2 clients are known");
    limiter.say("bob");
    limiter.expect("bob: 0 of 1 allowed");
    limiter.say("ann 100");
    limiter.expect("ann: 2 of 100 allowed");
}

#[test]
fn answers_of_a_slow_service_are_asked_for_once() {
    let data = tempfile::tempdir().unwrap();
    let mut cache = Running::start("slow_cache", data.path());
    cache.expect("0 answers are known");
    cache.say("Paris Paris Paris Rome4");
    cache.expect(
        "Paris has 5 letters, Paris has 5 letters, Paris has 5 letters, Rome4 is not known to the service (asked the \
         service 2 times)",
    );
    cache.say("Paris Rome4");
    cache.expect(
        "Paris has 5 letters, Rome4 is not known to the service (asked the service 1 time)",
    );
    // In the middle of a call.
    cache.say("London");
    std::thread::sleep(Duration::from_millis(50));
    drop(cache);

    let mut cache = Running::start("slow_cache", data.path());
    cache.expect("1 answers are known");
    cache.say("Paris London");
    cache.expect("London has 6 letters, Paris has 5 letters (asked the service 1 time)");
}
