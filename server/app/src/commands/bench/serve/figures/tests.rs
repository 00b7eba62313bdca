//! A run small enough to be worked out by hand.

use super::*;
use crate::commands::bench::serve::load::{Open, Rate};
use crate::commands::bench::serve::record::{Chunk, Refused, Usage};

/// An answer sent at `sent` with tokens at `chunks` (seconds, tokens), ended with its last message.
fn answered(sent: f64, chunks: &[(f64, u32)]) -> Record {
    let chunks: Vec<Chunk> = chunks.iter().map(|&(at, tokens)| Chunk { at, tokens }).collect();
    let output = chunks.iter().map(|chunk| chunk.tokens).sum();
    let ended = chunks.last().unwrap().at;
    Record { sent, ended, chunks, outcome: Ok(Usage { prompt: 10, cached: 4, output }) }
}

fn refused(sent: f64, ended: f64, status: &'static str) -> Record {
    let outcome = Err(Refused { status, message: String::new() });
    Record { sent, ended, chunks: Vec::new(), outcome }
}

fn figures(records: Vec<Record>, load: Load, slo: Option<&str>) -> Figures {
    let driven = Driven { records, cut_off: 0, interrupted: false };
    Figures::new(&driven, load, slo.map(|slo| slo.parse().unwrap()))
}

/// Two clients: one gets 3 tokens one by one, then 1 token; the other 5 tokens in 3 messages.
fn two_clients() -> Vec<Record> {
    vec![
        answered(0.0, &[(0.5, 1), (0.7, 1), (0.9, 1)]),
        answered(0.0, &[(1.0, 1), (1.2, 3), (1.6, 1)]),
        answered(1.0, &[(2.0, 1)]),
    ]
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

#[test]
fn figures_are_those_of_their_definitions() {
    let figures = figures(two_clients(), Load::Closed { concurrency: 2 }, None);
    let Latencies { ttft, tpot, itl, e2e } = figures.latencies;
    // 500, 1000 and 1000 ms.
    close(ttft.mean, 2500.0 / 3.0);
    close(ttft.p50, 1000.0);
    // (0.9 - 0.5) / 2 and (1.6 - 1.0) / 4; the answer of one token has none.
    close(tpot.mean, (200.0 + 150.0) / 2.0);
    close(tpot.p50, 175.0);
    // 200, 200, 200 and 400 ms: the three tokens that came together end one gap.
    close(itl.mean, 250.0);
    close(itl.p50, 200.0);
    close(figures.tokens_per_message.unwrap(), 9.0 / 7.0);
    // 0.9, 1.6 and 1.0 s.
    close(e2e.p50, 1000.0);
    close(e2e.p99, 1000.0 + 0.98 * 600.0);
    close(figures.seconds, 2.0);
    close(figures.requests_per_s, 1.5);
    close(figures.output_tokens_per_s, 4.5);
    close(figures.total_tokens_per_s, (30.0 + 9.0) / 2.0);
    assert_eq!((figures.prompt_tokens_total, figures.cached_prompt_tokens_total), (30, 12));
    assert_eq!((figures.peak_concurrency, figures.output_tokens_total), (2, 9));
    // 3 tokens before 1 s, 5 before 2 s, 1 at 2 s.
    close(figures.peak_output_tokens_per_s, 5.0);
}

#[test]
fn goodput_counts_answers_within_every_bound() {
    let goodput = |slo| {
        let load = Load::Closed { concurrency: 2 };
        figures(two_clients(), load, Some(slo)).goodput_requests_per_s.unwrap()
    };
    close(goodput("ttft:1000"), 1.5);
    close(goodput("ttft:600"), 0.5);
    close(goodput("tpot:160"), 1.0);
    close(goodput("ttft:1000,tpot:160,e2e:1100"), 0.5);
    assert_eq!(
        figures(two_clients(), Load::Closed { concurrency: 2 }, None).goodput_requests_per_s,
        None
    );
}

#[test]
fn failures_are_counted_by_status_and_give_no_times() {
    let mut records = two_clients();
    records.push(refused(0.0, 0.1, "RESOURCE_EXHAUSTED"));
    records.push(refused(0.0, 0.1, "RESOURCE_EXHAUSTED"));
    // Broke off: its tokens do not count.
    records.push(Record {
        chunks: vec![Chunk { at: 0.05, tokens: 7 }],
        ..refused(0.0, 4.0, "INTERNAL")
    });
    let figures = figures(records, Load::Closed { concurrency: 4 }, None);
    assert_eq!((figures.completed, figures.failed), (3, 3));
    let failures = BTreeMap::from([("INTERNAL", 1), ("RESOURCE_EXHAUSTED", 2)]);
    assert_eq!(figures.failures, failures);
    close(figures.latencies.ttft.mean, 2500.0 / 3.0);
    close(figures.seconds, 4.0);
    close(figures.output_tokens_per_s, 9.0 / 4.0);
    assert_eq!(figures.peak_concurrency, 5);
}

#[test]
fn the_steady_window_leaves_out_ramp_and_tail() {
    // Both clients are busy from 0.5 s on. One has a moment without a request, which does not end the window; at 3 s there
    // is nothing left for it.
    let records = vec![
        answered(0.0, &[(0.4, 1), (1.0, 1), (2.0, 1)]),
        answered(2.1, &[(2.5, 1), (3.0, 1)]),
        answered(0.5, &[(1.5, 1), (3.5, 1)]),
    ];
    let steady = Steady::new(&records, 2).unwrap();
    assert_eq!((steady.from_s, steady.to_s), (0.5, 3.0));
    assert_eq!((steady.requests, steady.output_tokens), (2, 5));
    close(steady.output_tokens_per_s, 2.0);
    assert_eq!(Steady::new(&records, 3), None, "three were never under way");
    // 0.95 of 20 is 19: one may be missing.
    let nineteen: Vec<Record> = (0..19).map(|_| answered(0.0, &[(1.0, 1)])).collect();
    assert!(Steady::new(&nineteen, 20).is_some() && Steady::new(&nineteen[1..], 20).is_none());
}

#[test]
fn open_loops_have_no_steady_window() {
    let open = Open { rate: Rate(1.0), burstiness: 1.0, max_concurrency: None };
    assert_eq!(figures(two_clients(), Load::Open(open), None).steady, None);
}

#[test]
fn nothing_at_all_has_no_times_and_no_rates() {
    let figures = figures(Vec::new(), Load::Closed { concurrency: 1 }, Some("ttft:1"));
    assert_eq!((figures.output_tokens_per_s, figures.goodput_requests_per_s), (0.0, Some(0.0)));
    let json = serde_json::to_value(&figures).unwrap();
    assert!(json["ttft_ms_p99"].is_null() && json["steady"].is_null(), "{json}");
}

#[test]
fn rates_over_time_are_of_each_bucket() {
    let rates = tokens_over_time(&two_clients(), 0.5);
    let expected = [(0.0, 0.0), (0.5, 6.0), (1.0, 8.0), (1.5, 2.0), (2.0, 2.0)];
    assert_eq!(rates, expected);
}
