//! What is read off while a contender works.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::store::Outcome;

/// What a trial has measured, by name.
pub type Figures = BTreeMap<String, f64>;

/// How long each call took.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Outcome<Self> {
        const MINUTE: u64 = 60_000_000_000;
        Ok(Latencies(Histogram::new_with_bounds(1, MINUTE, 3)?))
    }

    pub(crate) fn took(&mut self, time: Duration) {
        self.0
            .saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Latencies) -> Outcome<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// In microseconds, and calls a second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn figures(&self, elapsed: Duration) -> Figures {
        let micros = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Figures::from([
            (
                "per_second".to_string(),
                self.0.len() as f64 / elapsed.as_secs_f64(),
            ),
            ("mean_us".to_string(), self.0.mean() / 1000.0),
            ("p50_us".to_string(), micros(0.5)),
            ("p99_us".to_string(), micros(0.99)),
            ("p99.9_us".to_string(), micros(0.999)),
        ])
    }
}

/// Nanoseconds for each of `operations` since `start`.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn nanos_each(start: Instant, operations: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / operations as f64
}

/// Memory of this process in bytes, now and at most. Known on Linux only.
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn read() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kib * 1024.0)
        };
        Some(Memory {
            now: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }
}

/// What the files in a directory take on the disk, in bytes.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn disk_bytes(directory: &Path) -> Outcome<f64> {
    let mut total = 0.0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            total += disk_bytes(&entry.path())?;
        } else {
            #[cfg(unix)]
            let bytes = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
            #[cfg(not(unix))]
            let bytes = metadata.len();
            total += bytes as f64;
        }
    }
    Ok(total)
}
