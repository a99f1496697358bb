//! Figures over time as SVG: one panel each, all from zero, so that growth looks like growth.

use std::fmt::Write as _;

use crate::vitals::{Series, Vitals};

const WIDTH: f64 = 720.0;
const PANEL: f64 = 84.0;
/// Room for the heading, and between panels for their names.
const MARGIN: f64 = 30.0;
/// Points of a line; more cannot be seen.
const POINTS: usize = 240;

pub(crate) fn draw(heading: &str, vitals: &Vitals) -> String {
    let end = vitals.times.last().copied().unwrap_or(1.0);
    let x = |time: f64| time / end * WIDTH;
    let panels = (0_u32..).map(f64::from).zip(&vitals.series);
    let mut body = String::new();
    let mut height = MARGIN;
    for (number, series) in panels {
        let top = MARGIN + number * (PANEL + MARGIN) + MARGIN;
        height = top + PANEL + MARGIN;
        let most = series.values.iter().copied().fold(0.0, f64::max);
        let y = |value: f64| top + PANEL - value / most.max(1.0) * (PANEL - 4.0);
        let name = series.kind.name();
        let _ = write!(
            body,
            "<text x=\"0\" y=\"{:.0}\">{name}, at most {most:.1}</text>\n\
             <path class=\"axis\" d=\"M0 {top:.0}V{bottom:.0}H{WIDTH}\"/>\n",
            top - 6.0,
            bottom = top + PANEL,
        );
        for &(begin, _) in vitals.phases.iter().skip(1) {
            let at = x(vitals.times.get(begin).copied().unwrap_or(end));
            let _ = writeln!(
                body,
                "<path class=\"phase\" d=\"M{at:.1} {top:.0}v{PANEL}\"/>"
            );
        }
        body.push_str("<polyline points=\"");
        for (time, value) in extremes(&vitals.times, series) {
            let _ = write!(body, "{:.1},{:.1} ", x(time), y(value));
        }
        body.push_str("\"/>\n");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-20 0 {:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n\
         <style>path, polyline {{ fill: none }} .axis {{ stroke: #999 }} .phase {{ stroke: #999; stroke-dasharray: 4 3 }} \
         polyline {{ stroke: #06c }}</style>\n\
         <rect x=\"-20\" width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"0\" y=\"18\" font-weight=\"bold\">{heading} ({:.1} minutes)</text>\n{body}</svg>\n",
        WIDTH + 40.0,
        end / 60.0
    )
}

/// Fewer points with the same peaks: of each stretch the lowest value and the highest.
fn extremes(times: &[f64], series: &Series) -> Vec<(f64, f64)> {
    let stretch = times.len().div_ceil(POINTS / 2).max(1);
    let stretches = times.chunks(stretch).zip(series.values.chunks(stretch));
    stretches
        .flat_map(|(times, values)| {
            let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = values.iter().copied().fold(0.0, f64::max);
            [(times[0], lowest), (times[0], highest)]
        })
        .collect()
}
