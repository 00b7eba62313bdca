//! The step: one ragged batch of prefill chunks and decode rows, and what came of it.
//!
//! A step is plain data. The scheduler writes it, an [`Executor`](crate::executor::Executor)
//! computes it, and nothing else crosses the door between them.

use std::ops::Range;
use std::sync::Arc;

use crate::sampling::SampleSpec;

/// Numbers steps in the order they are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u64);

/// Id of a KV block in the pool.
pub type BlockId = u32;

/// Where a row's input token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// A known token id.
    Literal(u32),
    /// The token sampled by row `row` of the step in flight (the one submitted just before this
    /// one), not yet known to the scheduler.
    InFlight {
        /// Row of that step; it wants a sample.
        row: u32,
    },
}

/// One sequence's share of a step: `rows` consecutive rows, the last of `context` tokens.
#[derive(Debug, Clone)]
pub struct StepSequence {
    /// First row of the step that is this sequence's.
    pub first_row: u32,
    /// Rows (query length): a prefill chunk, or 1 for decode.
    pub rows: u32,
    /// Tokens whose KV is in place once this step is done (context length).
    pub context: u32,
    /// The sequence's KV blocks, in order; at least `ceil(context / block_size)`.
    pub blocks: Arc<[BlockId]>,
    /// Low-rank adapter, where the executor has one loaded under this id.
    pub adapter: Option<u32>,
    /// Emphasised spans of the context (token positions), sorted and disjoint. Empty = exact no-op.
    pub bias: Arc<[AttentionBias]>,
}

/// Adds `ln(weight)` to the attention scores of keys at `span`.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionBias {
    /// Token positions of the sequence.
    pub span: Range<u32>,
    /// Emphasis in `[1/8, 8]`.
    pub weight: f32,
}

/// Copies one KV block onto another before the step computes (copy-on-write).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Source block.
    pub from: BlockId,
    /// Destination block.
    pub to: BlockId,
}

/// What is wanted of a row. Rows that want nothing are not listed.
#[derive(Debug, Clone)]
pub enum Want {
    /// The next token, sampled behind the door.
    Sample(SampleSpec),
    /// ln-probability of each of these tokens as the next one.
    Likelihood(Vec<u32>),
    /// The raw logits (vocabulary long): tests and calibration only.
    Logits,
    /// Attention mass of this row over spans of its context.
    AttentionMass(MassSpec),
    /// The final hidden state, normalised to unit length.
    Embedding,
}

/// Which attention to sum for [`Want::AttentionMass`].
#[derive(Debug, Clone)]
pub struct MassSpec {
    /// Layer, from 0.
    pub layer: u32,
    /// Query heads to average over.
    pub heads: Vec<usize>,
    /// Token positions to sum over.
    pub spans: Vec<Range<u32>>,
}

/// A ragged batch. Rows are numbered across all sequences, in order.
#[derive(Debug, Clone)]
pub struct Step {
    /// Increases by one from step to step.
    pub id: StepId,
    /// Input token of each row.
    pub tokens: Vec<TokenSource>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// KV slot each row writes: `block * block_size + offset`.
    pub slots: Vec<u32>,
    /// The sequences, covering all rows in order.
    pub sequences: Vec<StepSequence>,
    /// Block copies done before anything else.
    pub copies: Vec<BlockCopy>,
    /// `(row, want)`, rows ascending; a row may want several things.
    pub wants: Vec<(u32, Want)>,
}

/// The answer to one [`Want`].
#[derive(Debug, Clone)]
pub enum Wanted {
    /// To [`Want::Sample`].
    Token {
        /// The sampled token.
        id: u32,
        /// ln-probability of it under the unmodified distribution (temperature 1, no penalty).
        logprob: f32,
    },
    /// To [`Want::Likelihood`], one per target.
    Likelihood(Vec<f32>),
    /// To [`Want::Logits`].
    Logits(Vec<f32>),
    /// To [`Want::AttentionMass`], one per span.
    AttentionMass(Vec<f32>),
    /// To [`Want::Embedding`].
    Embedding(Vec<f32>),
    /// The row's own arithmetic gave no number (logits that are NaN, say); its neighbours are unhurt. To be read
    /// after "row".
    Failed(String),
}

/// What a step came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The step.
    pub id: StepId,
    /// One per entry of [`Step::wants`], in its order.
    pub wanted: Vec<Wanted>,
    /// Time the executor computed, seconds.
    pub seconds: f64,
}
