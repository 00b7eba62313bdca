//! A sequence: the scheduler's view of one request.

use std::sync::Arc;

use crate::prefix::NodeId;
use crate::request::SamplingParams;
use crate::sampling::SampleSpec;
use crate::speculation::{Acceptance, Speculation};
use crate::step::{BlockId, StepId};

/// Names a sequence for as long as the engine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// What a sequence is for.
#[derive(Debug, Clone)]
pub enum Goal {
    /// Sample up to `max_tokens` tokens after the prompt.
    Generate {
        /// Most tokens to sample.
        max_tokens: usize,
        /// Tokens that may not be sampled before `min_tokens`.
        held_back: Arc<[u32]>,
        /// Samples during which `held_back` holds.
        min_tokens: usize,
        /// How to sample; the seed is filled in.
        sampling: SamplingParams,
    },
    /// Score the tokens from this index on.
    Score {
        /// First token scored, at least 1.
        from: usize,
    },
}

/// One request's tokens and KV, as the scheduler keeps them.
#[derive(Debug)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// What it is for.
    pub goal: Goal,
    /// Prefix-cache root (tenant); `None` neither uses nor publishes cached KV.
    pub root: Option<NodeId>,
    /// Prompt and tokens sampled so far.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt: usize,
    /// Tokens whose KV is computed or about to be, by steps submitted.
    pub submitted: usize,
    /// Tokens whose KV is computed, by steps completed.
    pub computed: usize,
    /// The step and row that is sampling the next token right now.
    pub pending: Option<(StepId, u32)>,
    /// A step in flight verifies a draft: how far the sequence has come is not known until it is done.
    pub verifying: bool,
    /// Blocks held, in order.
    pub blocks: Vec<BlockId>,
    /// Full blocks looked up or published, and the node the next one hangs under.
    pub published: usize,
    /// See [`Self::published`].
    pub node: Option<NodeId>,
    /// The last step it takes part in.
    pub last_step: Option<StepId>,
    /// Prompt tokens found in the prefix cache when first admitted.
    pub cached: usize,
    /// Times preempted.
    pub preemptions: u32,
    /// Not scheduled while its reader lags.
    pub paused: bool,
    /// Where its drafts come from; `None` = nothing is ever drafted for it.
    pub speculation: Option<Box<Speculation>>,
    /// Tokens drafted for it and verified.
    pub draft_tokens: u32,
    /// Of those, the ones that were sampled.
    pub accepted_draft_tokens: u32,
    table: Option<Arc<[BlockId]>>,
    /// Tokens in the output and how often, the prompt's with 0; kept only for penalties.
    seen: std::collections::BTreeMap<u32, u32>,
}

impl Sequence {
    /// A sequence with nothing computed. `prompt` is not empty.
    pub fn new(id: SequenceId, goal: Goal, root: Option<NodeId>, prompt: Vec<u32>) -> Self {
        let mut sequence = Self {
            id,
            goal,
            root,
            prompt: prompt.len(),
            tokens: prompt,
            submitted: 0,
            computed: 0,
            pending: None,
            verifying: false,
            blocks: Vec::new(),
            published: 0,
            node: root,
            last_step: None,
            cached: 0,
            preemptions: 0,
            paused: false,
            speculation: None,
            draft_tokens: 0,
            accepted_draft_tokens: 0,
            table: None,
            seen: std::collections::BTreeMap::new(),
        };
        if sequence.needs_history() {
            sequence.seen = sequence.tokens.iter().map(|&t| (t, 0)).collect();
        }
        sequence
    }

    /// Whether its next sample depends on every token before it being known, so that it cannot be planned
    /// ahead of the one in flight.
    pub fn needs_history(&self) -> bool {
        match &self.goal {
            Goal::Generate { sampling, .. } => {
                sampling.repetition_penalty != 1.0
                    || sampling.frequency_penalty != 0.0
                    || sampling.presence_penalty != 0.0
            }
            Goal::Score { .. } => false,
        }
    }

