//! Sampling: how a next token is chosen from logits.

use std::sync::Arc;

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
