//! Bars as SVG, without a library: a row for each contender, with the extremes of its rounds.

use std::fmt::Write as _;

use crate::plan::{Experiment, Measure};
use crate::report::{label, readable};
use crate::results::{Middle, Results};

const WIDTH: f64 = 760.0;
const ROW: f64 = 26.0;
const TOP: f64 = 48.0;
/// Labels are left of it.
const LEFT: f64 = 220.0;
/// The longest bar; figures are right of it.
const LONGEST: f64 = 420.0;

/// One measure of an experiment.
pub(crate) fn bars(experiment: &Experiment, measure: Measure, results: &Results) -> String {
    let rows: Vec<(String, bool, Middle)> = experiment
        .entrants
        .iter()
        .enumerate()
        .filter_map(|(number, entrant)| {
            let middle = results.middle(number, measure)?;
            Some((
                label(experiment, entrant),
                entrant.contender.is_ours(),
                middle,
            ))
        })
        .collect();
    let longest = rows
        .iter()
        .map(|row| row.2.highest)
        .fold(f64::MIN_POSITIVE, f64::max);
    let better = if measure.more_is_better {
        "longer"
    } else {
        "shorter"
    };
    let height = TOP + ROW * (0..rows.len()).fold(0.0, |sum, _| sum + 1.0) + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"20\" font-weight=\"bold\">{}</text>\n\
         <text x=\"12\" y=\"37\" fill=\"#666\">{}; {better} is better</text>\n",
        escaped(experiment.title),
        escaped(&measure.heading.replace('`', "")),
    );
    let mut y = TOP;
    for (
        label,
        ours,
        Middle {
            median,
            lowest,
            highest,
        },
    ) in rows
    {
        let scaled = |value: f64| LEFT + LONGEST * value / longest;
        let middle = y + ROW / 2.0;
        let colour = if ours { "#2a6fb0" } else { "#b8bec6" };
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
             <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#222\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{}</text>\n",
            LEFT - 8.0,
            middle + 4.5,
            escaped(&label),
            y + 4.0,
            scaled(median) - LEFT,
            ROW - 8.0,
            scaled(lowest),
            scaled(highest),
            scaled(highest) + 8.0,
            middle + 4.5,
            readable(median),
        );
        y += ROW;
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