    /// Tokens sampled so far, the one in flight not counted.
    pub fn sampled(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Tokens it will have at most.
    pub fn longest(&self) -> usize {
        match self.goal {
            Goal::Generate { max_tokens, .. } => self.prompt + max_tokens,
            Goal::Score { .. } => self.prompt,
        }
    }

    /// Known tokens no submitted step has computed.
    pub fn unsubmitted(&self) -> usize {
        self.tokens.len().saturating_sub(self.submitted)
    }

    /// Whether its next row is a decode row: one token, which wants a sample.
    pub fn decoding(&self) -> bool {
        matches!(self.goal, Goal::Generate { .. })
            && self.sampled() + usize::from(self.pending.is_some()) > 0
            && self.unsubmitted() <= 1
    }

    /// Whether a step could advance it.
    pub fn ready(&self) -> bool {
        if self.paused || self.verifying {
            return false;
        }
        if self.unsubmitted() > 0 {
            return true;
        }
        // Everything known is submitted; only the sample in flight could be built on.
        let Goal::Generate { max_tokens, .. } = self.goal else { return false };
        self.pending.is_some() && self.sampled() + 1 < max_tokens && !self.needs_history()
    }

    /// The sampling of the token after the last one submitted and `drafted`.
    pub fn spec(
        &self,
        sampling: &SamplingParams,
        held_back: &Arc<[u32]>,
        min_tokens: usize,
        drafted: &[u32],
    ) -> SampleSpec {
        let draw = self.sampled() + usize::from(self.pending.is_some()) + drafted.len();
        let none: Arc<[u32]> = Arc::from([]);
        SampleSpec {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            seen: self.seen_with(drafted),
            banned: if draw < min_tokens { Arc::clone(held_back) } else { none },
            logit_bias: Arc::from(sampling.logit_bias.as_slice()),
            seed: sampling.seed.unwrap_or(0),
            draw: draw as u64,
        }
    }

    /// What penalties look at, as it stands after `drafted`.
    fn seen_with(&self, drafted: &[u32]) -> Arc<[(u32, u32)]> {
        if drafted.is_empty() || !self.needs_history() {
            return self.seen.iter().map(|(&t, &n)| (t, n)).collect();
        }
        let mut seen = self.seen.clone();
        for &token in drafted {
            *seen.entry(token).or_insert(0) += 1;
        }
        seen.into_iter().collect()
    }

    /// Takes in a sampled token; what it says of drafts goes to `everyone`.
    pub fn push(&mut self, token: u32, everyone: &mut Acceptance) {
        self.tokens.push(token);
        if self.needs_history() {
            *self.seen.entry(token).or_insert(0) += 1;
        }
        if let Some(speculation) = &mut self.speculation {
            speculation.observe(&self.tokens, everyone);
        }
    }

    /// Up to `count` tokens that may follow the known ones.
    pub fn draft(&self, count: usize) -> Vec<u32> {
        match &self.speculation {
            Some(speculation) if count > 0 => speculation.draft(&self.tokens, count),
            _ => Vec::new(),
        }
    }

    /// Most tokens worth drafting: a step samples one more than it is given.
    pub fn longest_draft(&self) -> usize {
        self.longest().saturating_sub(self.tokens.len() + 1)
    }

    /// Adds a block.
    pub fn grow(&mut self, block: BlockId) {
        self.blocks.push(block);
        self.table = None;
    }

    /// The block table, shared with the steps that use it.
    pub fn table(&mut self) -> Arc<[BlockId]> {
        let blocks = &self.blocks;
        Arc::clone(self.table.get_or_insert_with(|| Arc::from(blocks.as_slice())))
    }

    /// Gives up its KV and everything in flight; its tokens stay, to be computed again.
    pub fn restart(&mut self) -> Vec<BlockId> {
        self.submitted = 0;
        self.computed = 0;
        self.pending = None;
        self.verifying = false;
        self.published = 0;
        self.node = self.root;
        self.table = None;
        std::mem::take(&mut self.blocks)
    }
}
