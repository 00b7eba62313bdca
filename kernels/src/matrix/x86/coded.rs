//! Products of coded weights and eight-bit activations: integer sums within a group, floats across groups.
//!
//! A kernel does the sums of some rows and panels in registers. Every kernel makes an element by the same
//! operations in the same order (integers are exact in any), so all give the same bits.

mod amx;
mod avx2;
mod avx512;

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;

pub(super) use amx::Amx;
pub(super) use avx2::Avx2;
pub(super) use avx512::Avx512;

use super::Part;
use super::decode::{Form, Format, Packed, Unpacked};
use super::quantize::Rows;
use crate::matrix::panel::HEIGHT;

/// Columns unpacked at a time: with their scales at most 18 KiB of scratch, half of the first-level
/// cache. A multiple of every superblock.
const DEPTH: usize = 768;

/// Most bytes of scratch: codes, and a scale and a minimum per sixteen columns.
const SCRATCH: usize = DEPTH * HEIGHT + DEPTH / 16 * HEIGHT * 4 * 2;

/// Most rows that a kernel multiplies at once.
const TALLEST: usize = crate::amx::ROWS;

/// How an instruction set multiplies.
pub(super) trait Kernel {
    /// How it takes unpacked codes.
    const FORM: Form;

    /// Most rows for which unpacking a panel in registers, for every few of them, costs less than the trip through the
    /// cache.
    const DIRECT: usize;

    /// Rows multiplied at once.
    const TALL: usize;

    /// What must be held while [`Kernel::tile`] is called.
    type Held;

    /// Prepares this thread for groups of `group` columns.
    ///
    /// # Safety
    /// The machine has the instruction set, and nothing is held yet.
    unsafe fn hold(group: usize) -> Self::Held;

    /// Few rows, straight from the panels' bits.
    ///
    /// # Safety
    /// As [`part`].
    unsafe fn direct<F: Format>(part: &Part<'_>, x: Rows<'_>);

    /// Adds the products of rows `rows`, `TALL` of them at most, to what is in `c`, `ldc` apart, or writes them
    /// there if these are the first columns.
    ///
    /// # Safety
    /// The machine has the instruction set and this thread is prepared; the columns are unpacked; `c` has room.
    unsafe fn tile<F: Format>(
        product: &Product<'_, F>,
        rows: Range<usize>,
        c: *mut f32,
        ldc: usize,
    );
}

/// Computes a part in a coded format.
///
/// # Safety
/// As [`Part::compute`], `F` is the segment's format, and the machine has the kernel's instruction set.
pub(super) unsafe fn part<F: Format, K: Kernel>(part: &Part<'_>, x: Rows<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        if x.len() <= K::DIRECT {
            K::direct::<F>(part, x);
        } else {
            through_scratch::<F, K>(part, x);
        }
    }
}

/// Many rows: a panel's codes are unpacked, `DEPTH` columns at a time, and used by all of them.
///
/// # Safety
/// As [`part`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn through_scratch<F: Format, K: Kernel>(part: &Part<'_>, x: Rows<'_>) {
    #[repr(align(64))]
    struct Scratch(std::mem::MaybeUninit<[u8; SCRATCH]>);
    let mut scratch = Scratch(std::mem::MaybeUninit::uninit());
    let scratch = scratch.0.as_mut_ptr().cast::<u8>();
    // SAFETY: the caller's promise; tasks do not nest.
    let _held = unsafe { K::hold(F::SHAPE.group) };
    for start in (0..part.cols).step_by(DEPTH) {
        let depth = DEPTH.min(part.cols - start);
        let groups = start / F::SHAPE.group..(start + depth) / F::SHAPE.group;
        for index in part.panels.clone() {
            let (panel, height) = part.panel(index);
            // SAFETY: the columns exist in the panel, and the scratch has room for them; rows and panel
            // belong to the part.
            unsafe {
                let packed = Packed::<F>::new(panel);
                let source = Unpacked::<F>::fill::<K>(scratch, packed, groups.clone());
                let next = (index + 1 < part.panels.end).then(|| part.panel(index + 1).0);
                let ahead = next.map(|panel| Packed::<F>::new(panel).bytes(groups.clone()));
                let product = Product { source, x, start, depth, ahead };
                if height == HEIGHT {
                    let y = part.out(0, index, height).as_mut_ptr();
                    product.rows::<K>(0..x.len(), y, part.stride);
                    continue;
                }
                // The last panel of a segment: y has no room for the padding.
                for first in (0..x.len()).step_by(K::TALL) {
                    let mut sums = [[0.0f32; HEIGHT]; TALLEST];
                    let rows = first..(first + K::TALL).min(x.len());
                    for (row, sums) in rows.clone().zip(&mut sums) {
                        sums[..height].copy_from_slice(part.out(row, index, height));
                    }
                    product.rows::<K>(rows.clone(), sums.as_mut_ptr().cast(), HEIGHT);
                    for (row, sums) in rows.zip(&sums) {
                        part.out(row, index, height).copy_from_slice(&sums[..height]);
                    }
                }
            }
        }
    }
}

/// `depth` columns, from `start` on, of a panel and of rows of activations.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, F> {
    source: Unpacked<F>,
    x: Rows<'a>,
    start: usize,
    depth: usize,
    /// Bytes needed next: fetched while these products are computed.
    ahead: Option<(*const u8, usize)>,
}

impl<F: Format> Product<'_, F> {
    /// Adds the products of `rows` to what is in `c`, or writes them there if these are the first columns.
    ///
    /// # Safety
    /// As [`Kernel::tile`], for any number of rows.
    unsafe fn rows<K: Kernel>(&self, rows: Range<usize>, c: *mut f32, ldc: usize) {
        // Spread over the tiles, so that no more lines are under way than the core can wait for.
        let (mut ahead, bytes) = self.ahead.unwrap_or((std::ptr::null(), 0));
        let (mut lines, tiles) = (bytes.div_ceil(64), rows.len().div_ceil(K::TALL));
        let each = lines.div_ceil(tiles.max(1));
        for row in rows.clone().step_by(K::TALL) {
            for _ in 0..each.min(lines) {
                // SAFETY: a prefetch of any address is harmless.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
                ahead = ahead.wrapping_add(64);
            }
            lines -= each.min(lines);
            // SAFETY: the caller's promise.
            unsafe {
                let c = c.add((row - rows.start) * ldc);
                K::tile(self, row..(row + K::TALL).min(rows.end), c, ldc);
            }
        }
    }
}
