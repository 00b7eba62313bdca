//! Attention over paged keys and values, against plain sums in f64.

mod decode;
mod mass;
mod meta;
mod prefill;

use half::bf16;
use pith_kernels::attention::{AttentionShape, BiasSpan};
use pith_kernels::device::attention::{MetaLayout, MetaRanges, SequenceMeta};
use pith_kernels::device::kv::{DeviceKv, DeviceKvKind};
use pith_kernels::device::{Device, DeviceVec};
use proptest::prelude::*;

/// What a layer and its cache are like.
#[derive(Debug, Clone)]
struct Layer {
    shape: AttentionShape,
    kind: DeviceKvKind,
    block_size: usize,
}

/// A sequence of a batch.
#[derive(Debug, Clone)]
struct Sequence {
    context: usize,
    rows: usize,
    bias: Vec<BiasSpan>,
    seed: u64,
}

/// Numbers that look random, from -1 to 1.
fn noise(seed: u64, at: usize) -> f32 {
    let mut x =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64).wrapping_mul(0xd134_2543_de82_ef95);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    (x as u32 as f32 / u32::MAX as f32) * 2.0 - 1.0
}

/// An e4m3 code that is no NaN, as bits and as a number.
fn code(value: f32) -> (u8, f64) {
    let size = ((value.abs() * 127.0) as u8).min(0x7e);
    let (exponent, fraction) = (i32::from(size >> 3), f64::from(size & 7));
    let magnitude = match exponent {
        0 => fraction / 8.0 * 2f64.powi(-6),
        _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
    };
    match value < 0.0 {
        true => (size | 0x80, -magnitude),
        false => (size, magnitude),
    }
}

/// A sequence's keys and values as numbers, `[token][kv_head][head_dim]`, and its blocks.
struct Stored {
    keys: Vec<f64>,
    values: Vec<f64>,
    blocks: Vec<u32>,
}

/// A cache on a device with the sequences in it, each in blocks of its own; slots not written hold NaN.
fn fill(device: &Device, layer: &Layer, sequences: &[Sequence]) -> (DeviceKv, Vec<Stored>) {
    let Layer { shape, kind, block_size } = layer;
    let (heads, dim) = (shape.kv_heads, shape.head_dim);
    let counts: Vec<usize> = sequences.iter().map(|s| s.context.div_ceil(*block_size)).collect();
    // One more block than is needed, and the sequences' blocks in turn, from the end on.
    let blocks = counts.iter().sum::<usize>() + 1;
    let kv = DeviceKv::new(device, *kind, heads, dim, *block_size, blocks).unwrap();
    let mut bytes = [vec![0xffu8; kv.keys.len()], vec![0xffu8; kv.values.len()]];
    let mut scales = [vec![f32::NAN; kv.slots() * heads], vec![f32::NAN; kv.slots() * heads]];
    let mut free: Vec<u32> = (0..blocks as u32).collect();
    let mut stored = Vec::new();
    for (sequence, &count) in sequences.iter().zip(&counts) {
        let blocks: Vec<u32> =
            (0..count).map(|at| free.remove((at * 7 + 3) % free.len())).collect();
        let mut numbers = [Vec::new(), Vec::new()];
        for token in 0..sequence.context {
            for head in 0..heads {
                let block = blocks[token / block_size] as usize;
                let vector = (block * heads + head) * block_size + token % block_size;
                for (which, numbers) in numbers.iter_mut().enumerate() {
                    let seed = sequence.seed * 2 + which as u64;
                    let scale = 0.02 * (1.5 + noise(seed + 9, token * heads + head));
                    scales[which][vector] = scale;
                    for column in 0..dim {
                        let value = noise(seed, (token * heads + head) * dim + column);
                        let at = vector * dim + column;
                        match kind {
                            DeviceKvKind::Bf16 => {
                                let value = bf16::from_f32(value * 2.0);
                                bytes[which][2 * at..][..2].copy_from_slice(&value.to_le_bytes());
                                numbers.push(value.to_f64());
                            }
                            DeviceKvKind::F8 => {
                                let (bits, value) = code(value * 0.9);
                                bytes[which][at] = bits;
                                numbers.push(value * f64::from(scale));
                            }
                        }
                    }
                }
            }
        }
        let [keys, values] = numbers;
        stored.push(Stored { keys, values, blocks });
    }
    kv.keys.as_slice().upload(&bytes[0]).unwrap();
    kv.values.as_slice().upload(&bytes[1]).unwrap();
    for (to, from) in [(&kv.key_scales, &scales[0]), (&kv.value_scales, &scales[1])] {
        if let Some(to) = to {
            to.as_slice().upload(from).unwrap();
        }
    }
    (kv, stored)
}

/// Queries of a sequence's rows, as bits; those of a position are always the same.
fn queries(shape: &AttentionShape, sequence: &Sequence) -> Vec<u16> {
    let width = shape.heads * shape.head_dim;
    let first = sequence.context - sequence.rows;
    (first * width..sequence.context * width)
        .map(|at| bf16::from_f32(noise(sequence.seed + 77, at) * 3.0).to_bits())
        .collect()
}

