//! The kernels of all-MiniLM-L6-v2, as a batch of its encoder runs them: elements per second are tokens.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use pith_kernels::attention::{BidirectionalShape, bidirectional};
use pith_kernels::norm::{LayerNorm, add_bias, add_layer_norm};
use pith_kernels::{Isa, Matrix, Pool, Quant, gelu};

use crate::{matrix, noise};

/// Tokens of a batch.
const ROWS: usize = 256;
const HIDDEN: usize = 384;
const WIDE: usize = 1536;
const LAYERS: usize = 6;

struct Layer {
    qkv: Matrix,
    output: Matrix,
    up: Matrix,
    down: Matrix,
}

/// All layers on texts of one length, and each kind of kernel alone.
pub(crate) fn encoder(c: &mut Criterion) {
    let (isa, pool) = (Isa::detect(), Pool::new(0));
    let mut group = c.benchmark_group("encoder");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    let layers: Vec<Layer> = (0..LAYERS)
        .map(|_| Layer {
            qkv: matrix(Quant::Q8_0, 3 * HIDDEN, HIDDEN),
            output: matrix(Quant::Q8_0, HIDDEN, HIDDEN),
            up: matrix(Quant::Q8_0, WIDE, HIDDEN),
            down: matrix(Quant::Q8_0, HIDDEN, WIDE),
        })
        .collect();
    let shape = BidirectionalShape { heads: 12, head_dim: HIDDEN / 12, scale: 0.177 };
    let (ones, wide_bias) = (noise(3 * HIDDEN), noise(WIDE));
    let norm = LayerNorm { weight: &ones[..HIDDEN], bias: &ones[..HIDDEN], eps: 1e-12 };
    let (mut stream, mut qkv) = (noise(ROWS * HIDDEN), noise(ROWS * 3 * HIDDEN));
    let (mut attended, mut added) = (noise(ROWS * HIDDEN), noise(ROWS * HIDDEN));
    let mut wide = noise(ROWS * WIDE);

    group.bench_function("products", |b| {
        b.iter(|| {
            for layer in &layers {
                layer.qkv.matmul(isa, &pool, &stream, &mut qkv).expect("no panic");
                layer.output.matmul(isa, &pool, &attended, &mut added).expect("no panic");
                layer.up.matmul(isa, &pool, &stream, &mut wide).expect("no panic");
                layer.down.matmul(isa, &pool, &wide, &mut added).expect("no panic");
            }
        });
    });
    group.bench_function("rows", |b| {
        b.iter(|| {
            for _ in 0..LAYERS {
                add_bias(isa, &pool, &mut qkv, black_box(&ones)).expect("no panic");
                let (stream, bias) = (&mut stream, &ones[..HIDDEN]);
                add_layer_norm(isa, &pool, stream, &added, bias, norm).expect("no panic");
                gelu::bias_gelu(isa, &pool, &mut wide, &wide_bias).expect("no panic");
                add_layer_norm(isa, &pool, stream, &added, bias, norm).expect("no panic");
            }
        });
    });
    for length in [8, 32, 128, 256] {
        let lengths = vec![length; ROWS / length];
        group.bench_function(BenchmarkId::new("attention", length), |b| {
            b.iter(|| {
                for _ in 0..LAYERS {
                    bidirectional(isa, &pool, shape, &qkv, &lengths, &mut attended)
                        .expect("no panic");
                }
            });
        });
    }
    group.finish();
}
