//! What a step's rows are asked for, found on the device: samples, likelihoods, logits, embeddings.

use std::ops::Range;

use pith_kernels::device::matrix::OutSlice;
use pith_kernels::device::sample::{PackedSampling, SampleFailure, SampleRow, SampleRows, sample};
use pith_kernels::device::{Device, DeviceError, DeviceSlice, DeviceVec, Download, norm, score};

use super::forward::{Forward, Words};
use super::masses::{Masses, Room};
use super::pack::Asked;
use super::weights::Weights;
use crate::executor::ExecutorError;
use crate::sampling::{SampleError, SampleSpec};
use crate::step::{Step, Want, Wanted};

/// Most bytes of logits at once. Rows beyond are projected after those before them are answered.
const LOGIT_BYTES: usize = 256 << 20;
/// Tokens whose logits are edited in one step, of all rows together, at first.
const EDITS: usize = 1 << 16;

/// Work space for answers, made once; what a step needs more of grows, and stays.
#[derive(Debug)]
pub(super) struct Answers {
    /// Hidden states after the final norm, `[rows at once, hidden]`.
    hidden: DeviceVec<u16>,
    /// `[rows at once, vocab]`.
    logits: DeviceVec<f32>,
    rows_at_once: usize,
    /// Tokens of a step's asked rows, then the bits of their ln-probabilities, then how each came out.
    drawn: DeviceVec<u32>,
    /// Of the targets of a step.
    likelihoods: DeviceVec<f32>,
    /// How rows are sampled, and the same on the device.
    settings: SampleRows,
    sampling: PackedSampling,
    /// See [`Answers::moved`].
    moved: bool,
}

/// Answers on their way to the host.
#[derive(Debug)]
pub(super) struct Coming {
    asked: Vec<Asked>,
    /// Tokens, ln-probabilities and statuses, each of as many rows as were described.
    drawn: Option<Download<u32>>,
    /// In order of the wants.
    likelihoods: Option<Download<f32>>,
    /// By want.
    logits: Vec<(usize, Download<f32>)>,
    hidden: Vec<(usize, Download<u16>)>,
    masses: Option<Download<f32>>,
}

impl Answers {
    /// Room for steps of `rows` rows.
    pub(super) fn new(
        device: &Device,
        weights: &Weights,
        rows: usize,
    ) -> Result<Self, DeviceError> {
        let (vocab, hidden) = (weights.plan.vocab, weights.plan.hidden);
        let rows_at_once = (LOGIT_BYTES / size_of::<f32>() / vocab).clamp(1, rows);
        Ok(Self {
            hidden: DeviceVec::new(device, rows_at_once * hidden)?,
            logits: DeviceVec::new(device, rows_at_once * vocab)?,
            rows_at_once,
            drawn: DeviceVec::zeroed(device, 3 * rows)?,
            likelihoods: DeviceVec::new(device, 0)?,
            settings: SampleRows::default(),
            sampling: PackedSampling::new(device, rows_at_once, EDITS)?,
            moved: false,
        })
    }

    /// Rows that may be asked in one step, each for one token.
    pub(super) fn most_asked(&self) -> usize {
        self.drawn.len() / 3
    }

