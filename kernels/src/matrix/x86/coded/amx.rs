//! AMX: a tile of sixteen rows of activations by a group's columns, times a tile of the group's codes by a panel's
//! sixteen rows. A group's integers pass through memory to be scaled, while the tiles of the next are multiplied.
//!
//! A group fills half a tile's depth (32 of 64 bytes), at the price of a whole one: 512 products a cycle. Scaling
//! takes a conversion, a product and one or two sums for sixteen of them.

use std::arch::asm;
use std::arch::x86_64::{
    __m512, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_mul_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::avx512::source::Source;
use super::{Avx512, Kernel, Product};
use crate::amx::{ROW, ROWS, Tiles};
use crate::eight_bit::GROUP;
use crate::matrix::x86::Part;
use crate::matrix::x86::decode::{Form, Format};
use crate::matrix::x86::quantize::Rows;

/// See the module.
pub(in crate::matrix::x86) struct Amx;

impl Kernel for Amx {
    const FORM: Form = Form::Signed;
    const DIRECT: usize = 6;
    const TALL: usize = ROWS;
    type Held = Tiles;

    /// Two sets of sums, activations and codes: one is computed while the other is scaled.
    unsafe fn hold(group: usize) -> Tiles {
        let (sums, x, codes) = ((16, 64), (16, group as u16), ((group / 4) as u8, 64));
        // SAFETY: the caller's promise; a group has 16 or 32 columns.
        unsafe { Tiles::new(&[sums, x, codes, sums, x, codes, (0, 0), (0, 0)]) }
    }

    unsafe fn direct<F: Format>(part: &Part<'_>, x: Rows<'_>) {
        // SAFETY: the caller's promise: a machine with AMX has AVX-512.
        unsafe { Avx512::direct::<F>(part, x) };
    }

    unsafe fn tile<F: Format>(
        product: &Product<'_, F>,
        rows: Range<usize>,
        c: *mut f32,
        ldc: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match rows.len() {
                0..=4 => tile::<F, 4>(product, rows, c, ldc),
                5..=8 => tile::<F, 8>(product, rows, c, ldc),
                9..=12 => tile::<F, 12>(product, rows, c, ldc),
                _ => tile::<F, 16>(product, rows, c, ldc),
            }
        }
    }
}

/// Integer sums of sixteen rows by a panel's sixteen.
#[repr(align(64))]
struct Integers(MaybeUninit<[u8; ROWS * ROW]>);

/// Up to `R` rows: sixteen are multiplied, `R` scaled, as many as there are written.
///
/// # Safety
/// As [`Kernel::tile`]; there are rows, no more than `R`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<F: Format, const R: usize>(
    product: &Product<'_, F>,
    rows: Range<usize>,
    c: *mut f32,
    ldc: usize,
) {
    let group = F::SHAPE.group;
    let (codes, _) = product.x.row(rows.start, product.start);
    let stride = product.x.stride();
    let scales = product.x.tile_scales(rows.start, product.start);
    let mut sums: [__m512; R] = [_mm512_setzero_ps(); R];
    let mut integers = [const { Integers(MaybeUninit::uninit()) }; 2];
    let to: [*mut u8; 2] = [integers[0].0.as_mut_ptr().cast(), integers[1].0.as_mut_ptr().cast()];
    // SAFETY: rows and columns are the product's; sixteen rows of codes are readable, and sixteen scales.
    unsafe {
        if product.start > 0 {
            for (r, sum) in sums.iter_mut().enumerate() {
                if r < rows.len() {
                    *sum = _mm512_loadu_ps(c.add(r * ldc));
                }
            }
        }
        let count = product.depth / group;
        let multiply = |g: usize| {
            let (x, w) = (codes.add(g * group), product.source.codes_at(g));
            multiply(g % 2 == 1, x, stride, w, to[g % 2]);
        };
        multiply(0);
        for g in 0..count {
            if g + 1 < count {
                multiply(g + 1);
            }
            let w = Source::scales(&product.source, g);
            let x = scales.add(g * group / GROUP * 2 * ROWS);
            for (r, sum) in sums.iter_mut().enumerate() {
                let integers = _mm512_load_si512(to[g % 2].add(r * ROW).cast());
                let scale = _mm512_mul_ps(w.d, _mm512_set1_ps(*x.add(r)));
                *sum = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(integers), *sum);
                if F::SHAPE.min {
                    *sum = _mm512_fmadd_ps(w.min, _mm512_set1_ps(*x.add(ROWS + r)), *sum);
                }
            }
        }
        for (r, &sum) in sums.iter().enumerate() {
            if r < rows.len() {
                _mm512_storeu_ps(c.add(r * ldc), sum);
            }
        }
    }
}

/// Writes the integer sums of a group to `to`, through one or the other set of tiles.
///
/// # Safety
/// The tiles are held as by [`Amx::hold`] for this group's columns. Sixteen rows of activations are readable at `x`,
/// `stride` apart, the group's codes at `w`, and 1 KiB is writable at `to`.
#[inline]
unsafe fn multiply(other: bool, x: *const i8, stride: usize, w: *const u8, to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if other {
            asm!(
                "tileloadd tmm5, [{w} + {row}]",
                "tileloadd tmm4, [{x} + {stride}]",
                "tilezero tmm3",
                "tdpbssd tmm3, tmm4, tmm5",
                "tilestored [{to} + {row}], tmm3",
                w = in(reg) w, x = in(reg) x, to = in(reg) to, stride = in(reg) stride, row = in(reg) ROW,
                options(nostack, preserves_flags)
            );
        } else {
            asm!(
                "tileloadd tmm2, [{w} + {row}]",
                "tileloadd tmm1, [{x} + {stride}]",
                "tilezero tmm0",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{to} + {row}], tmm0",
                w = in(reg) w, x = in(reg) x, to = in(reg) to, stride = in(reg) stride, row = in(reg) ROW,
                options(nostack, preserves_flags)
            );
        }
    }
}
