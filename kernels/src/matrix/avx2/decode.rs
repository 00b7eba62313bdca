//! From a panel's bits to sixteen f32 weights per column.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_sllv_epi32,
    _mm256_srli_epi32, _mm256_srlv_epi32, _mm256_storeu_ps,
};
use std::marker::PhantomData;

use super::super::panel::{HEIGHT, Shape, WORD};
use crate::Quant;

/// Sixteen weights of one column.
pub(super) type Column = [__m256; 2];

/// Reads panels of one format.
///
/// A *group* is the stretch of columns that shares scales, a *quad* four columns that come out of one word.
pub(super) trait Decode {
    /// Columns of a group: what `cols` is a multiple of.
    const GROUP: usize;
    /// Columns that come out at once: 4, or 1 for plain floats.
    const QUAD: usize;
    /// What a group's columns share, prepared once per group.
    type Scales: Copy;

    /// # Safety
    /// The machine has AVX2, FMA and F16C; `panel` is one of this format with the group in it.
    unsafe fn scales(panel: *const u8, group: usize) -> Self::Scales;

    /// Columns `QUAD * quad..` of a group; of four, or only the first.
    ///
    /// # Safety
    /// As [`Decode::scales`].
    unsafe fn quad(
        panel: *const u8,
        group: usize,
        quad: usize,
        scales: &Self::Scales,
    ) -> [Column; 4];

    /// Writes columns `start..start + depth` to `out`, 16 floats each. Both are multiples of `GROUP`.
    ///
    /// # Safety
    /// As [`Decode::scales`], and `out` has room.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn columns(panel: *const u8, start: usize, depth: usize, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            for g in 0..depth / Self::GROUP {
                let group = start / Self::GROUP + g;
                let scales = Self::scales(panel, group);
                for quad in 0..Self::GROUP / Self::QUAD {
                    let columns = Self::quad(panel, group, quad, &scales);
                    for (i, column) in columns[..Self::QUAD].iter().enumerate() {
                        let k = g * Self::GROUP + quad * Self::QUAD + i;
                        _mm256_storeu_ps(out.add(k * HEIGHT), column[0]);
                        _mm256_storeu_ps(out.add(k * HEIGHT + 8), column[1]);
                    }
                }
            }
        }
    }
}

/// Plain f32.
pub(super) struct F32;
/// Half precision.
pub(super) struct F16;
/// The upper half of an f32.
pub(super) struct Bf16;

macro_rules! plain {
    ($format:ty, $bytes:literal, $load:expr) => {
        impl Decode for $format {
            const GROUP: usize = 1;
            const QUAD: usize = 1;
            type Scales = ();

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn scales(_: *const u8, _: usize) {}

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn quad(panel: *const u8, group: usize, _: usize, (): &()) -> [Column; 4] {
                // SAFETY: 16 weights of column `group` begin there.
                let column = unsafe {
                    let at = panel.add(group * HEIGHT * $bytes);
                    [$load(at), $load(at.add(8 * $bytes))]
                };
                [column; 4]
            }
        }
    };
}

plain!(F32, 4, |at: *const u8| _mm256_loadu_ps(at.cast()));
plain!(F16, 2, |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())));
plain!(Bf16, 2, |at: *const u8| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
    _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()))
)));

/// A quantised format.
pub(super) trait Format {
    const SHAPE: Shape;
}

macro_rules! formats {
    ($($name:ident: $quant:ident),*) => {$(
        pub(super) struct $name;
        impl Format for $name {
            const SHAPE: Shape = match Shape::of(Quant::$quant) {
                Some(shape) => shape,
                None => panic!("no quantised format"),
            };
        }
    )*};
}

formats!(Q4_0: Q4_0, Q4_1: Q4_1, Q5_0: Q5_0, Q5_1: Q5_1, Q8_0: Q8_0, Q4K: Q4_K, Q5K: Q5_K, Q6K: Q6_K);

/// Decodes codes and scales.
pub(super) struct Coded<F>(PhantomData<F>);

/// Scale and minimum of sixteen rows.
///
/// A code is masked in place, so that it comes out of the conversion as `code << 8 i`, exactly; the
/// scale for byte `i` is `d >> 8 i`, exactly too. (Byte 3 is shifted down instead: its top bit is the sign.)
#[derive(Clone, Copy)]
pub(super) struct Scales {
    d: [Column; 3],
    min: Column,
}

