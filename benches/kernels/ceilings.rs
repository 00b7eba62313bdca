//! What the machine can do at all: the rates the kernels are read against.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use pith_kernels::Pool;

/// Fused multiply-adds in registers, and reads of a buffer far larger than the caches.
pub(crate) fn ceilings(c: &mut Criterion) {
    let mut group = c.benchmark_group("ceilings");
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let steps = 1_000_000u64;
        group.throughput(Throughput::Elements(steps * 12 * 16 * threads as u64)); // FLOP
        group.bench_function(BenchmarkId::new("fma_f32", threads), |b| {
            b.iter(|| pool.run(threads, |_| _ = black_box(multiply_adds(steps))));
        });
        let data = vec![1u64; 32 << 20]; // 256 MiB
        group.throughput(Throughput::Bytes(data.len() as u64 * 8));
        group.bench_function(BenchmarkId::new("read", threads), |b| {
            let part = data.len() / 64;
            b.iter(|| pool.run(16, |i| _ = black_box(sum(&data[i * 4 * part..][..4 * part]))));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("empty_job", threads), |b| {
            b.iter(|| pool.run(2 * threads, |i| _ = black_box(i)));
        });
    }
    group.finish();
}

fn sum(data: &[u64]) -> u64 {
    // Four streams, as the matrix kernels read.
    let (a, b) = data.split_at(data.len() / 2);
    let ((a, b), (c, d)) = (a.split_at(a.len() / 2), b.split_at(b.len() / 2));
    let mut sums = [0u64; 4];
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        sums[0] = sums[0].wrapping_add(*a);
        sums[1] = sums[1].wrapping_add(*b);
        sums[2] = sums[2].wrapping_add(*c);
        sums[3] = sums[3].wrapping_add(*d);
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

/// Twelve chains of eight-lane fused multiply-adds, as in the multiply kernel.
#[cfg(target_arch = "x86_64")]
fn multiply_adds(steps: u64) -> f32 {
    use std::arch::x86_64::{_mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};

    #[target_feature(enable = "avx2,fma")]
    fn chains(steps: u64) -> f32 {
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-3)));
        let mut sums = [_mm256_set1_ps(1.0); 12];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        sums.iter().map(|&sum| _mm256_cvtss_f32(sum)).sum()
    }
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return 0.0;
    }
    // SAFETY: the machine has AVX2 and FMA.
    unsafe { chains(steps) }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_adds(steps: u64) -> f32 {
    (0..steps).fold(1.0, |sum, _| f32::mul_add(sum, black_box(0.999), 1e-3))
}
