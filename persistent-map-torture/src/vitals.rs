//! What a process and its store take of the machine, sampled, and whether it grows.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use persistent_map_core::Stats;

/// What is looked at, beside what the kernel says of the process.
const OF_THE_MAP: [Kind; 3] = [Kind::Log, Kind::Store, Kind::Queue];
#[cfg(target_os = "linux")]
const OF_THE_PROCESS: [Kind; 3] = [Kind::Memory, Kind::Descriptors, Kind::Threads];
/// Other systems do not tell in files.
#[cfg(not(target_os = "linux"))]
const OF_THE_PROCESS: [Kind; 0] = [];

/// One part in so many of a phase is warming up.
const WARM_UP: usize = 5;
/// How much more than at first is no growth, beside what each kind may have to spare.
const TOLERANCE: f64 = 1.05;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Descriptors,
    Threads,
    Log,
    Store,
    Queue,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Memory => "resident memory (MiB)",
            Kind::Descriptors => "open files",
            Kind::Threads => "threads",
            Kind::Log => "log beside the store (MiB)",
            Kind::Store => "store (MiB)",
            Kind::Queue => "entries that wait to be stored",
        }
    }

    /// What comes and goes without being growth: the allocator keeps pages, for some seconds more and more; a journal grows
    /// to the size of its table and a write-ahead log to 4 MiB before they are merged; threads for blocking work end when
    /// there was none for a while. `None` if it may be as much more as it likes: how many entries wait says how fast the
    /// disk is just then.
    fn to_spare(self) -> Option<f64> {
        match self {
            Kind::Memory => Some(16.0),
            Kind::Log => Some(8.0),
            Kind::Threads | Kind::Store => Some(2.0),
            Kind::Descriptors => Some(1.0),
            Kind::Queue => None,
        }
    }
}

/// One figure over time.
pub(crate) struct Series {
    pub(crate) kind: Kind,
    /// By sample, as the times are.
    pub(crate) values: Vec<f64>,
}

pub(crate) struct Vitals {
    started: Instant,
    /// Seconds since the start, by sample.
    pub(crate) times: Vec<f64>,
    pub(crate) series: Vec<Series>,
    /// The samples at which phases begin. Each must not grow by itself.
    pub(crate) phases: Vec<(usize, &'static str)>,
}

impl Vitals {
    pub(crate) fn new() -> Self {
        let kinds = OF_THE_PROCESS.into_iter().chain(OF_THE_MAP);
        Vitals {
            started: Instant::now(),
            times: Vec::new(),
            series: kinds
                .map(|kind| Series {
                    kind,
                    values: Vec::new(),
                })
                .collect(),
            phases: Vec::new(),
        }
    }

    pub(crate) fn begin(&mut self, phase: &'static str) {
        self.phases.push((self.times.len(), phase));
    }

    /// Takes a sample. A file that is not there takes no room.
    pub(crate) fn sample(&mut self, store: &Path, log: &Path, stats: &Stats) -> io::Result<()> {
        let size = |path: &Path| mebibytes(fs::metadata(path).map_or(0, |file| file.len()));
        self.times.push(self.started.elapsed().as_secs_f64());
        for series in &mut self.series {
            series.values.push(match series.kind {
                Kind::Memory => mebibytes(1024 * status("VmRSS:")?),
                Kind::Descriptors => {
                    // Reading the directory takes one.
                    number(fs::read_dir("/proc/self/fd")?.count() as u64 - 1)
                }
                Kind::Threads => number(status("Threads:")?),
                Kind::Log => size(log),
                Kind::Store => size(store),
                Kind::Queue => number(waiting(stats) as u64),
            });
        }
        Ok(())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What has grown in which phase, for people to read.
    pub(crate) fn growth(&self) -> Vec<String> {
        let ends = self.phases.iter().skip(1).map(|(begin, _)| *begin);
        let ends: Vec<usize> = ends.chain([self.times.len()]).collect();
        let mut found = Vec::new();
        for ((begin, phase), end) in self.phases.iter().zip(ends) {
            for Series { kind, values } in &self.series {
                if let Some(to_spare) = kind.to_spare()
                    && let Some((first, last)) = first_and_last(&values[*begin..end])
                    && last > first * TOLERANCE + to_spare
                {
                    found.push(format!(
                        "{}: {first:.1}, then {last:.1}, {phase}",
                        kind.name()
                    ));
                }
            }
        }
        found
    }

    /// The medians of all samples.
    pub(crate) fn summary(&self) -> String {
        let figures = self.series.iter().map(|Series { kind, values }| {
            let median = median(values).unwrap_or_default();
            format!("{median:.1} {}", kind.name())
        });
        figures.collect::<Vec<_>>().join(", ")
    }
}

/// Entries that are accepted and not stored.
pub(crate) fn waiting(stats: &Stats) -> usize {
    stats.pending + stats.unsaved
}

/// The medians of the first and the last third of what comes after warming up. A median does not mind a sawtooth, as a
/// journal is one, nor a sample that was taken at a bad moment.
fn first_and_last(values: &[f64]) -> Option<(f64, f64)> {
    let warm = &values[values.len() / WARM_UP..];
    let third = warm.len() / 3;
    Some((
        median(&warm[..third])?,
        median(&warm[warm.len() - third..])?,
    ))
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A figure that the kernel tells of this process.
fn status(name: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/self/status says no {name} number")))
}

fn mebibytes(bytes: u64) -> f64 {
    number(bytes / 1024) / 1024.0
}

/// Exact up to four thousand millions.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vitals of a phase in which one figure goes like this.
    fn phase(kind: Kind, values: Vec<f64>) -> Vitals {
        Vitals {
            times: vec![0.0; values.len()],
            series: vec![Series { kind, values }],
            phases: vec![(0, "all the time")],
            ..Vitals::new()
        }
    }

    #[test]
    fn what_stays_or_comes_and_goes_is_no_growth() {
        let level = vec![40.0; 200];
        let sawtooth = (0..200).map(|at| f64::from(at % 17) * 2.0).collect();
        let warming_up = (0..200).map(|at| f64::from(at.min(40))).collect();
        let outlier = (0..200)
            .map(|at| if at == 190 { 9e9 } else { 1.0 })
            .collect();
        for values in [level, sawtooth, warming_up, outlier] {
            assert_eq!(phase(Kind::Memory, values).growth(), [""; 0]);
        }
    }

    #[test]
    fn a_slow_leak_is_growth_in_the_phase_that_has_it() {
        let leak = (0..200).map(|at| 40.0 + f64::from(at) / 4.0).collect();
        assert_eq!(phase(Kind::Memory, leak).growth().len(), 1);
        // As a step from one phase to the next it is none.
        let mut steps = phase(
            Kind::Descriptors,
            [vec![10.0; 100], vec![20.0; 100]].concat(),
        );
        steps.phases = vec![(0, "closing"), (100, "staying open")];
        assert_eq!(steps.growth(), [""; 0]);
        let Series { values, .. } = &mut steps.series[0];
        values[150..].fill(23.0);
        let grown = steps.growth();
        assert!(grown[0].ends_with("staying open"), "{grown:?}");
    }

    #[test]
    fn a_slower_disk_is_no_growth() {
        let waiting = [vec![200.0; 100], vec![3200.0; 100]].concat();
        assert_eq!(phase(Kind::Queue, waiting).growth(), [""; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_is_read_rightly() {
        assert!(status("VmRSS:").unwrap() > 100);
        assert!(status("Threads:").unwrap() >= 1);
        assert!(status("NoSuchLine:").is_err());
    }
}
