//! The forward pass of a BERT: post-layer-norm, exact GELU, mean pooling, vectors of length 1.

use half::slice::HalfFloatSliceExt as _;
use pith_kernels::attention::{BidirectionalShape, bidirectional};
use pith_kernels::norm::{add_bias, add_layer_norm, layer_norm};
use pith_kernels::{PoolError, gelu};
use pith_model::encoder::{EncoderConfig, Encoding};

use super::CpuEncoder;
use super::weights::LayerWeights;

/// Vectors shorter than this are not made longer: it is divided by instead.
const SHORTEST: f32 = 1e-12;

/// Work space of a forward pass. Rows are side by side; each buffer is as long as the largest batch so far needed.
#[derive(Debug, Default)]
pub(super) struct Forward {
    /// The residual stream, `[rows, hidden]`.
    stream: Vec<f32>,
    /// Queries, keys and values of a row, one after the other.
    qkv: Vec<f32>,
    /// `[rows, hidden]`.
    attended: Vec<f32>,
    /// `[rows, feed_forward]`.
    wide: Vec<f32>,
    /// What a block adds to the stream, `[rows, hidden]`.
    added: Vec<f32>,
}

impl Forward {
    /// Appends the vector of each text of `batch` to `out`.
    pub(super) fn run(
        &mut self,
        encoder: &CpuEncoder,
        config: &EncoderConfig,
        batch: &[Encoding],
        out: &mut Vec<f32>,
    ) -> Result<(), PoolError> {
        let lengths: Vec<usize> = batch.iter().map(|encoding| encoding.ids.len()).collect();
        let rows: usize = lengths.iter().sum();
        let hidden = config.hidden;
        self.stream.resize(rows * hidden, 0.0);
        self.qkv.resize(rows * 3 * hidden, 0.0);
        self.attended.resize(rows * hidden, 0.0);
        self.wide.resize(rows * config.feed_forward, 0.0);
        self.added.resize(rows * hidden, 0.0);
        self.embed(encoder, batch)?;
        for layer in &encoder.weights.layers {
            self.layer(encoder, config, layer, &lengths)?;
        }
        let mut first = 0;
        for length in lengths {
            pool(&self.stream[first * hidden..(first + length) * hidden], hidden, out);
            first += length;
        }
        Ok(())
    }

    /// Sums of the embeddings of tokens and positions, normalised.
    fn embed(&mut self, encoder: &CpuEncoder, batch: &[Encoding]) -> Result<(), PoolError> {
        let CpuEncoder { isa, pool, weights, .. } = encoder;
        let hidden = weights.norm.weight.len();
        let tokens: Vec<(u32, usize)> =
            (batch.iter()).flat_map(|encoding| encoding.ids.iter().copied().zip(0..)).collect();
        // A task reads some 16 KiB of rows that lie anywhere.
        const ROWS: usize = 16;
        pool.chunks(&mut self.stream, ROWS * hidden, |task, rows| {
            for (row, &(id, position)) in rows.chunks_exact_mut(hidden).zip(&tokens[task * ROWS..])
            {
                weights.tokens[id as usize * hidden..][..hidden].convert_to_f32_slice(row);
                for (x, &y) in row.iter_mut().zip(&weights.positions[position * hidden..]) {
                    *x += y;
                }
            }
        })?;
        layer_norm(*isa, pool, &mut self.stream, weights.norm.view())
    }

    fn layer(
        &mut self,
        CpuEncoder { isa, pool, .. }: &CpuEncoder,
        config: &EncoderConfig,
        weights: &LayerWeights,
        lengths: &[usize],
    ) -> Result<(), PoolError> {
        let isa = *isa;
        let head_dim = config.hidden / config.heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = BidirectionalShape { heads: config.heads, head_dim, scale };
        let Self { stream, qkv, attended, wide, added } = self;
        weights.qkv.matmul(isa, pool, stream, qkv)?;
        add_bias(isa, pool, qkv, &weights.qkv_bias)?;
        bidirectional(isa, pool, shape, qkv, lengths, attended)?;
        weights.attention_output.matmul(isa, pool, attended, added)?;
        let (bias, norm) = (&weights.attention_output_bias, &weights.attention_norm);
        add_layer_norm(isa, pool, stream, added, bias, norm.view())?;
        weights.up.matmul(isa, pool, stream, wide)?;
        gelu::bias_gelu(isa, pool, wide, &weights.up_bias)?;
        weights.down.matmul(isa, pool, wide, added)?;
        let (bias, norm) = (&weights.down_bias, &weights.feed_forward_norm);
        add_layer_norm(isa, pool, stream, added, bias, norm.view())
    }
}

/// Appends the mean of `rows`, made as long as 1. `[CLS]` and `[SEP]` count as every other token.
fn pool(rows: &[f32], hidden: usize, out: &mut Vec<f32>) {
    let from = out.len();
    out.resize(from + hidden, 0.0);
    let mean = &mut out[from..];
    for row in rows.chunks_exact(hidden) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    // How long the sum is does not matter, but that a long text's cannot overflow.
    let share = hidden as f32 / rows.len() as f32;
    mean.iter_mut().for_each(|sum| *sum *= share);
    let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt().max(SHORTEST);
    mean.iter_mut().for_each(|x| *x /= length);
}
