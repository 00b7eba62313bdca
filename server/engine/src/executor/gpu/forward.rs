//! The forward pass on a device: a [`Plan`] interpreted. Nothing here knows a family of models.

use pith_kernels::AttentionShape;
use pith_kernels::device::attention::{
    DecodePlan, PrefillPath, attend_decode, attend_prefill,
};
use pith_kernels::device::gated::{self, Activation as Gate};
use pith_kernels::device::heads::{HeadsShape, heads};
use pith_kernels::device::kv::DeviceKv;
use pith_kernels::device::matrix::{MatmulPath, OutSlice, embed_rows, matmul, scratch_len};
use pith_kernels::device::{Device, DeviceError, DeviceMatrix, DeviceSlice, DeviceVec, embed, norm};
use pith_model::plan::{Activation, Layer, Plan};

use super::masses::Masses;
use super::pack::Layout;
use super::weights::{LayerWeights, Weights};

/// Work space of the forward pass, made once for the largest step. Rows are side by side.
#[derive(Debug)]
pub(super) struct Forward {
    device: Device,
    matmul: MatmulPath,
    prefill: PrefillPath,
    /// Token of each row, once those in flight are known.
    tokens: DeviceVec<u32>,
    /// The residual stream, `[rows, hidden]`.
    stream: DeviceVec<f32>,
    /// `[rows, hidden]`.
    normed: DeviceVec<u16>,
    /// Queries, keys and values of a row, one after the other.
    qkv: DeviceVec<u16>,
    /// Queries, normalised and rotated.
    queries: DeviceVec<u16>,
    /// What the heads attended to, `[rows, heads * head_dim]`.
    attended: DeviceVec<u16>,
    /// `[rows, 2 * feed_forward]`.
    gate_up: DeviceVec<u16>,
    /// `[rows, feed_forward]`.
    gated: DeviceVec<u16>,
    /// What a block adds to the stream where it passes through a norm first, `[rows, hidden]`; empty where none does.
    added: DeviceVec<f32>,
    /// Rows of weights made bfloat16.
    scratch: DeviceVec<u16>,
    /// Partial results of attention.
    partial: DeviceVec<f32>,
    /// Radians per position of each RoPE table's pairs.
    frequencies: Vec<DeviceVec<f32>>,
}

/// A step's words on the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) words: DeviceSlice<'a, u32>,
    pub(super) layout: &'a Layout,
}

impl<'a> Words<'a> {
    pub(super) fn part(self, part: impl Fn(&Layout) -> &std::ops::Range<usize>) -> DeviceSlice<'a, u32> {
        self.words.slice(part(self.layout).clone())
    }

    /// Everything from the tables on: a recorded pass reads whatever is there when it is played.
    fn tables(self) -> DeviceSlice<'a, u32> {
        self.words.slice(self.layout.tables.start..self.words.len())
    }
}

/// How a pass attends: what the grid of its launches depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Rows of the pass.
    pub(super) rows: usize,
    /// Keys that decode rows may see, at least as many as they do.
    pub(super) keys: usize,
}

impl Forward {
    /// Room for steps of `rows` rows over contexts of `context` tokens.
    pub(super) fn new(
        device: &Device,
        weights: &Weights,
        rows: usize,
        context: usize,
        matmul: MatmulPath,
        prefill: PrefillPath,
    ) -> Result<Self, DeviceError> {
        let plan = &weights.plan;
        let widest = |width: fn(&Layer) -> usize| plan.layers.iter().map(width).max().unwrap_or(0);
        let post_norms = plan.layers.iter().any(|layer| layer.post_norms);
        let halves = |width: usize| DeviceVec::<u16>::new(device, rows * width);
        let scratch = weights.matrices().map(|matrix| scratch_len(matrix, rows)).max().unwrap_or(0);
        let partial = plan.layers.iter().map(|layer| {
            DecodePlan::new(device.limits(), &attention_shape(layer), rows, context).workspace_len()
        });
        let frequencies =
            plan.ropes.iter().map(|rope| DeviceVec::from_slice(device, &rope.inv_freq));
        Ok(Self {
            tokens: DeviceVec::new(device, rows)?,
            stream: DeviceVec::new(device, rows * plan.hidden)?,
            normed: halves(plan.hidden)?,
            qkv: halves(widest(qkv_width))?,
            queries: halves(widest(query_width))?,
            attended: halves(widest(query_width))?,
            gate_up: halves(widest(|layer| 2 * layer.feed_forward))?,
            gated: halves(widest(|layer| layer.feed_forward))?,
            added: DeviceVec::new(device, if post_norms { rows * plan.hidden } else { 0 })?,
            scratch: DeviceVec::new(device, scratch)?,
            partial: DeviceVec::new(device, partial.max().unwrap_or(0))?,
            frequencies: frequencies.collect::<Result<_, _>>()?,
            device: device.clone(),
            matmul,
            prefill,
        })
    }

