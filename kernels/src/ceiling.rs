//! What the machine's arithmetic can do at most: the rate kernels are read against.

use std::hint::black_box;

/// `steps` rounds of twelve chains of eight-lane fused multiply-adds, as in the multiply kernel: 192 FLOP a
/// round. 0 on an x86-64 machine without AVX2 and FMA. The sum keeps the work from being optimised away.
#[cfg(target_arch = "x86_64")]
pub fn multiply_adds(steps: u64) -> f32 {
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

/// `steps` scalar fused multiply-adds, where there is no AVX2.
#[cfg(not(target_arch = "x86_64"))]
pub fn multiply_adds(steps: u64) -> f32 {
    (0..steps).fold(1.0, |sum, _| f32::mul_add(sum, black_box(0.999), 1e-3))
}
