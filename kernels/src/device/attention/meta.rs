//! What attention of one step reads beside the cache: which rows see what, as numbers for one upload.

use std::ops::Range;

use super::{DecodePlan, ROW_WORDS, SPAN_WORDS, TILE_WORDS};
use crate::attention::BiasSpan;
use crate::device::DeviceError;

/// One sequence's part of a batch. Its `rows` rows are the last of `context` tokens: row `r` sits at position
/// `context - rows + r` and sees keys up to its own.
#[derive(Debug, Clone, Copy)]
pub struct SequenceMeta<'a> {
    /// First row in the batch.
    pub first_row: usize,
    /// Rows of queries.
    pub rows: usize,
    /// Tokens with keys written, this step's included.
    pub context: usize,
    /// Its blocks, `context / block_size` rounded up at least.
    pub blocks: &'a [u32],
    /// Emphasis, sorted and disjoint.
    pub bias: &'a [BiasSpan],
    /// Whether its rows take the decode path, each for itself, or that of prompts. The two differ by rounding; a sequence's
    /// rows should not change paths by what else is in the batch.
    pub decode: bool,
}

/// How the numbers of a step are laid out. What decode reads of fixed size comes first, so that it lies at the same
/// place in every step of a bucket, and a recorded launch finds it.
#[derive(Debug, Clone, Copy)]
pub struct MetaLayout<'a> {
    /// One plan for each window that layers have, all for as many rows; none if no sequence takes the decode path.
    pub decode: &'a [DecodePlan],
    /// Rows of a tile of the prefill path, the least of any layer's [`prefill_rows`](super::prefill_rows).
    pub tile_rows: usize,
    /// Room for as many bias spans, more if they need it.
    pub bias_spans: usize,
    /// Tokens of a block of the cache.
    pub block_size: usize,
}

/// Where things lie among the numbers of a step. Those up to `biases` hang on the layout alone, if it has room for the spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRanges {
    /// Rows of the decode path.
    pub rows: Range<usize>,
    /// Their items, for each plan.
    pub items: Vec<Range<usize>>,
    /// Emphasis.
    pub biases: Range<usize>,
    /// Tiles of the prefill path, those that take longest first.
    pub tiles: Range<usize>,
    /// Block tables, one after the other. A recorded launch is given all the room behind their first number.
    pub tables: Range<usize>,
}

impl MetaLayout<'_> {
    /// Appends the numbers of a step to `words`, and tells where among them they lie.
    ///
    /// Rows of a plan beyond those there are have context 0; they are the batch's rows after the last that a sequence has.
    ///
    /// # Errors
    /// A sequence has more rows than tokens, or blocks for fewer; there are more rows or longer contexts than the plans are
    /// for; a number is beyond 32 bits.
    pub fn pack(
        &self,
        sequences: &[SequenceMeta<'_>],
        words: &mut Vec<u32>,
    ) -> Result<MetaRanges, DeviceError> {
        let placed = self.place(sequences)?;
        let (mut rows, mut contexts, mut tiles) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, place) in sequences.iter().zip(&placed.places) {
            let first = sequence.context - sequence.rows;
            if sequence.decode {
                for row in 0..sequence.rows {
                    let context = first + row + 1;
                    rows.extend([number(sequence.first_row + row)?, number(context)?]);
                    rows.extend(place);
                    contexts.push(context);
                }
                continue;
            }
            for start in (0..sequence.rows).step_by(self.tile_rows.max(1)) {
                let count = (sequence.rows - start).min(self.tile_rows.max(1));
                let at =
                    [number(sequence.first_row + start)?, number(count)?, number(first + start)?];
                let [row, rows, position] = at;
                let [table, span, spans] = *place;
                let tile: [u32; TILE_WORDS] = [row, rows, position, table, span, spans];
                tiles.push((first + start + count, tile));
            }
        }
        let planned = self.decode.first().map_or(0, |plan| plan.rows);
        let longest = contexts.iter().copied().max().unwrap_or(0);
        if contexts.len() > planned
            || self.decode.iter().any(|plan| plan.rows != planned || plan.max_context < longest)
        {
            let what =
                format!("{} rows of up to {longest} tokens, more than planned", contexts.len());
            return Err(DeviceError::Shape(what));
        }
        for row in 0..planned - contexts.len() {
            rows.extend([number(placed.rows + row)?, 0, 0, 0, 0]);
        }
        tiles.sort_by_key(|&(keys, _)| std::cmp::Reverse(keys));

        let mut append = |more: &[u32], room: usize| {
            let start = words.len();
            words.extend_from_slice(more);
            words.resize(words.len().max(start + room), 0);
            start..words.len()
        };
        let rows = append(&rows, planned * ROW_WORDS);
        let mut items = Vec::with_capacity(self.decode.len());
        let mut list = Vec::new();
        for plan in self.decode {
            list.clear();
            plan.list(&contexts, &mut list);
            items.push(append(&list, plan.item_words()));
        }
        let biases = append(&placed.biases, self.bias_spans * SPAN_WORDS);
        let tiles: Vec<u32> = tiles.into_iter().flat_map(|(_, tile)| tile).collect();
        let tiles = append(&tiles, 0);
        let tables = append(&placed.tables, 0);
        Ok(MetaRanges { rows, items, biases, tiles, tables })
    }

    /// Checks sequences, and puts their tables and emphasis one after the other.
    fn place(&self, sequences: &[SequenceMeta<'_>]) -> Result<Placed, DeviceError> {
        let mut placed = Placed::default();
        for sequence in sequences {
            let room = sequence.blocks.len().saturating_mul(self.block_size);
            if sequence.rows > sequence.context || room < sequence.context {
                let SequenceMeta { rows, context, .. } = sequence;
                let what = format!("{rows} rows of {context} tokens in blocks for {room}");
                return Err(DeviceError::Shape(what));
            }
            let needed = sequence.context.div_ceil(self.block_size);
            let spans = placed.biases.len() / SPAN_WORDS;
            placed.places.push([
                number(placed.tables.len())?,
                number(spans)?,
                number(sequence.bias.len())?,
            ]);
            placed.tables.extend_from_slice(&sequence.blocks[..needed]);
            for span in sequence.bias {
                placed.biases.extend([span.start, span.end, span.bias.to_bits()]);
            }
            placed.rows = placed.rows.max(sequence.first_row + sequence.rows);
        }
        Ok(placed)
    }
}

#[derive(Default)]
struct Placed {
    /// Of each sequence: where its table begins, its first bias span, its bias spans.
    places: Vec<[u32; 3]>,
    tables: Vec<u32>,
    biases: Vec<u32>,
    /// Rows of the batch up to the last that a sequence has.
    rows: usize,
}

fn number(value: usize) -> Result<u32, DeviceError> {
    u32::try_from(value).map_err(|_| DeviceError::Shape(format!("{value} is beyond 32 bits")))
}