/// The weights of the keys that a head of a row sees, from key `.0` on.
fn weights(
    shape: &AttentionShape,
    bias: &[BiasSpan],
    keys: &[f64],
    head: usize,
    query: &[u16],
    position: usize,
) -> (usize, Vec<f64>) {
    let dim = shape.head_dim;
    let kv_head = head / (shape.heads / shape.kv_heads);
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
    let mut weights: Vec<f64> = (first..=position)
        .map(|key| {
            let key_at = &keys[(key * shape.kv_heads + kv_head) * dim..][..dim];
            let query =
                query[head * dim..][..dim].iter().map(|&bits| bf16::from_bits(bits).to_f64());
            let mut score =
                query.zip(key_at).map(|(q, k)| q * k).sum::<f64>() * f64::from(shape.scale);
            if let Some(cap) = shape.softcap.map(f64::from) {
                score = cap * (score / cap).tanh();
            }
            let span = bias.iter().find(|span| (span.start..span.end).contains(&(key as u32)));
            score + span.map_or(0.0, |span| f64::from(span.bias))
        })
        .collect();
    let most = weights.iter().copied().fold(f64::MIN, f64::max);
    weights.iter_mut().for_each(|weight| *weight = (*weight - most).exp());
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    (first, weights)
}

/// Holds the rows of a sequence to the sums in f64: each weight and the result are rounded to 8 bits, each by at most 2^-8 of
/// itself.
fn expect_rows(shape: &AttentionShape, sequence: &Sequence, stored: &Stored, out: &[u16]) {
    let (dim, width) = (shape.head_dim, shape.heads * shape.head_dim);
    let queries = queries(shape, sequence);
    for row in 0..sequence.rows {
        let position = sequence.context - sequence.rows + row;
        for head in 0..shape.heads {
            let query = &queries[row * width..][..width];
            let (first, weights) =
                weights(shape, &sequence.bias, &stored.keys, head, query, position);
            let kv_head = head / (shape.heads / shape.kv_heads);
            for column in 0..dim {
                let (mut sum, mut size) = (0.0, 0.0);
                for (at, weight) in weights.iter().enumerate() {
                    let value =
                        stored.values[((first + at) * shape.kv_heads + kv_head) * dim + column];
                    sum += weight * value;
                    size += weight * value.abs();
                }
                let found = bf16::from_bits(out[row * width + head * dim + column]).to_f64();
                let bound = (size + sum.abs()) * 2f64.powi(-8) * 1.02 + 1e-6;
                assert!(
                    (found - sum).abs() <= bound,
                    "row {row} head {head} column {column}: {found}, not {sum} +- {bound}"
                );
            }
        }
    }
}

/// The numbers of a step on the device.
fn upload(
    device: &Device,
    layout: &MetaLayout<'_>,
    sequences: &[SequenceMeta<'_>],
) -> (DeviceVec<u32>, MetaRanges) {
    // Something before them, as in a step's one upload.
    let mut words = vec![7; 3];
    let ranges = layout.pack(sequences, &mut words).unwrap();
    (DeviceVec::from_slice(device, &words).unwrap(), ranges)
}

/// Sequences of a batch, one after the other from row `first_row` on.
fn metas<'a>(
    sequences: &'a [Sequence],
    stored: &'a [Stored],
    first_row: usize,
    decode: bool,
) -> Vec<SequenceMeta<'a>> {
    let mut row = first_row;
    let metas = sequences.iter().zip(stored).map(|(sequence, stored)| {
        let Sequence { context, rows, ref bias, .. } = *sequence;
        row += rows;
        SequenceMeta { first_row: row - rows, rows, context, blocks: &stored.blocks, bias, decode }
    });
    metas.collect()
}

fn any_layer() -> impl Strategy<Value = Layer> {
    let heads = (1usize..=2, prop::sample::select(vec![1usize, 2, 3, 4, 7, 16, 20]));
    let dims = prop::sample::select(vec![16usize, 32, 64, 80, 128, 256]);
    let window = prop::option::of(1u32..300);
    let softcap = prop::option::weighted(0.3, 2.0f32..30.0);
    let kind = prop::sample::select(vec![DeviceKvKind::Bf16, DeviceKvKind::F8]);
    (heads, dims, window, softcap, kind, 4u32..=6).prop_map(
        |((kv_heads, group), head_dim, window, softcap, kind, block_bits)| Layer {
            shape: AttentionShape {
                heads: kv_heads * group,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window,
                softcap,
            },
            kind,
            block_size: 1 << block_bits,
        },
    )
}

/// A sequence of up to `context` tokens and `rows` rows.
fn any_sequence(context: usize, rows: usize) -> impl Strategy<Value = Sequence> {
    (1..=context, 1..=rows, any::<u32>(), prop::bool::weighted(0.4)).prop_map(
        |(context, rows, seed, emphasis)| {
            let span = |start: usize, end: usize, bias| BiasSpan {
                start: start as u32,
                end: end as u32,
                bias,
            };
            let bias = match emphasis {
                true => vec![
                    span(context / 7, context / 3, 1.5),
                    span(context / 3, context / 3 + 1, -2.0),
                    span((context / 2).max(context / 3 + 1), context + 5, 0.7),
                ],
                false => Vec::new(),
            };
            Sequence { context, rows: rows.min(context), bias, seed: u64::from(seed) }
        },
    )
}