    /// Rows that are projected together.
    pub(super) fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    /// Where the step queued last left its tokens, by the place of their row among those asked.
    pub(super) fn drawn(&self) -> DeviceSlice<'_, u32> {
        self.drawn.as_slice().first(self.most_asked())
    }

    /// Whether what a recorded pass reads has moved since this was last asked, whatever kind of step it moved for.
    pub(super) fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Sends how rows `asked` of `step` are sampled, beside others up to `rows` that nobody reads.
    pub(super) fn send(
        &mut self,
        device: &Device,
        step: &Step,
        asked: &[Asked],
        rows: usize,
    ) -> Result<(), DeviceError> {
        self.settings.begin(rows);
        for (place, asked) in asked.iter().enumerate() {
            if let Some(spec) = sample_of(step, asked) {
                self.settings.set(place, &sample_row(spec));
            }
        }
        if !self.sampling.fits(&self.settings) {
            let edits = self.settings.edits().next_power_of_two();
            self.sampling = PackedSampling::new(device, self.rows_at_once.max(rows), edits)?;
            self.moved = true;
        }
        self.sampling.upload(&self.settings)
    }

    /// Projects and samples all rows asked of a plain decode step, whose settings were sent.
    pub(super) fn decode(
        &self,
        forward: &Forward,
        weights: &Weights,
        words: Words<'_>,
    ) -> Result<(), DeviceError> {
        self.project(forward, weights, words.part(&words.layout.asked))?;
        self.sample(forward.device(), weights, 0..words.rows, words.rows)
    }

    /// Begins to fetch what a plain decode step of `rows` described rows drew.
    pub(super) fn fetch(&self, asked: Vec<Asked>, rows: usize) -> Result<Coming, DeviceError> {
        let drawn = Some(self.drawn.slice(0..3 * rows).download()?);
        let (logits, hidden) = (Vec::new(), Vec::new());
        Ok(Coming { asked, drawn, likelihoods: None, logits, hidden, masses: None })
    }

    /// Answers all that `step` wants, launch by launch.
    pub(super) fn collect(
        &mut self,
        forward: &Forward,
        weights: &Weights,
        step: &Step,
        words: Words<'_>,
        asked: Vec<Asked>,
        room: &Room,
    ) -> Result<Coming, DeviceError> {
        let device = forward.device();
        let plan = &weights.plan;
        let (mut logits, mut hidden) = (Vec::new(), Vec::new());
        let targets = words.layout.targets.len();
        self.likelihoods.make_room(targets)?;
        let mut answered = 0;
        let asked_on_device = words.part(&words.layout.asked);
        for (chunk, some) in asked.chunks(self.rows_at_once).enumerate() {
            let first = chunk * self.rows_at_once;
            let rows = first..first + some.len();
            self.project(forward, weights, asked_on_device.slice(rows.clone()))?;
            let until = answered + targets_of(step, some);
            if until > answered {
                let part = |range: &Range<usize>| words.part(range).slice(answered..until);
                score::likelihoods(
                    device,
                    self.logits.as_slice().first(some.len() * plan.vocab),
                    plan.vocab,
                    part(&words.layout.targets),
                    part(&words.layout.target_rows),
                    self.likelihoods.slice(answered..until),
                )?;
                answered = until;
            }
            for (place, asked) in some.iter().enumerate() {
                for (want, kind) in wants_of(step, asked) {
                    let row = |width: usize| place * width..(place + 1) * width;
                    match kind {
                        Want::Logits => {
                            logits.push((want, self.logits.slice(row(plan.vocab)).download()?));
                        }
                        Want::Embedding => {
                            hidden.push((want, self.hidden.slice(row(plan.hidden)).download()?));
                        }
                        _ => {}
                    }
                }
            }
            if some.iter().any(|asked| sample_of(step, asked).is_some()) {
                self.send(device, step, some, some.len())?;
                self.sample(device, weights, rows, asked.len())?;
            }
        }
        let sampled = asked.iter().any(|asked| sample_of(step, asked).is_some());
        let drawn = match sampled {
            true => Some(self.drawn.slice(0..3 * asked.len()).download()?),
            false => None,
        };
        let likelihoods = match targets {
            0 => None,
            _ => Some(self.likelihoods.slice(0..targets).download()?),
        };
        let masses = room.fetch(&words.layout.masses)?;
        Ok(Coming { asked, drawn, likelihoods, logits, hidden, masses })
    }

    /// Fills `hidden` and `logits` for the rows named on the device.
    fn project(
        &self,
        forward: &Forward,
        weights: &Weights,
        asked: DeviceSlice<'_, u32>,
    ) -> Result<(), DeviceError> {
        let (device, plan, rows) = (forward.device(), &weights.plan, asked.len());
        let hidden = self.hidden.as_slice().first(rows * plan.hidden);
        let logits = self.logits.as_slice().first(rows * plan.vocab);
        let (stream, norm) = (forward.stream(), weights.output_norm.as_slice());
        norm::rms_norm(device, stream, Some(asked), norm, plan.norm_eps, hidden)?;
        forward.multiply(weights.projection(), hidden, rows, OutSlice::F32(logits))?;
        match plan.logit_softcap {
            Some(cap) => score::softcap(device, logits, cap),
            None => Ok(()),
        }
    }

    /// Samples the projected rows, which are `rows` of all `asked` rows of the step.
    fn sample(
        &self,
        device: &Device,
        weights: &Weights,
        rows: Range<usize>,
        asked: usize,
    ) -> Result<(), DeviceError> {
        let logits = self.logits.as_slice().first(rows.len() * weights.plan.vocab);
        let drawn = self.drawn.as_slice();
        let part = |nth: usize| drawn.slice(nth * asked + rows.start..nth * asked + rows.end);
        let logprobs = part(1).cast::<f32>();
        sample(device, logits, &self.sampling, None, part(0), logprobs, part(2))
    }
}

