//! AVX-512 VNNI: codes of sixteen rows by four columns fill a register (`panel`), and one instruction multiplies
//! them by four activations and adds all four products to a lane of 32 bits.

pub(super) mod source;

use std::arch::x86_64::{
    __m512, _mm_cvtsi32_si128, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sll_epi32, _mm512_storeu_ps, _mm512_sub_epi32,
};
use std::ops::Range;

use source::Source;

use super::{Kernel, Product};
use crate::eight_bit::GROUP;
use crate::matrix::panel::HEIGHT;
use crate::matrix::x86::Part;
use crate::matrix::x86::decode::{Form, Format, Packed};
use crate::matrix::x86::quantize::{Group, Rows};

/// Rows of `x` multiplied at once where codes are unpacked: their sums, integer and float, take 24 of 32 registers.
const TALL: usize = 12;

/// Rows of `x` multiplied at once where codes are unpacked in registers.
const FEW: usize = 4;

/// Sums of `R` rows by `P` panels of sixteen.
type Sums<const R: usize, const P: usize> = [[__m512; P]; R];

/// See the module.
pub(in crate::matrix::x86) struct Avx512;

impl Kernel for Avx512 {
    const FORM: Form = Form::Unsigned;
    const DIRECT: usize = 6;
    const TALL: usize = TALL;
    type Held = ();

    unsafe fn hold(_group: usize) {}

    unsafe fn direct<F: Format>(part: &Part<'_>, x: Rows<'_>) {
        // SAFETY: the caller's promise.
        unsafe { direct::<F>(part, x) };
    }

    unsafe fn tile<F: Format>(
        product: &Product<'_, F>,
        rows: Range<usize>,
        c: *mut f32,
        ldc: usize,
    ) {
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the caller's promise: as many rows are left as are taken.
            row += unsafe {
                let c = c.add((row - rows.start) * ldc);
                match rows.end - row {
                    12.. => tile::<F, 12>(product, row, c, ldc),
                    6.. => tile::<F, 6>(product, row, c, ldc),
                    3.. => tile::<F, 3>(product, row, c, ldc),
                    _ => tile::<F, 1>(product, row, c, ldc),
                }
            };
        }
    }
}

/// Few rows. One or two rows leave registers for four panels, more for two: more streams keep memory busy.
///
/// # Safety
/// As [`Kernel::direct`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn direct<F: Format>(part: &Part<'_>, x: Rows<'_>) {
    let height = x.len().div_ceil(x.len().div_ceil(FEW));
    let streams = [4, 4, 2, 2][height - 1];
    for index in part.panels.clone().step_by(streams) {
        for first in (0..x.len()).step_by(height) {
            // SAFETY: the caller's promise; rows and panels belong to the part.
            unsafe {
                match height {
                    1 => packed::<F, 1, 4>(part, x, first, index),
                    2 => packed::<F, 2, 4>(part, x, first, index),
                    3 => packed::<F, 3, 2>(part, x, first, index),
                    _ => packed::<F, 4, 2>(part, x, first, index),
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
    let mut sums: Sums<R, P> = [[_mm512_setzero_ps(); P]; R];
    // SAFETY: the panels and rows have these columns.
    unsafe { multiply::<F, _, R, P>(&sources, &activations, part.cols, &mut sums) };
    for (r, sums) in sums[..rows].iter().enumerate() {
        for (p, &sum) in sums[..count].iter().enumerate() {
            let height = part.panel(index + p).1;
            // SAFETY: row and panel belong to the part; masked lanes are not written.
            unsafe {
                let out = part.out(first + r, index + p, height);
                let mask = u16::MAX >> (HEIGHT - height);
                _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, sum);
            }
        }
    }
}

/// `R` rows from `row` on; says how many that is.
///
/// # Safety
/// As [`Kernel::tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<F: Format, const R: usize>(
    product: &Product<'_, F>,
    row: usize,
    c: *mut f32,
    ldc: usize,
) -> usize {
    let mut activations = [product.x.row(row, product.start); R];
    for (r, activations) in activations.iter_mut().enumerate() {
        *activations = product.x.row(row + r, product.start);
    }
    let mut sums: Sums<R, 1> = [[_mm512_setzero_ps(); 1]; R];
    // SAFETY: the caller's promise.
    unsafe {
        if product.start > 0 {
            for (r, sums) in sums.iter_mut().enumerate() {
                sums[0] = _mm512_loadu_ps(c.add(r * ldc));
            }
        }
        multiply::<F, _, R, 1>(&[product.source], &activations, product.depth, &mut sums);
        for (r, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(r * ldc), sums[0]);
        }
    }
    R
}

/// Adds `depth` columns' products to `sums`. One order of operations, whatever `R`, `P` and `S`: so a
/// row has the same bits in any batch.
///
/// # Safety
/// The machine has AVX-512; sources and activations have `depth` columns, whole groups, and codes are unsigned.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply<F: Format, S: Source, const R: usize, const P: usize>(
    sources: &[S; P],
    activations: &[(*const i8, *const Group); R],
    depth: usize,
    sums: &mut Sums<R, P>,
) {
    let shape = F::SHAPE;
    for group in 0..depth / shape.group {
        let column = group * shape.group;
        let mut integers = [[_mm512_setzero_si512(); P]; R];
        // SAFETY: the group lies in every source and in every row.
        unsafe {
            for word in 0..shape.group / 4 {
                for (p, source) in sources.iter().enumerate() {
                    let codes = source.codes(group, word);
                    for (r, &(x, _)) in activations.iter().enumerate() {
                        let x = x.add(column + 4 * word).cast::<i32>().read_unaligned();
                        let sum = &mut integers[r][p];
                        *sum = _mm512_dpbusd_epi32(*sum, codes, _mm512_set1_epi32(x));
                    }
                }
            }
            for (p, source) in sources.iter().enumerate() {
                let scales = source.scales(group);
                for (r, &(_, groups)) in activations.iter().enumerate() {
                    let x = &*groups.add(column / GROUP);
                    let mut sum = integers[r][p];
                    if shape.zero > 0 {
                        let codes = match shape.group {
                            GROUP => x.code_sum,
                            _ => x.halves[column / shape.group % 2],
                        };
                        // The zero point is a power of two.
                        let shift = _mm_cvtsi32_si128(shape.zero.trailing_zeros() as i32);
                        let zero = _mm512_sll_epi32(_mm512_set1_epi32(codes), shift);
                        sum = _mm512_sub_epi32(sum, zero);
                    }
                    let scale = _mm512_mul_ps(scales.d, _mm512_set1_ps(x.scale));
                    let to = &mut sums[r][p];
                    *to = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum), *to);
                    if shape.min {
                        *to = _mm512_fmadd_ps(scales.min, _mm512_set1_ps(x.sum), *to);
                    }
                }
            }
        }
    }
}
