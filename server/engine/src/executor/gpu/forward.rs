//! The forward pass on a device: a [`Plan`] interpreted. Nothing here knows a family of models.

use std::ops::Range;

use pith_kernels::activation::Activation as Gate;
use pith_kernels::device::attention::{DecodePlan, PrefillPath, attend_decode, attend_prefill};
use pith_kernels::device::heads::{HeadsShape, heads};
use pith_kernels::device::kv::DeviceKv;
use pith_kernels::device::matrix::{
    DeviceMatrix, MatmulPath, OutSlice, embed_rows, matmul, scratch_len,
};
use pith_kernels::device::tokens::resolve_tokens;
use pith_kernels::device::{Device, DeviceError, DeviceSlice, DeviceVec, gated, norm};
use pith_model::plan::{Activation, Layer, Plan};

use super::masses::Room;
use super::pack::Layout;
use super::shapes::{Reach, Shapes};
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

/// A step's words on the device, and how they are attended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) words: DeviceSlice<'a, u32>,
    pub(super) layout: &'a Layout,
    /// One for each distinct shape of layers, those that the words were packed for.
    pub(super) plans: &'a [DecodePlan],
    pub(super) shapes: &'a Shapes,
    /// Rows described.
    pub(super) rows: usize,
}

impl<'a> Words<'a> {
    /// A part of the words.
    pub(super) fn part(self, part: &Range<usize>) -> DeviceSlice<'a, u32> {
        self.words.slice(part.clone())
    }

    /// Everything from the tables on: a recorded pass reads whatever is there when it is played.
    fn tables(self) -> DeviceSlice<'a, u32> {
        self.words.slice(self.layout.attention.tables.start..self.words.len())
    }
}

impl Forward {
    /// Room for steps of `rows` rows, `decode` of which are attended one by one.
    pub(super) fn new(
        device: &Device,
        weights: &Weights,
        rows: usize,
        shapes: &Shapes,
        decode: Reach,
        (matmul, prefill): (MatmulPath, PrefillPath),
    ) -> Result<Self, DeviceError> {
        let plan = &weights.plan;
        let widest = |width: fn(&Layer) -> usize| plan.layers.iter().map(width).max().unwrap_or(0);
        let post_norms = plan.layers.iter().any(|layer| layer.post_norms);
        let halves = |width: usize| DeviceVec::<u16>::new(device, rows * width);
        let scratch = weights.matrices().map(|matrix| scratch_len(matrix, rows)).max().unwrap_or(0);
        let partial = shapes.plans(decode)?.iter().map(DecodePlan::workspace).max().unwrap_or(0);
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
            partial: DeviceVec::new(device, partial)?,
            frequencies: frequencies.collect::<Result<_, _>>()?,
            device: device.clone(),
            matmul,
            prefill,
        })
    }

    /// Computes the rows, writes their KV and finds their attention masses in `room`, which was made for them. `drawn` holds the tokens of the step before.
    /// Leaves the residual stream after the last layer in [`Forward::stream`].
    pub(super) fn run(
        &self,
        weights: &Weights,
        kv: &[DeviceKv],
        words: Words<'_>,
        drawn: DeviceSlice<'_, u32>,
        room: &Room,
    ) -> Result<(), DeviceError> {
        let (device, plan, rows) = (&self.device, &weights.plan, words.rows);
        let tokens = self.tokens.as_slice().first(rows);
        let asked = words.part(&words.layout.tokens).cast::<i32>();
        resolve_tokens(device, asked, drawn, plan.vocab, tokens)?;
        let stream = self.stream.as_slice().first(rows * plan.hidden);
        embed_rows(device, &weights.embedding, tokens, plan.embedding_scale, stream)?;
        for (index, (layer, layer_weights)) in plan.layers.iter().zip(&weights.layers).enumerate() {
            let kv = &kv[index];
            self.project_qkv(plan, layer, layer_weights, kv, words)?;
            let queries = self.queries.as_slice().first(rows * query_width(layer));
            let (masses, shape) = (&words.layout.masses, words.shapes.of(index));
            masses.weigh(device, index, shape, kv, queries, words.words, room)?;
            self.attend(layer, index, kv, words)?;
            self.add_attention(plan, layer, layer_weights, rows)?;
            self.feed_forward(plan, layer, layer_weights, rows)?;
        }
        Ok(())
    }

    /// Where it computes.
    pub(super) fn device(&self) -> &Device {
        &self.device
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
    ) -> Result<(), DeviceError> {
        let (device, rows) = (&self.device, words.rows);
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
            words.part(&words.layout.positions),
            words.part(&words.layout.slots),
            self.queries.as_slice().first(rows * query_width(layer)),
            kv,
        )
    }

    /// Fills `attended`.
    fn attend(
        &self,
        layer: &Layer,
        index: usize,
        kv: &DeviceKv,
        words: Words<'_>,
    ) -> Result<(), DeviceError> {
        let (device, shape) = (&self.device, words.shapes.of(index));
        let width = words.rows * query_width(layer);
        let queries = self.queries.as_slice().first(width);
        let out = self.attended.as_slice().first(width);
        let ranges = &words.layout.attention;
        let (tables, biases) = (words.tables(), words.part(&ranges.biases));
        if !ranges.rows.is_empty() {
            let plan = words.shapes.plan_of(index);
            attend_decode(
                device,
                shape,
                kv,
                queries,
                words.part(&ranges.rows),
                words.part(&ranges.items[plan]),
                tables,
                biases,
                &words.plans[plan],
                self.partial.as_slice(),
                out,
            )?;
        }
        if !ranges.tiles.is_empty() {
            let tiles = words.part(&ranges.tiles);
            attend_prefill(device, shape, kv, queries, tiles, tables, biases, self.prefill, out)?;
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
        gated::gated(&self.device, function, gate_up, layer.feed_forward, gated)?;
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
