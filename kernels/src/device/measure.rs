//! What a device can do at most, and what each kernel makes of it, in one run.
//!
//! Times are the device's own ([`Device::mark`]) around recordings of many launches, so that queueing them does not count; medians
//! of several, after one that is not counted. Weights, keys and values are random and taken in turn from more memory than a
//! cache holds; what a step's small kernels read lies in the cache, as it does in a step.
//!
//! What is measured is a list of [`Work`]: a new kernel is one more line of [`works`].

mod attention;
mod ceilings;
mod clock;
mod data;
mod products;
mod rows;

use super::attention::{PrefillPath, prefill_rows};
use super::kv::DeviceKvKind;
use super::matrix::MatmulPath;
use super::{Device, DeviceError, DeviceLimits};
use crate::attention::AttentionShape;
use crate::{Pool, Quant};

pub use ceilings::{Ceilings, ceilings};
pub use rows::RowKernel;

/// The sizes of a model's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward block.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Vocabulary.
    pub vocab: usize,
}

impl Dimensions {
    fn attention(&self) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            window: None,
            softcap: None,
        }
    }

    /// Numbers of a row of queries, keys and values.
    fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// How much is measured, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// Bytes copied to learn the bandwidth.
    pub copy_bytes: usize,
    /// Rows, columns and outputs of the product that the rate of products is learnt by.
    pub product_side: usize,
    /// Bytes that weights, keys and values are taken from in turn: more than a cache holds.
    pub rotated_bytes: usize,
    /// Seconds of a sample, at least one call.
    pub sample_seconds: f64,
    /// Samples; the median counts.
    pub samples: usize,
    /// Rows of products of decode steps.
    pub few_rows: Vec<usize>,
    /// Rows of products of prompts.
    pub many_rows: Vec<usize>,
    /// Sequences that decode.
    pub decode_rows: Vec<usize>,
    /// Tokens that each of them sees.
    pub decode_keys: Vec<usize>,
    /// Tokens of a prompt.
    pub prefill_rows: Vec<usize>,
    /// Rows of a step, for all other kernels.
    pub step_rows: Vec<usize>,
}

impl Extent {
    /// For a card: some ten seconds for a model of 8 billion weights.
    #[must_use]
    pub fn of_a_card() -> Self {
        Self {
            copy_bytes: 1 << 30,
            product_side: 8192,
            // The largest caches have 126 MiB.
            rotated_bytes: 512 << 20,
            sample_seconds: 0.01,
            samples: 5,
            few_rows: vec![1, 4, 8],
            many_rows: vec![16, 256, 2048],
            decode_rows: vec![1, 32, 256],
            decode_keys: vec![1024, 8192],
            prefill_rows: vec![512, 2048, 8192],
            step_rows: vec![1, 32, 256],
        }
    }
}

/// What a call does as the device's ceilings count it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// Bytes that must be read and written.
    Bytes(f64),
    /// Products and sums.
    Operations(f64),
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Seconds it takes.
    pub seconds: f64,
    /// What it does meanwhile.
    pub amount: Amount,
}

impl Measured {
    /// Bytes or operations per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let (Amount::Bytes(amount) | Amount::Operations(amount)) = self.amount;
        amount / self.seconds
    }
}

/// A kernel at one size, in the order of the [`Work`]'s rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Rows.
    pub rows: usize,
    /// What came out, or why nothing did.
    pub measured: Result<Measured, DeviceError>,
}

/// A kernel, or a way through several, at some numbers of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// What people read.
    pub name: String,
    /// What is called.
    pub task: Task,
    /// With how many rows.
    pub rows: Vec<usize>,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A product with a matrix.
    Product {
        /// Rows of the matrix.
        outputs: usize,
        /// Its columns.
        inputs: usize,
        /// How it is stored.
        quant: Quant,
        /// By which kernels.
        path: MatmulPath,
    },
    /// Attention of single rows.
    Decode {
        /// Tokens that each sees.
        keys: usize,
        /// How keys and values are kept.
        kind: DeviceKvKind,
    },
    /// Attention of a prompt.
    Prefill {
        /// By which kernel.
        path: PrefillPath,
    },
    /// A small kernel.
    Rows(RowKernel),
}

