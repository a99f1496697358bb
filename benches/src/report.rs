//! Tables and plots of what was measured, in `docs/`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use arena::Outcome;

use crate::plan::{Bound, Entrant, Experiment, Measure, experiments};
use crate::plot;
use crate::results::{self, Middle, Results};

/// Puts tables between the marks in `docs/performance.md`, and plots beside it.
pub(crate) fn write() -> Outcome<()> {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("performance.md");
    let mut text = fs::read_to_string(&page)?;
    let mut goals =
        String::from("| Work | Goal | Measured (lowest – highest) | |\n|---|---|---|---|\n");
    let mut machine = String::new();
    fs::create_dir_all(docs.join("performance"))?;
    for experiment in experiments() {
        let Some(results) = Results::load(experiment.name)? else {
            continue;
        };
        let entrants: Vec<String> = experiment.entrants.iter().map(Entrant::id).collect();
        if results.entrants != entrants {
            let name = experiment.name;
            return Err(
                format!("results/{name}.json has other entrants: run `{name}` again").into(),
            );
        }
        goals += &goal_rows(&experiment, &results);
        put(&mut text, experiment.name, &table(&experiment, &results))?;
        for (measure, file) in plots(&experiment) {
            fs::write(docs.join(file), plot::bars(&experiment, *measure, &results))?;
        }
        machine = results.machine;
    }
    put(&mut text, "goals", &goals)?;
    let footprint = results::path("footprint.md");
    if footprint.exists() {
        put(&mut text, "footprint", &fs::read_to_string(footprint)?)?;
    }
    put(&mut text, "machine", &format!("{machine}\n"))?;
    println!("{goals}");
    Ok(fs::write(page, text)?)
}

/// Replaces what is between the marks `name`.
fn put(text: &mut String, name: &str, content: &str) -> Outcome<()> {
    let (start, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let missing = || format!("docs/performance.md has no marks `{name}`");
    let from = text.find(&start).ok_or_else(missing)? + start.len();
    let to = from + text[from..].find(&end).ok_or_else(missing)?;
    text.replace_range(from..to, &format!("\n{content}\n"));
    Ok(())
}

fn goal_rows(experiment: &Experiment, results: &Results) -> String {
    let mut rows = String::new();
    for goal in &experiment.goals {
        let Some(ratio) = results.ratio(goal) else {
            continue;
        };
        let (wanted, met) = match goal.bound {
            Bound::AtLeast(bound) => (format!("≥ {bound}×"), ratio.median >= bound),
            Bound::AtMost(bound) => (format!("≤ {bound}×"), ratio.median <= bound),
        };
        let _ = writeln!(
            rows,
            "| `{}`: {} | {wanted} | {:.2}× ({:.2} – {:.2}) | {} |",
            experiment.name,
            goal.work,
            ratio.median,
            ratio.lowest,
            ratio.highest,
            if met { "met" } else { "**missed**" },
        );
    }
    rows
}

fn table(experiment: &Experiment, results: &Results) -> String {
    let mut table = String::from("| | survives a kill | survives a power cut |");
    for measure in experiment.measures {
        let _ = write!(table, " {} |", measure.heading);
    }
    table += "\n|---|---|---|";
    table += &"---:|".repeat(experiment.measures.len());
    table.push('\n');
    for (number, entrant) in experiment.entrants.iter().enumerate() {
        let promise = entrant.contender.promise();
        let mark = if entrant.contender.is_ours() {
            "**"
        } else {
            ""
        };
        let _ = write!(
            table,
            "| {mark}{}{mark} | {} | {} |",
            label(experiment, entrant),
            promise.kill,
            promise.power_cut
        );
        for measure in experiment.measures {
            let cell = results
                .middle(number, *measure)
                .map_or_else(|| "–".to_owned(), |Middle { median, .. }| readable(median));
            let _ = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    for (measure, file) in plots(experiment) {
        let _ = write!(
            table,
            "\n![{}: {}]({file})\n",
            experiment.title, measure.heading
        );
    }
    table
}

/// What is plotted of an experiment, and into which file below `docs`.
fn plots(experiment: &Experiment) -> impl Iterator<Item = (&'static Measure, String)> {
    let measures = experiment.measures.iter().take(experiment.plots);
    measures.map(|measure| {
        let file = format!("performance/{}.{}.svg", experiment.name, measure.key);
        (measure, file)
    })
}

/// What tells an entrant from the others.
pub(crate) fn label(experiment: &Experiment, entrant: &Entrant) -> String {
    if experiment.is_about_size() {
        format!("{} entries", grouped(entrant.entries))
    } else {
        entrant.label().to_owned()
    }
}

/// Three digits that count, or all before the point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn readable(value: f64) -> String {
    match value {
        100.0.. => grouped(value.round() as u64),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

impl Entrant {
    pub(crate) fn label(&self) -> &'static str {
        self.contender.label()
    }

    /// In the files of results.
    pub(crate) fn id(&self) -> String {
        format!("{}@{}", self.contender.name(), self.entries)
    }
}
