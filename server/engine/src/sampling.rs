//! Sampling: how a next token is chosen from logits.
//!
//! The order of operations, as OpenAI, vLLM and Transformers have it:
//!
//! 1. logit bias is added;
//! 2. the repetition penalty divides or multiplies, then the frequency and presence penalties
//!    are subtracted;
//! 3. banned tokens drop out;
//! 4. the temperature divides (a greedy row ends here: the most likely token, the lowest id of
//!    equals);
//! 5. top-k, top-p (of what top-k left, renormalised), min-p (of the most likely token) narrow;
//! 6. one uniform number, made from the seed and the draw's index alone, picks a token by the
//!    cumulative weights in order of id. Order of id, and not of weight: two runs whose logits
//!    differ in the last bit then draw the same token unless the number falls between them.
//!
//! Nothing sorts the vocabulary: top-k keeps a short list while it scans, top-p narrows by halves
//! (`nucleus`).

use std::sync::Arc;

mod exponential;
mod nucleus;
mod random;
#[cfg(test)]
mod tests;

pub(crate) use exponential::log_sum_exp;

use pith_kernels::Isa;

use nucleus::{Candidate, Cut, Scale};

/// How to choose the next token of one row. Plain data; see [`sample`].
#[derive(Debug, Clone)]
pub struct SampleSpec {
    /// 0 = greedy.
    pub temperature: f32,
    /// Keep the k most likely; 0 = all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this; 1 = all.
    pub top_p: f32,
    /// Drop tokens below this share of the most likely one's probability; 0 = none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen; 1 = none.
    pub repetition_penalty: f32,
    /// Subtracted per occurrence in the output; 0 = none.
    pub frequency_penalty: f32,
    /// Subtracted once for a token in the output; 0 = none.
    pub presence_penalty: f32,
    /// Tokens the repetition penalty applies to, with how often each stands in the output
    /// (0 for one of the prompt only). Sorted by token, no duplicates.
    pub seen: Arc<[(u32, u32)]>,
    /// Tokens that may not be chosen (end tokens before `min_tokens`). Sorted.
    pub banned: Arc<[u32]>,
    /// Added to a token's logit. Sorted by token.
    pub logit_bias: Arc<[(u32, f32)]>,
    /// The sequence's seed.
    pub seed: u64,
    /// Index of this token in the sequence's output: with the seed, all of the row's randomness,
    /// so a draw does not depend on the batch around it or on preemption.
    pub draw: u64,
}

impl SampleSpec {
    /// The most likely token of logits as they are: nothing penalised, banned or biased, seed and draw 0.
    #[must_use]
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seen: Arc::new([]),
            banned: Arc::new([]),
            logit_bias: Arc::new([]),
            seed: 0,
            draw: 0,
        }
    }

    /// Refuses what sampling has no meaning for. `vocab` is the number of logits.
    ///
    /// Ids beyond the vocabulary are allowed and ignored.
    pub fn check(&self, vocab: usize) -> Result<(), &'static str> {
        let sane = |value: f32| value.is_finite() && value >= 0.0;
        if !sane(self.temperature) {
            return Err("temperature is not a finite number from 0");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return Err("top_p lies outside 0..=1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err("min_p lies outside 0..=1");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return Err("repetition_penalty is not a finite number above 0");
        }
        if !(self.frequency_penalty.is_finite() && self.presence_penalty.is_finite()) {
            return Err("a penalty is not finite");
        }
        if !self.logit_bias.iter().all(|&(_, bias)| bias.is_finite()) {
            return Err("a logit bias is not finite");
        }
        if self.bans_everything(vocab) {
            return Err("every token is banned");
        }
        Ok(())
    }

    fn bans_everything(&self, vocab: usize) -> bool {
        // Sorted, so that equals are neighbours.
        self.banned.len() >= vocab
            && self.banned.chunk_by(|a, b| a == b).filter(|run| (run[0] as usize) < vocab).count()
                >= vocab
    }

    /// Temperatures this low would overflow the division and are greedy in all but name.
    fn is_greedy(&self) -> bool {
        self.temperature < 1e-5
    }
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// ln-probability of it under the unmodified distribution (temperature 1, no penalty, no ban).
    pub logprob: f32,
}

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// A logit is NaN or positive infinity: the model's arithmetic failed.
    #[error("a logit is not finite")]
    NotFinite,
    /// Every token is banned or of zero likelihood.
    #[error("every token is banned")]
    NothingLeft,
}

