//! A checked step as the words the device reads: one buffer, one upload.
//!
//! Everything that changes from step to step lies in it, so that a recorded pass can be played again over other words. Where a pass is
//! recorded for a bucket of rows, the rows beyond the step's are idle: they write no slot and see no key.

use std::ops::Range;

use pith_kernels::device::attention::{PREFILL_ROWS, ROW_WORDS, TILE_WORDS};

use crate::step::{Step, StepSequence, TokenSource, Want};

/// Sequences of at most this many rows are attended row by row, each over its own keys: a decode row and a few drafted ones.
/// Beyond, tiles of queries share their keys.
const DECODE_ROWS: u32 = 4;
/// Slot of a row that writes none.
const NO_SLOT: u32 = u32::MAX;

/// Where each part of the words lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Token of each row, or `-1 - i` for the `i`-th sampled of the step before (two's complement).
    pub(super) tokens: Range<usize>,
    pub(super) positions: Range<usize>,
    pub(super) slots: Range<usize>,
    /// Rows attended one by one, `ROW_WORDS` each.
    pub(super) decode: Range<usize>,
    /// Tiles of queries, `TILE_WORDS` each.
    pub(super) tiles: Range<usize>,
    /// Rows whose final hidden state is asked for.
    pub(super) asked: Range<usize>,
    /// Blocks copied before all else: from, to.
    pub(super) copies: Range<usize>,
    /// Start, end and bits of the bias of each span.
    pub(super) biases: Range<usize>,
    /// Blocks of each sequence. Last, for its length changes most.
    pub(super) tables: Range<usize>,
}

/// A step's words.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) words: Vec<u32>,
    pub(super) layout: Layout,
    /// Keys seen by the decode row that sees most.
    pub(super) longest_decode: usize,
}

/// A row whose logits or hidden state are asked for; rows asked several times for a token stand several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) row: u32,
    /// First want of the row, or the further sample it is for.
    pub(super) want: usize,
}

/// The rows asked for, in order: each once for all it wants, and once more for each further token.
pub(super) fn asked_rows(step: &Step) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::with_capacity(step.wants.len());
    let mut sampled_row = None;
    for (want, &(row, ref kind)) in step.wants.iter().enumerate() {
        if matches!(kind, Want::AttentionMass(_)) {
            continue;
        }
        let sample = matches!(kind, Want::Sample(_));
        let again = sample && sampled_row == Some(row);
        if again || asked.last().is_none_or(|last| last.row != row) {
            asked.push(Asked { row, want });
        }
        if sample {
            sampled_row = Some(row);
        }
    }
    asked
}

/// Whether a pass recorded for decode rows alone can compute `step`.
pub(super) fn is_plain_decode(step: &Step) -> bool {
    let sampled = |(at, (row, want)): (usize, &(u32, Want))| {
        at == *row as usize && matches!(want, Want::Sample(_))
    };
    step.wants.len() == step.tokens.len()
        && step.wants.iter().enumerate().all(sampled)
        && step.sequences.iter().all(|s| s.rows <= DECODE_ROWS && felt(s).next().is_none())
}

/// The spans of a sequence that change anything.
fn felt(sequence: &StepSequence) -> impl Iterator<Item = &crate::step::AttentionBias> {
    sequence.bias.iter().filter(|bias| bias.weight != 1.0)
}

impl Packed {
    /// `sampled_before` are the rows of the step before that sampled a token, ascending, `asked` those of this one. The words describe
    /// `bucket` rows, at least the step's.
    pub(super) fn new(
        step: &Step,
        sampled_before: &[u32],
        asked: &[Asked],
        bucket: usize,
        block_size: usize,
    ) -> Self {
        let rows = step.tokens.len();
        let idle = bucket.saturating_sub(rows);
        let mut packed = Self::default();
        let tokens = step.tokens.iter().map(|token| match *token {
            TokenSource::Literal(id) => id,
            // Checked: the row is among them.
            TokenSource::InFlight { row } => {
                !(sampled_before.binary_search(&row).unwrap_or(0) as u32)
            }
        });
        packed.layout.tokens = packed.put(tokens.chain(std::iter::repeat_n(0, idle)));
        let positions = step.positions.iter().copied();
        packed.layout.positions = packed.put(positions.chain(std::iter::repeat_n(0, idle)));
        let slots = step.slots.iter().copied();
        packed.layout.slots = packed.put(slots.chain(std::iter::repeat_n(NO_SLOT, idle)));

        let mut attention = Attention::default();
        for sequence in &step.sequences {
            attention.add(sequence, block_size);
        }
        for row in rows..rows + idle {
            attention.decode.extend([row as u32, 0, 0, 0, 0]);
        }
        attention.order_tiles();
        packed.longest_decode = attention.longest_decode;
        packed.layout.decode = packed.put(attention.decode);
        packed.layout.tiles = packed.put(attention.tiles.into_iter().flatten());
        let idle_asked = if is_plain_decode(step) { idle } else { 0 };
        let asked = asked.iter().map(|asked| asked.row);
        packed.layout.asked = packed.put(asked.chain(std::iter::repeat_n(0, idle_asked)));
        packed.layout.copies = packed.put(step.copies.iter().flat_map(|c| [c.from, c.to]));
        packed.layout.biases = packed.put(attention.biases);
        packed.layout.tables = packed.put(attention.tables);
        packed
    }

    fn put(&mut self, words: impl IntoIterator<Item = u32>) -> Range<usize> {
        let first = self.words.len();
        self.words.extend(words);
        let end = self.words.len();
        // Each part begins on sixteen bytes.
        self.words.resize(end.next_multiple_of(4), 0);
        first..end
    }
}

/// What attention is told of a step's sequences.
#[derive(Debug, Default)]
struct Attention {
    decode: Vec<u32>,
    tiles: Vec<[u32; TILE_WORDS]>,
    biases: Vec<u32>,
    tables: Vec<u32>,
    longest_decode: usize,
}

impl Attention {
    fn add(&mut self, sequence: &StepSequence, block_size: usize) {
        let context = sequence.context as usize;
        let table = self.tables.len() as u32;
        self.tables.extend(&sequence.blocks[..context.div_ceil(block_size)]);
        let first_bias = (self.biases.len() / 3) as u32;
        for bias in felt(sequence) {
            self.biases.extend([bias.span.start, bias.span.end, bias.weight.ln().to_bits()]);
        }
        let biases = (self.biases.len() / 3) as u32 - first_bias;
        let first = sequence.context - sequence.rows;
        if sequence.rows <= DECODE_ROWS {
            for row in 0..sequence.rows {
                let words: [u32; ROW_WORDS] =
                    [sequence.first_row + row, first + row + 1, table, first_bias, biases];
                self.decode.extend(words);
            }
            self.longest_decode = self.longest_decode.max(context);
            return;
        }
        // Tiles end where a multiple of their rows does in the sequence, so that a row is in the same place of its tile however its
        // prompt is cut.
        let mut row = 0;
        while row < sequence.rows {
            let position = first + row;
            let taken = (PREFILL_ROWS - position % PREFILL_ROWS).min(sequence.rows - row);
            self.tiles.push([sequence.first_row + row, taken, position, table, first_bias, biases]);
            row += taken;
        }
    }

    /// The longest first: whoever is left at the end has the shortest to do.
    fn order_tiles(&mut self) {
        self.tiles.sort_by_key(|tile| std::cmp::Reverse(tile[2]));
    }
}