impl<F: Format> Decode for Coded<F> {
    const GROUP: usize = F::SHAPE.group;
    const QUAD: usize = 4;
    type Scales = Scales;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scales(panel: *const u8, group: usize) -> Scales {
        let shape = F::SHAPE;
        let g = group % shape.groups();
        let mut scales = Scales { d: [[_mm256_setzero_ps(); 2]; 3], min: [_mm256_setzero_ps(); 2] };
        for h in 0..2 {
            // SAFETY: scales and minima of sixteen rows begin at these places of the superblock.
            unsafe {
                let block = panel.add(group / shape.groups() * shape.bytes());
                let halves =
                    |at: usize| _mm256_cvtph_ps(_mm_loadu_si128(block.add(at + 16 * h).cast()));
                let bytes = |at: usize| {
                    let bytes = _mm_loadl_epi64(block.add(at + 8 * h).cast());
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
                };
                let mut d = halves(0);
                if shape.sub {
                    d = _mm256_mul_ps(d, bytes(shape.sub_at(g)));
                }
                let mut min = _mm256_mul_ps(d, _mm256_set1_ps(-(shape.zero as f32)));
                if shape.min {
                    min = halves(2 * HEIGHT);
                    if shape.sub {
                        min = _mm256_mul_ps(min, bytes(shape.sub_at(g) + HEIGHT));
                    }
                }
                scales.d[0][h] = d;
                scales.d[1][h] = _mm256_mul_ps(d, _mm256_set1_ps(1.0 / 256.0));
                scales.d[2][h] = _mm256_mul_ps(d, _mm256_set1_ps(1.0 / 65536.0));
                scales.min[h] = min;
            }
        }
        scales
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    #[expect(clippy::needless_range_loop, reason = "halves and bytes index several arrays")]
    unsafe fn quad(panel: *const u8, group: usize, quad: usize, scales: &Scales) -> [Column; 4] {
        let shape = F::SHAPE;
        let mut columns = [[_mm256_setzero_ps(); 2]; 4];
        for h in 0..2 {
            // SAFETY: the group's codes begin there.
            let word = unsafe {
                let block = panel.add(group / shape.groups() * shape.bytes());
                let codes = block.add(shape.codes_at(group % shape.groups()) + 32 * h);
                codes_of_quad(shape, codes, quad)
            };
            for i in 0..3 {
                let code = _mm256_and_si256(word, _mm256_set1_epi32(0xff << (8 * i)));
                columns[i][h] =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(code), scales.d[i][h], scales.min[h]);
            }
            let code = _mm256_srli_epi32::<24>(word);
            columns[3][h] =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(code), scales.d[0][h], scales.min[h]);
        }
        columns
    }
}

/// The codes of four columns, one per byte, of eight rows. `codes` is where the group's codes begin,
/// 32 bytes further for the upper eight rows.
///
/// # Safety
/// The machine has AVX2; the group's codes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn codes_of_quad(shape: Shape, codes: *const u8, quad: usize) -> __m256i {
    // SAFETY: the caller's promise.
    let load = |at: usize| unsafe { _mm256_loadu_si256(codes.add(at).cast()) };
    if shape.bits == 8 {
        return load(quad * WORD);
    }
    let mut low = load(shape.high_bytes() + quad / 2 * WORD);
    if quad % 2 == 1 {
        low = _mm256_srli_epi32::<4>(low);
    }
    low = _mm256_and_si256(low, _mm256_set1_epi32(0x0f0f_0f0f));
    if shape.bits == 4 {
        return low;
    }
    let width = shape.bits - 4;
    let shift = 4 - (width * quad) as i32; // brings the bits to bit 4 of their byte
    let high = load(0);
    let high = if shift >= 0 {
        _mm256_sllv_epi32(high, _mm256_set1_epi32(shift))
    } else {
        _mm256_srlv_epi32(high, _mm256_set1_epi32(-shift))
    };
    let mask = if width == 1 { 0x1010_1010 } else { 0x3030_3030 };
    _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi32(mask)))
}
