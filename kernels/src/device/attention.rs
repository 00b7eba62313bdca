//! Paged attention on a device: single rows over long contexts ([`attend_decode`]), rows of prompts ([`attend_prefill`]), and
//! where a row looks ([`attention_mass`]).
//!
//! What is asked of the oracle, `attention`, is asked here: causal by position, a window that counts the query itself, a softcap,
//! and emphasis of spans. Products of bfloat16 are summed in f32; the weights of the softmax are rounded to bfloat16 before
//! they meet the values, and so is the result. Eight-bit keys and values are multiplied as they are and scaled in f32.
//!
//! A row's result is the same to the bit alone and in company, and however its prompt is cut into chunks: keys are taken in
//! tiles that begin at fixed positions. Between the kernels (decode, prefill, either path of it) it differs by rounding.

mod decode;
mod mass;
mod meta;
mod plan;
mod prefill;

pub use decode::attend_decode;
pub use mass::{MassAsk, MassRanges, attention_mass};
pub use meta::{MetaLayout, MetaRanges, SequenceMeta};
pub use plan::{DecodePlan, PrefillPath, prefill_rows};
pub use prefill::attend_prefill;

use super::kv::{DeviceKv, DeviceKvKind};
use super::{Argument, DeviceError};
use crate::attention::AttentionShape;

/// Numbers of a row of the decode path: query row, context, where its block table begins, its first bias span, its bias spans.
const ROW_WORDS: usize = 5;
/// Numbers of a tile of the prefill path: first query row, rows, position of the first, where its block table begins, its first
/// bias span, its bias spans.
const TILE_WORDS: usize = 6;
/// Numbers of a bias span: first position, past the last, bits of what is added.
const SPAN_WORDS: usize = 3;

/// The head sizes kernels are made for; others take the next larger, filled up with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KernelDim {
    Of64,
    Of128,
    Of256,
}

impl KernelDim {
    /// The smallest that holds `head_dim`.
    fn of(head_dim: usize) -> Result<Self, DeviceError> {
        match head_dim {
            16..=64 if head_dim.is_multiple_of(16) => Ok(Self::Of64),
            65..=128 if head_dim.is_multiple_of(16) => Ok(Self::Of128),
            129..=256 if head_dim.is_multiple_of(16) => Ok(Self::Of256),
            _ => Err(DeviceError::Shape(format!("attention over heads of {head_dim} dimensions"))),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Of64 => 64,
            Self::Of128 => 128,
            Self::Of256 => 256,
        }
    }
}

/// Bytes of shared memory for the ring of two tiles of `keys` keys and values (`ring_bytes` of `attention.cuh`).
fn ring_bytes(dim: KernelDim, keys: usize, kind: DeviceKvKind) -> usize {
    let scales = match kind {
        DeviceKvKind::Bf16 => 0,
        DeviceKvKind::F8 => 4 * keys * size_of::<f32>(),
    };
    4 * keys * dim.size() * size_of::<u16>() + scales
}

/// Refuses what no kernel of attention takes.
fn check(shape: &AttentionShape, kv: &DeviceKv) -> Result<(), DeviceError> {
    kv.check()?;
    let wrong = |why: &str| Err(DeviceError::Shape(format!("attention: {why}")));
    if (shape.kv_heads, shape.head_dim) != (kv.kv_heads, kv.head_dim) {
        return wrong("the cache is of another shape");
    }
    if shape.kv_heads == 0 || shape.heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
        return wrong("heads are no multiple of those of keys");
    }
    if shape.window == Some(0) {
        return wrong("a window of no keys");
    }
    if kv.block_size < 16 || !kv.block_size.is_power_of_two() {
        return wrong("blocks of a size that kernels do not take");
    }
    Ok(())
}

/// The cache as kernels take it: its memory, then its sizes.
fn cache_memory(kv: &DeviceKv) -> [Argument; 4] {
    [
        kv.keys.as_slice().into(),
        kv.values.as_slice().into(),
        kv.key_scales.as_ref().map(|scales| scales.as_slice()).into(),
        kv.value_scales.as_ref().map(|scales| scales.as_slice()).into(),
    ]
}

/// Heads and sizes, and how products become scores, as kernels take them.
fn shape_arguments(shape: &AttentionShape, kv: &DeviceKv) -> [Argument; 8] {
    [
        shape.heads.into(),
        shape.kv_heads.into(),
        shape.head_dim.into(),
        kv.block_size.trailing_zeros().into(),
        kv.blocks.into(),
        shape.scale.into(),
        shape.softcap.unwrap_or(0.0).into(),
        window(shape.window).into(),
    ]
}

/// A window as kernels take it: 0 is none.
fn window(window: Option<u32>) -> u32 {
    window.unwrap_or(0)
}
