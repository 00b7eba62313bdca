//! One run: some streams that begin together, token ids in, tokens out.

use std::sync::Arc;
use std::time::Instant;

use pith_engine::Engine;
use pith_engine::request::{Event, GenerateRequest, SamplingParams, StopConditions};
use tokio::task::JoinSet;

use crate::commands::Failure;
use crate::commands::quantile::quantile;

/// What the streams of a run are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    pub(super) streams: u32,
}

/// When each token of each stream arrived, seconds since all were sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) arrivals: Vec<Vec<f64>>,
    prompt_tokens: u32,
    /// Tokens drafted for all streams.
    pub(super) draft_tokens: u64,
    /// Of those, accepted.
    pub(super) accepted_draft_tokens: u64,
    /// Seconds that the executor computed, by its own account.
    pub(super) computed_seconds: f64,
}

impl Run {
    /// Lets `shape.streams` requests loose at once and reads them to their ends. `salt` makes prompts of their
    /// own, so that nothing is found in a cache.
    pub(super) async fn measure(engine: &Engine, shape: Shape, salt: u64) -> Result<Self, Failure> {
        let vocab = engine.capabilities().vocab as u64;
        let mut running = JoinSet::new();
        let before = engine.load().computed_seconds;
        let began = Instant::now();
        for stream in 0..shape.streams {
            let request = GenerateRequest {
                id: format!("bench-{salt}-{stream}"),
                tenant: Arc::from("bench"),
                prompt: prompt(shape.prompt_tokens, vocab, salt << 20 | u64::from(stream)),
                sampling: SamplingParams::default(),
                stop: StopConditions::exactly(shape.output_tokens),
                deadline: None,
                prefix_cache: false,
            };
            let mut events = engine.submit(request).map_err(Failure::new)?;
            running.spawn(async move {
                let mut arrivals = Vec::new();
                let mut drafts = (0, 0);
                while let Some(event) = events.next().await {
                    match event.map_err(Failure::new)? {
                        Event::Tokens { tokens, .. } => {
                            let now = began.elapsed().as_secs_f64();
                            arrivals.extend(tokens.iter().map(|_| now));
                        }
                        Event::Finished(finish) => {
                            drafts = (finish.draft_tokens, finish.accepted_draft_tokens);
                        }
                    }
                }
                Ok::<_, Failure>((arrivals, drafts))
            });
        }
        let mut run = Self {
            arrivals: Vec::new(),
            prompt_tokens: shape.prompt_tokens,
            draft_tokens: 0,
            accepted_draft_tokens: 0,
            computed_seconds: 0.0,
        };
        while let Some(done) = running.join_next().await {
            let failed = |error| Failure::new(format!("a reader failed: {error}"));
            let (arrivals, (drafted, accepted)) = done.map_err(failed)??;
            run.arrivals.push(arrivals);
            run.draft_tokens += u64::from(drafted);
            run.accepted_draft_tokens += u64::from(accepted);
        }
        run.computed_seconds = engine.load().computed_seconds - before;
        Ok(run)
    }

    fn firsts(&self) -> impl Iterator<Item = f64> {
        self.arrivals.iter().filter_map(|stream| stream.first().copied())
    }

    /// Seconds until the last first token: prompts are being computed until then.
    fn all_started(&self) -> f64 {
        self.firsts().fold(0.0, f64::max)
    }

    /// Seconds until the last token.
    pub(super) fn seconds(&self) -> f64 {
        self.arrivals.iter().flatten().copied().fold(0.0, f64::max)
    }

    /// Prompt tokens per second until the last first token. Streams that started before decode meanwhile.
    pub(super) fn prefill_tokens_per_s(&self) -> f64 {
        f64::from(self.prompt_tokens) * self.arrivals.len() as f64 / self.all_started()
    }

    /// Tokens per second after all streams had their first, until the first of them ended: all
    /// decode, nothing else happens. NaN if there is no such time.
    pub(super) fn decode_tokens_per_s(&self) -> f64 {
        let from = self.all_started();
        let ends = self.arrivals.iter().filter_map(|stream| stream.last().copied());
        let to = ends.fold(f64::INFINITY, f64::min);
        let tokens = self.arrivals.iter().flatten().filter(|&&at| at > from && at <= to).count();
        if to > from { tokens as f64 / (to - from) } else { f64::NAN }
    }

    /// Tokens generated per second of the whole run, prompts included in its time.
    pub(super) fn output_tokens_per_s(&self) -> f64 {
        self.arrivals.iter().map(Vec::len).sum::<usize>() as f64 / self.seconds()
    }

    /// Share of the run in which the executor computed; the rest went by between steps. The last step's time may be missing.
    pub(super) fn busy_share(&self) -> f64 {
        (self.computed_seconds / self.seconds()).min(1.0)
    }

    /// Quantile of the time to a stream's first token, milliseconds.
    pub(super) fn ttft_ms(&self, q: f64) -> f64 {
        quantile(&self.firsts().collect::<Vec<_>>(), q) * 1e3
    }

    /// Quantile of the gaps between a stream's tokens, all streams together, milliseconds.
    pub(super) fn itl_ms(&self, q: f64) -> f64 {
        let gaps = self.arrivals.iter().flat_map(|stream| stream.windows(2));
        quantile(&gaps.map(|pair| pair[1] - pair[0]).collect::<Vec<_>>(), q) * 1e3
    }
}

/// Ids spread over the vocabulary by a fixed rule: what a prompt says has no bearing on how long it takes.
fn prompt(length: u32, vocab: u64, salt: u64) -> Vec<u32> {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % vocab) as u32
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arrivals: Vec<Vec<f64>>) -> Run {
        Run {
            arrivals,
            prompt_tokens: 10,
            draft_tokens: 0,
            accepted_draft_tokens: 0,
            computed_seconds: 4.0,
        }
    }

    #[test]
    fn figures_are_those_of_their_definitions() {
        // Two streams of four tokens: the second starts at 2 s, the first ends at 4 s.
        let run = run(vec![vec![1.0, 2.0, 3.0, 4.0], vec![2.0, 3.0, 4.0, 5.0]]);
        assert_eq!(run.prefill_tokens_per_s(), 10.0);
        assert_eq!(run.decode_tokens_per_s(), 2.0);
        assert_eq!(run.output_tokens_per_s(), 8.0 / 5.0);
        assert_eq!((run.ttft_ms(0.5), run.ttft_ms(1.0)), (1500.0, 2000.0));
        assert_eq!(run.itl_ms(0.99), 1000.0);
        assert_eq!(run.busy_share(), 4.0 / 5.0);
    }

    #[test]
    fn a_run_without_a_pure_decode_phase_has_no_decode_rate() {
        let run = run(vec![vec![1.0], vec![2.0]]);
        assert!(run.decode_tokens_per_s().is_nan() && run.itl_ms(0.5).is_nan());
    }

    #[test]
    fn prompts_differ_and_stay_in_the_vocabulary() {
        assert_ne!(prompt(20, 100, 1), prompt(20, 100, 2));
        assert!(prompt(1000, 7, 3).iter().all(|&id| id < 7));
    }
}