/// Storage that [`sample`] reuses from call to call.
#[derive(Debug, Default)]
pub struct SampleScratch {
    /// What the edits overwrote, oldest first.
    overwritten: Vec<(u32, f32)>,
    /// Tokens top-k and top-p choose among.
    candidates: Vec<Candidate>,
    /// Weight of each stretch of the vocabulary.
    masses: Vec<f64>,
}

/// Chooses the next token from `logits` (vocabulary long). They are edited on the way and handed
/// back as they came, so that a row may be sampled more than once.
///
/// See the [module](self) for the order of operations. The result is the same with every `isa`.
pub fn sample(
    isa: Isa,
    logits: &mut [f32],
    spec: &SampleSpec,
    scratch: &mut SampleScratch,
) -> Result<Drawn, SampleError> {
    let normaliser = log_sum_exp(isa, logits)?;
    edit(logits, spec, &mut scratch.overwritten);
    let chosen = choose(isa, logits, spec, scratch);
    for &(id, was) in scratch.overwritten.iter().rev() {
        logits[id as usize] = was;
    }
    let id = chosen?;
    Ok(Drawn { id, logprob: (f64::from(logits[id as usize]) - normaliser) as f32 })
}

/// Edited logits stay within this of 0: whatever a request asks for, its row stays finite.
const LARGEST_EDITED: f32 = 1e30;

/// Applies bias, bans and penalties, remembering what they overwrite.
#[expect(clippy::manual_clamp, reason = "clamp would hand NaN on")]
fn edit(logits: &mut [f32], spec: &SampleSpec, overwritten: &mut Vec<(u32, f32)>) {
    overwritten.clear();
    let mut change = |id: u32, new: &dyn Fn(f32) -> f32| {
        if let Some(logit) = logits.get_mut(id as usize)
            && *logit > f32::NEG_INFINITY
        {
            overwritten.push((id, *logit));
            // Two infinite edits can meet in NaN: `max` drops it.
            *logit = new(*logit).max(-LARGEST_EDITED).min(LARGEST_EDITED);
        }
    };
    for &(id, bias) in spec.logit_bias.iter() {
        change(id, &|logit| logit + bias);
    }
    let repetition = spec.repetition_penalty;
    if repetition != 1.0 || spec.frequency_penalty != 0.0 || spec.presence_penalty != 0.0 {
        for &(id, count) in spec.seen.iter() {
            let mut subtract = spec.frequency_penalty * count as f32;
            if count > 0 {
                subtract += spec.presence_penalty;
            }
            change(id, &|logit| {
                let repeated = if logit > 0.0 { logit / repetition } else { logit * repetition };
                repeated - subtract
            });
        }
    }
    for &id in spec.banned.iter() {
        if let Some(logit) = logits.get_mut(id as usize) {
            overwritten.push((id, *logit));
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Chooses from edited logits.
fn choose(
    isa: Isa,
    logits: &[f32],
    spec: &SampleSpec,
    scratch: &mut SampleScratch,
) -> Result<u32, SampleError> {
    // Again, for the edits move the top and may leave nothing.
    let top = exponential::top(isa, logits)?;
    if spec.is_greedy() {
        let first = logits.iter().position(|&logit| logit == top);
        return first.map(|id| id as u32).ok_or(SampleError::NotFinite);
    }
    let scale = Scale { top, inverse: 1.0 / spec.temperature };
    let cut = narrow(isa, logits, spec, scale, &mut scratch.candidates, &mut scratch.masses);
    let uniform = random::uniform(spec.seed, spec.draw);
    Ok(nucleus::draw(isa, logits, scale, cut, uniform, &mut scratch.masses))
}

/// What top-k, top-p and min-p leave of the vocabulary.
fn narrow(
    isa: Isa,
    logits: &[f32],
    spec: &SampleSpec,
    scale: Scale,
    candidates: &mut Vec<Candidate>,
    masses: &mut Vec<f64>,
) -> Cut {
    let mut cut = Cut::EVERYTHING;
    let k = spec.top_k as usize;
    let narrows_k = k > 0 && k < logits.len();
    if narrows_k {
        cut = nucleus::top_k(isa, logits, k, candidates);
    }
    if spec.top_p < 1.0 {
        let target = if narrows_k {
            f64::from(spec.top_p) * nucleus::total(candidates, scale)
        } else {
            nucleus::likely(isa, logits, scale, spec.top_p, candidates, masses)
        };
        cut = nucleus::top_p(candidates, scale, target);
    }
    if spec.min_p > 0.0 {
        cut = cut.raised(scale.top + spec.temperature * spec.min_p.ln());
    }
    cut
}
