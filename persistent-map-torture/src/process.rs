//! Children: started, listened to, killed, never left behind.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::protocol::Line;

/// A child that takes so long hangs, and a hang breaks the promises too.
const PATIENCE: Duration = Duration::from_mins(1);

/// A command that runs another process of this binary.
pub(crate) fn myself() -> Result<Command, Failure> {
    Ok(Command::new(std::env::current_exe()?))
}

/// In a child that does not end by itself: ends it with its parent, whose death closes the child's standard input.
pub(crate) fn die_with_parent() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::abort();
    });
}

/// In a child: waits for SIGKILL, with everything open.
pub(crate) fn wait_to_be_killed() -> ! {
    loop {
        thread::park();
    }
}

/// A child that is listened to. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<Result<Line, String>>,
    said: Vec<Line>,
    stderr: Option<JoinHandle<String>>,
}

/// What a child has left.
pub(crate) struct Ended {
    pub(crate) said: Vec<Line>,
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Failure::Trouble(format!("{}: {error}", command.get_program().display()))
            })?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::Trouble("a child without its pipes".into()));
        };
        let (tell, lines) = mpsc::channel();
        // A thread, so that the pipe never fills up and holds the child back.
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut text = String::new();
            while stdout.read_line(&mut text).is_ok_and(|bytes| bytes > 0) {
                // A line without its end was being written when the child was killed: its call was not made yet.
                let Some(line) = text.strip_suffix('\n') else {
                    break;
                };
                if tell.send(line.parse()).is_err() {
                    break;
                }
                text.clear();
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Ok(Running {
            child,
            lines,
            said: Vec::new(),
            stderr: Some(stderr),
        })
    }

    /// Listens until the child says a line that is `wanted`; false if it ended without.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Line) -> bool) -> Result<bool, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let line = line.map_err(Failure::Trouble)?;
                    let found = wanted(&line);
                    self.said.push(line);
                    if found {
                        return Ok(true);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::Violation(format!(
                        "a child hangs; its last words: {:?}",
                        self.said.last()
                    )));
                }
            }
        }
    }

    /// Takes in what the child has said by now; how many lines that makes.
    #[cfg(target_os = "linux")]
    pub(crate) fn catch_up(&mut self) -> Result<usize, Failure> {
        while let Ok(line) = self.lines.try_recv() {
            self.said.push(line.map_err(Failure::Trouble)?);
        }
        Ok(self.said.len())
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool, Failure> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills the child: SIGKILL, where there are signals.
    pub(crate) fn kill(mut self) -> Result<Ended, Failure> {
        self.child.kill()?;
        self.end()
    }

    /// Lets the child come to its end.
    pub(crate) fn finish(mut self) -> Result<Ended, Failure> {
        self.end()
    }

    fn end(&mut self) -> Result<Ended, Failure> {
        self.wait_for(|_| false)?;
        let status = self.child.wait()?;
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok());
        Ok(Ended {
            said: std::mem::take(&mut self.said),
            status,
            stderr: stderr.unwrap_or_default(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// It lived until [`Running::kill`].
    #[cfg(unix)]
    pub(crate) fn was_killed(&self) -> bool {
        std::os::unix::process::ExitStatusExt::signal(&self.status) == Some(9)
    }

    /// It lived until [`Running::kill`], which is told by the exit code where there are no signals.
    #[cfg(not(unix))]
    pub(crate) fn was_killed(&self) -> bool {
        self.status.code() == Some(1)
    }

    /// It ended by itself with one line that says why: no panic, no abort, no silence. (A line before it may say what was
    /// not stored.) Asked by the proofs that fail the kernel, which are Linux's.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_clean_error(&self) -> bool {
        let lines = self.stderr.trim_end().lines();
        let mut why = lines.filter(|line| !line.starts_with("persistent-map: "));
        self.status.code() == Some(Failure::TROUBLE.into())
            && why.next().is_some_and(|line| line.starts_with("error: "))
            && why.next().is_none()
    }

    pub(crate) fn said(&self, line: &Line) -> bool {
        self.said.contains(line)
    }
}
