//! What attention of a model's layers is planned by.

use pith_kernels::AttentionShape;
use pith_kernels::device::attention::{DecodePlan, PrefillPath, prefill_rows};
use pith_kernels::device::kv::DeviceKvKind;
use pith_kernels::device::{DeviceError, DeviceLimits};
use pith_model::plan::{Layer, Plan};

/// How many rows, over how many keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reach {
    pub(super) rows: usize,
    /// At least as many as any of the rows sees.
    pub(super) keys: usize,
}

/// The different shapes of a model's layers.
#[derive(Debug)]
pub(super) struct Shapes {
    limits: DeviceLimits,
    kind: DeviceKvKind,
    distinct: Vec<AttentionShape>,
    /// Which of them each layer has.
    of_layer: Vec<usize>,
    /// Rows of a prefill tile.
    pub(super) tile_rows: usize,
}

impl Shapes {
    pub(super) fn new(
        plan: &Plan,
        limits: &DeviceLimits,
        kind: DeviceKvKind,
        path: PrefillPath,
    ) -> Self {
        let mut distinct: Vec<AttentionShape> = Vec::new();
        let mut of_layer = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            let shape = shape(layer);
            let known = distinct.iter().position(|other| *other == shape);
            of_layer.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(shape);
            }
        }
        let tile_rows = distinct.iter().map(|shape| prefill_rows(limits, shape, kind, path)).min();
        let tile_rows = tile_rows.unwrap_or(1);
        Self { limits: limits.clone(), kind, distinct, of_layer, tile_rows }
    }

    /// The shape of layer `index`.
    pub(super) fn of(&self, index: usize) -> &AttentionShape {
        &self.distinct[self.of_layer[index]]
    }

    /// Which of [`Shapes::plans`] layer `index` goes by.
    pub(super) fn plan_of(&self, index: usize) -> usize {
        self.of_layer[index]
    }

    /// A plan for each distinct shape; none where no row is attended by itself.
    pub(super) fn plans(&self, reach: Reach) -> Result<Vec<DecodePlan>, DeviceError> {
        let plan = |shape| DecodePlan::new(&self.limits, shape, self.kind, reach.rows, reach.keys);
        match reach.rows {
            0 => Ok(Vec::new()),
            _ => self.distinct.iter().map(plan).collect(),
        }
    }
}

fn shape(layer: &Layer) -> AttentionShape {
    AttentionShape {
        heads: layer.heads,
        kv_heads: layer.kv_heads,
        head_dim: layer.head_dim,
        scale: layer.attention_scale,
        window: layer.window,
        softcap: layer.attention_softcap,
    }
}