impl Coming {
    /// The rows asked, in the order their tokens lie in.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> {
        self.asked.iter().map(|asked| asked.row)
    }

    /// Waits for everything and deals it out to the wants of `step`.
    pub(super) fn arrive(self, step: &Step, masses: &Masses) -> Result<Vec<Wanted>, ExecutorError> {
        let mut answers: Vec<Option<Wanted>> = step.wants.iter().map(|_| None).collect();
        if let Some(drawn) = self.drawn {
            let drawn = drawn.wait()?;
            let (tokens, rest) = drawn.split_at(drawn.len() / 3);
            let (logprobs, statuses) = rest.split_at(tokens.len());
            let rows = self.asked.iter().zip(tokens).zip(logprobs).zip(statuses);
            for (((asked, &id), &logprob), &status) in rows {
                if let Some(want) = asked.sample {
                    answers[want] = Some(match SampleFailure::of(status) {
                        None => Wanted::Token { id, logprob: f32::from_bits(logprob) },
                        Some(why) => Wanted::Failed(format!("row {}: {}", asked.row, cause(why))),
                    });
                }
            }
        }
        let likelihoods = self.likelihoods.map(Download::wait).transpose()?.unwrap_or_default();
        let mut rest = likelihoods.as_slice();
        for ((row, want), answer) in step.wants.iter().zip(&mut answers) {
            let Want::Likelihood(targets) = want else { continue };
            let (mine, after) = rest.split_at(targets.len().min(rest.len()));
            rest = after;
            *answer = Some(match mine.iter().all(|likelihood| !likelihood.is_nan()) {
                true => Wanted::Likelihood(mine.to_vec()),
                false => Wanted::Failed(format!("row {row}: {}", cause(SampleFailure::NotFinite))),
            });
        }
        for (want, logits) in self.logits {
            answers[want] = Some(Wanted::Logits(logits.wait()?));
        }
        for (want, hidden) in self.hidden {
            answers[want] = Some(Wanted::Embedding(unit(&hidden.wait()?)));
        }
        if let Some(found) = self.masses {
            for (want, masses) in masses.deal(&found.wait()?) {
                answers[want] = Some(Wanted::AttentionMass(masses));
            }
        }
        let missing = || ExecutorError::Failed("a want went unanswered".to_owned());
        answers.into_iter().map(|answer| answer.ok_or_else(missing)).collect()
    }
}

/// The wants of the asked row's row, with their place.
fn wants_of<'a>(step: &'a Step, asked: &Asked) -> impl Iterator<Item = (usize, &'a Want)> {
    let row = asked.row;
    let first = step.wants.partition_point(|(other, _)| *other < row);
    let wants = if asked.others { &step.wants[first..] } else { &[] };
    (first..).zip(wants.iter().take_while(move |(other, _)| *other == row)).map(|(i, w)| (i, &w.1))
}

/// How the asked row is sampled, if it is.
fn sample_of<'a>(step: &'a Step, asked: &Asked) -> Option<&'a SampleSpec> {
    match &step.wants[asked.sample?].1 {
        Want::Sample(spec) => Some(spec),
        _ => None,
    }
}

/// Targets of all likelihoods that the rows want.
fn targets_of(step: &Step, asked: &[Asked]) -> usize {
    let wants = asked.iter().flat_map(|asked| wants_of(step, asked));
    wants
        .map(|(_, want)| if let Want::Likelihood(targets) = want { targets.len() } else { 0 })
        .sum()
}

fn sample_row(spec: &SampleSpec) -> SampleRow<'_> {
    SampleRow {
        temperature: spec.temperature,
        top_k: spec.top_k,
        top_p: spec.top_p,
        min_p: spec.min_p,
        repetition_penalty: spec.repetition_penalty,
        frequency_penalty: spec.frequency_penalty,
        presence_penalty: spec.presence_penalty,
        seen: &spec.seen,
        banned: &spec.banned,
        logit_bias: &spec.logit_bias,
        masked: false,
        seed: spec.seed,
        draw: spec.draw,
    }
}

/// The same words as on the CPU.
fn cause(failure: SampleFailure) -> SampleError {
    match failure {
        SampleFailure::NotFinite => SampleError::NotFinite,
        SampleFailure::NothingLeft => SampleError::NothingLeft,
    }
}

/// `row`, bfloat16, scaled to unit length; zeros stay zeros.
fn unit(row: &[u16]) -> Vec<f32> {
    let values = || row.iter().map(|&bits| f64::from(f32::from_bits(u32::from(bits) << 16)));
    let square: f64 = values().map(|x| x * x).sum();
    let factor = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    values().map(|x| (x * factor) as f32).collect()
}
