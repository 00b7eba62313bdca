//! What callers ask of the engine, and what they get back.

use std::sync::Arc;
use std::time::Instant;

/// A request to generate tokens after a prompt.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Name used by [`crate::Engine::abort`]; unique among live requests.
    pub id: String,
    /// Whose request it is: prefix-cache blocks are never shared between tenants.
    pub tenant: Arc<str>,
    /// Prompt token ids, BOS included where the model wants one. At least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// When to stop.
    pub stop: StopConditions,
    /// Past this the request ends with [`EngineError::DeadlineExceeded`], queued or running.
    pub deadline: Option<Instant>,
    /// Whether cached KV of an equal prefix may be used and this prompt's published.
    pub prefix_cache: bool,
}

/// How tokens are chosen. [`SamplingParams::default`] is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 = greedy; at most 100.
    pub temperature: f32,
    /// Keep the k most likely; 0 = all.
    pub top_k: u32,
    /// In `(0, 1]`; 1 = all.
    pub top_p: f32,
    /// In `[0, 1]`; 0 = none.
    pub min_p: f32,
    /// In `(0, 10]`; 1 = none.
    pub repetition_penalty: f32,
    /// In `[-2, 2]`; 0 = none.
    pub frequency_penalty: f32,
    /// In `[-2, 2]`; 0 = none.
    pub presence_penalty: f32,
    /// Same seed, prompt and model: same tokens. `None` draws one from the engine's counter.
    pub seed: Option<u64>,
    /// Added to logits of tokens; at most 1,024 entries.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

/// When a generation stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopConditions {
    /// Most tokens to generate; at least 1. Prompt and this together must fit the model's context.
    pub max_tokens: u32,
    /// End tokens are not chosen before this many.
    pub min_tokens: u32,
    /// The text ends before the first of these; at most 16 of 1 to 256 bytes.
    pub strings: Vec<String>,
    /// Token ids that end the generation, besides the model's own; at most 64.
    pub tokens: Vec<u32>,
    /// Carry on past the model's end tokens (benchmarks).
    pub ignore_end: bool,
}

impl StopConditions {
    /// Stops after `max_tokens` tokens and for nothing else, the model's end token included.
    pub fn exactly(max_tokens: u32) -> Self {
        Self {
            max_tokens,
            min_tokens: 0,
            strings: Vec::new(),
            tokens: Vec::new(),
            ignore_end: true,
        }
    }
}

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Text and the tokens it came from. Text never ends inside a character and never shows part of a
    /// stop string; tokens may run ahead of their text.
    Tokens {
        /// Text ready to be shown; may be empty.
        text: String,
        /// Tokens since the last event.
        tokens: Vec<GeneratedToken>,
    },
    /// The last event.
    Finished(Finish),
}

/// A generated token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratedToken {
    /// Id.
    pub id: u32,
    /// ln-probability under the unmodified distribution.
    pub logprob: f32,
}

/// How a generation ended, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Prompt tokens whose KV came from the prefix cache.
    pub cached_tokens: u32,
    /// Tokens generated, the end token included.
    pub completion_tokens: u32,
    /// Seconds from submission to the first step that computed for it.
    pub queue_seconds: f64,
    /// Seconds from then to the first token.
    pub prefill_seconds: f64,
    /// Seconds from the first token to the last.
    pub decode_seconds: f64,
    /// Times it was preempted and recomputed.
    pub preemptions: u32,
    /// Tokens drafted by prompt lookup and verified; see [`crate::speculation`].
    pub draft_tokens: u32,
    /// Of those, the ones that were sampled, each of which saved a step.
    pub accepted_draft_tokens: u32,
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's end token, or a token of [`StopConditions::tokens`].
    StopToken(u32),
    /// A string of [`StopConditions::strings`].
    StopString(String),
    /// [`StopConditions::max_tokens`].
    Length,
    /// [`crate::Engine::abort`].
    Aborted,
}

/// A request to score given tokens.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// Whose request it is.
    pub tenant: Arc<str>,
    /// The whole token sequence.
    pub tokens: Vec<u32>,
    /// Tokens from this index on (at least 1) are scored given all before them.
    pub from: usize,
    /// Past this the request ends with [`EngineError::DeadlineExceeded`].
    pub deadline: Option<Instant>,
    /// Whether cached KV may be used and published.
    pub prefix_cache: bool,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// A field is out of range.
    #[error("{field}: {reason}")]
    Invalid {
        /// Dotted name of the field.
        field: &'static str,
        /// What it must be.
        reason: String,
    },
    /// Prompt and answer do not fit.
    #[error(
        "the prompt has {prompt_tokens} tokens and asks for {max_tokens} more; the limit is {limit}"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: u32,
        /// The model's context, or the KV pool if that is smaller.
        limit: usize,
    },
    /// The queue is full.
    #[error("the queue is full: {queued} requests wait (limit {limit})")]
    QueueFull {
        /// Requests waiting.
        queued: usize,
        /// The bound.
        limit: usize,
    },
    /// A live request has the same id.
    #[error("request id {0:?} is in use")]
    DuplicateId(String),
    /// The engine is shutting down, or it has failed and is being restarted.
    #[error("the engine is not accepting requests")]
    Unavailable,
}

/// Why a taken request ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Its deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The engine stopped before it was done.
    #[error("the engine shut down")]
    ShutDown,
    /// Arithmetic failed: this request's alone, or a whole step's, which ends every running request.
    #[error("the engine failed: {0}")]
    Failed(String),
}

/// The engine's load at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Requests waiting for their first step.
    pub waiting: usize,
    /// Prompt tokens of those.
    pub waiting_tokens: usize,
    /// Requests with KV.
    pub running: usize,
    /// KV blocks no one holds or caches.
    pub blocks_free: usize,
    /// KV blocks held only by the prefix cache.
    pub blocks_cached: usize,
    /// KV blocks of running requests.
    pub blocks_used: usize,
    /// All KV blocks.
    pub blocks_total: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Prompt tokens looked up in the prefix cache since start.
    pub prefix_queries: u64,
    /// Of those, found.
    pub prefix_hits: u64,
    /// Preemptions since start.
    pub preemptions: u64,
    /// Steps since start.
    pub steps: u64,
    /// Prompt tokens computed since start.
    pub prefill_tokens: u64,
    /// Tokens generated since start.
    pub generated_tokens: u64,
    /// Tokens drafted by prompt lookup and verified since start.
    pub draft_tokens: u64,
    /// Of those, the ones that were sampled.
    pub accepted_draft_tokens: u64,
    /// Measured prefill rate, tokens per second; 0 until measured.
    pub prefill_tokens_per_s: f64,
    /// Measured seconds of a decode step; 0 until measured.
    pub decode_step_seconds: f64,
    /// Seconds that the executor computed since start, by its own account.
    pub computed_seconds: f64,
}
