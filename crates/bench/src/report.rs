//! What was measured, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::args::{Args, Network};
use crate::column::Column;
use crate::measure::Measure;
use crate::summary::Summary;
use crate::supervisors::{Counted, Supervisors};
use crate::table;

/// The columns, one table, and what its words mean.
pub fn text(args: &Args, columns: &[Column<'_>]) -> String {
    let mut parts = vec![setting(args)];
    parts.extend(columns.iter().zip(letters()).map(|(one, letter)| legend(letter, one)));
    parts.push(String::new());
    let rows: Vec<Vec<String>> =
        measures(columns).into_iter().map(|measure| row(measure, columns)).collect();
    parts.push(table::render(&head(columns), &rows));
    parts.extend(notes(args, columns));
    parts.join("\n")
}

fn setting(args: &Args) -> String {
    let network = match args.network {
        Network::Host => "the network of the host",
        Network::Pod => "a network of their own",
    };
    format!(
        "{} rounds one by one; a crowd of {}, {} at a time; {} held.\nPods have {network} and one \
         container.",
        args.rounds, args.pods, args.parallel, args.held
    )
}

/// What can only be asked of a table that compares.
fn notes(args: &Args, columns: &[Column<'_>]) -> Vec<String> {
    let ahead = match columns.len() {
        0 | 1 => return Vec::new(),
        2 => "AHEAD: how many times better A is than B, by P50.",
        _ => "A>B: how many times better A is than B, by P50.",
    };
    let held = format!(
        "held: memory while one column alone holds {0} pods; calls while each socket holds {0}, \
         shared by its columns.",
        args.held
    );
    let mut notes = vec![String::new(), ahead.to_owned()];
    notes.extend((args.held > 0).then_some(held));
    notes
}

fn letters() -> impl Iterator<Item = char> {
    'A'..='Z'
}

fn legend(letter: char, Column { target, recipe, record }: &Column<'_>) -> String {
    let handler = match recipe.handler() {
        "" => "default handler",
        name => name,
    };
    let (socket, image) = (target.socket.display(), recipe.image());
    let beside = supervisors(&record.supervisors);
    format!("{letter}  {}  {handler}  {socket}  {image}{beside}", target.name)
}

fn supervisors(found: &Supervisors) -> String {
    let mut parts = Vec::new();
    if !found.started.is_empty() {
        parts.push(names(&found.started));
    }
    if !found.standing.is_empty() {
        let how = match found.standing_counted {
            Counted::Whole => "counted whole, for there are no other pods".to_owned(),
            Counted::Growth => {
                format!("only its growth counted, for other pods: {}", found.other_pods)
            }
        };
        parts.push(format!("from before {} ({how})", names(&found.standing)));
    }
    if parts.is_empty() { String::new() } else { format!("; supervisors: {}", parts.join("; ")) }
}

fn names(counts: &BTreeMap<String, usize>) -> String {
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

/// Every measure that any column has, in the order of the table.
fn measures(columns: &[Column<'_>]) -> BTreeSet<Measure> {
    columns.iter().flat_map(|column| column.record.measures()).collect()
}

/// A figure of a summary: what it is called, and which it is.
type Figure = (&'static str, fn(&Summary) -> f64);

/// Four of one or two columns; of more, only two, or no screen would be wide enough.
fn figures(columns: usize) -> &'static [Figure] {
    let all: &[Figure] =
        &[("P50", |s| s.p50), ("P95", |s| s.p95), ("P99", |s| s.p99), ("MAX", |s| s.max)];
    if columns > 2 { &all[..2] } else { all }
}

fn head(columns: &[Column<'_>]) -> Vec<String> {
    let mut head = vec![String::new(), String::new()];
    for (_, letter) in columns.iter().zip(letters()) {
        head.extend(figures(columns.len()).iter().map(|(name, _)| match columns.len() {
            1 => (*name).to_owned(),
            _ => format!("{letter} {name}"),
        }));
    }
    head.extend(columns.iter().zip(letters()).skip(1).map(|(_, letter)| match columns.len() {
        2 => "AHEAD".to_owned(),
        _ => format!("A>{letter}"),
    }));
    head
}

fn row(measure: Measure, columns: &[Column<'_>]) -> Vec<String> {
    let summaries: Vec<Option<Summary>> =
        columns.iter().map(|column| Summary::of(column.record.values(measure))).collect();
    let mut row = vec![measure.title().to_owned(), measure.unit().short().to_owned()];
    row.extend(summaries.iter().flat_map(|summary| cells(columns.len(), summary)));
    let ratio = |theirs: &Option<Summary>| ahead(measure, summaries[0], *theirs);
    let shown = |ratio: Option<f64>| ratio.map(|r| format!("{}x", table::number(r)));
    row.extend(summaries.iter().skip(1).map(|theirs| shown(ratio(theirs)).unwrap_or_default()));
    row
}

/// A thing that was measured once has no percentiles.
fn cells(columns: usize, summary: &Option<Summary>) -> Vec<String> {
    let cell = |(at, (_, figure)): (usize, &Figure)| match (summary, at) {
        (None, 0) => "-".to_owned(),
        (Some(s), _) if at == 0 || s.count > 1 => table::number(figure(s)),
        _ => String::new(),
    };
    figures(columns).iter().enumerate().map(cell).collect()
}

/// How many times better we are.
fn ahead(measure: Measure, ours: Option<Summary>, theirs: Option<Summary>) -> Option<f64> {
    let (ours, theirs) = (ours?.p50, theirs?.p50);
    let (worse, better) =
        if measure.unit().less_is_better() { (theirs, ours) } else { (ours, theirs) };
    (better > 0.0 && worse > 0.0).then(|| worse / better)
}

#[derive(Serialize)]
struct Json<'a> {
    rounds: u32,
    pods: u32,
    parallel: u32,
    held: u32,
    network: &'a str,
    /// The columns.
    targets: Vec<JsonTarget<'a>>,
}

#[derive(Serialize)]
struct JsonTarget<'a> {
    letter: char,
    name: &'a str,
    socket: String,
    /// Empty for the default one.
    handler: &'a str,
    image: &'a str,
    supervisors: &'a Supervisors,
    measures: Vec<JsonMeasure<'a>>,
}

#[derive(Serialize)]
struct JsonMeasure<'a> {
    measure: Measure,
    unit: &'a str,
    #[serde(flatten)]
    summary: Summary,
    /// How many times better the first column is; not there for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    a_ahead: Option<f64>,
    values: &'a [f64],
}

pub fn json(args: &Args, columns: &[Column<'_>]) -> String {
    let all = Json {
        rounds: args.rounds,
        pods: args.pods,
        parallel: args.parallel,
        held: args.held,
        network: if args.network == Network::Host { "host" } else { "pod" },
        targets: columns.iter().zip(letters()).map(|(c, l)| json_target(l, c, columns)).collect(),
    };
    serde_json::to_string_pretty(&all).expect("text and numbers can be written as JSON")
}

fn json_target<'a>(
    letter: char,
    Column { target, recipe, record }: &'a Column<'_>,
    columns: &[Column<'_>],
) -> JsonTarget<'a> {
    let first = columns.first().filter(|_| letter != 'A');
    let measure = |measure: Measure| {
        let values = record.values(measure);
        let summary = Summary::of(values)?;
        let ours = first.and_then(|first| Summary::of(first.record.values(measure)));
        let a_ahead = ahead(measure, ours, Some(summary));
        Some(JsonMeasure { measure, unit: measure.unit().short(), summary, a_ahead, values })
    };
    JsonTarget {
        letter,
        name: &target.name,
        socket: target.socket.display().to_string(),
        handler: recipe.handler(),
        image: recipe.image(),
        supervisors: &record.supervisors,
        measures: record.measures().filter_map(measure).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::image::Image;
    use crate::measure::Record;
    use crate::pod::Recipe;
    use crate::target::Target;

    fn args() -> Args {
        Args::parse_from(["podbay-bench", "--rounds=3", "--network=host"])
    }

    fn column<'a>(target: &'a Target, handler: &str, factor: f64) -> Column<'a> {
        let image = Image { name: "busybox:1".to_owned(), id: "sha256:bb".to_owned() };
        let recipe = Recipe::new(&args(), image, handler, 0, Path::new("/none"));
        let mut record = Record::default();
        for value in [3.0, 1.0, 2.0] {
            record.put(Measure::RunPodSandbox, value * factor);
        }
        record.put(Measure::CrowdUpRate, 100.0 / factor);
        record.put(Measure::DaemonPss, 12.3 * factor);
        record.supervisors.started.insert("shim".to_owned(), 50);
        Column { target, recipe, record }
    }

    #[tokio::test]
    async fn two_columns_are_put_side_by_side() {
        let (a, b) = (Target::nobody("podbay 1", "/a.sock"), Target::nobody("other 2", "/b.sock"));
        let told = text(&args(), &[column(&a, "", 1.0), column(&b, "runc", 20.0)]);
        assert_eq!(told, include_str!("../golden/two.txt").trim_end());
    }

    #[tokio::test]
    async fn one_column_needs_no_letters() {
        let a = Target::nobody("podbay 1", "/a.sock");
        let told = text(&args(), &[column(&a, "", 1.0)]);
        assert_eq!(told, include_str!("../golden/one.txt").trim_end());
    }

    #[tokio::test]
    async fn of_four_columns_each_is_compared_with_the_first_by_two_figures() {
        let (a, b) = (Target::nobody("podbay 1", "/a.sock"), Target::nobody("other 2", "/b.sock"));
        let mut columns = vec![column(&a, "podbay", 1.0), column(&a, "pause", 1.5)];
        columns.extend([column(&a, "sandboxer", 0.25), column(&b, "", 1234.0)]);
        // Nobody knows the daemon of the last one.
        let mut poor = Record::default();
        poor.put(Measure::RunPodSandbox, 1234.0);
        columns[3].record = poor;
        columns[1].record.supervisors.started.insert("pause".to_owned(), 50);
        let told = text(&args(), &columns);
        assert_eq!(told, include_str!("../golden/four.txt").trim_end());
    }

    #[test]
    fn it_is_told_how_supervisors_from_before_were_counted() {
        let mut found = Supervisors::default();
        assert_eq!(supervisors(&found), "");
        found.standing.insert("podbay-shim".to_owned(), 1);
        assert_eq!(
            supervisors(&found),
            "; supervisors: from before 1 podbay-shim (counted whole, for there are no other pods)"
        );
        found.started.insert("pause".to_owned(), 50);
        (found.standing_counted, found.other_pods) = (Counted::Growth, 3);
        assert_eq!(
            supervisors(&found),
            "; supervisors: 50 pause; from before 1 podbay-shim (only its growth counted, for other \
             pods: 3)"
        );
    }

    #[tokio::test]
    async fn programs_get_every_value() {
        let a = Target::nobody("podbay 1", "/a.sock");
        let told = json(&args(), &[column(&a, "pause", 1.0), column(&a, "", 4.0)]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
        let (first, second) = (&told["targets"][0], &told["targets"][1]);
        let measure = &first["measures"][0];
        assert_eq!(measure["measure"], "run_pod_sandbox");
        assert_eq!(measure["unit"], "ms");
        assert_eq!(measure["p50"], 2.0);
        assert_eq!(measure["values"], serde_json::json!([3.0, 1.0, 2.0]));
        assert_eq!(first["supervisors"]["started"], serde_json::json!({ "shim": 50 }));
        assert_eq!(first["supervisors"]["standing_counted"], "whole");
        let names =
            |target: &serde_json::Value| [&target["letter"], &target["handler"]].map(|v| v.clone());
        assert_eq!(
            (names(first), names(second)),
            (["A", "pause"].map(Into::into), ["B", ""].map(Into::into))
        );
        assert_eq!(
            (&measure["a_ahead"], &second["measures"][0]["a_ahead"]),
            (&serde_json::Value::Null, &4.0.into())
        );
    }

    #[test]
    fn a_measure_that_one_lacks_is_not_compared() {
        let some = Summary::of(&[1.0]);
        assert_eq!(ahead(Measure::ExecSync, some, None), None);
        assert_eq!(ahead(Measure::ExecSync, some, Summary::of(&[0.0])), None);
        assert_eq!(ahead(Measure::ExecSync, some, Summary::of(&[2.0])), Some(2.0));
        assert_eq!(ahead(Measure::CrowdUpRate, some, Summary::of(&[2.0])), Some(0.5));
    }
}
