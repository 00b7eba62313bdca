//! Runs as a page with plots.

use super::Run;
use super::figures::{in_flight, tokens_over_time, whole};
use super::load::Load;
use super::record::{Record, Times};
use super::table::ms;
use crate::commands::plot::{Kind, Plot, Series, cumulative, round_step};
use crate::commands::report::{Report, Table};

/// Points of a cumulative distribution, and of a line over time: more than the drawing has room to tell apart.
const POINTS: usize = 200;
/// Parts of a run that throughput over time is counted in, about.
const BUCKETS: f64 = 60.0;
/// Shortest of those, seconds.
const SHORTEST_BUCKET: f64 = 0.1;

/// How the figures are defined, for those who compare them.
const NOTES: [&str; 5] = [
    "TTFT: from sending a request to its first message with tokens. E2E: to its last message with tokens. \
     TPOT: (E2E - TTFT) / (output tokens - 1), of answers of more than one token.",
    "ITL: the gaps between messages with tokens, of all answers together. A message with several tokens ends one gap.",
    "Throughput: whole answers and their tokens, as the server counts them, over the time from the start of the run to the \
     end of its last request.",
    "Steady window of a closed loop: from the first moment to the last at which at least 95 % of its clients have a \
     request under way.",
    "Open loop: gaps between arrivals follow a gamma distribution, stretched so that the last of N requests is sent at \
     N / rate.",
];

/// The page of `runs`.
pub(super) fn report(runs: &[Run]) -> Report {
    let mut report = Report::new("pith bench serve");
    if let Some(run) = runs.first() {
        report.title = format!("pith bench serve: {}", run.model);
        report.conditions.extend(conditions(run));
    }
    report.tables = vec![throughput(runs), latencies(runs)];
    report.plots = plots(runs);
    report.notes = NOTES.map(str::to_owned).to_vec();
    report
}

fn conditions(run: &Run) -> Vec<(&'static str, String)> {
    let server = match &run.address {
        Some(address) => address.clone(),
        None => "in the process of the load generator, over loopback".to_owned(),
    };
    let kv = run.kv_type.map_or("as the server has it", |kv_type| kv_type.name());
    let mut conditions = vec![
        ("Model", run.model.clone()),
        ("Executor", run.executor.clone()),
        ("KV type", kv.to_owned()),
        ("Server", server),
        ("Connections", run.connections.to_string()),
        ("Requests", run.asked()),
        ("Warm-up requests of each run", run.warmup.to_string()),
        ("Seed", run.seed.to_string()),
    ];
    if let Some(shape) = run.burstiness {
        conditions.push(("Burstiness", shape.to_string()));
    }
    if let Some(most) = run.max_concurrency {
        conditions.push(("Most under way", most.to_string()));
    }
    if let Some(slo) = run.slo {
        conditions.push(("SLO", slo.to_string()));
    }
    if let Some(mib) = run.peak_rss_mib {
        conditions.push(("Peak memory", format!("{mib:.0} MiB, server and load generator")));
    }
    conditions
}

fn throughput(runs: &[Run]) -> Table {
    let head = [
        "load",
        "answered",
        "failed",
        "seconds",
        "requests/s",
        "output tok/s",
        "steady tok/s",
        "total tok/s",
        "goodput/s",
        "most at once",
    ];
    let row = |run: &Run| {
        let figures = &run.figures;
        let steady = figures.steady.as_ref().map(|steady| steady.output_tokens_per_s);
        let failures = figures.failures.iter().map(|(status, count)| format!("{count} {status}"));
        let failures = failures.collect::<Vec<_>>().join(", ");
        vec![
            run.load.to_string(),
            format!("{} of {}", figures.completed, run.requests),
            if failures.is_empty() { "0".to_owned() } else { failures },
            format!("{:.2}", figures.seconds),
            format!("{:.2}", figures.requests_per_s),
            ms(figures.output_tokens_per_s),
            ms(steady.unwrap_or(f64::NAN)),
            ms(figures.total_tokens_per_s),
            figures.goodput_requests_per_s.map_or("-".to_owned(), |good| format!("{good:.2}")),
            figures.peak_concurrency.to_string(),
        ]
    };
    Table {
        title: "Throughput".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows: runs.iter().map(row).collect(),
    }
}

fn latencies(runs: &[Run]) -> Table {
    let head = ["load", "time", "mean", "p50", "p90", "p95", "p99"];
    let rows = |run: &Run| {
        let load = run.load.to_string();
        run.figures.latencies.named().map(|(name, distribution)| {
            let figures = distribution.named().map(|(_, value)| ms(value));
            [load.clone(), name.to_owned()].into_iter().chain(figures).collect()
        })
    };
    Table {
        title: "Times, ms".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows: runs.iter().flat_map(rows).collect(),
    }
}

