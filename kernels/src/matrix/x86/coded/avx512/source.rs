//! Codes and scales of a panel in registers of sixteen rows.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_sllv_epi32,
    _mm512_srli_epi32, _mm512_srlv_epi32,
};

use crate::matrix::panel::{HEIGHT, WORD};
use crate::matrix::x86::decode::{Format, Packed, Unpacked};

/// What a group of sixteen rows is scaled by and what is added: a weight is `d * (code - zero) + min`.
#[derive(Clone, Copy)]
pub(in crate::matrix::x86::coded) struct Scales {
    pub(in crate::matrix::x86::coded) d: __m512,
    /// Formats with minima only.
    pub(in crate::matrix::x86::coded) min: __m512,
}

/// Where the codes and scales of a panel come from.
pub(in crate::matrix::x86::coded) trait Source: Copy {
    /// # Safety
    /// The machine has AVX-512, and the source has this group.
    unsafe fn scales(&self, group: usize) -> Scales;

    /// Codes of the columns `4 word..4 word + 4` of a group: a row's four are a lane's bytes. Unsigned and with
    /// their zero point, if the source was unpacked so.
    ///
    /// # Safety
    /// As [`Source::scales`].
    unsafe fn codes(&self, group: usize, word: usize) -> __m512i;
}

impl<F: Format> Source for Packed<F> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn scales(&self, group: usize) -> Scales {
        let shape = F::SHAPE;
        // SAFETY: scales and minima of sixteen rows begin at these places of the superblock.
        unsafe {
            let (block, g) = self.block(group);
            let halves = |at: usize| _mm512_cvtph_ps(_mm256_loadu_si256(block.add(at).cast()));
            let bytes = |at: usize| {
                let bytes = _mm_loadu_si128(block.add(at).cast());
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
            };
            let mut scales = Scales { d: halves(0), min: _mm512_setzero_ps() };
            if shape.sub {
                scales.d = _mm512_mul_ps(scales.d, bytes(shape.sub_at(g)));
            }
            if shape.min {
                scales.min = halves(2 * HEIGHT);
                if shape.sub {
                    scales.min = _mm512_mul_ps(scales.min, bytes(shape.sub_at(g) + HEIGHT));
                }
            }
            scales
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn codes(&self, group: usize, word: usize) -> __m512i {
        let shape = F::SHAPE;
        // SAFETY: the group's codes begin there.
        let load = |at: usize| unsafe {
            let (block, g) = self.block(group);
            _mm512_loadu_si512(block.add(shape.codes_at(g) + at).cast())
        };
        if shape.bits == 8 {
            return load(word * WORD);
        }
        let mut low = load(shape.high_bytes() + word / 2 * WORD);
        if word % 2 == 1 {
            low = _mm512_srli_epi32::<4>(low);
        }
        low = _mm512_and_si512(low, _mm512_set1_epi8(15));
        if shape.bits == 4 {
            return low;
        }
        let width = shape.bits - 4;
        let shift = 4 - (width * word) as i32; // brings the bits to bit 4 of their byte
        let high = if shift >= 0 {
            _mm512_sllv_epi32(load(0), _mm512_set1_epi32(shift))
        } else {
            _mm512_srlv_epi32(load(0), _mm512_set1_epi32(-shift))
        };
        let mask = if width == 1 { 0x10 } else { 0x30 };
        _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi8(mask)))
    }
}

impl<F: Format> Source for Unpacked<F> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn scales(&self, group: usize) -> Scales {
        // SAFETY: the group was unpacked there.
        unsafe {
            let [d, min] = self.scales_at(group);
            let zero = _mm512_setzero_ps();
            Scales {
                d: _mm512_loadu_ps(d),
                min: if F::SHAPE.min { _mm512_loadu_ps(min) } else { zero },
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn codes(&self, group: usize, word: usize) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_loadu_si512(self.codes_at(group).add(word * WORD).cast()) }
    }
}
