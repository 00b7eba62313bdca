//! The small kernels of a step.

use super::clock::seconds;
use super::{Amount, Dimensions, Extent, Measured, data};
use crate::activation::Activation;
use crate::device::gated::gated;
use crate::device::heads::{HeadsShape, heads};
use crate::device::kv::{DeviceKv, DeviceKvKind};
use crate::device::norm::rms_norm;
use crate::device::sample::{PackedSampling, SampleRow, SampleRows, sample};
use crate::device::{Device, DeviceError, DeviceVec};

/// Tokens of a block of the cache.
const BLOCK: usize = 32;

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKernel {
    /// The norm before a block.
    RmsNorm,
    /// Rotation of queries and keys, and keys and values to the cache.
    Heads,
    /// The activation of the feed-forward block.
    Gated,
    /// The choice of a token, greedy.
    Greedy,
    /// The choice of a token by temperature, top-k and top-p.
    Sample,
}

impl RowKernel {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::RmsNorm, Self::Heads, Self::Gated, Self::Greedy, Self::Sample];

    /// What people read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RmsNorm => "rms_norm",
            Self::Heads => "heads",
            Self::Gated => "gated",
            Self::Greedy => "sample, greedy",
            Self::Sample => "sample, top-k top-p",
        }
    }
}

/// One of `kernel` with `rows` rows.
pub(super) fn measure(
    device: &Device,
    kernel: RowKernel,
    sizes: &Dimensions,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    match kernel {
        RowKernel::RmsNorm => norm(device, sizes, rows, extent),
        RowKernel::Heads => rotation(device, sizes, rows, extent),
        RowKernel::Gated => activation(device, sizes, rows, extent),
        RowKernel::Greedy => choice(device, 0.0, sizes, rows, extent),
        RowKernel::Sample => choice(device, 1.0, sizes, rows, extent),
    }
}

fn norm(
    device: &Device,
    sizes: &Dimensions,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let input = data::floats(device, rows * sizes.hidden, 1.0)?;
    let weight = data::floats(device, sizes.hidden, 1.0)?;
    let out = DeviceVec::<u16>::new(device, input.len())?;
    let call =
        |_| rms_norm(device, input.as_slice(), None, weight.as_slice(), 1e-5, out.as_slice());
    let amount = Amount::Bytes((input.bytes() + out.bytes()) as f64);
    Ok(Measured { seconds: seconds(device, extent, call)?, amount })
}

fn rotation(
    device: &Device,
    sizes: &Dimensions,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let &Dimensions { heads: query_heads, kv_heads, head_dim, .. } = sizes;
    let shape = HeadsShape {
        heads: query_heads,
        kv_heads,
        head_dim,
        adjacent: true,
        magnitude: 1.0,
        eps: 1e-5,
    };
    let blocks = rows.div_ceil(BLOCK);
    let kv = DeviceKv::new(device, DeviceKvKind::Bf16, kv_heads, head_dim, BLOCK, blocks)?;
    let qkv = data::halves(device, rows * sizes.qkv())?;
    let pairs = head_dim / 2;
    let frequencies: Vec<f32> =
        (0..pairs).map(|pair| 500_000f32.powf(-(pair as f32) / pairs as f32)).collect();
    let frequencies = DeviceVec::from_slice(device, &frequencies)?;
    let numbers: Vec<u32> = (0..rows as u32).collect();
    let positions = numbers.iter().map(|&row| 1000 + row).collect::<Vec<_>>();
    let (positions, slots) =
        (DeviceVec::from_slice(device, &positions)?, DeviceVec::from_slice(device, &numbers)?);
    let queries = DeviceVec::<u16>::new(device, rows * query_heads * head_dim)?;
    let call = |_| {
        heads(
            device,
            &shape,
            qkv.as_slice(),
            None,
            None,
            frequencies.as_slice(),
            positions.as_slice(),
            slots.as_slice(),
            queries.as_slice(),
            &kv,
        )
    };
    // All that is read is written, to one place or another.
    let amount = Amount::Bytes(2.0 * qkv.bytes() as f64);
    Ok(Measured { seconds: seconds(device, extent, call)?, amount })
}

fn activation(
    device: &Device,
    sizes: &Dimensions,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let width = sizes.feed_forward;
    let gate_up = data::halves(device, rows * 2 * width)?;
    let out = DeviceVec::<u16>::new(device, rows * width)?;
    let call = |_| gated(device, Activation::Silu, gate_up.as_slice(), width, out.as_slice());
    let amount = Amount::Bytes((gate_up.bytes() + out.bytes()) as f64);
    Ok(Measured { seconds: seconds(device, extent, call)?, amount })
}

fn choice(
    device: &Device,
    temperature: f32,
    sizes: &Dimensions,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let logits = data::floats(device, rows * sizes.vocab, 8.0)?;
    let mut settings = SampleRows::default();
    settings.begin(rows);
    for row in 0..rows {
        let setting = SampleRow {
            temperature,
            top_k: 50,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seen: &[],
            banned: &[],
            logit_bias: &[],
            masked: false,
            seed: row as u64,
            draw: 0,
        };
        settings.set(row, &setting);
    }
    let packed = PackedSampling::new(device, rows, 0)?;
    packed.upload(&settings)?;
    let (tokens, statuses) =
        (DeviceVec::<u32>::new(device, rows)?, DeviceVec::<u32>::new(device, rows)?);
    let likelihoods = DeviceVec::<f32>::new(device, rows)?;
    let call = |_| {
        let (to, status) = (tokens.as_slice(), statuses.as_slice());
        sample(device, logits.as_slice(), &packed, None, to, likelihoods.as_slice(), status)
    };
    let amount = Amount::Bytes(logits.bytes() as f64);
    Ok(Measured { seconds: seconds(device, extent, call)?, amount })
}
