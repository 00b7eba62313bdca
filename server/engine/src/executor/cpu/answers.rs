//! What a step's rows are asked for: samples, likelihoods, logits, embeddings, attention masses.

use std::ops::Range;

use pith_kernels::{Isa, PoolError, norm};

use super::Machine;
use super::batch::Batch;
use super::forward::room;
use super::weights::Weights;
use crate::executor::ExecutorError;
use crate::sampling::{SampleError, SampleScratch, log_sum_exp, sample};
use crate::step::{Step, Want, Wanted};

/// Rows projected to the vocabulary at once: enough that the projection's weights are read rarely,
/// few enough that logits take 32 MiB at a vocabulary of 262,144.
const ROWS_AT_ONCE: usize = 32;

/// Work space for answers, reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Hidden states after the final norm, `[live rows, hidden]`.
    normed: Vec<f32>,
    /// Those of the rows projected at once, side by side.
    chosen: Vec<f32>,
    /// `[rows at once, vocab]`.
    logits: Vec<f32>,
    /// One per row at once.
    scratch: Vec<SampleScratch>,
}

/// A row whose logits are needed.
#[derive(Debug)]
struct Asking {
    /// Its place among the live rows.
    live: usize,
    /// Its entries of the step's wants.
    wants: Range<usize>,
}

/// One row's logits on their way to its answers.
struct Task<'a> {
    logits: &'a mut [f32],
    scratch: &'a mut SampleScratch,
    wants: &'a [(u32, Want)],
    /// One per want; `None` where the answer needs no logits.
    answers: Vec<Result<Option<Wanted>, SampleError>>,
}

impl Answers {
    /// Answers all of `step`'s wants, in order. `hidden` is the residual stream of the live rows.
    pub(super) fn collect(
        &mut self,
        machine: &Machine,
        weights: &Weights,
        step: &Step,
        batch: Batch<'_>,
        hidden: &[f32],
    ) -> Result<Vec<Wanted>, ExecutorError> {
        let mut answers: Vec<Option<Wanted>> = step.wants.iter().map(|_| None).collect();
        let plan = &weights.plan;
        let normed = room(&mut self.normed, hidden.len());
        if !hidden.is_empty() {
            let (isa, pool) = (machine.isa, &machine.pool);
            norm::rms_norm(isa, pool, hidden, &weights.output_norm, plan.norm_eps, normed)?;
        }
        let mut asking = Vec::new();
        let mut first = 0;
        for wants in step.wants.chunk_by(|a, b| a.0 == b.0) {
            let range = first..first + wants.len();
            first = range.end;
            // A row that only wants attention mass is not live.
            let Ok(live) = batch.live.binary_search(&wants[0].0) else { continue };
            for (index, (_, want)) in range.clone().zip(wants) {
                if matches!(want, Want::Embedding) {
                    let row = &normed[live * plan.hidden..][..plan.hidden];
                    answers[index] = Some(Wanted::Embedding(unit(row)));
                }
            }
            if wants.iter().any(|(_, want)| needs_logits(want)) {
                asking.push(Asking { live, wants: range });
            }
        }
        for some in asking.chunks(ROWS_AT_ONCE) {
            self.project(machine, weights, some)?;
            self.answer(machine, plan.vocab, step, some, &mut answers)?;
        }
        for mass in batch.masses {
            answers[mass.want] = Some(Wanted::AttentionMass(mass.found));
        }
        let missing = || ExecutorError::Failed("a want went unanswered".to_owned());
        answers.into_iter().map(|answer| answer.ok_or_else(missing)).collect()
    }

    /// Fills `logits` for the rows of `asking`.
    fn project(
        &mut self,
        machine: &Machine,
        weights: &Weights,
        asking: &[Asking],
    ) -> Result<(), PoolError> {
        let plan = &weights.plan;
        let chosen = room(&mut self.chosen, asking.len() * plan.hidden);
        for (to, row) in chosen.chunks_exact_mut(plan.hidden).zip(asking) {
            to.copy_from_slice(&self.normed[row.live * plan.hidden..][..plan.hidden]);
        }
        let logits = room(&mut self.logits, asking.len() * plan.vocab);
        weights.projection().matmul(machine.isa, &machine.pool, chosen, logits)?;
        if let Some(cap) = plan.logit_softcap {
            machine.pool.chunks(logits, 1 << 14, |_, logits| {
                for logit in logits {
                    *logit = cap * (*logit / cap).tanh();
                }
            })?;
        }
        Ok(())
    }

    /// Answers the rows of `asking` from their logits, rows in parallel.
    fn answer(
        &mut self,
        machine: &Machine,
        vocab: usize,
        step: &Step,
        asking: &[Asking],
        answers: &mut [Option<Wanted>],
    ) -> Result<(), ExecutorError> {
        self.scratch.resize_with(self.scratch.len().max(asking.len()), SampleScratch::default);
        let rows = self.logits.chunks_exact_mut(vocab).zip(&mut self.scratch).zip(asking);
        let mut tasks: Vec<Task<'_>> = rows
            .map(|((logits, scratch), row)| Task {
                logits,
                scratch,
                wants: &step.wants[row.wants.clone()],
                answers: Vec::with_capacity(row.wants.len()),
            })
            .collect();
        let run =
            |_, tasks: &mut [Task<'_>]| tasks.iter_mut().for_each(|task| task.run(machine.isa));
        machine.pool.chunks(&mut tasks, 1, run)?;
        for (task, row) in tasks.into_iter().zip(asking) {
            for (index, answer) in row.wants.clone().zip(task.answers) {
                let failed =
                    |error| Some(Wanted::Failed(format!("row {}: {error}", step.wants[index].0)));
                if let Some(answer) = answer.unwrap_or_else(failed) {
                    answers[index] = Some(answer);
                }
            }
        }
        Ok(())
    }
}

impl Task<'_> {
    fn run(&mut self, isa: Isa) {
        for (_, want) in self.wants {
            let answer = match want {
                Want::Sample(spec) => sample(isa, self.logits, spec, self.scratch)
                    .map(|drawn| Some(Wanted::Token { id: drawn.id, logprob: drawn.logprob })),
                Want::Likelihood(targets) => likelihoods(isa, self.logits, targets)
                    .map(|found| Some(Wanted::Likelihood(found))),
                Want::Logits => Ok(Some(Wanted::Logits(self.logits.to_vec()))),
                Want::AttentionMass(_) | Want::Embedding => Ok(None),
            };
            self.answers.push(answer);
        }
    }
}

fn needs_logits(want: &Want) -> bool {
    match want {
        Want::Sample(_) | Want::Likelihood(_) | Want::Logits => true,
        Want::AttentionMass(_) | Want::Embedding => false,
    }
}

/// ln-probabilities of `targets`.
fn likelihoods(isa: Isa, logits: &[f32], targets: &[u32]) -> Result<Vec<f32>, SampleError> {
    let normaliser = log_sum_exp(isa, logits)?;
    let likelihood = |&id: &u32| (f64::from(logits[id as usize]) - normaliser) as f32;
    Ok(targets.iter().map(likelihood).collect())
}

/// `row` scaled to unit length; zeros stay zeros.
fn unit(row: &[f32]) -> Vec<f32> {
    let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let factor = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    row.iter().map(|&x| (f64::from(x) * factor) as f32).collect()
}
