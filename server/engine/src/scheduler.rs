//! The scheduler: which sequences take part in the next step, and with how many rows.
//!
//! It holds no tensor and no channel: steps go out, outcomes come in, and both are plain data, so
//! it is tested without a model.
//!
//! A step carries one row of every sequence that decodes, and fills up with prefill chunks as far
//! as [`Pace`] allows. Requests are admitted in the order they came, when the blocks of their
//! prompt and a reserve for their answer are there; where that was too hopeful, the newest running
//! sequence gives up its blocks and is computed again later.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::blocks::{BlockCounts, Blocks};
use crate::executor::Capabilities;
use crate::pace::{self, Pace};
use crate::prefix::NodeId;
use crate::sequence::{Goal, Sequence, SequenceId};
use crate::step::{
    AttentionBias, BlockCopy, BlockId, Outcome, Step, StepId, StepSequence, TokenSource, Want,
    Wanted,
};

/// Bounds and policies of the scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Most sequences with KV.
    pub max_running: usize,
    /// Most rows in a step.
    pub max_step_tokens: usize,
    /// Most seconds a step's prefill is meant to take.
    pub max_step_seconds: f64,
    /// A step that carries decode rows may take this many times their own time.
    pub step_stretch: f64,
    /// Answer tokens reserved for a sequence beyond what it has, at most.
    pub reserve_tokens: usize,
}

/// Something a completed step brought a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The next token.
    Token {
        /// Whose.
        id: SequenceId,
        /// The token.
        token: u32,
        /// Its ln-probability.
        logprob: f32,
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
    /// Tokens sampled.
    pub generated_tokens: u64,
}

/// One sequence's share of a step in flight.
#[derive(Debug)]
struct Share {
    id: SequenceId,
    /// [`Sequence::preemptions`] when planned: a share of an earlier life is void.
    life: u32,
    /// Tokens computed once the step is done.
    context: usize,
    /// What the step was asked to bring it.
    brings: Brings,
}

/// What a share's wants are, in the order of the step's.
#[derive(Debug, Clone, Copy)]
enum Brings {
    Nothing,
    Token,
    /// Likelihoods of `count` tokens from index `first` on.
    Scores {
        first: usize,
        count: usize,
    },
}

impl Brings {
    fn wants(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Token => 1,
            Self::Scores { count, .. } => count,
        }
    }
}

#[derive(Debug)]
struct InFlight {
    id: StepId,
    shares: Vec<Share>,
    decode_rows: usize,
    prefill_work: f64,
}

/// A step being planned.
struct Draft {
    step: Step,
    shares: Vec<Share>,
    decode_rows: usize,
    prefill_work: f64,
    no_bias: Arc<[AttentionBias]>,
}

impl Draft {
    fn new(id: StepId) -> Self {
        let step = Step {
            id,
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            sequences: Vec::new(),
            copies: Vec::new(),
            wants: Vec::new(),
        };
        Self { step, shares: Vec::new(), decode_rows: 0, prefill_work: 0.0, no_bias: Arc::from([]) }
    }

    fn rows(&self) -> usize {
        self.step.tokens.len()
    }

    fn has(&self, id: SequenceId) -> bool {
        self.shares.iter().any(|s| s.id == id)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    max_rows: usize,
    max_wants: usize,
    blocks: Blocks,
    pace: Pace,
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
        let (next_step, totals, pace) = (self.next_step + 1, self.totals, self.pace.clone());
        Self { next_step, totals, pace, ..Self::new(capabilities, self.config.clone()) }
    }

    /// Longest sequence the pool can hold alone, tokens.
    pub fn longest_sequence(&self) -> usize {
        self.blocks.total() * self.blocks.block_size()
    }

    /// The prefix-cache root of a tenant.
    pub fn root(&mut self, tenant: &str) -> NodeId {
        self.blocks.root(tenant)
    }