    /// Computes the rows, writes their KV and finds their attention masses. `drawn` holds the tokens of the step before. Leaves the
    /// residual stream after the last layer in [`Forward::stream`].
    pub(super) fn run(
        &self,
        weights: &Weights,
        kv: &[DeviceKv],
        words: Words<'_>,
        drawn: DeviceSlice<'_, u32>,
        masses: &Masses,
        reach: Reach,
    ) -> Result<(), DeviceError> {
        let (device, plan, rows) = (&self.device, &weights.plan, reach.rows);
        let tokens = self.tokens.as_slice().first(rows);
        let asked = words.part(|l| &l.tokens).cast::<i32>();
        embed::resolve_tokens(device, asked, drawn, plan.vocab, tokens)?;
        let stream = self.stream.as_slice().first(rows * plan.hidden);
        embed_rows(device, &weights.embedding, tokens, plan.embedding_scale, stream)?;
        for (index, (layer, layer_weights)) in plan.layers.iter().zip(&weights.layers).enumerate() {
            self.project_qkv(plan, layer, layer_weights, &kv[index], words, rows)?;
            let queries = self.queries.as_slice().first(rows * query_width(layer));
            masses.weigh(device, index, &attention_shape(layer), &kv[index], queries, words.tables())?;
            self.attend(layer, &kv[index], words, reach)?;
            self.add_attention(plan, layer, layer_weights, rows)?;
            self.feed_forward(plan, layer, layer_weights, rows)?;
        }
        Ok(())
    }

