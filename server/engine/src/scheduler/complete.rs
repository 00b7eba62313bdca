//! Completion: what an outcome brings, and what it sets free.

use super::draft::Brings;
use super::{Progress, Scheduler};
use crate::request::GeneratedToken;
use crate::sequence::Sequence;
use crate::step::{BlockId, Outcome, StepId, Wanted};

impl Scheduler {
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
                Brings::Tokens { drafted } => {
                    if sequence.pending.is_some_and(|(id, _)| id == step.id) {
                        sequence.pending = None;
                    }
                    let answers: Vec<Wanted> = wanted.by_ref().take(1 + drafted.len()).collect();
                    self.take_tokens(at, &drafted, answers, &mut progress);
                }
                Brings::Scores { first, count } => {
                    let mut failed = None;
                    let likelihood = |wanted| match wanted {
                        Wanted::Likelihood(values) => values.first().copied(),
                        Wanted::Failed(why) => {
                            failed = Some(why);
                            None
                        }
                        _ => None,
                    };
                    let logprobs = wanted.by_ref().take(count).filter_map(likelihood).collect();
                    let done = share.context == sequence.tokens.len();
                    progress.push(match failed {
                        Some(why) => Progress::Failed { id: share.id, why },
                        None => Progress::Scored { id: share.id, first, logprobs, done },
                    });
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

    /// Takes in what was sampled after the last known token of sequence `at` and after each of `drafted`, up to the
    /// first token that is not the drafted one: rows from there on were computed for tokens that were never said.
    fn take_tokens(
        &mut self,
        at: usize,
        drafted: &[u32],
        answers: Vec<Wanted>,
        progress: &mut Vec<Progress>,
    ) {
        let sequence = &mut self.running[at];
        let (mut tokens, mut failure) = (Vec::new(), None);
        for (row, answer) in answers.into_iter().enumerate() {
            match answer {
                Wanted::Token { id, logprob } => {
                    sequence.push(id, &mut self.acceptance);
                    tokens.push(GeneratedToken { id, logprob });
                    if drafted.get(row) != Some(&id) {
                        break;
                    }
                }
                Wanted::Failed(why) => {
                    failure = Some(why);
                    break;
                }
                _ => break,
            }
        }
        if !drafted.is_empty() {
            // What was computed beyond is overwritten, and counts as never computed until then.
            sequence.verifying = false;
            sequence.submitted = sequence.tokens.len() - 1;
            sequence.computed = sequence.submitted;
            let accepted = tokens.iter().zip(drafted).filter(|(t, d)| t.id == **d).count();
            sequence.draft_tokens += drafted.len() as u32;
            sequence.accepted_draft_tokens += accepted as u32;
            self.totals.draft_tokens += drafted.len() as u64;
            self.totals.accepted_draft_tokens += accepted as u64;
        }
        let id = sequence.id;
        if !tokens.is_empty() {
            progress.push(Progress::Tokens { id, tokens });
        }
        if let Some(why) = failure {
            progress.push(Progress::Failed { id, why });
        }
    }

    /// Publishes the full blocks of sequence `at` that completed steps have computed.
    fn publish(&mut self, at: usize) {
        let size = self.blocks.block_size();
        let sequence = &mut self.running[at];
        let (Some(root), Some(mut node)) = (sequence.root, sequence.node) else { return };
        let known = sequence.computed.min(sequence.tokens.len());
        while (sequence.published + 1) * size <= known {
            let at = sequence.published;
            node = self.blocks.publish(
                sequence.blocks[at],
                root,
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
