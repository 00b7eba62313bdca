//! What a run came to. The definitions are those of `vllm bench serve`, so that figures compare:
//!
//! - **TTFT**: from sending a request to its first message with tokens.
//! - **TPOT**: (latency - TTFT) / (output tokens - 1), of answers of more than one token.
//! - **ITL**: the gaps between messages with tokens, of all answers together. A message that brings several tokens ends one
//!   gap, as it does for a reader; `tokens_per_message` says how many they brought.
//! - **E2E**: the latency: from sending a request to its last message with tokens.
//! - **Throughput** and **goodput**: whole answers, their tokens as the server counts them, and answers that meet every bound
//!   of the SLO, over the run's time: from its start to the end of its last request.
//! - **Steady window** of a closed loop: while at least 0.95 of its clients have a request under way, from the first such
//!   moment to the last. Ramp-up and the tail of the last answers lie outside.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::drive::Driven;
use super::load::Load;
use super::record::{Record, Times};
use super::slo::Slo;
use crate::commands::quantile::quantile;

#[cfg(test)]
mod tests;

/// Share of a closed loop's clients that have a request under way in its steady window.
const STEADY: f64 = 0.95;

/// A run in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    /// From the start to the end of the last request.
    pub(super) seconds: f64,
    pub(super) completed: usize,
    pub(super) failed: usize,
    /// Failures by gRPC status.
    pub(super) failures: BTreeMap<&'static str, usize>,
    /// Under way when the run was told to stop.
    pub(super) cut_off: usize,
    pub(super) interrupted: bool,
    pub(super) prompt_tokens_total: u64,
    /// Of those, found in the prefix cache.
    pub(super) cached_prompt_tokens_total: u64,
    pub(super) output_tokens_total: u64,
    pub(super) tokens_per_message: Option<f64>,
    pub(super) requests_per_s: f64,
    pub(super) output_tokens_per_s: f64,
    /// Prompt and output tokens.
    pub(super) total_tokens_per_s: f64,
    /// Of the best whole second.
    pub(super) peak_output_tokens_per_s: f64,
    /// Answers within the SLO per second; null without one.
    pub(super) goodput_requests_per_s: Option<f64>,
    /// Most requests under way at once.
    pub(super) peak_concurrency: usize,
    #[serde(flatten)]
    pub(super) latencies: Latencies,
    /// Null for open loops, and where the window never opened.
    pub(super) steady: Option<Steady>,
}

/// Four kinds of time, milliseconds. In JSON their fields are `ttft_ms_mean`, `ttft_ms_p50` and so on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Latencies {
    pub(super) ttft: Distribution,
    pub(super) tpot: Distribution,
    pub(super) itl: Distribution,
    pub(super) e2e: Distribution,
}

/// Milliseconds; NaN of nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distribution {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
}

/// A closed loop while it is full.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Steady {
    /// Seconds since the run began.
    pub(super) from_s: f64,
    pub(super) to_s: f64,
    /// Answers that ended within it.
    pub(super) requests: usize,
    /// Tokens that came within it.
    pub(super) output_tokens: u64,
    pub(super) output_tokens_per_s: f64,
}

impl Figures {
    pub(super) fn new(driven: &Driven, load: Load, slo: Option<Slo>) -> Self {
        let records = &driven.records;
        let seconds = records.iter().map(|record| record.ended).fold(0.0, f64::max);
        // Nothing ended: no rate but 0.
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let answered: Vec<_> =
            records.iter().filter_map(|record| record.outcome.as_ref().ok()).collect();
        let total = |tokens: fn(&super::record::Usage) -> u32| {
            answered.iter().map(|usage| u64::from(tokens(usage))).sum::<u64>()
        };
        let (prompt, output) = (total(|usage| usage.prompt), total(|usage| usage.output));
        let mut failures = BTreeMap::new();
        for refused in records.iter().filter_map(|record| record.outcome.as_ref().err()) {
            *failures.entry(refused.status).or_default() += 1;
        }
        let times: Vec<Times> = records.iter().filter_map(Record::times).collect();
        let messages: usize = whole(records).map(|record| record.chunks.len()).sum();
        let tokens: u64 = chunks(records).map(|chunk| u64::from(chunk.tokens)).sum();
        let good = |slo: Slo| times.iter().filter(|times| slo.met(times)).count();
        Self {
            seconds,
            completed: answered.len(),
            failed: records.len() - answered.len(),
            failures,
            cut_off: driven.cut_off,
            interrupted: driven.interrupted,
            prompt_tokens_total: prompt,
            cached_prompt_tokens_total: total(|usage| usage.cached),
            output_tokens_total: output,
            tokens_per_message: (messages > 0).then(|| tokens as f64 / messages as f64),
            requests_per_s: per_second(answered.len() as f64),
            output_tokens_per_s: per_second(output as f64),
            total_tokens_per_s: per_second((prompt + output) as f64),
            peak_output_tokens_per_s: tokens_over_time(records, 1.0)
                .iter()
                .map(|bucket| bucket.1)
                .fold(0.0, f64::max),
            goodput_requests_per_s: slo.map(|slo| per_second(good(slo) as f64)),
            peak_concurrency: in_flight(records).iter().map(|step| step.1).max().unwrap_or(0),
            latencies: Latencies::new(records, &times),
            steady: match load {
                Load::Closed { concurrency } => Steady::new(records, concurrency),
                Load::Open(_) => None,
            },
        }
    }
}

