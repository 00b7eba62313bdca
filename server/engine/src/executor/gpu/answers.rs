//! What a step's rows are asked for, found on the device: samples, likelihoods, logits, embeddings. Small results come back in one piece.

use pith_kernels::device::matrix::OutSlice;
use pith_kernels::device::sample::{Sampler, sample};
use pith_kernels::device::{Device, DeviceError, DeviceSlice, DeviceVec, Download, norm, score};

use super::forward::{Forward, Words};
use super::masses::Masses;
use super::pack::{Asked, Targets};
use super::specs::sampling_row;
use super::weights::Weights;
use crate::executor::ExecutorError;
use crate::step::{Step, Want, Wanted};

/// Most bytes of logits at once. Rows beyond are projected after those before them are answered.
const LOGIT_BYTES: usize = 256 << 20;

/// Work space for answers, made once.
#[derive(Debug)]
pub(super) struct Answers {
    /// Hidden states after the final norm, `[rows at once, hidden]`.
    hidden: DeviceVec<u16>,
    /// `[rows at once, vocab]`.
    logits: DeviceVec<f32>,
    rows_at_once: usize,
    /// Tokens of a step's asked rows, then the bits of their ln-probabilities, then how each came out.
    drawn: DeviceVec<u32>,
    /// ln-probabilities of targets.
    likelihoods: DeviceVec<f32>,
    sampler: Sampler,
}

/// Answers on their way to the host.
#[derive(Debug)]
pub(super) struct Coming {
    /// Of how many rows; tokens, ln-probabilities and statuses follow each other.
    asked: Vec<Asked>,
    drawn: Option<Download<u32>>,
    likelihoods: Option<Download<f32>>,
    /// By want.
    logits: Vec<(usize, Download<f32>)>,
    hidden: Vec<(usize, Download<u16>)>,
    masses: Option<Download<f32>>,
}

impl Answers {
    /// Room for steps of `rows` rows.
    pub(super) fn new(device: &Device, weights: &Weights, rows: usize) -> Result<Self, DeviceError> {
        let (vocab, hidden) = (weights.plan.vocab, weights.plan.hidden);
        let rows_at_once = (LOGIT_BYTES / 4 / vocab).clamp(1, rows);
        Ok(Self {
            hidden: DeviceVec::new(device, rows_at_once * hidden)?,
            logits: DeviceVec::new(device, rows_at_once * vocab)?,
            rows_at_once,
            drawn: DeviceVec::zeroed(device, 3 * rows)?,
            likelihoods: DeviceVec::new(device, rows)?,
            sampler: Sampler::new(device, rows_at_once, vocab)?,
        })
    }

    /// Rows that may be asked in one step, each for one token.
    pub(super) fn most_asked(&self) -> usize {
        self.drawn.len() / 3
    }

    /// Whether `rows` rows are projected at once.
    pub(super) fn at_once(&self, rows: usize) -> bool {
        rows <= self.rows_at_once
    }

    /// Tokens drawn by the step queued last, by the place of their row among those asked.
    pub(super) fn drawn(&self) -> DeviceSlice<'_, u32> {
        self.drawn.as_slice().first(self.most_asked())
    }

    /// Sends the settings of a plain decode step's samples, of `bucket` rows.
    pub(super) fn send_plain(&self, step: &Step, bucket: usize) -> Result<(), ExecutorError> {
        let specs = step.wants.iter().map(|(_, want)| match want {
            Want::Sample(spec) => sampling_row(Some(spec)),
            _ => sampling_row(None),
        });
        let idle = (step.wants.len()..bucket).map(|_| sampling_row(None));
        self.sampler.send(specs.chain(idle))?;
        Ok(())
    }

    /// Projects and samples all `rows` asked rows, whose settings were sent.
    pub(super) fn plain(
        &self,
        forward: &Forward,
        weights: &Weights,
        words: Words<'_>,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let asked = words.part(|l| &l.asked);
        let logits = self.project(forward, weights, asked)?;
        self.sample(forward.device(), weights, logits, 0, rows)
    }

    /// Begins to fetch what a plain decode step of `bucket` rows drew.
    pub(super) fn fetch_plain(&self, asked: Vec<Asked>, bucket: usize) -> Result<Coming, DeviceError> {
        let drawn = Some(self.drawn.slice(0..3 * bucket).download()?);
        Ok(Coming {
            asked,
            drawn,
            likelihoods: None,
            logits: Vec::new(),
            hidden: Vec::new(),
            masses: None,
        })
    }
}
