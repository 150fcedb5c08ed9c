//! What was measured, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::Measured;
use crate::args::{Args, Network};
use crate::measure::Measure;
use crate::summary::Summary;
use crate::table;

/// The targets, one table, and what its words mean.
pub fn text(args: &Args, measured: &[Measured<'_>]) -> String {
    let mut parts = vec![setting(args)];
    parts.extend(measured.iter().zip(letters()).map(|(one, letter)| legend(letter, one)));
    parts.push(String::new());
    let rows: Vec<Vec<String>> =
        measures(measured).into_iter().map(|measure| row(measure, measured)).collect();
    parts.push(table::render(&head(measured), &rows));
    if measured.len() == 2 {
        parts.push("\nAHEAD: how many times better A is than B, by P50.".to_owned());
    }
    parts.join("\n")
}

fn setting(args: &Args) -> String {
    let network = match args.network {
        Network::Host => "the network of the host",
        Network::Pod => "a network of their own",
    };
    let handler = if args.handler.is_empty() { "the default handler" } else { &args.handler };
    format!(
        "{} rounds one by one; a crowd of {}, {} at a time; {} held.\nPods have {network}, {handler}, \
         and one container.",
        args.rounds, args.pods, args.parallel, args.held
    )
}

fn letters() -> impl Iterator<Item = char> {
    'A'..='Z'
}

fn legend(letter: char, (target, record): &Measured<'_>) -> String {
    let supervisors: Vec<String> =
        record.supervisors.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let beside = match supervisors.is_empty() {
        true => String::new(),
        false => format!("; supervisors: {}", supervisors.join(", ")),
    };
    format!("{letter}  {}  {}  {}{beside}", target.name, target.socket.display(), record.image)
}

/// Every measure that any target has, in the order of the table.
fn measures(measured: &[Measured<'_>]) -> BTreeSet<Measure> {
    measured.iter().flat_map(|(_, record)| record.measures()).collect()
}

fn head(measured: &[Measured<'_>]) -> Vec<String> {
    let mut head = vec![String::new(), String::new()];
    for (_, letter) in measured.iter().zip(letters()) {
        head.extend(["P50", "P95", "P99", "MAX"].map(|name| match measured.len() {
            1 => name.to_owned(),
            _ => format!("{letter} {name}"),
        }));
    }
    if measured.len() == 2 {
        head.push("AHEAD".to_owned());
    }
    head
}

fn row(measure: Measure, measured: &[Measured<'_>]) -> Vec<String> {
    let summaries: Vec<Option<Summary>> =
        measured.iter().map(|(_, record)| Summary::of(record.values(measure))).collect();
    let mut row = vec![measure.title().to_owned(), measure.unit().short().to_owned()];
    row.extend(summaries.iter().flat_map(cells));
    if let [ours, theirs] = summaries[..] {
        row.push(ahead(measure, ours, theirs).unwrap_or_default());
    }
    row
}

/// A thing that was measured once has no percentiles.
fn cells(summary: &Option<Summary>) -> [String; 4] {
    match summary {
        None => ["-", "", "", ""].map(str::to_owned),
        Some(s) if s.count == 1 => {
            [table::number(s.p50), String::new(), String::new(), String::new()]
        }
        Some(s) => [s.p50, s.p95, s.p99, s.max].map(table::number),
    }
}

fn ahead(measure: Measure, ours: Option<Summary>, theirs: Option<Summary>) -> Option<String> {
    let (ours, theirs) = (ours?.p50, theirs?.p50);
    let (worse, better) =
        if measure.unit().less_is_better() { (theirs, ours) } else { (ours, theirs) };
    (better > 0.0 && worse > 0.0).then(|| format!("{}x", table::number(worse / better)))
}

#[derive(Serialize)]
struct Json<'a> {
    rounds: u32,
    pods: u32,
    parallel: u32,
    held: u32,
    network: &'a str,
    handler: &'a str,
    targets: Vec<JsonTarget<'a>>,
}

#[derive(Serialize)]
struct JsonTarget<'a> {
    name: &'a str,
    socket: String,
    image: &'a str,
    supervisors: &'a BTreeMap<String, usize>,
    measures: Vec<JsonMeasure<'a>>,
}

#[derive(Serialize)]
struct JsonMeasure<'a> {
    measure: Measure,
    unit: &'a str,
    #[serde(flatten)]
    summary: Summary,
    values: &'a [f64],
}

pub fn json(args: &Args, measured: &[Measured<'_>]) -> String {
    let all = Json {
        rounds: args.rounds,
        pods: args.pods,
        parallel: args.parallel,
        held: args.held,
        network: if args.network == Network::Host { "host" } else { "pod" },
        handler: &args.handler,
        targets: measured.iter().map(json_target).collect(),
    };
    serde_json::to_string_pretty(&all).expect("text and numbers can be written as JSON")
}

fn json_target<'a>((target, record): &'a Measured<'_>) -> JsonTarget<'a> {
    let measure = |measure: Measure| {
        let values = record.values(measure);
        let summary = Summary::of(values)?;
        Some(JsonMeasure { measure, unit: measure.unit().short(), summary, values })
    };
    JsonTarget {
        name: &target.name,
        socket: target.socket.display().to_string(),
        image: &record.image,
        supervisors: &record.supervisors,
        measures: record.measures().filter_map(measure).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::measure::Record;
    use crate::target::Target;

    fn args() -> Args {
        Args::parse_from(["podbay-bench", "--rounds=3", "--network=host"])
    }

    fn record(factor: f64) -> Record {
        let mut record = Record::new("busybox:1".to_owned());
        for value in [3.0, 1.0, 2.0] {
            record.put(Measure::RunPodSandbox, value * factor);
        }
        record.put(Measure::CrowdUpRate, 100.0 / factor);
        record.put(Measure::DaemonPss, 12.3 * factor);
        record.supervisors.insert("shim".to_owned(), 50);
        record
    }

    #[tokio::test]
    async fn two_targets_are_put_side_by_side() {
        let (a, b) = (Target::nobody("podbay 1", "/a.sock"), Target::nobody("other 2", "/b.sock"));
        let told = text(&args(), &[(&a, record(1.0)), (&b, record(20.0))]);
        assert_eq!(told, include_str!("../golden/two.txt").trim_end());
    }

    #[tokio::test]
    async fn one_target_needs_no_letters() {
        let a = Target::nobody("podbay 1", "/a.sock");
        let told = text(&args(), &[(&a, record(1.0))]);
        assert_eq!(told, include_str!("../golden/one.txt").trim_end());
    }

    #[tokio::test]
    async fn programs_get_every_value() {
        let a = Target::nobody("podbay 1", "/a.sock");
        let told = json(&args(), &[(&a, record(1.0))]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
        let measure = &told["targets"][0]["measures"][0];
        assert_eq!(measure["measure"], "run_pod_sandbox");
        assert_eq!(measure["unit"], "ms");
        assert_eq!(measure["p50"], 2.0);
        assert_eq!(measure["values"], serde_json::json!([3.0, 1.0, 2.0]));
    }

    #[test]
    fn a_measure_that_one_lacks_is_not_compared() {
        let some = Summary::of(&[1.0]);
        assert_eq!(ahead(Measure::ExecSync, some, None), None);
        assert_eq!(ahead(Measure::ExecSync, some, Summary::of(&[0.0])), None);
        assert_eq!(ahead(Measure::ExecSync, some, Summary::of(&[2.0])).as_deref(), Some("2.00x"));
        assert_eq!(
            ahead(Measure::CrowdUpRate, some, Summary::of(&[2.0])).as_deref(),
            Some("0.50x")
        );
    }
}