    /// Queues a sequence; it fits [`Self::longest_sequence`].
    pub fn add(&mut self, sequence: Sequence) {
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

    // === Planning ===

    /// The next step, or `None` if nothing can advance now.
    pub fn plan(&mut self) -> Option<Step> {
        let mut draft = Draft::new(StepId(self.next_step));
        self.admit(&mut draft);
        self.plan_decodes(&mut draft);
        self.plan_prefills(&mut draft);
        if draft.step.tokens.is_empty() {
            return None;
        }
        self.next_step += 1;
        self.totals.steps += 1;
        let Draft { step, shares, decode_rows, prefill_work, .. } = draft;
        self.in_flight.push_back(InFlight { id: step.id, shares, decode_rows, prefill_work });
        Some(step)
    }

    /// Admits waiting sequences in order, while the next one fits.
    fn admit(&mut self, draft: &mut Draft) {
        while self.running.len() < self.config.max_running {
            let Some(sequence) = self.waiting.front() else { break };
            let found = match (sequence.root, &sequence.goal) {
                (None, _) => Vec::new(),
                (Some(root), Goal::Generate { .. }) => self.blocks.lookup(root, &sequence.tokens),
                // Cached tokens have no rows to score with.
                (Some(root), &Goal::Score { from }) => {
                    self.blocks.lookup(root, &sequence.tokens[..from - 1])
                }
            };
            let need = self.reserved_blocks(sequence).saturating_sub(found.len());
            // A prompt found whole still needs a block of its own for its last token.
            let whole = found.len() * self.blocks.block_size() == sequence.tokens.len();
            let owed: usize = self
                .running
                .iter()
                .map(|s| self.reserved_blocks(s).saturating_sub(s.blocks.len()))
                .sum();
            if need + usize::from(whole) + owed > self.blocks.available()
                && !self.running.is_empty()
            {
                let ids: Vec<_> = found.iter().map(|&(block, _)| block).collect();
                self.blocks.release(&ids);
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let tokens = sequence.tokens.len();
            if sequence.root.is_some() && sequence.preemptions == 0 {
                self.totals.prefix_queries += tokens as u64;
            }
            self.take_prefix(&mut sequence, found, draft);
            if sequence.preemptions == 0 {
                sequence.cached = sequence.submitted.min(sequence.prompt);
                self.totals.prefix_hits += sequence.cached as u64;
            }
            let full = self.blocks.blocks_for(tokens);
            let mut short = false;
            while sequence.blocks.len() < full {
                match self.blocks.allocate() {
                    Some(block) => sequence.grow(block),
                    None => {
                        short = true;
                        break;
                    }
                }
            }
            if short {
                // Only blocks in limbo can be missing here: wait for their step.
                let blocks = sequence.restart();
                self.blocks.release(&blocks);
                draft.step.copies.retain(|c| !blocks.contains(&c.to));
                self.waiting.push_front(sequence);
                break;
            }
            self.running.push(sequence);
        }
    }

    /// Starts `sequence` on blocks found in the prefix cache.
    fn take_prefix(
        &mut self,
        sequence: &mut Sequence,
        found: Vec<(BlockId, NodeId)>,
        draft: &mut Draft,
    ) {
        let size = self.blocks.block_size();
        sequence.submitted = found.len() * size;
        for &(block, node) in &found {
            sequence.grow(block);
            sequence.published += 1;
            sequence.node = Some(node);
        }
        if sequence.submitted == sequence.tokens.len() {
            // Found whole: the last token is computed again, into a copy of its block.
            sequence.submitted -= 1;
            if let (Some(shared), Some(own)) = (sequence.blocks.pop(), self.blocks.allocate()) {
                sequence.grow(own);
                draft.step.copies.push(BlockCopy { from: shared, to: own });
                self.blocks.release(&[shared]);
            } else {
                // No block for the copy: compute the whole last block instead.
                sequence.published -= 1;
                sequence.submitted = sequence.published * size;
                sequence.node =
                    found.len().checked_sub(2).map_or(sequence.root, |i| Some(found[i].1));
                if let Some(&(shared, _)) = found.last() {
                    self.blocks.release(&[shared]);
                }
            }
        }
        sequence.computed = sequence.submitted;
    }

    /// Blocks a sequence is given or promised: its tokens, and answer tokens up to the reserve.
    fn reserved_blocks(&self, sequence: &Sequence) -> usize {
        let tokens = (sequence.tokens.len() + self.config.reserve_tokens).min(sequence.longest());
        self.blocks.blocks_for(tokens.max(sequence.tokens.len()))
    }

    fn plan_decodes(&mut self, draft: &mut Draft) {
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &self.running[at];
            let room = draft.rows() < self.max_rows && draft.step.wants.len() < self.max_wants;
            if !(room && sequence.ready() && sequence.decoding()) {
                at += 1;
                continue;
            }
            let before = self.running.len();
            if self.make_room(at, self.running[at].submitted + 1, draft) {
                draft.decode_rows += 1;
                self.push_rows(at, 1, draft);
            }
            // Preemption takes from the end: if it took this very sequence, `at` is past the end.
            debug_assert!(self.running.len() <= before);
            at += 1;
        }
    }

    /// Sees to it that sequence `at` has blocks for `tokens` tokens, preempting newer ones (or
    /// itself, the newest) if it must. False if it was preempted or must wait for blocks in limbo.
    fn make_room(&mut self, at: usize, tokens: usize, draft: &Draft) -> bool {
        let need = self.blocks.blocks_for(tokens);
        while self.running[at].blocks.len() < need {
            if let Some(block) = self.blocks.allocate() {
                self.running[at].grow(block);
                continue;
            }
            if !self.limbo.is_empty() {
                return false;
            }
            let newest = self.running.len() - 1;
            // A sequence already in this step keeps its blocks.
            if newest > at && draft.has(self.running[newest].id) {
                return false;
            }
            self.preempt(newest);
            if newest == at {
                return false;
            }
        }
        true
    }

    fn preempt(&mut self, at: usize) {
        let mut sequence = self.running.remove(at);
        let last_step = sequence.last_step;
        let blocks = sequence.restart();
        self.let_go(blocks, last_step);
        sequence.preemptions += 1;
        self.totals.preemptions += 1;
        self.waiting.push_front(sequence);
    }

    /// Shares out the step's prefill: half to the oldest prompt, so that it ends however many come
    /// after it; the rest to the shortest first, so that they need not wait for it.
    fn plan_prefills(&mut self, draft: &mut Draft) {
        let mut order: Vec<usize> = (0..self.running.len())
            .filter(|&i| {
                let s = &self.running[i];
                s.ready() && s.unsubmitted() > 0 && !s.decoding()
            })
            .collect();
        if order.is_empty() {
            return;
        }
        let mut budget = self.pace.prefill_budget(
            draft.decode_rows,
            self.config.step_stretch,
            self.config.max_step_seconds,
        );
        let oldest = order.remove(0);
        order.sort_by_key(|&i| self.running[i].unsubmitted());
        let others: f64 = if order.is_empty() { 0.0 } else { 0.5 };
        self.plan_chunk(oldest, &mut (budget * (1.0 - others)), true, draft);
        budget -= draft.prefill_work;
        for (nth, i) in order.into_iter().enumerate() {
            if budget <= 0.0 && nth > 0 {
                break;
            }
            self.plan_chunk(i, &mut budget, nth == 0, draft);
        }
        // What the others left over is the oldest's again only in the next step: one chunk a step
        // keeps its rows contiguous.
    }

    /// Adds as many of sequence `at`'s prompt tokens as `budget` allows; at least a few if `surely`.
    fn plan_chunk(&mut self, at: usize, budget: &mut f64, surely: bool, draft: &mut Draft) {
        let sequence = &self.running[at];
        if *budget <= 0.0 && !surely {
            return;
        }
        let mut rows = Pace::tokens_for(budget.max(0.0), sequence.submitted);
        rows =
            rows.min(sequence.unsubmitted()).min(self.max_rows - draft.rows().min(self.max_rows));
        let wants_left = self.max_wants - draft.step.wants.len().min(self.max_wants);
        match sequence.goal {
            Goal::Score { from } => {
                // Rows before `from - 1` want nothing; each later one wants one likelihood.
                let free = (from - 1).saturating_sub(sequence.submitted);
                rows = rows.min(free + wants_left);
            }
            Goal::Generate { .. } if wants_left == 0 && rows == sequence.unsubmitted() => rows -= 1,
            Goal::Generate { .. } => {}
        }
        if rows == 0 {
            return;
        }
        let spent = pace::work(rows, sequence.submitted + rows);
        *budget -= spent;
        draft.prefill_work += spent;
        self.totals.prefill_tokens += rows as u64;
        self.push_rows(at, rows, draft);
    }

    /// Writes `rows` rows of sequence `at` into the step. Its blocks are there.
    fn push_rows(&mut self, at: usize, rows: usize, draft: &mut Draft) {
        let size = self.blocks.block_size();
        let sequence = &mut self.running[at];
        let first_row = draft.rows();
        let from = sequence.submitted;
        for position in from..from + rows {
            let token = match (sequence.tokens.get(position), sequence.pending) {
                (Some(&token), _) => TokenSource::Literal(token),
                (None, Some((_, row))) => TokenSource::InFlight { row },
                (None, None) => unreachable!("a row beyond every known and pending token"),
            };
            draft.step.tokens.push(token);
            draft.step.positions.push(position as u32);
            draft
                .step
                .slots
                .push(sequence.blocks[position / size] * size as u32 + (position % size) as u32);
        }
        let context = from + rows;
        draft.step.sequences.push(StepSequence {
            first_row: first_row as u32,
            rows: rows as u32,
            context: context as u32,
            blocks: sequence.table(),
            adapter: None,
            bias: draft.no_bias.clone(),
        });
        let brings = match &sequence.goal {
            Goal::Generate { sampling, held_back, min_tokens, .. }
                if context >= sequence.tokens.len() =>
            {
                let row = (first_row + rows - 1) as u32;
                let spec = sequence.spec(sampling, held_back, *min_tokens);
                draft.step.wants.push((row, Want::Sample(spec)));
                sequence.pending = Some((draft.step.id, row));
                Brings::Token
            }
            Goal::Generate { .. } => Brings::Nothing,
            &Goal::Score { from: scored } => {
                // The row at position p predicts token p + 1; the last row predicts none.
                let rows_that_score = from.max(scored - 1)..context.min(sequence.tokens.len() - 1);
                for position in rows_that_score.clone() {
                    let row = (first_row + position - from) as u32;
                    draft
                        .step
                        .wants
                        .push((row, Want::Likelihood(vec![sequence.tokens[position + 1]])));
                }
                Brings::Scores { first: rows_that_score.start + 1, count: rows_that_score.len() }
            }
        };
        sequence.submitted = context;
        sequence.last_step = Some(draft.step.id);
        draft.shares.push(Share { id: sequence.id, life: sequence.preemptions, context, brings });
    }

    // === Completion ===

    /// Takes in the outcome of the oldest step in flight.
    pub fn complete(&mut self, outcome: Outcome) -> Vec<Progress> {
        let Some(step) = self.in_flight.pop_front() else { return Vec::new() };
        debug_assert_eq!(step.id, outcome.id, "outcomes arrive in order");
        self.pace.record(step.decode_rows, step.prefill_work, outcome.seconds);
        let mut wanted = outcome.wanted.into_iter();
        let mut progress = Vec::new();
        for share in step.shares {
            let at =
                self.running.iter().position(|s| s.id == share.id && s.preemptions == share.life);
            let Some(at) = at else {
                // Gone or preempted meanwhile: its answers are void, but stand in line all the same.
                wanted.by_ref().take(share.brings.wants()).for_each(drop);
                continue;
            };
            let sequence = &mut self.running[at];
            sequence.computed = share.context;
            match share.brings {
                Brings::Nothing => {}
                Brings::Token => {
                    if sequence.pending.is_some_and(|(id, _)| id == step.id) {
                        sequence.pending = None;
                    }
                    if let Some(Wanted::Token { id: token, logprob }) = wanted.next() {
                        sequence.push(token);
                        self.totals.generated_tokens += 1;
                        progress.push(Progress::Token { id: share.id, token, logprob });
                    }
                }
                Brings::Scores { first, count } => {
                    let likelihood = |wanted| match wanted {
                        Wanted::Likelihood(values) => values.first().copied(),
                        _ => None,
                    };
                    let logprobs = wanted.by_ref().take(count).filter_map(likelihood).collect();
                    let done = share.context == sequence.tokens.len();
                    progress.push(Progress::Scored { id: share.id, first, logprobs, done });
                }
            }
            self.publish(at);
        }
        let done = step.id;
        let (ended, rest) =
            std::mem::take(&mut self.limbo).into_iter().partition(|(id, _)| *id <= done);
        self.limbo = rest;
        let ended: Vec<(StepId, Vec<BlockId>)> = ended;
        for (_, blocks) in ended {
            self.blocks.release(&blocks);
        }
        progress
    }

    /// Publishes the full blocks of sequence `at` that completed steps have computed.
    fn publish(&mut self, at: usize) {
        let size = self.blocks.block_size();
        let sequence = &mut self.running[at];
        let Some(mut node) = sequence.node else { return };
        let known = sequence.computed.min(sequence.tokens.len());
        while (sequence.published + 1) * size <= known {
            let at = sequence.published;
            node = self.blocks.publish(
                sequence.blocks[at],
                node,
                &sequence.tokens[at * size..(at + 1) * size],
            );
            sequence.published += 1;
        }
        sequence.node = Some(node);
    }

    /// The executor's KV is void: every running sequence is taken out, every cached prefix forgotten. Returns those taken out.
    pub fn reset(&mut self) -> Vec<Sequence> {
        self.in_flight.clear();
        for (_, blocks) in std::mem::take(&mut self.limbo) {
            self.blocks.release(&blocks);
        }
        let mut gone = std::mem::take(&mut self.running);
        for sequence in &mut gone {
            let blocks = sequence.restart();
            self.blocks.release(&blocks);
        }
        self.blocks.forget_prefixes();
        gone
    }
}
