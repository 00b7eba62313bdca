//! What the machine can do at all: the rates the kernels are read against.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use pith_kernels::ceiling::{float_operations, integer_operations};
use pith_kernels::{Isa, Pool};

/// Products in registers, and reads of a buffer far larger than the caches.
pub(crate) fn ceilings(c: &mut Criterion) {
    let mut group = c.benchmark_group("ceilings");
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let (isa, rounds) = (Isa::detect(), 1_000_000u64);
        type Operations = fn(Isa, u64) -> u64;
        let kinds: [(&str, Operations); 2] =
            [("f32", float_operations), ("int8", integer_operations)];
        for (name, operations) in kinds {
            let each = operations(isa, 1) * rounds;
            group.throughput(Throughput::Elements(each * threads as u64));
            group.bench_function(BenchmarkId::new(name, threads), |b| {
                b.iter(|| pool.run(threads, |_| _ = black_box(operations(isa, rounds))));
            });
        }
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
