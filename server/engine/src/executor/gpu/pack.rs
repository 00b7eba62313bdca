//! A checked step as the words the device reads: one buffer, one upload.
//!
//! Everything that changes from step to step lies in it, so that a recorded pass can be played again over other words. Where a pass is
//! recorded for a bucket of rows, the rows beyond the step's are idle: they write no slot and see no key.

use std::ops::Range;

use pith_kernels::BiasSpan;
use pith_kernels::device::DeviceError;
use pith_kernels::device::attention::{MetaLayout, MetaRanges, SequenceMeta};

use super::masses::Masses;
use super::shapes::Reach;
use crate::step::{Step, StepSequence, TokenSource, Want};

/// Sequences of at most this many rows are attended row by row, each over its own keys: a decode row and a few drafted ones.
/// Beyond, tiles of queries share their keys.
const DECODE_ROWS: u32 = 4;
/// Rows of a step that are attended one by one, at most: what attention's work space is made for. Sequences beyond take
/// tiles, whose sums round differently.
pub(super) const MOST_DECODE_ROWS: usize = 512;
/// Slot of a row that writes none.
const NO_SLOT: u32 = u32::MAX;

/// A step's words, and where each part of them lies.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) words: Vec<u32>,
    pub(super) layout: Layout,
}

/// Where each part of a step's words lies.
#[derive(Debug)]
pub(super) struct Layout {
    /// Token of each row, or `-1 - i` for the `i`-th asked row of the step before (two's complement).
    pub(super) tokens: Range<usize>,
    pub(super) positions: Range<usize>,
    pub(super) slots: Range<usize>,
    /// Rows whose final hidden state is asked for.
    pub(super) asked: Range<usize>,
    /// Blocks copied before all else: from, to.
    pub(super) copies: Range<usize>,
    /// Tokens whose likelihood is asked for, by asked row.
    pub(super) targets: Range<usize>,
    /// Which of the rows projected together with it each target is of.
    pub(super) target_rows: Range<usize>,
    /// Attention masses asked for.
    pub(super) masses: Masses,
    /// What attention reads.
    pub(super) attention: MetaRanges,
}

/// A row whose logits or hidden state are asked for; rows asked several times for a token stand several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) row: u32,
    /// The want of the token it is sampled for.
    pub(super) sample: Option<usize>,
    /// Whether it answers whatever else its row wants.
    pub(super) others: bool,
}

/// The rows asked for, in order: each once for all it wants, and once more for each further token.
pub(super) fn asked_rows(step: &Step) -> Vec<Asked> {
    let mut asked = Vec::with_capacity(step.wants.len());
    let mut first = 0;
    for wants in step.wants.chunk_by(|a, b| a.0 == b.0) {
        let row = wants[0].0;
        let mut samples = (first..).zip(wants).filter_map(|(index, (_, want))| match want {
            Want::Sample(_) => Some(index),
            _ => None,
        });
        first += wants.len();
        if wants.iter().all(|(_, want)| matches!(want, Want::AttentionMass(_))) {
            continue;
        }
        asked.push(Asked { row, sample: samples.next(), others: true });
        asked.extend(samples.map(|want| Asked { row, sample: Some(want), others: false }));
    }
    asked
}

/// Whether a pass recorded for decode rows alone can compute `step`: every row is one, and wants one token.
pub(super) fn is_plain_decode(step: &Step) -> bool {
    let sampled = |(at, (row, want)): (usize, &(u32, Want))| {
        at == *row as usize && matches!(want, Want::Sample(_))
    };
    step.copies.is_empty()
        && step.wants.len() == step.tokens.len()
        && step.wants.iter().enumerate().all(sampled)
        && decode(step).all(|alone| alone)
        && step.sequences.iter().all(|s| s.bias.iter().all(|bias| bias.weight == 1.0))
}

/// Whether each sequence's rows are attended one by one.
fn decode(step: &Step) -> impl Iterator<Item = bool> {
    let mut rows = 0;
    step.sequences.iter().map(move |sequence| {
        let more = rows + sequence.rows as usize;
        let alone = sequence.rows <= DECODE_ROWS && more <= MOST_DECODE_ROWS;
        if alone {
            rows = more;
        }
        alone
    })
}

