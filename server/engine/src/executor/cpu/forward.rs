//! The forward pass: a [`Plan`] interpreted. Nothing here knows a family of models.

use pith_kernels::rope::RopePairs;
use pith_kernels::{
    AttentionShape, KvLayer, PoolError, RopeAngles, SequenceView, activation, attention, norm,
};
use pith_model::plan::{Activation, Layer, Plan};

use super::Machine;
use super::batch::Batch;
use super::weights::{LayerWeights, Weights};

/// Work space of the forward pass, reused from step to step. Rows are side by side; each buffer is
/// as long as the largest step so far needed.
#[derive(Debug)]
pub(super) struct Forward {
    /// The residual stream, `[rows, hidden]`.
    stream: Vec<f32>,
    /// `[rows, hidden]`.
    normed: Vec<f32>,
    /// Queries, keys and values of a row, one after the other.
    qkv: Vec<f32>,
    /// What the heads attended to, `[rows, heads * head_dim]`.
    attended: Vec<f32>,
    /// `[rows, 2 * feed_forward]`.
    gate_up: Vec<f32>,
    /// `[rows, feed_forward]`.
    gated: Vec<f32>,
    /// What a block adds to the stream, `[rows, hidden]`.
    added: Vec<f32>,
    /// One per RoPE table of the plan.
    angles: Vec<RopeAngles>,
}