    /// The residual stream, room for every row.
    pub(super) fn stream(&self) -> DeviceSlice<'_, f32> {
        self.stream.as_slice()
    }

    /// `out = input matrix^T`, or added to it.
    pub(super) fn multiply(
        &self,
        matrix: &DeviceMatrix,
        input: DeviceSlice<'_, u16>,
        rows: usize,
        out: OutSlice<'_>,
    ) -> Result<(), DeviceError> {
        matmul(&self.device, matrix, input, rows, out, self.scratch.as_slice(), self.matmul)
    }

    /// Fills `queries` and writes keys and values into the cache.
    fn project_qkv(
        &self,
        plan: &Plan,
        layer: &Layer,
        weights: &LayerWeights,
        kv: &DeviceKv,
        words: Words<'_>,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let device = &self.device;
        let normed = self.normed(plan, &weights.attention_norm, rows)?;
        let qkv = self.qkv.as_slice().first(rows * qkv_width(layer));
        self.multiply(&weights.qkv, normed, rows, OutSlice::Bf16(qkv))?;
        let rope = &plan.ropes[layer.rope];
        let shape = HeadsShape {
            heads: layer.heads,
            kv_heads: layer.kv_heads,
            head_dim: layer.head_dim,
            adjacent: rope.adjacent,
            magnitude: rope.magnitude,
            eps: plan.norm_eps,
        };
        let norms = weights.head_norms.as_ref();
        heads(
            device,
            &shape,
            qkv,
            weights.qkv_bias.as_ref().map(DeviceVec::as_slice),
            norms.map(|(query, key)| (query.as_slice(), key.as_slice())),
            self.frequencies[layer.rope].as_slice(),
            words.part(|l| &l.positions),
            words.part(|l| &l.slots),
            self.queries.as_slice().first(rows * query_width(layer)),
            kv,
        )
    }

    /// Fills `attended`.
    fn attend(
        &self,
        layer: &Layer,
        kv: &DeviceKv,
        words: Words<'_>,
        reach: Reach,
    ) -> Result<(), DeviceError> {
        let (device, shape) = (&self.device, attention_shape(layer));
        let width = reach.rows * query_width(layer);
        let (queries, out) = (self.queries.as_slice().first(width), self.attended.as_slice().first(width));
        let (tables, biases) = (words.tables(), words.part(|l| &l.biases));
        let rows = words.part(|l| &l.decode);
        if !rows.is_empty() {
            let count = rows.len() / pith_kernels::device::attention::ROW_WORDS;
            let plan = DecodePlan::new(device.limits(), &shape, count, reach.keys);
            let partial = self.partial.as_slice();
            attend_decode(device, &shape, kv, queries, rows, tables, biases, &plan, partial, out)?;
        }
        let tiles = words.part(|l| &l.tiles);
        if !tiles.is_empty() {
            attend_prefill(device, &shape, kv, queries, tiles, tables, biases, self.prefill, out)?;
        }
        Ok(())
    }

    /// Projects what was attended to and adds it to the stream.
    fn add_attention(
        &self,
        plan: &Plan,
        layer: &Layer,
        weights: &LayerWeights,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let attended = self.attended.as_slice().first(rows * query_width(layer));
        let bias = weights.attention_output_bias.as_ref();
        let post_norm = weights.post_attention_norm.as_ref();
        self.add(plan, &weights.attention_output, attended, bias, post_norm, rows)
    }

    /// The gated feed-forward block, added to the stream.
    fn feed_forward(
        &self,
        plan: &Plan,
        layer: &Layer,
        weights: &LayerWeights,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let normed = self.normed(plan, &weights.feed_forward_norm, rows)?;
        let gate_up = self.gate_up.as_slice().first(rows * 2 * layer.feed_forward);
        let gated = self.gated.as_slice().first(rows * layer.feed_forward);
        let function = match layer.activation {
            Activation::Silu => Gate::Silu,
            Activation::GeluTanh => Gate::GeluTanh,
        };
        self.multiply(&weights.gate_up, normed, rows, OutSlice::Bf16(gate_up))?;
        gated::gated(&self.device, function, gate_up, gated)?;
        self.add(plan, &weights.down, gated, None, weights.post_feed_forward_norm.as_ref(), rows)
    }

    /// The stream through a norm.
    fn normed(
        &self,
        plan: &Plan,
        weight: &DeviceVec<f32>,
        rows: usize,
    ) -> Result<DeviceSlice<'_, u16>, DeviceError> {
        let stream = self.stream.as_slice().first(rows * plan.hidden);
        let normed = self.normed.as_slice().first(rows * plan.hidden);
        norm::rms_norm(&self.device, stream, None, weight.as_slice(), plan.norm_eps, normed)?;
        Ok(normed)
    }

    /// `stream += input matrix^T + bias`, through a norm where the plan has one.
    fn add(
        &self,
        plan: &Plan,
        matrix: &DeviceMatrix,
        input: DeviceSlice<'_, u16>,
        bias: Option<&DeviceVec<f32>>,
        post_norm: Option<&DeviceVec<f32>>,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let stream = self.stream.as_slice().first(rows * plan.hidden);
        let Some(weight) = post_norm else {
            self.multiply(matrix, input, rows, OutSlice::AddF32(stream))?;
            return match bias {
                Some(bias) => norm::add_bias_f32(&self.device, stream, bias.as_slice()),
                None => Ok(()),
            };
        };
        let added = self.added.as_slice().first(rows * plan.hidden);
        self.multiply(matrix, input, rows, OutSlice::F32(added))?;
        if let Some(bias) = bias {
            norm::add_bias_f32(&self.device, added, bias.as_slice())?;
        }
        norm::rms_norm_add(&self.device, added, weight.as_slice(), plan.norm_eps, stream)
    }
}

fn query_width(layer: &Layer) -> usize {
    layer.heads * layer.head_dim
}

/// Values of a row of `qkv`.
fn qkv_width(layer: &Layer) -> usize {
    (layer.heads + 2 * layer.kv_heads) * layer.head_dim
}

fn attention_shape(layer: &Layer) -> AttentionShape {
    AttentionShape {
        heads: layer.heads,
        kv_heads: layer.kv_heads,
        head_dim: layer.head_dim,
        scale: layer.attention_scale,
        window: layer.window,
        softcap: layer.attention_softcap,
    }
}
