//! Planning: who is admitted, who takes part in the next step, and with how many rows.

use super::Scheduler;
use super::draft::{Brings, Draft, InFlight, Share};
use crate::pace::{self, Pace};
use crate::prefix::NodeId;
use crate::sequence::{Goal, Sequence};
use crate::step::{BlockCopy, BlockId, Step, StepId, StepSequence, TokenSource, Want};

impl Scheduler {
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
        let drafts = self.draft_lengths();
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &self.running[at];
            let room = draft.rows() < self.max_rows && draft.step.wants.len() < self.max_wants;
            if !(room && sequence.ready() && sequence.decoding()) {
                at += 1;
                continue;
            }
            let drafted = drafts.get(at).copied().unwrap_or(0);
            if drafted > 0 && sequence.pending.is_some() {
                // A draft follows known tokens only: wait for the one in flight.
                at += 1;
                continue;
            }
            let before = self.running.len();
            if self.make_room(at, self.running[at].submitted + 1, draft) {
                let drafted = self.room_for_draft(at, drafted);
                let drafted = self.running[at].draft(drafted);
                draft.decoding += 1;
                draft.decode_rows += 1 + drafted.len();
                self.push_rows(at, 1, drafted, draft);
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
            // Rows are given out from the oldest on, so the newest has none in this step yet.
            debug_assert!(newest == at || !draft.has(self.running[newest].id));
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
        let stretch = self.stretch(order.len() + self.waiting.len(), draft.decoding);
        let mut budget =
            self.pace.prefill_budget(draft.decoding, stretch, self.config.max_step_seconds);
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

    /// How many times its decode rows' own time a step may take. Where more requests wait for their first
    /// token than there are streams to hold up, each second of delay is worth as much to either, so the
    /// streams give way in proportion.
    fn stretch(&self, unserved: usize, decoding: usize) -> f64 {
        let crowding = unserved as f64 / decoding.max(1) as f64;
        1.0 + (self.config.step_stretch - 1.0) * crowding.max(1.0)
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
        self.push_rows(at, rows, Vec::new(), draft);
    }

    /// Writes `rows` rows of sequence `at` and one for each token `drafted` after them into the step. Its blocks are
    /// there.
    fn push_rows(&mut self, at: usize, rows: usize, drafted: Vec<u32>, draft: &mut Draft) {
        let size = self.blocks.block_size();
        let sequence = &mut self.running[at];
        let first_row = draft.rows();
        let from = sequence.submitted;
        let known = from + rows;
        let rows = rows + drafted.len();
        for position in from..from + rows {
            let token = match (sequence.tokens.get(position), sequence.pending) {
                _ if position >= known => TokenSource::Literal(drafted[position - known]),
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
                let first = first_row + known - 1 - from;
                for after in 0..=drafted.len() {
                    let spec = sequence.spec(sampling, held_back, *min_tokens, &drafted[..after]);
                    draft.step.wants.push(((first + after) as u32, Want::Sample(spec)));
                }
                match drafted.is_empty() {
                    true => sequence.pending = Some((draft.step.id, first as u32)),
                    false => sequence.verifying = true,
                }
                Brings::Tokens { drafted }
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
}
