//! The scheduler: which sequences take part in the next step, and with how many rows.
//!
//! It holds no tensor and no channel: steps go out, outcomes come in, and both are plain data, so
//! it is tested without a model.
//!
//! A step carries one row of every sequence that decodes, and fills up with prefill chunks as far
//! as [`Pace`] allows. Requests are admitted in the order they came, when the blocks of their
//! prompt and a reserve for their answer are there; where that was too hopeful, the newest running
//! sequence gives up its blocks and is computed again later.

mod complete;
mod draft;
mod plan;
mod speculate;

use std::collections::VecDeque;

use draft::InFlight;

use crate::blocks::{BlockCounts, Blocks};
use crate::executor::Capabilities;
use crate::pace::Pace;
use crate::prefix::NodeId;
use crate::request::GeneratedToken;
use crate::sequence::{Goal, Sequence, SequenceId};
use crate::speculation::{Acceptance, Speculation};
use crate::step::{BlockId, StepId};

/// Bounds and policies of the scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Most sequences with KV.
    pub max_running: usize,
    /// Most rows in a step.
    pub max_step_tokens: usize,
    /// Most seconds a step's prefill is meant to take.
    pub max_step_seconds: f64,
    /// A step that carries decode rows may take this many times their own time; more where more
    /// requests wait for their first token than there are decode rows.
    pub step_stretch: f64,
    /// Answer tokens reserved for a sequence beyond what it has, at most.
    pub reserve_tokens: usize,
    /// Most tokens drafted for a sequence in a step; 0 = none ever.
    pub max_draft_tokens: usize,
}

/// Something a completed step brought a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The next tokens, at least one.
    Tokens {
        /// Whose.
        id: SequenceId,
        /// In order.
        tokens: Vec<GeneratedToken>,
    },
    /// ln-probabilities of the next tokens scored, in order.
    Scored {
        /// Whose.
        id: SequenceId,
        /// Index of the first token these are for.
        first: usize,
        /// One per token.
        logprobs: Vec<f32>,
        /// Whether these are the last.
        done: bool,
    },
    /// Its arithmetic gave no number; it cannot go on.
    Failed {
        /// Whose.
        id: SequenceId,
        /// Why.
        why: String,
    },
}

/// Counters since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Of those, found.
    pub prefix_hits: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Steps planned.
    pub steps: u64,
    /// Rows that were not decode rows.
    pub prefill_tokens: u64,
    /// Tokens drafted and verified.
    pub draft_tokens: u64,
    /// Of those, the ones that were sampled.
    pub accepted_draft_tokens: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    max_rows: usize,
    max_wants: usize,
    blocks: Blocks,
    pace: Pace,
    /// How often drafts are right, over all sequences.
    acceptance: Acceptance,
    waiting: VecDeque<Sequence>,
    /// In order of admission.
    running: Vec<Sequence>,
    in_flight: VecDeque<InFlight>,
    /// Blocks of departed sequences that a step in flight still touches.
    limbo: Vec<(StepId, Vec<BlockId>)>,
    next_step: u64,
    totals: Totals,
}

impl Scheduler {
    /// An idle scheduler for an executor of these capabilities.
    pub fn new(capabilities: &Capabilities, config: SchedulerConfig) -> Self {
        Self {
            max_rows: capabilities.max_rows.min(config.max_step_tokens).max(1),
            max_wants: capabilities.max_wants.max(1),
            blocks: Blocks::new(capabilities.blocks, capabilities.block_size),
            config,
            pace: Pace::default(),
            acceptance: Acceptance::of_everyone(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            in_flight: VecDeque::new(),
            limbo: Vec::new(),
            next_step: 0,
            totals: Totals::default(),
        }
    }

    /// An idle scheduler in place of this one, whose books are in doubt: nothing but settings, counters and
    /// the numbering of steps (which an executor expects to rise) is taken over.
    pub fn anew(&self, capabilities: &Capabilities) -> Self {
        let (next_step, totals) = (self.next_step + 1, self.totals);
        let (pace, acceptance) = (self.pace.clone(), self.acceptance.clone());
        Self { next_step, totals, pace, acceptance, ..Self::new(capabilities, self.config.clone()) }
    }

    /// Longest sequence the pool can hold alone, tokens.
    pub fn longest_sequence(&self) -> usize {
        self.blocks.total() * self.blocks.block_size()
    }

    /// The prefix-cache root of a tenant.
    pub fn root(&mut self, tenant: &str) -> NodeId {
        self.blocks.root(tenant)
    }

    /// Forgets what is cached for a tenant. Its sequences that are here already neither use nor publish prefixes
    /// any more, so that what is to be forgotten does not come back with them.
    pub fn forget(&mut self, tenant: &str) {
        let Some(root) = self.blocks.forget(tenant) else { return };
        for sequence in self.waiting.iter_mut().chain(&mut self.running) {
            if sequence.root == Some(root) {
                sequence.root = None;
                sequence.node = None;
            }
        }
    }

    /// Queues a sequence; it fits [`Self::longest_sequence`].
    pub fn add(&mut self, mut sequence: Sequence) {
        if self.config.max_draft_tokens > 0 && matches!(sequence.goal, Goal::Generate { .. }) {
            sequence.speculation = Some(Box::new(Speculation::new(sequence.longest())));
        }
        self.waiting.push_back(sequence);
    }

    /// Removes a sequence wherever it is. Its blocks are free at once, or when the steps in flight that touch them are done.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        if let Some(at) = self.waiting.iter().position(|s| s.id == id) {
            return self.waiting.remove(at);
        }
        let at = self.running.iter().position(|s| s.id == id)?;
        let mut sequence = self.running.remove(at);
        let blocks = std::mem::take(&mut sequence.blocks);
        self.let_go(blocks, sequence.last_step);
        Some(sequence)
    }

    /// Pauses or resumes a running sequence.
    pub fn set_paused(&mut self, id: SequenceId, paused: bool) {
        if let Some(sequence) = self.running.iter_mut().find(|s| s.id == id) {
            sequence.paused = paused;
        }
    }

    /// Steps submitted and not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Sequences waiting.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Prompt tokens of the sequences waiting.
    pub fn waiting_tokens(&self) -> usize {
        self.waiting.iter().map(|s| s.tokens.len()).sum()
    }

    /// Sequences running.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// A running sequence.
    pub fn get(&self, id: SequenceId) -> Option<&Sequence> {
        self.running.iter().find(|s| s.id == id)
    }

    /// Blocks in each state.
    pub fn blocks(&self) -> BlockCounts {
        self.blocks.counts()
    }

    /// Counters.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Measured costs.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// The books balance: every block is free, cached or held by exactly those who say so.
    pub fn check(&self) -> Result<(), String> {
        let running = self.running.iter().flat_map(|s| s.blocks.iter().copied());
        let limbo = self.limbo.iter().flat_map(|(_, blocks)| blocks.iter().copied());
        self.blocks.check(running.chain(limbo))
    }

    fn let_go(&mut self, blocks: Vec<BlockId>, last_step: Option<StepId>) {
        match last_step {
            Some(step) if self.in_flight.iter().any(|f| f.id == step) => {
                self.limbo.push((step, blocks))
            }
            _ => self.blocks.release(&blocks),
        }
    }
}