fn plots(runs: &[Run]) -> Vec<Plot> {
    let mut plots = Vec::new();
    if runs.len() > 1 {
        plots.push(over_load(
            runs,
            "Throughput by load",
            "output tok/s",
            &[
                ("whole run", |run| run.figures.output_tokens_per_s),
                ("steady window", |run| {
                    run.figures
                        .steady
                        .as_ref()
                        .map_or(f64::NAN, |steady| steady.output_tokens_per_s)
                }),
            ],
        ));
        plots.push(over_load(
            runs,
            "Time to first token by load",
            "ms",
            &[
                ("p50", |run| run.figures.latencies.ttft.p50),
                ("p99", |run| run.figures.latencies.ttft.p99),
            ],
        ));
        plots.push(over_load(
            runs,
            "Time per output token by load",
            "ms",
            &[
                ("p50", |run| run.figures.latencies.tpot.p50),
                ("p99", |run| run.figures.latencies.tpot.p99),
            ],
        ));
    }
    plots.push(over_time(runs));
    plots.push(under_way(runs));
    plots.push(shares(runs, "Time to first token", "ms", |records| {
        times(records, |times| Some(times.ttft))
    }));
    plots.push(shares(runs, "Time per output token", "ms", |records| {
        times(records, |times| times.tpot)
    }));
    plots.push(shares(runs, "Gaps between messages (ITL)", "ms", |records| {
        whole(records).flat_map(Record::gaps).collect()
    }));
    plots.push(shares(runs, "Latency (E2E)", "ms", |records| {
        times(records, |times| Some(times.latency))
    }));
    plots
}

/// Its name, and what of a run lies on it.
type Line = (&'static str, fn(&Run) -> f64);

/// Figures of each run over its concurrency or rate.
fn over_load(runs: &[Run], title: &str, y: &str, lines: &[Line]) -> Plot {
    let open = runs.iter().any(|run| matches!(run.load, Load::Open(_)));
    let series = |(name, figure): &Line| Series {
        name: (*name).to_owned(),
        points: runs.iter().map(|run| (run.load.figure(), figure(run))).collect(),
    };
    Plot {
        kind: Kind::Chosen,
        title: title.to_owned(),
        x: if open { "requests per second" } else { "clients" }.to_owned(),
        y: y.to_owned(),
        series: lines.iter().map(series).collect(),
    }
}

fn over_time(runs: &[Run]) -> Plot {
    let series = |run: &Run| {
        let bucket = round_step((run.figures.seconds / BUCKETS).max(SHORTEST_BUCKET));
        let rates = tokens_over_time(&run.driven.records, bucket);
        // A bucket's rate belongs to its middle.
        rates.into_iter().map(|(from, rate)| (from + bucket / 2.0, rate)).collect()
    };
    of_each(runs, Kind::Time, "Throughput over time", "seconds", "output tok/s", series)
}

fn under_way(runs: &[Run]) -> Plot {
    let series = |run: &Run| {
        let steps = in_flight(&run.driven.records);
        let at = |n: usize| {
            let at = run.figures.seconds * n as f64 / (POINTS - 1) as f64;
            let passed = steps.partition_point(|step| step.0 <= at);
            let count =
                passed.checked_sub(1).and_then(|last| steps.get(last)).map_or(0, |step| step.1);
            (at, count as f64)
        };
        (0..POINTS).map(at).collect()
    };
    of_each(runs, Kind::Time, "Requests under way", "seconds", "requests", series)
}

/// Cumulative distributions of what `values` (seconds) finds in each run.
fn shares(runs: &[Run], title: &str, x: &str, values: impl Fn(&[Record]) -> Vec<f64>) -> Plot {
    let series = |run: &Run| {
        let ms: Vec<f64> =
            values(&run.driven.records).iter().map(|seconds| seconds * 1e3).collect();
        cumulative(&ms, POINTS)
    };
    of_each(runs, Kind::Measured, title, x, "% no longer than", series)
}

fn times(records: &[Record], pick: impl Fn(&Times) -> Option<f64>) -> Vec<f64> {
    records.iter().filter_map(Record::times).filter_map(|times| pick(&times)).collect()
}

/// A line for each run.
fn of_each(
    runs: &[Run],
    kind: Kind,
    title: &str,
    x: &str,
    y: &str,
    points: impl Fn(&Run) -> Vec<(f64, f64)>,
) -> Plot {
    let series = |run: &Run| Series { name: run.load.to_string(), points: points(run) };
    Plot {
        kind,
        title: title.to_owned(),
        x: x.to_owned(),
        y: y.to_owned(),
        series: runs.iter().map(series).collect(),
    }
}