impl Latencies {
    fn new(records: &[Record], times: &[Times]) -> Self {
        let of = |values: Vec<f64>| Distribution::new(&values);
        Self {
            ttft: of(times.iter().map(|times| times.ttft).collect()),
            tpot: of(times.iter().filter_map(|times| times.tpot).collect()),
            itl: of(whole(records).flat_map(Record::gaps).collect()),
            e2e: of(times.iter().map(|times| times.latency).collect()),
        }
    }

    /// By their names for people.
    pub(super) fn named(&self) -> [(&'static str, Distribution); 4] {
        [("TTFT", self.ttft), ("TPOT", self.tpot), ("ITL", self.itl), ("E2E", self.e2e)]
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, distribution) in self.named() {
            for (statistic, ms) in distribution.named() {
                let field = format!("{}_ms_{statistic}", name.to_lowercase());
                map.serialize_entry(&field, &ms.is_finite().then_some(ms))?;
            }
        }
        map.end()
    }
}

impl Distribution {
    /// Of `values`, seconds.
    fn new(values: &[f64]) -> Self {
        let ms = |q| quantile(values, q) * 1e3;
        Self {
            mean: values.iter().sum::<f64>() / values.len() as f64 * 1e3,
            p50: ms(0.5),
            p90: ms(0.9),
            p95: ms(0.95),
            p99: ms(0.99),
        }
    }

    pub(super) fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
        ]
    }
}

impl Steady {
    /// `None` if so many requests were never under way at once.
    fn new(records: &[Record], concurrency: u32) -> Option<Self> {
        let full = (STEADY * f64::from(concurrency)).ceil() as usize;
        let steps = in_flight(records);
        let from = steps.iter().position(|step| step.1 >= full)?;
        // After the last full moment comes a step down, for in the end nothing is under way.
        let to = steps.iter().rposition(|step| step.1 >= full)? + 1;
        let (from_s, to_s) = (steps.get(from)?.0, steps.get(to)?.0);
        let within = |at: f64| at > from_s && at <= to_s;
        let output_tokens = chunks(records)
            .filter(|chunk| within(chunk.at))
            .map(|chunk| u64::from(chunk.tokens))
            .sum::<u64>();
        (to_s > from_s).then(|| Self {
            from_s,
            to_s,
            requests: whole(records).filter(|record| within(record.ended)).count(),
            output_tokens,
            output_tokens_per_s: output_tokens as f64 / (to_s - from_s),
        })
    }
}

/// Answers that came to their ends.
pub(super) fn whole(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|record| record.outcome.is_ok())
}

/// Messages of those.
fn chunks(records: &[Record]) -> impl Iterator<Item = &super::record::Chunk> {
    whole(records).flat_map(|record| &record.chunks)
}

/// Requests under way, whatever became of them, after each moment at which one was sent or ended.
pub(super) fn in_flight(records: &[Record]) -> Vec<(f64, usize)> {
    let sent = records.iter().map(|record| (record.sent, 1));
    let ended = records.iter().map(|record| (record.ended, -1));
    let mut events: Vec<(f64, i64)> = sent.chain(ended).collect();
    // An end before a beginning of the same moment: a client has one request, never two.
    events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut under_way = 0_i64;
    let step = |(at, change): (f64, i64)| {
        under_way += change;
        (at, usize::try_from(under_way).unwrap_or(0))
    };
    events.into_iter().map(step).collect()
}

/// Tokens per second in each `bucket` seconds of the run: (start of the bucket, rate).
pub(super) fn tokens_over_time(records: &[Record], bucket: f64) -> Vec<(f64, f64)> {
    let mut buckets: Vec<f64> = Vec::new();
    for chunk in chunks(records) {
        let index = (chunk.at / bucket) as usize;
        if buckets.len() <= index {
            buckets.resize(index + 1, 0.0);
        }
        buckets[index] += f64::from(chunk.tokens);
    }
    let rate = |(index, tokens): (usize, f64)| (index as f64 * bucket, tokens / bucket);
    buckets.into_iter().enumerate().map(rate).collect()
}
