//! A checked step in the shape the kernels take.

use pith_kernels::{BiasSpan, SequenceView};

use crate::step::{MassSpec, Step, Want};

/// One step's rows. A row is *live* if its final hidden state is wanted, or if it follows such a
/// row in its sequence (the kernels take the last rows of a sequence, not any); the last layer is
/// computed for live rows alone.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) tokens: Vec<u32>,
    pub(super) positions: &'a [u32],
    pub(super) slots: &'a [u32],
    pub(super) sequences: Vec<SequenceView<'a>>,
    /// Live rows, ascending.
    pub(super) live: Vec<u32>,
    /// The sequences' live rows, numbered by their place in `live`.
    pub(super) live_sequences: Vec<SequenceView<'a>>,
    pub(super) masses: Vec<Mass<'a>>,
}

/// Attention mass wanted of a row.
#[derive(Debug)]
pub(super) struct Mass<'a> {
    /// Index into the step's wants.
    pub(super) want: usize,
    pub(super) row: usize,
    /// The row's position in its sequence.
    pub(super) position: usize,
    pub(super) blocks: &'a [u32],
    pub(super) spec: &'a MassSpec,
    /// One value per span, once its layer has been computed.
    pub(super) found: Vec<f32>,
}

/// The attention biases of each sequence, as the kernels add them. A weight of 1 leaves no trace.
pub(super) fn bias_spans(step: &Step) -> Vec<Vec<BiasSpan>> {
    let spans = step.sequences.iter().map(|sequence| {
        let felt = sequence.bias.iter().filter(|bias| bias.weight != 1.0);
        felt.map(|bias| BiasSpan {
            start: bias.span.start,
            end: bias.span.end,
            bias: bias.weight.ln(),
        })
        .collect()
    });
    spans.collect()
}

impl<'a> Batch<'a> {
    /// `tokens` are the step's, all known by now; `bias` comes from [`bias_spans`].
    pub(super) fn new(step: &'a Step, tokens: Vec<u32>, bias: &'a [Vec<BiasSpan>]) -> Self {
        let mut batch = Self {
            tokens,
            positions: &step.positions,
            slots: &step.slots,
            sequences: Vec::with_capacity(step.sequences.len()),
            live: Vec::new(),
            live_sequences: Vec::new(),
            masses: Vec::new(),
        };
        let mut wants = step.wants.iter().enumerate().peekable();
        for (sequence, bias) in step.sequences.iter().zip(bias) {
            let view = SequenceView {
                first_row: sequence.first_row as usize,
                rows: sequence.rows as usize,
                context: sequence.context as usize,
                blocks: &sequence.blocks,
                bias,
            };
            batch.sequences.push(view);
            let end = sequence.first_row + sequence.rows;
            let mut live_from = None;
            while let Some((want, (row, kind))) = wants.next_if(|(_, (row, _))| *row < end) {
                if let Want::AttentionMass(spec) = kind {
                    batch.masses.push(Mass {
                        want,
                        row: *row as usize,
                        position: step.positions[*row as usize] as usize,
                        blocks: &sequence.blocks,
                        spec,
                        found: vec![0.0; spec.spans.len()],
                    });
                } else if live_from.is_none() {
                    live_from = Some(*row);
                }
            }
            if let Some(from) = live_from {
                let first_row = batch.live.len();
                batch.live.extend(from..end);
                let rows = (end - from) as usize;
                batch.live_sequences.push(SequenceView { first_row, rows, ..view });
            }
        }
        // By layer, so that each layer finds its own side by side.
        batch.masses.sort_by_key(|mass| mass.spec.layer);
        batch
    }

    /// The masses wanted of `layer`.
    pub(super) fn masses_of(&mut self, layer: usize) -> &mut [Mass<'a>] {
        let from = self.masses.partition_point(|mass| (mass.spec.layer as usize) < layer);
        let to = self.masses.partition_point(|mass| (mass.spec.layer as usize) <= layer);
        &mut self.masses[from..to]
    }
}
