//! Steps that touch everything once before the KV cache takes what memory is left.

use std::sync::Arc;

use crate::sampling::SampleSpec;
use crate::step::{Step, StepId, StepSequence, TokenSource, Want};

/// A prompt as long as a step may be, and one decode row after it. Both sample, whatever comes out: a cache that holds
/// nothing but this is read as it was written.
pub(super) fn steps(rows: usize, block_size: usize) -> [Step; 2] {
    let blocks: Arc<[u32]> = (0..rows.div_ceil(block_size) as u32).collect();
    let step = |id: u64, first: usize| Step {
        id: StepId(id),
        tokens: vec![TokenSource::Literal(0); rows - first],
        positions: (first as u32..rows as u32).collect(),
        slots: (first as u32..rows as u32).collect(),
        sequences: vec![StepSequence {
            first_row: 0,
            rows: (rows - first) as u32,
            context: rows as u32,
            blocks: Arc::clone(&blocks),
            adapter: None,
            bias: Arc::new([]),
        }],
        copies: Vec::new(),
        wants: vec![((rows - first) as u32 - 1, Want::Sample(SampleSpec::greedy()))],
    };
    [step(0, 0), step(1, rows - 1)]
}
