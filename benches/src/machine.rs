//! What figures depend on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// Processor, memory, system, file system, compiler; as far as this system tells.
pub(crate) fn describe(directory: &Path) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|kib| kib.trim_end_matches(" kB").parse().ok())
        .map(|kib: u64| format!("{} GiB", kib >> 20))
        .unwrap_or_default();
    let parts = [
        format!("{cores} cores of {processor}"),
        memory,
        said("uname", &["-sr"]),
        said(
            "stat",
            &["-f", "-c", "%T", &directory.display().to_string()],
        ),
        said("rustc", &["--version"]),
    ];
    let known: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    known.join(", ")
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