/// Decode rows of `step`, and the longest context among them.
pub(super) fn decode_reach(step: &Step) -> Reach {
    let mut reach = Reach { rows: 0, keys: 0 };
    for (sequence, _) in step.sequences.iter().zip(decode(step)).filter(|(_, alone)| *alone) {
        reach.rows += sequence.rows as usize;
        reach.keys = reach.keys.max(sequence.context as usize);
    }
    reach
}

/// What [`Packed::new`] needs beside the step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing<'a> {
    /// Rows that the step before was asked for, ascending.
    pub(super) last_asked: &'a [u32],
    pub(super) asked: &'a [Asked],
    /// Rows that are described, at least the step's.
    pub(super) rows: usize,
    /// Asked rows that are projected together.
    pub(super) rows_at_once: usize,
    pub(super) attention: MetaLayout<'a>,
}

impl Packed {
    pub(super) fn new(step: &Step, packing: &Packing<'_>) -> Result<Self, DeviceError> {
        let idle = packing.rows.saturating_sub(step.tokens.len());
        let mut words = Words(Vec::new());
        let tokens = step.tokens.iter().map(|token| match *token {
            TokenSource::Literal(id) => id,
            // Checked: the row is among them.
            TokenSource::InFlight { row } => {
                !(packing.last_asked.binary_search(&row).unwrap_or(0) as u32)
            }
        });
        let tokens = words.put(tokens.chain(std::iter::repeat_n(0, idle)));
        let positions = step.positions.iter().copied();
        let positions = words.put(positions.chain(std::iter::repeat_n(0, idle)));
        let slots = step.slots.iter().copied();
        let slots = words.put(slots.chain(std::iter::repeat_n(NO_SLOT, idle)));
        // Idle rows are sampled with the rest: a bucket's every row is asked.
        let idle_asked = (step.tokens.len() as u32..).take(idle);
        let asked = words.put(packing.asked.iter().map(|asked| asked.row).chain(idle_asked));
        let copies = words.put(step.copies.iter().flat_map(|copy| [copy.from, copy.to]));
        let targets = targets(step, packing);
        let target_rows = words.put(targets.iter().map(|target| target.0));
        let targets = words.put(targets.iter().map(|target| target.1));
        let masses = Masses::pack(step, &mut words.0)?;
        let biases: Vec<Vec<BiasSpan>> = step.sequences.iter().map(felt).collect();
        let sequences: Vec<SequenceMeta<'_>> =
            step.sequences.iter().zip(&biases).zip(decode(step)).map(meta).collect();
        let attention = packing.attention.pack(&sequences, &mut words.0)?;
        let layout = Layout {
            tokens,
            positions,
            slots,
            asked,
            copies,
            targets,
            target_rows,
            masses,
            attention,
        };
        Ok(Self { words: words.0, layout })
    }
}

struct Words(Vec<u32>);

impl Words {
    fn put(&mut self, words: impl IntoIterator<Item = u32>) -> Range<usize> {
        let first = self.0.len();
        self.0.extend(words);
        let end = self.0.len();
        // Each part begins on sixteen bytes.
        self.0.resize(end.next_multiple_of(4), 0);
        first..end
    }
}

/// The spans of a sequence that change anything.
fn felt(sequence: &StepSequence) -> Vec<BiasSpan> {
    let felt = sequence.bias.iter().filter(|bias| bias.weight != 1.0);
    let span = |bias: &crate::step::AttentionBias| BiasSpan {
        start: bias.span.start,
        end: bias.span.end,
        bias: bias.weight.ln(),
    };
    felt.map(span).collect()
}

fn meta<'a>(
    ((sequence, bias), decode): ((&'a StepSequence, &'a Vec<BiasSpan>), bool),
) -> SequenceMeta<'a> {
    SequenceMeta {
        first_row: sequence.first_row as usize,
        rows: sequence.rows as usize,
        context: sequence.context as usize,
        blocks: &sequence.blocks,
        bias,
        decode,
    }
}

/// `(place of the row among those projected together, token)` of every likelihood wanted, in order of the wants.
fn targets(step: &Step, packing: &Packing<'_>) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for (row, want) in &step.wants {
        if let Want::Likelihood(targets) = want {
            let place = packing.asked.partition_point(|asked| asked.row < *row);
            let row = (place % packing.rows_at_once) as u32;
            found.extend(targets.iter().map(|&target| (row, target)));
        }
    }
    found
}
