//! Kernels at the shapes of `SmolLM2` 135M and Gemma 3 270M, read as GB/s (few rows: bound by memory) or
//! FLOP/s (many: criterion prints them as elements per second), next to the machine's ceilings.
//!
//! `cargo bench -p pith-benches --bench kernels`; `-- 'ceilings|matmul'` for a part. A table at the end shows each
//! beside its ceiling in the same run.

mod ceilings;
mod encoder;
mod summary;

use std::time::SystemTime;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use pith_kernels::activation::{Activation, gated};
use pith_kernels::attention::attention;
use pith_kernels::norm::rms_norm;
use pith_kernels::{
    AttentionShape, Isa, KvLayer, KvType, Matrix, MatrixBuilder, Pool, Quant, SequenceView,
};

fn noise(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0).collect()
}

/// A matrix of arbitrary codes; scales are small numbers.
fn matrix(quant: Quant, rows: usize, cols: usize) -> Matrix {
    let row = vec![0x11u8; quant.row_bytes(cols).unwrap_or(0)];
    let mut builder = MatrixBuilder::new(cols);
    let segment = builder.segment(quant).map(|_| ());
    segment.and_then(|()| builder.push_rows(&row.repeat(rows))).expect("whole blocks");
    builder.finish()
}

/// Every matrix of a layer once, as a decode step walks them: 30 layers do not fit any cache.
fn matmul(c: &mut Criterion) {
    let (isa, pool) = (Isa::detect(), Pool::new(0));
    let mut group = c.benchmark_group("matmul");
    group.sample_size(20);
    let layer = [(960, 576), (576, 576), (3072, 576), (576, 1536)];
    let gemma = [(1536, 640), (640, 1024), (4096, 640), (640, 2048)];
    let sets: Vec<(&str, Vec<Matrix>)> = vec![
        ("smol_layers_q4_1", stack(Quant::Q4_1, &layer, 30)),
        ("smol_vocabulary_q8_0", stack(Quant::Q8_0, &[(49152, 576)], 1)),
        ("gemma_layers_q5_0", stack(Quant::Q5_0, &gemma, 18)),
        ("gemma_vocabulary_q8_0", stack(Quant::Q8_0, &[(262_144, 640)], 1)),
        ("wide_layers_q4_k", stack(Quant::Q4_K, &[(2048, 2048)], 16)),
        ("wide_layers_q6_k", stack(Quant::Q6_K, &[(2048, 2048)], 16)),
    ];
    for (name, set) in &sets {
        let bytes: usize = set.iter().map(Matrix::bytes).sum();
        let weights: usize = set.iter().map(|m| m.rows() * m.cols()).sum();
        for m in [1, 2, 4, 8, 32, 512] {
            if m > 8 && name.contains("vocabulary_q8_0") && m != 32 {
                continue;
            }
            group.throughput(match m {
                1..=8 => Throughput::Bytes(bytes as u64),
                _ => Throughput::Elements(2 * (weights * m) as u64),
            });
            let x = noise(m * 2048);
            let mut y = vec![0.0; m * 262_144];
            group.bench_function(BenchmarkId::new(*name, m), |b| {
                b.iter(|| {
                    for w in set {
                        let (x, y) = (&x[..m * w.cols()], &mut y[..m * w.rows()]);
                        w.matmul(isa, &pool, x, y).expect("no panic");
                    }
                });
            });
        }
    }
    group.finish();
}

fn stack(quant: Quant, shapes: &[(usize, usize)], layers: usize) -> Vec<Matrix> {
    let shapes = (0..layers).flat_map(|_| shapes);
    shapes.map(|&(rows, cols)| matrix(quant, rows, cols)).collect()
}

/// (name, query heads, kv heads, dimensions, window)
const HEADS: [(&str, usize, usize, usize, Option<u32>); 3] =
    [("smol", 9, 3, 64, None), ("gemma", 4, 1, 256, None), ("gemma_window", 4, 1, 256, Some(512))];

/// A chunk of 512 rows at the end of a context, a few rows (what rides along with decoding), and one (decode).
fn attend(c: &mut Criterion) {
    let (isa, pool) = (Isa::detect(), Pool::new(0));
    let mut group = c.benchmark_group("attention");
    group.sample_size(20);
    for (name, heads, kv_heads, head_dim, window) in HEADS {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.1, window, softcap: None };
        for (rows, context) in [(512, 2048), (512, 7168), (4, 7168), (2, 7168), (1, 4096)] {
            let mut kv = KvLayer::new(KvType::F16, kv_heads, head_dim, context);
            let width = kv_heads * head_dim;
            let slots: Vec<u32> = (0..context as u32).collect();
            let x = noise(context * 2 * width);
            kv.write(isa, &pool, &x, 2 * width, 0, width, &slots).expect("no panic");
            let blocks: Vec<u32> = (0..context as u32 / 16).collect();
            let q = noise(rows * heads * head_dim);
            let mut out = vec![0.0; q.len()];
            let keys: usize = (context - rows..context)
                .map(|p| (p + 1).min(window.map_or(usize::MAX, |w| w as usize)))
                .sum();
            group.throughput(match rows {
                1..=4 => Throughput::Bytes(
                    (keys * KvLayer::bytes_per_token(KvType::F16, kv_heads, head_dim)) as u64,
                ),
                _ => Throughput::Elements((4 * keys * heads * head_dim) as u64),
            });
            let sequence = SequenceView { first_row: 0, rows, context, blocks: &blocks, bias: &[] };
            group.bench_function(BenchmarkId::new(name, format!("{rows}@{context}")), |b| {
                b.iter(|| {
                    let stride = heads * head_dim;
                    attention(isa, &pool, &shape, &kv, 16, &q, stride, &[sequence], &mut out)
                        .expect("no panic");
                });
            });
        }
    }
    group.finish();
}

/// What lies between the products, at 512 rows.
fn rows(c: &mut Criterion) {
    let (isa, pool) = (Isa::detect(), Pool::new(0));
    let mut group = c.benchmark_group("rows");
    let (x, weight) = (noise(512 * 576), noise(576));
    let mut out = vec![0.0; x.len()];
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("rms_norm", |b| {
        b.iter(|| rms_norm(isa, &pool, &x, &weight, 1e-5, &mut out).expect("no panic"));
    });
    let gate_up = noise(512 * 2 * 1536);
    let mut out = vec![0.0; 512 * 1536];
    group.throughput(Throughput::Elements(out.len() as u64));
    for activation in [Activation::Silu, Activation::GeluTanh] {
        group.bench_function(format!("{activation:?}"), |b| {
            b.iter(|| gated(isa, &pool, activation, &gate_up, 1536, &mut out).expect("no panic"));
        });
    }
    group.finish();
}

criterion_group!(kernels, ceilings::ceilings, matmul, attend, rows, encoder::encoder);

fn main() {
    let began = SystemTime::now();
    kernels();
    Criterion::default().configure_from_args().final_summary();
    summary::print(began);
}
