//! What the machine's arithmetic can do at most: the rates kernels are read against.
//!
//! Each runs chains of independent instructions in registers and says how many operations (products and sums) that
//! was, so that time alone is left to be measured.

use crate::Isa;

/// `rounds` rounds of f32 fused multiply-adds with the widest registers `isa` has; gives the operations done.
pub fn float_operations(isa: Isa, rounds: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if isa.avx512() {
            // SAFETY: the machine has AVX-512.
            unsafe { x86::floats_avx512(rounds) };
            return rounds * x86::CHAINS as u64 * 16 * 2;
        }
        if isa.avx2() {
            // SAFETY: the machine has AVX2 and FMA.
            unsafe { x86::floats_avx2(rounds) };
            return rounds * x86::CHAINS as u64 * 8 * 2;
        }
    }
    let _ = isa;
    let sum = (0..rounds)
        .fold(1.0, |sum: f32, _| sum * std::hint::black_box(0.999) + std::hint::black_box(1e-3));
    std::hint::black_box(sum);
    rounds * 2
}

/// The same of eight-bit integers: products of codes and activations, summed up in 16 bits (AVX2) or 32.
/// 0 where there is no such instruction.
pub fn integer_operations(isa: Isa, rounds: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if isa.amx() {
            // SAFETY: the machine has AMX, and this thread holds no tiles.
            unsafe { crate::amx::multiply_integers(rounds) };
            return rounds * 4 * 16 * 16 * 64 * 2;
        }
        if isa.avx512() {
            // SAFETY: the machine has AVX-512 VNNI.
            unsafe { x86::integers_avx512(rounds) };
            return rounds * x86::CHAINS as u64 * 64 * 2;
        }
        if isa.avx2() {
            // SAFETY: the machine has AVX2.
            unsafe { x86::integers_avx2(rounds) };
            return rounds * x86::CHAINS as u64 * 32 * 2;
        }
    }
    let _ = (isa, rounds);
    0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi16, _mm256_fmadd_ps, _mm256_maddubs_epi16,
        _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
        _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    };
    use std::hint::black_box;

    /// Enough to cover the latency of both units.
    pub(super) const CHAINS: usize = 12;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn floats_avx2(rounds: u64) {
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(1e-3)));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn floats_avx512(rounds: u64) {
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(1e-3)));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// Each product takes the sum before it, lest the compiler take it out of the loop.
    #[target_feature(enable = "avx2")]
    pub(super) fn integers_avx2(rounds: u64) {
        let codes = _mm256_set1_epi8(black_box(3));
        let mut sums: [__m256i; CHAINS] = [_mm256_set1_epi16(1); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes, *sum));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn integers_avx512(rounds: u64) {
        let (codes, x) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
        let mut sums: [__m512i; CHAINS] = [_mm512_set1_epi32(1); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, codes, x);
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_counts_what_it_does() {
        for isa in Isa::available() {
            assert_eq!(float_operations(isa, 20), 2 * float_operations(isa, 10));
            assert_eq!(integer_operations(isa, 20), 2 * integer_operations(isa, 10));
            assert_eq!(integer_operations(isa, 1) > 0, isa > Isa::Scalar);
        }
    }
}
