//! AVX2: codes of eight rows by four columns fill a register (`panel`), the same four activations are broadcast
//! beside it, and one instruction multiplies and adds pairs.

#[rustfmt::skip]
mod group;

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_prefetch, _mm256_abs_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_sll_epi32, _mm256_storeu_ps,
    _mm256_sub_epi32,
};
use std::ops::Range;

use group::{Place, Sums};

use super::{Kernel, Product};
use crate::eight_bit::GROUP;
use crate::matrix::panel::HEIGHT;
use crate::matrix::x86::Part;
use crate::matrix::x86::decode::{Form, Format, Packed, Source};
use crate::matrix::x86::quantize::{Group, Rows};

/// Rows of `x` multiplied at once where codes are unpacked in registers: their sums, integer and float, fill those.
const FEW: usize = 3;

/// Sums of `R` rows by `P` panels of sixteen.
type FewSums<const R: usize, const P: usize> = [[[__m256; 2]; P]; R];

/// See the module.
pub(in crate::matrix::x86) struct Avx2;

impl Kernel for Avx2 {
    const FORM: Form = Form::Stored;
    const DIRECT: usize = 4;
    const TALL: usize = group::ROWS;
    type Held = ();

    unsafe fn hold(_group: usize) {}

    unsafe fn direct<F: Format>(part: &Part<'_>, x: Rows<'_>) {
        // SAFETY: the caller's promise.
        unsafe { direct::<F>(part, x) };
    }

    #[inline]
    unsafe fn tile<F: Format>(
        product: &Product<'_, F>,
        rows: Range<usize>,
        c: *mut f32,
        ldc: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile::<F>(product, rows, c, ldc) };
    }
}

/// Few rows: codes are unpacked in registers. One row leaves registers for four panels, two rows for two:
/// more streams keep memory busy.
///
/// # Safety
/// As [`Kernel::direct`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn direct<F: Format>(part: &Part<'_>, x: Rows<'_>) {
    let height = x.len().div_ceil(x.len().div_ceil(FEW));
    let streams = [4, 2, 1][height - 1];
    for index in part.panels.clone().step_by(streams) {
        for first in (0..x.len()).step_by(height) {
            // SAFETY: the caller's promise; rows and panels belong to the part.
            unsafe {
                match height {
                    1 => packed::<F, 1, 4>(part, x, first, index),
                    2 => packed::<F, 2, 2>(part, x, first, index),
                    _ => packed::<F, 3, 1>(part, x, first, index),
                }
            }
        }
    }
}

/// Up to `R` rows by `P` panels, straight from the panels' bits. Where the part ends before, the last row
/// or panel is computed again and not written.
///
/// # Safety
/// As [`Kernel::direct`]; row `first` and panel `index` belong to the part.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed<F: Format, const R: usize, const P: usize>(
    part: &Part<'_>,
    x: Rows<'_>,
    first: usize,
    index: usize,
) {
    let (rows, count) = (R.min(x.len() - first), P.min(part.panels.end - index));
    let sources: [_; P] =
        std::array::from_fn(|p| Packed::<F>::new(part.panel(index + p.min(count - 1)).0));
    let activations = std::array::from_fn(|r| x.row(first + r.min(rows - 1), 0));
    let mut sums: FewSums<R, P> = [[[_mm256_setzero_ps(); 2]; P]; R];
    // SAFETY: the panels and rows have these columns.
    unsafe { multiply::<F, R, P>(&sources, &activations, part.cols, &mut sums) };
    for (r, sums) in sums[..rows].iter().enumerate() {
        for (p, sums) in sums[..count].iter().enumerate() {
            // SAFETY: row and panel belong to the part.
            unsafe { store(part, first + r, index + p, sums) };
        }
    }
}

/// Up to [`group::ROWS`] rows. Rows past the last are computed and not written.
///
/// # Safety
/// As [`Kernel::tile`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Format>(product: &Product<'_, F>, rows: Range<usize>, c: *mut f32, ldc: usize) {
    let (shape, x) = (F::SHAPE, product.x);
    let (mut codes, mut groups) = x.row(rows.start, product.start);
    let mut sums = Sums::ZERO;
    // SAFETY: the caller's promise: the groups are in the source and, padded, in the rows.
    unsafe {
        // Stores leave in order: one that waits for its line would hold up those of the sums behind it.
        for r in 0..rows.len() {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * ldc).cast());
        }
        if product.start > 0 {
            for (r, sums) in sums.floats[..rows.len()].iter_mut().enumerate() {
                c.add(r * ldc).copy_to_nonoverlapping(sums.as_mut_ptr(), HEIGHT);
            }
        }
        for group in 0..product.depth / shape.group {
            let place = Place {
                weights: product.source.at(group),
                x: codes,
                x_stride: x.stride(),
                groups,
                group_stride: x.stride() / GROUP * size_of::<Group>(),
            };
            let last = (group + 1) * shape.group % GROUP == 0;
            match (shape.bits, shape.min) {
                (4, false) => group::four_zero(place, &mut sums),
                (4, true) => group::four_min(place, &mut sums),
                (5, false) => group::five_zero(place, &mut sums),
                (5, true) => group::five_min(place, &mut sums),
                (6, _) if last => group::six_last(place, &mut sums),
                (6, _) => group::six_first(place, &mut sums),
                _ => group::eight(place, &mut sums),
            }
            codes = codes.add(shape.group);
            groups = groups.add(usize::from(last));
        }
        for (r, sums) in sums.floats[..rows.len()].iter().enumerate() {
            c.add(r * ldc).copy_from_nonoverlapping(sums.as_ptr(), HEIGHT);
        }
    }
}

