//! A step being planned, and what must be remembered of it until its outcome is in.

use std::sync::Arc;

use crate::sequence::SequenceId;
use crate::step::{AttentionBias, Step, StepId};

/// One sequence's share of a step in flight.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) id: SequenceId,
    /// [`Sequence::preemptions`] when planned: a share of an earlier life is void.
    pub(super) life: u32,
    /// Tokens computed once the step is done.
    pub(super) context: usize,
    /// What the step was asked to bring it.
    pub(super) brings: Brings,
}

/// What a share's wants are, in the order of the step's.
#[derive(Debug)]
pub(super) enum Brings {
    Nothing,
    /// The next token, and as many more as `drafted` was right about.
    Tokens {
        drafted: Vec<u32>,
    },
    /// Likelihoods of `count` tokens from index `first` on.
    Scores {
        first: usize,
        count: usize,
    },
}

impl Brings {
    pub(super) fn wants(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Tokens { drafted } => 1 + drafted.len(),
            Self::Scores { count, .. } => *count,
        }
    }
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: StepId,
    pub(super) shares: Vec<Share>,
    pub(super) decode_rows: usize,
    pub(super) prefill_work: f64,
}

/// A step being planned.
pub(super) struct Draft {
    pub(super) step: Step,
    pub(super) shares: Vec<Share>,
    /// Sequences that decode.
    pub(super) decoding: usize,
    /// Their rows, drafted ones included.
    pub(super) decode_rows: usize,
    pub(super) prefill_work: f64,
    pub(super) no_bias: Arc<[AttentionBias]>,
}

impl Draft {
    pub(super) fn new(id: StepId) -> Self {
        let step = Step {
            id,
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            sequences: Vec::new(),
            copies: Vec::new(),
            wants: Vec::new(),
        };
        Self {
            step,
            shares: Vec::new(),
            decoding: 0,
            decode_rows: 0,
            prefill_work: 0.0,
            no_bias: Arc::from([]),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.step.tokens.len()
    }

    pub(super) fn has(&self, id: SequenceId) -> bool {
        self.shares.iter().any(|s| s.id == id)
    }
}