impl Forward {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            stream: Vec::new(),
            normed: Vec::new(),
            qkv: Vec::new(),
            attended: Vec::new(),
            gate_up: Vec::new(),
            gated: Vec::new(),
            added: Vec::new(),
            angles: plan.ropes.iter().map(|_| RopeAngles::default()).collect(),
        }
    }

    /// Computes the batch, writes its KV and finds its attention masses. Returns the residual
    /// stream of its live rows after the last layer, before the final norm.
    pub(super) fn run(
        &mut self,
        machine: &Machine,
        weights: &Weights,
        kv: &mut [KvLayer],
        batch: &mut Batch<'_>,
    ) -> Result<&[f32], PoolError> {
        let plan = &weights.plan;
        self.embed(machine, weights, &batch.tokens)?;
        for (angles, rope) in self.angles.iter_mut().zip(&plan.ropes) {
            angles.set(&machine.pool, &rope.inv_freq, rope.magnitude, batch.positions)?;
        }
        let mut rows = batch.tokens.len();
        let last = plan.layers.len().saturating_sub(1);
        for (index, (layer, layer_weights)) in plan.layers.iter().zip(&weights.layers).enumerate() {
            self.project_qkv(machine, plan, layer, layer_weights, rows)?;
            let width = qkv_width(layer);
            let queries = layer.heads * layer.head_dim;
            let keys = layer.kv_heads * layer.head_dim;
            let qkv = &self.qkv[..rows * width];
            let values = queries + keys;
            kv[index].write(
                machine.isa,
                &machine.pool,
                qkv,
                width,
                queries,
                values,
                batch.slots,
            )?;
            self.weigh_attention(machine, layer, index, &kv[index], batch)?;
            if index == last {
                rows = batch.live.len();
                gather(&mut self.stream, plan.hidden, &batch.live);
                gather(&mut self.qkv, width, &batch.live);
            }
            if rows == 0 {
                break;
            }
            let sequences = if index == last { &batch.live_sequences } else { &batch.sequences };
            self.attend(machine, plan, layer, layer_weights, &kv[index], sequences, rows)?;
            self.feed_forward(machine, plan, layer, layer_weights, rows)?;
        }
        Ok(&self.stream[..rows * plan.hidden])
    }

    fn embed(
        &mut self,
        machine: &Machine,
        weights: &Weights,
        tokens: &[u32],
    ) -> Result<(), PoolError> {
        let Plan { hidden, embedding_scale, .. } = weights.plan;
        let stream = room(&mut self.stream, tokens.len() * hidden);
        machine.pool.chunks(stream, hidden, |row, out| {
            weights.embedding.row(tokens[row] as usize, out);
        })?;
        if embedding_scale != 1.0 {
            norm::scale(machine.isa, &machine.pool, stream, embedding_scale)?;
        }
        Ok(())
    }

    /// Fills `qkv`: queries and keys normalised and rotated.
    fn project_qkv(
        &mut self,
        machine: &Machine,
        plan: &Plan,
        layer: &Layer,
        weights: &LayerWeights,
        rows: usize,
    ) -> Result<(), PoolError> {
        let Machine { isa, ref pool, .. } = *machine;
        let Layer { heads, kv_heads, head_dim, .. } = *layer;
        let width = qkv_width(layer);
        let stream = &self.stream[..rows * plan.hidden];
        let normed = room(&mut self.normed, rows * plan.hidden);
        let qkv = room(&mut self.qkv, rows * width);
        norm::rms_norm(isa, pool, stream, &weights.attention_norm, plan.norm_eps, normed)?;
        weights.qkv.matmul(isa, pool, normed, qkv)?;
        if let Some(bias) = &weights.qkv_bias {
            norm::add_bias(isa, pool, qkv, bias)?;
        }
        if let Some((query_norm, key_norm)) = &weights.head_norms {
            let (eps, keys_at) = (plan.norm_eps, heads * head_dim);
            norm::rms_norm_groups(isa, pool, qkv, width, 0, heads, query_norm, eps)?;
            norm::rms_norm_groups(isa, pool, qkv, width, keys_at, kv_heads, key_norm, eps)?;
        }
        let pairs =
            if plan.ropes[layer.rope].adjacent { RopePairs::Adjacent } else { RopePairs::Halves };
        // Keys follow the queries, so all heads that rotate lie side by side.
        self.angles[layer.rope].rotate(isa, pool, pairs, qkv, width, 0, heads + kv_heads, head_dim)
    }

    /// Finds the attention masses wanted of this layer, whose keys are in place by now.
    fn weigh_attention(
        &self,
        machine: &Machine,
        layer: &Layer,
        index: usize,
        kv: &KvLayer,
        batch: &mut Batch<'_>,
    ) -> Result<(), PoolError> {
        let (width, queries) = (qkv_width(layer), layer.heads * layer.head_dim);
        let shape = attention_shape(layer);
        machine.pool.chunks(batch.masses_of(index), 1, |_, masses| {
            for mass in masses {
                let query = &self.qkv[mass.row * width..][..queries];
                attention::attention_mass(
                    machine.isa,
                    &shape,
                    kv,
                    machine.block_size,
                    query,
                    mass.position,
                    mass.blocks,
                    &mass.spec.heads,
                    &mass.spec.spans,
                    &mut mass.found,
                );
            }
        })
    }

    /// Attends, projects and adds to the stream.
    #[expect(clippy::too_many_arguments, reason = "the pass's state, and one layer's share of it")]
    fn attend(
        &mut self,
        machine: &Machine,
        plan: &Plan,
        layer: &Layer,
        weights: &LayerWeights,
        kv: &KvLayer,
        sequences: &[SequenceView<'_>],
        rows: usize,
    ) -> Result<(), PoolError> {
        let Machine { isa, ref pool, block_size } = *machine;
        let width = qkv_width(layer);
        let qkv = &self.qkv[..rows * width];
        let attended = room(&mut self.attended, rows * layer.heads * layer.head_dim);
        let added = room(&mut self.added, rows * plan.hidden);
        let shape = attention_shape(layer);
        attention::attention(isa, pool, &shape, kv, block_size, qkv, width, sequences, attended)?;
        weights.attention_output.matmul(isa, pool, attended, added)?;
        if let Some(bias) = &weights.attention_output_bias {
            norm::add_bias(isa, pool, added, bias)?;
        }
        self.add(machine, plan, weights.post_attention_norm.as_deref(), rows)
    }

    /// The gated feed-forward block, added to the stream.
    fn feed_forward(
        &mut self,
        machine: &Machine,
        plan: &Plan,
        layer: &Layer,
        weights: &LayerWeights,
        rows: usize,
    ) -> Result<(), PoolError> {
        let Machine { isa, ref pool, .. } = *machine;
        let wide = layer.feed_forward;
        let stream = &self.stream[..rows * plan.hidden];
        let normed = room(&mut self.normed, rows * plan.hidden);
        let gate_up = room(&mut self.gate_up, rows * 2 * wide);
        let gated = room(&mut self.gated, rows * wide);
        let added = room(&mut self.added, rows * plan.hidden);
        let function = match layer.activation {
            Activation::Silu => activation::Activation::Silu,
            Activation::GeluTanh => activation::Activation::GeluTanh,
        };
        norm::rms_norm(isa, pool, stream, &weights.feed_forward_norm, plan.norm_eps, normed)?;
        weights.gate_up.matmul(isa, pool, normed, gate_up)?;
        activation::gated(isa, pool, function, gate_up, wide, gated)?;
        weights.down.matmul(isa, pool, gated, added)?;
        self.add(machine, plan, weights.post_feed_forward_norm.as_deref(), rows)
    }

    /// `stream += added`, through a norm where the plan has one.
    fn add(
        &mut self,
        machine: &Machine,
        plan: &Plan,
        post_norm: Option<&[f32]>,
        rows: usize,
    ) -> Result<(), PoolError> {
        let Machine { isa, ref pool, .. } = *machine;
        let stream = &mut self.stream[..rows * plan.hidden];
        let added = &self.added[..rows * plan.hidden];
        let Some(weight) = post_norm else {
            return norm::add(isa, pool, stream, added);
        };
        let normed = room(&mut self.normed, rows * plan.hidden);
        norm::rms_norm(isa, pool, added, weight, plan.norm_eps, normed)?;
        norm::add(isa, pool, stream, normed)
    }
}

/// The first `len` values of a buffer, grown if need be. What they hold is left from before.
pub(super) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Moves rows `kept` (ascending) of `width` to the front.
fn gather(buffer: &mut [f32], width: usize, kept: &[u32]) {
    for (to, &from) in kept.iter().enumerate() {
        let from = from as usize * width;
        buffer.copy_within(from..from + width, to * width);
    }
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
