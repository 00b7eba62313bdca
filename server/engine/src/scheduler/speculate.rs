//! Speculation: how many tokens to draft for whom, so that the step brings most tokens per second.

use super::Scheduler;
use crate::pace::EXACT_ROWS;

/// A step with drafts must promise this many times the tokens per second of one without: measurements are
/// uncertain, and a draft in vain delays everyone in the step.
const LEAST_GAIN: f64 = 1.1;
/// A drafted token less likely than this to be accepted is worth no row on any machine.
const LEAST_CHANCE: f64 = 0.1;
/// A sequence that is a step ahead must give up that lead before anything can be drafted for it: its draft has to
/// bring at least as many tokens as the step it sits out.
const LEAST_FOR_LEAD: f64 = 1.0;

impl Scheduler {
    /// Tokens to draft for each running sequence; empty if for none.
    ///
    /// Every drafted token costs a row and brings a token with some chance. Taken in order of falling chance
    /// (within a sequence that is their own order), each further one adds less, while rows cost what they
    /// were measured to cost: all prefixes of that order are weighed.
    pub(super) fn draft_lengths(&self) -> Vec<usize> {
        if self.config.max_draft_tokens == 0 {
            return Vec::new();
        }
        let decoding =
            || self.running.iter().enumerate().filter(|(_, s)| s.ready() && s.decoding());
        let streams = decoding().count();
        let most_rows = self.max_rows.min(self.max_wants).min(EXACT_ROWS);
        if streams == 0 || streams >= most_rows {
            return Vec::new();
        }
        let costs = self.pace.decode();
        let Some(plain) = costs.expected(streams) else { return Vec::new() };

        let mut offers: Vec<(f64, usize)> = Vec::new();
        for (at, sequence) in decoding() {
            let Some(speculation) = &sequence.speculation else { continue };
            let most = self.config.max_draft_tokens.min(sequence.longest_draft());
            let chances = speculation.chances(&self.acceptance).take(most);
            let likely = chances.take_while(|&chance| chance >= LEAST_CHANCE);
            let before = offers.len();
            offers.extend(likely.map(|chance| (chance, at)));
            let brings: f64 = offers[before..].iter().map(|(chance, _)| chance).sum();
            if sequence.pending.is_some() && brings < LEAST_FOR_LEAD {
                offers.truncate(before);
            }
        }
        // A stable sort: equal chances of one sequence stay in their order.
        offers.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        offers.truncate(most_rows - streams);

        let (mut taken, mut best, mut tokens) = (0, LEAST_GAIN, streams as f64);
        for (index, (chance, _)) in offers.iter().enumerate() {
            tokens += chance;
            let Some(seconds) = costs.expected(streams + index + 1) else { break };
            let gain = (tokens / seconds) / (streams as f64 / plain);
            if gain > best {
                (taken, best) = (index + 1, gain);
            }
        }
        if taken == 0 {
            return Vec::new();
        }
        let mut lengths = vec![0; self.running.len()];
        offers[..taken].iter().for_each(|&(_, at)| lengths[at] += 1);
        lengths
    }

    /// How many of `wanted` drafted tokens sequence `at` has blocks for. A draft takes no block that a running
    /// sequence might need for its next token, so it preempts nobody.
    pub(super) fn room_for_draft(&mut self, at: usize, wanted: usize) -> usize {
        let size = self.blocks.block_size();
        let first = self.running[at].submitted + 1;
        let need = self.blocks.blocks_for(first + wanted);
        while self.running[at].blocks.len() < need
            && self.blocks.available() > self.running.len()
            && let Some(block) = self.blocks.allocate()
        {
            self.running[at].grow(block);
        }
        wanted.min(self.running[at].blocks.len() * size - first)
    }
}
