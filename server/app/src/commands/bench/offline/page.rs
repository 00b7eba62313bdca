//! Combinations as a page with plots.

use std::collections::BTreeMap;

use super::{Measured, figure};
use crate::commands::plot::{Kind, Plot, Series};
use crate::commands::report::{Report, Table};

/// How the figures are defined.
const NOTES: [&str; 4] = [
    "All streams of a run begin together, and each figure is the median over its runs. Prompts are token ids; nothing is \
     found in the prefix cache.",
    "prefill: prompt tokens per second until the last stream has its first token.",
    "decode: tokens per second while all streams decode and nothing else happens.",
    "output: generated tokens per second of the whole run, prompts included in its time.",
];

/// The page of `results`.
pub(super) fn report(results: &[Measured]) -> Report {
    let mut report = Report::new("pith bench offline");
    if let Some(first) = results.first() {
        report.title = format!("pith bench offline: {}", first.model);
        report.conditions.extend([
            ("Model", first.model.clone()),
            ("Weights", if first.random_weights { "random" } else { "the model's" }.to_owned()),
            ("Executor", first.executor.clone()),
            ("KV type", first.kv_type.name().to_owned()),
            ("Load to first token", format!("{:.2} s", first.load_s)),
            ("Runs", format!("{} of each combination, medians", first.repeat)),
        ]);
    }
    report.tables = vec![table(results)];
    report.plots = plots(results);
    report.notes = NOTES.map(str::to_owned).to_vec();
    report
}

fn table(results: &[Measured]) -> Table {
    let head = [
        "tokens in",
        "tokens out",
        "streams",
        "seconds",
        "prefill tok/s",
        "decode tok/s",
        "output tok/s",
        "TTFT p50 ms",
        "TTFT p99 ms",
        "ITL p50 ms",
        "ITL p99 ms",
        "peak MiB",
    ];
    let row = |measured: &Measured| {
        vec![
            measured.prompt_tokens.to_string(),
            measured.output_tokens.to_string(),
            measured.streams.to_string(),
            format!("{:.2}", measured.seconds),
            figure(Some(measured.prefill_tokens_per_s)),
            figure(measured.decode_tokens_per_s),
            figure(Some(measured.output_tokens_per_s)),
            figure(Some(measured.ttft_ms_p50)),
            figure(Some(measured.ttft_ms_p99)),
            figure(measured.itl_ms_p50),
            figure(measured.itl_ms_p99),
            measured.peak_rss_mib.map_or("-".to_owned(), |mib| format!("{mib:.0}")),
        ]
    };
    Table {
        title: "Combinations".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        rows: results.iter().map(row).collect(),
    }
}

/// Its name, and what of a combination lies on it.
type Axis<T> = (&'static str, fn(&Measured) -> T);

fn plots(results: &[Measured]) -> Vec<Plot> {
    let prompt: Axis<u32> = ("prompt tokens", |measured| measured.prompt_tokens);
    let streams: Axis<u32> = ("streams", |measured| measured.streams);
    let of_streams = |measured: &Measured| match measured.streams {
        1 => "1 stream".to_owned(),
        streams => format!("{streams} streams"),
    };
    let of_lengths = |measured: &Measured| {
        format!("{} in + {} out", measured.prompt_tokens, measured.output_tokens)
    };
    let prefill: Axis<f64> = ("prefill tok/s", |measured| measured.prefill_tokens_per_s);
    let ttft: Axis<f64> = ("TTFT p50, ms", |measured| measured.ttft_ms_p50);
    let output: Axis<f64> = ("output tok/s", |measured| measured.output_tokens_per_s);
    let decode: Axis<f64> =
        ("decode tok/s", |measured| measured.decode_tokens_per_s.unwrap_or(f64::NAN));
    vec![
        plot(results, "Prefill by prompt length", prompt, prefill, of_streams),
        plot(results, "Time to first token by prompt length", prompt, ttft, of_streams),
        plot(results, "Output of the whole run by streams", streams, output, of_lengths),
        plot(results, "Decode by streams", streams, decode, of_lengths),
    ]
}

/// `y` over `x`, a line for each `name`.
fn plot(
    results: &[Measured],
    title: &str,
    x: Axis<u32>,
    y: Axis<f64>,
    name: fn(&Measured) -> String,
) -> Plot {
    // In the order of their first points, whatever their names.
    let mut order = BTreeMap::new();
    let mut series: Vec<Series> = Vec::new();
    for measured in results {
        let name = name(measured);
        let index = *order.entry(name.clone()).or_insert_with(|| {
            series.push(Series { name, points: Vec::new() });
            series.len() - 1
        });
        if let Some(line) = series.get_mut(index) {
            line.points.push((f64::from(x.1(measured)), y.1(measured)));
        }
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Plot {
        kind: Kind::Chosen,
        title: title.to_owned(),
        x: x.0.to_owned(),
        y: y.0.to_owned(),
        series,
    }
}