/// Adds `depth` columns' products to `sums`. One order of operations, whatever `R` and `P`, and that of
/// `group`: so a row has the same bits in any batch.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; sources and activations have `depth` columns, whole groups.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<F: Format, const R: usize, const P: usize>(
    sources: &[Packed<F>; P],
    activations: &[(*const i8, *const Group); R],
    depth: usize,
    sums: &mut FewSums<R, P>,
) {
    let shape = F::SHAPE;
    let pairs = if R == 1 { shape.group / 8 } else { std::hint::black_box(shape.group / 8) };
    for group in 0..depth / shape.group {
        let column = group * shape.group;
        for (p, source) in sources.iter().enumerate() {
            // SAFETY: the group lies in the source and in every row.
            unsafe {
                let integers = integer_sums::<F, R>(source, activations, group, pairs);
                let scales = source.scales(group);
                for (r, &(_, groups)) in activations.iter().enumerate() {
                    let x = &*groups.add(column / GROUP);
                    for h in 0..2 {
                        let mut sum = integers[r][h];
                        if shape.zero > 0 && shape.bits < 8 {
                            let codes = match shape.group {
                                GROUP => x.code_sum,
                                _ => x.halves[column / shape.group % 2],
                            };
                            sum = _mm256_sub_epi32(sum, times_zero::<F>(codes));
                        }
                        let scale = _mm256_mul_ps(scales.d[h], _mm256_set1_ps(x.scale));
                        let to = &mut sums[r][p][h];
                        *to = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), *to);
                        if shape.min {
                            *to = _mm256_fmadd_ps(scales.min[h], _mm256_set1_ps(x.sum), *to);
                        }
                    }
                }
            }
        }
    }
}

/// `codes` times the format's zero point, a power of two.
#[inline]
#[target_feature(enable = "avx2")]
fn times_zero<F: Format>(codes: i32) -> __m256i {
    let shift = _mm_cvtsi32_si128(F::SHAPE.zero.trailing_zeros() as i32);
    _mm256_sll_epi32(_mm256_set1_epi32(codes), shift)
}

/// Sums over a group of code times activation code, for `R` rows of sixteen.
///
/// `pairs` is half the group's words. Passed from afar it keeps the compiler from unrolling the loop, after which it
/// would reorder it and run out of registers.
///
/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn integer_sums<F: Format, const R: usize>(
    source: &Packed<F>,
    activations: &[(*const i8, *const Group); R],
    group: usize,
    pairs: usize,
) -> [[__m256i; 2]; R] {
    let shape = F::SHAPE;
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for pair in 0..pairs {
        // Two products of 5 or 6 bits still fit 16, four of 8 do not: they are widened at once.
        let mut narrow = [[_mm256_setzero_si256(); 2]; R];
        for word in [2 * pair, 2 * pair + 1] {
            // SAFETY: the caller's promise.
            let codes = unsafe { [source.codes(group, word, 0), source.codes(group, word, 1)] };
            for (r, &(x, _)) in activations.iter().enumerate() {
                // SAFETY: four activations of the group.
                let x =
                    unsafe { x.add(group * shape.group + 4 * word).cast::<i32>().read_unaligned() };
                let x = _mm256_set1_epi32(x);
                for h in 0..2 {
                    let (sum, narrow) = (&mut sums[r][h], &mut narrow[r][h]);
                    match shape.bits {
                        // All eight words of a group fit: 8 * 2 * 127 * 15 < 2^15.
                        4 => *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes[h], x)),
                        // Signed by signed: the sign moves over.
                        8 => {
                            let (codes, x) =
                                (_mm256_abs_epi8(codes[h]), _mm256_sign_epi8(x, codes[h]));
                            let product = _mm256_maddubs_epi16(codes, x);
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(product, ones));
                        }
                        _ => {
                            *narrow = _mm256_add_epi16(*narrow, _mm256_maddubs_epi16(codes[h], x));
                        }
                    }
                }
            }
        }
        if shape.bits == 5 || shape.bits == 6 {
            for (sums, narrow) in sums.iter_mut().zip(&narrow) {
                for (sum, &narrow) in sums.iter_mut().zip(narrow) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(narrow, ones));
                }
            }
        }
    }
    if shape.bits == 4 {
        for sums in &mut sums {
            for sum in sums {
                *sum = _mm256_madd_epi16(*sum, ones);
            }
        }
    }
    sums
}

/// Writes the sums of row `row` and panel `index`.
///
/// # Safety
/// They belong to the part.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(part: &Part<'_>, row: usize, index: usize, sums: &[__m256; 2]) {
    let height = part.panel(index).1;
    let mut buffer = [0.0f32; HEIGHT];
    // SAFETY: the caller's promise; both hold sixteen floats.
    unsafe {
        let out = part.out(row, index, height);
        let to = if height < HEIGHT { buffer.as_mut_ptr() } else { out.as_mut_ptr() };
        _mm256_storeu_ps(to, sums[0]);
        _mm256_storeu_ps(to.add(8), sums[1]);
        if height < HEIGHT {
            out.copy_from_slice(&buffer[..height]);
        }
    }
}
