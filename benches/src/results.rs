//! What was measured, kept beside the code that measured it.

use std::fs;
use std::path::PathBuf;

use arena::{Figures, Outcome};
use serde::{Deserialize, Serialize};

use crate::plan::{Bound, Goal, Measure};

#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: String,
    pub(crate) entrants: Vec<String>,
    /// For each round the figures of each entrant.
    pub(crate) rounds: Vec<Vec<Figures>>,
}

/// The middle of some rounds, and their extremes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Middle {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Results {
    pub(crate) fn load(name: &str) -> Outcome<Option<Self>> {
        let path = path(&format!("{name}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path)?;
        let results = serde_json::from_str(&text);
        results
            .map(Some)
            .map_err(|error| format!("{}: {error}", path.display()).into())
    }

    pub(crate) fn save(&self, name: &str) -> Outcome<()> {
        let path = path(&format!("{name}.json"));
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    pub(crate) fn middle(&self, entrant: usize, measure: Measure) -> Option<Middle> {
        let values = self
            .rounds
            .iter()
            .map(|round| round[entrant].get(measure.key).copied());
        Middle::of(values.collect::<Option<_>>()?)
    }

    /// The middle of the ratios within each round: what disturbs a whole round has no part in it.
    pub(crate) fn ratio(&self, goal: &Goal) -> Option<Middle> {
        let ratios = self.rounds.iter().map(|round| {
            let ours = round[goal.ours.0].get(goal.ours.1.key)?;
            let theirs = round[goal.theirs.0].get(goal.theirs.1.key)?;
            Some(match goal.bound {
                Bound::AtLeast(_) if !goal.ours.1.more_is_better => theirs / ours,
                _ => ours / theirs,
            })
        });
        Middle::of(ratios.collect::<Option<_>>()?)
    }
}

impl Middle {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&lowest, &highest) = (values.first()?, values.last()?);
        let half = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[half - 1], values[half])
        } else {
            values[half]
        };
        Some(Middle {
            median,
            lowest,
            highest,
        })
    }
}

pub(crate) fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("results")
        .join(file)
}
