//! Runs as text for people.

use std::io::{self, Write as _};

use super::Run;
use super::figures::Steady;
use super::record::Record;
use crate::commands::Failure;

/// One run, as soon as it is over.
pub(super) fn print(run: &Run) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let figures = &run.figures;
    writeln!(
        out,
        "\n{}: {} of {} requests in {:.2} s, at most {} at once; {}",
        run.load,
        figures.completed,
        run.requests,
        figures.seconds,
        figures.peak_concurrency,
        run.asked(),
    )?;
    writeln!(
        out,
        "  {:.2} requests/s, {:.1} output tok/s, {:.1} total tok/s",
        figures.requests_per_s, figures.output_tokens_per_s, figures.total_tokens_per_s
    )?;
    if let Some(Steady { from_s, to_s, requests, output_tokens_per_s, .. }) = &figures.steady {
        let seconds = to_s - from_s;
        writeln!(
            out,
            "  steady window of {seconds:.2} s: {requests} requests, {output_tokens_per_s:.1} output tok/s"
        )?;
    }
    if let (Some(slo), Some(goodput)) = (run.slo, figures.goodput_requests_per_s) {
        writeln!(out, "  {goodput:.2} requests/s within {slo}")?;
    }
    if figures.cached_prompt_tokens_total > 0 {
        let (cached, prompt) = (figures.cached_prompt_tokens_total, figures.prompt_tokens_total);
        writeln!(out, "  {cached} of {prompt} prompt tokens found in the prefix cache")?;
    }
    writeln!(
        out,
        "  {:<6} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ms", "mean", "p50", "p90", "p95", "p99"
    )?;
    for (name, distribution) in figures.latencies.named() {
        write!(out, "  {name:<6}")?;
        for (_, ms) in distribution.named() {
            write!(out, " {:>9}", super::table::ms(ms))?;
        }
        writeln!(out)?;
    }
    print_failures(run, &mut out)
}

/// Failures by status, each with the words of the first, and what was cut off.
fn print_failures(run: &Run, out: &mut impl io::Write) -> Result<(), Failure> {
    let refused = |record: &Record| record.outcome.clone().err();
    for (status, count) in &run.figures.failures {
        let mut all = run.driven.records.iter().filter_map(refused);
        let message = all.find(|refused| refused.status == *status);
        let message = message.map_or_else(String::new, |refused| refused.message);
        writeln!(out, "  {count} failed: {status} ({message})")?;
    }
    if run.figures.interrupted {
        writeln!(out, "  interrupted; {} requests were under way", run.figures.cut_off)?;
    }
    Ok(())
}

/// Several runs side by side.
pub(super) fn print_summary(runs: &[Run]) -> Result<(), Failure> {
    if runs.len() < 2 {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\n{:<18} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "load",
        "failed",
        "req/s",
        "output/s",
        "steady/s",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "TPOT p99",
        "E2E p99"
    )?;
    for run in runs {
        let figures = &run.figures;
        let latencies = &figures.latencies;
        let steady = figures.steady.as_ref().map_or(f64::NAN, |steady| steady.output_tokens_per_s);
        writeln!(
            out,
            "{:<18} {:>8} {:>9.2} {:>9.1} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            run.load.to_string(),
            figures.failed,
            figures.requests_per_s,
            figures.output_tokens_per_s,
            ms(steady),
            ms(latencies.ttft.p50),
            ms(latencies.ttft.p99),
            ms(latencies.tpot.p50),
            ms(latencies.tpot.p99),
            ms(latencies.e2e.p99),
        )?;
    }
    Ok(())
}

/// One digit after the point, or a dash for what there is none of.
pub(super) fn ms(value: f64) -> String {
    if value.is_finite() { format!("{value:.1}") } else { "-".to_owned() }
}