/// All that a layer and a token's choice are made of, for a model of `sizes` on a device with `limits`.
#[must_use]
pub fn works(limits: &DeviceLimits, sizes: &Dimensions, extent: &Extent) -> Vec<Work> {
    let mut works = Vec::new();
    let mut add =
        |name: String, task, rows: &[usize]| works.push(Work { name, task, rows: rows.to_vec() });
    let &Dimensions { hidden, feed_forward, heads, head_dim, vocab, .. } = sizes;
    let layer = [
        ("qkv", sizes.qkv(), hidden),
        ("out", hidden, heads * head_dim),
        ("gate up", 2 * feed_forward, hidden),
        ("down", hidden, feed_forward),
    ];
    let product = |outputs, inputs, quant, path| Task::Product { outputs, inputs, quant, path };

    for (name, outputs, inputs) in layer.into_iter().chain([("vocabulary", vocab, hidden)]) {
        let task = product(outputs, inputs, Quant::BF16, MatmulPath::Gemv);
        add(format!("gemv {name} bf16"), task, &extent.few_rows);
    }
    for (quant, format) in [(Quant::Q8_0, "q8"), (Quant::Q4_0, "q4")] {
        let task = product(2 * feed_forward, hidden, quant, MatmulPath::Gemv);
        add(format!("gemv gate up {format}"), task, &extent.few_rows);
    }
    for (path, by) in [(MatmulPath::Gemm, "gemm"), (MatmulPath::Vendor, "cublaslt")] {
        for (name, outputs, inputs) in layer {
            let task = product(outputs, inputs, Quant::BF16, path);
            add(format!("{by} {name}"), task, &extent.many_rows);
        }
    }
    for &keys in &extent.decode_keys {
        for kind in [DeviceKvKind::Bf16, DeviceKvKind::F8] {
            let name = format!("decode attention {keys} {}", kind.name());
            add(name, Task::Decode { keys, kind }, &extent.decode_rows);
        }
    }
    for path in prefill_paths(limits, sizes) {
        let by = if path == PrefillPath::Mma { "mma" } else { "wgmma" };
        add(format!("prefill attention {by}"), Task::Prefill { path }, &extent.prefill_rows);
    }
    for kernel in RowKernel::ALL {
        add(kernel.name().to_owned(), Task::Rows(kernel), &extent.step_rows);
    }
    works
}

/// The ways there are for prompts: one that falls back on the other is none of its own, and has its tiles.
fn prefill_paths(limits: &DeviceLimits, sizes: &Dimensions) -> impl Iterator<Item = PrefillPath> {
    let shape = sizes.attention();
    let tile = move |path| prefill_rows(limits, &shape, DeviceKvKind::Bf16, path);
    let own = tile(PrefillPath::Warpgroup) != tile(PrefillPath::Mma);
    [PrefillPath::Mma].into_iter().chain(own.then_some(PrefillPath::Warpgroup))
}

impl Work {
    /// Measures it. `pool` makes weights ready.
    ///
    /// # Errors
    /// The device was lost. All other failures are those of single cells.
    pub fn measure(
        &self,
        device: &Device,
        pool: &Pool,
        sizes: &Dimensions,
        extent: &Extent,
    ) -> Result<Vec<Cell>, DeviceError> {
        let measured: Vec<_> = match self.task {
            Task::Product { outputs, inputs, quant, path } => {
                let shape = products::Shape { outputs, inputs, quant, path };
                products::measure(device, pool, shape, &self.rows, extent)
            }
            Task::Decode { keys, kind } => {
                let each = |&rows| attention::decode(device, sizes, kind, rows, keys, extent);
                self.rows.iter().map(each).collect()
            }
            Task::Prefill { path } => {
                let each = |&rows| attention::prefill(device, sizes, path, rows, extent);
                self.rows.iter().map(each).collect()
            }
            Task::Rows(kernel) => {
                let each = |&rows| rows::measure(device, kernel, sizes, rows, extent);
                self.rows.iter().map(each).collect()
            }
        };
        let lost = |cell: &Result<_, _>| match cell {
            Err(error @ DeviceError::Lost(_)) => Some(error.clone()),
            _ => None,
        };
        match measured.iter().find_map(lost) {
            Some(error) => Err(error),
            None => {
                let cells = self.rows.iter().zip(measured);
                Ok(cells.map(|(&rows, measured)| Cell { rows, measured }).collect())
            }
        }
    }
}
