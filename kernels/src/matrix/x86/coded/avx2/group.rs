//! A group of columns: four rows of activations by sixteen of weights.
//!
//! Eight integer sums, codes, an activation and a product leave no room for float sums, which stay in memory: a load
//! and a store a group. Compilers reorder such a block until much more of it goes through memory, so it is written out.

use std::arch::asm;
use std::mem::{MaybeUninit, offset_of};

use crate::matrix::panel::HEIGHT;
use crate::matrix::x86::quantize::Group;

/// Rows of activations.
pub(super) const ROWS: usize = 4;

/// Sums of [`ROWS`] rows, and room for what is put aside within a group.
#[repr(C, align(64))]
pub(super) struct Sums {
    pub(super) floats: [[f32; HEIGHT]; ROWS],
    aside: MaybeUninit<[[i32; HEIGHT]; ROWS]>,
}

impl Sums {
    pub(super) const ZERO: Self =
        Self { floats: [[0.0; HEIGHT]; ROWS], aside: MaybeUninit::uninit() };
}

/// Where a group lies.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Unpacked weights, on a multiple of 32: `d`, minima if the format has any, codes.
    pub(super) weights: *const u8,
    /// The first row's activations, and bytes to the next row's.
    pub(super) x: *const i8,
    pub(super) x_stride: usize,
    /// What is known of them, and bytes to the next row's.
    pub(super) groups: *const Group,
    pub(super) group_stride: usize,
}

// What the text below says of a group.
const _: () = assert!(offset_of!(Group, scale) == 0 && offset_of!(Group, sum) == 4);
const _: () = assert!(offset_of!(Group, code_sum) == 8 && offset_of!(Group, halves) == 12);

/// `$text` for each row: its activations, its group, its sums of either half, its bytes among [`Sums`].
macro_rules! rows {
    ($text:ident $(, $with:literal)*) => { concat!(
        $text!("{x}", "{g}", "{a0}", "{b0}", "0" $(, $with)*),
        $text!("{x} + {xs}", "{g} + {gs}", "{a1}", "{b1}", "64" $(, $with)*),
        $text!("{x} + 2 * {xs}", "{g} + 2 * {gs}", "{a2}", "{b2}", "128" $(, $with)*),
        $text!("{x} + {x3}", "{g} + {g3}", "{a3}", "{b3}", "192" $(, $with)*),
    ) };
}

/// Four columns' codes, which begin `$head` bytes into the weights.
macro_rules! word {
    ($text:ident, $head:literal, $word:literal) => { concat!(
        "vmovdqa {c0}, [{w} + ", $head, " + 64 * ", $word, "]\n",
        "vmovdqa {c1}, [{w} + ", $head, " + 64 * ", $word, " + 32]\n",
        rows!($text, $word),
    ) };
}

/// The first products of a sum in 16 bits.
macro_rules! begin {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal, $word:literal) => { concat!(
        "vpbroadcastd {t}, [", $x, " + 4 * ", $word, "]\n",
        "vpmaddubsw ", $a, ", {c0}, {t}\n",
        "vpmaddubsw ", $b, ", {c1}, {t}\n",
    ) };
}

/// Products that are added to it.
macro_rules! go_on {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal, $word:literal) => { concat!(
        "vpbroadcastd {t}, [", $x, " + 4 * ", $word, "]\n",
        "vpmaddubsw {p}, {c0}, {t}\n", "vpaddw ", $a, ", ", $a, ", {p}\n",
        "vpmaddubsw {t}, {c1}, {t}\n", "vpaddw ", $b, ", ", $b, ", {t}\n",
    ) };
}

/// Pairs of 16 bits become sums of 32.
macro_rules! widen {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vpmaddwd ", $a, ", ", $a, ", {ones}\n", "vpmaddwd ", $b, ", ", $b, ", {ones}\n",
    ) };
}

/// Sums are put aside.
macro_rules! put_aside {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vmovdqa [{sums} + 256 + ", $at, "], ", $a, "\n",
        "vmovdqa [{sums} + 256 + ", $at, " + 32], ", $b, "\n",
    ) };
}

/// What was put aside is added.
macro_rules! take_back {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vpaddd ", $a, ", ", $a, ", [{sums} + 256 + ", $at, "]\n",
        "vpaddd ", $b, ", ", $b, ", [{sums} + 256 + ", $at, " + 32]\n",
    ) };
}

/// Eight words in 16 bits: 8 * 2 * 127 * 15 < 2^15.
macro_rules! four_bits {
    ($head:literal) => { concat!(
        word!(begin, $head, "0"), word!(go_on, $head, "1"), word!(go_on, $head, "2"),
        word!(go_on, $head, "3"), word!(go_on, $head, "4"), word!(go_on, $head, "5"),
        word!(go_on, $head, "6"), word!(go_on, $head, "7"), rows!(widen),
    ) };
}

/// Four words in 16 bits, twice: 4 * 2 * 127 * 31 < 2^15.
macro_rules! five_bits {
    ($head:literal) => { concat!(
        word!(begin, $head, "0"), word!(go_on, $head, "1"), word!(go_on, $head, "2"),
        word!(go_on, $head, "3"), rows!(widen), rows!(put_aside),
        word!(begin, $head, "4"), word!(go_on, $head, "5"), word!(go_on, $head, "6"),
        word!(go_on, $head, "7"), rows!(widen), rows!(take_back),
    ) };
}

/// Two words in 16 bits, twice: 2 * 2 * 127 * 63 < 2^15.
macro_rules! six_bits {
    ($head:literal) => { concat!(
        word!(begin, $head, "0"), word!(go_on, $head, "1"), rows!(widen), rows!(put_aside),
        word!(begin, $head, "2"), word!(go_on, $head, "3"), rows!(widen), rows!(take_back),
    ) };
}

/// Sums begin at 0.
macro_rules! clear {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vpxor ", $a, ", ", $a, ", ", $a, "\n", "vpxor ", $b, ", ", $b, ", ", $b, "\n",
    ) };
}

/// Signed codes: their sign moves over to the activations, and pairs, two of which would not fit, are widened at once.
macro_rules! signed {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal, $word:literal) => { concat!(
        "vpbroadcastd {t}, [", $x, " + 4 * ", $word, "]\n",
        "vpsignb {p}, {t}, {c0}\n", "vpmaddubsw {p}, {m0}, {p}\n",
        "vpmaddwd {p}, {p}, {ones}\n", "vpaddd ", $a, ", ", $a, ", {p}\n",
        "vpsignb {t}, {t}, {c1}\n", "vpmaddubsw {t}, {m1}, {t}\n",
        "vpmaddwd {t}, {t}, {ones}\n", "vpaddd ", $b, ", ", $b, ", {t}\n",
    ) };
}

/// Four columns' signed codes and their magnitudes.
macro_rules! signed_word {
    ($word:literal) => { concat!(
        "vmovdqa {c0}, [{w} + 64 + 64 * ", $word, "]\n", "vpabsb {m0}, {c0}\n",
        "vmovdqa {c1}, [{w} + 64 + 64 * ", $word, " + 32]\n", "vpabsb {m1}, {c1}\n",
        rows!(signed, $word),
    ) };
}

/// The zero point, `1 << $shift`, is taken off for each activation, whose sum is `$sum` bytes into the group.
macro_rules! take_zero {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal, $sum:literal, $shift:literal) => { concat!(
        "vpbroadcastd {t}, [", $g, " + ", $sum, "]\n", "vpslld {t}, {t}, ", $shift, "\n",
        "vpsubd ", $a, ", ", $a, ", {t}\n", "vpsubd ", $b, ", ", $b, ", {t}\n",
    ) };
}

/// Sixteen floats, `$at` bytes into the weights.
macro_rules! load {
    ($at:literal) => { concat!(
        "vmovaps {c0}, [{w} + ", $at, "]\n", "vmovaps {c1}, [{w} + ", $at, " + 32]\n",
    ) };
}

/// Integers times `d` and the activations' scale, and the float sums so far. `d` was loaded.
macro_rules! scale {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vbroadcastss {t}, [", $g, "]\n",
        "vcvtdq2ps ", $a, ", ", $a, "\n", "vmulps {p}, {c0}, {t}\n",
        "vfmadd213ps ", $a, ", {p}, [{sums} + ", $at, "]\n",
        "vcvtdq2ps ", $b, ", ", $b, "\n", "vmulps {t}, {c1}, {t}\n",
        "vfmadd213ps ", $b, ", {t}, [{sums} + ", $at, " + 32]\n",
    ) };
}

/// Minima times the sum of the activations. Minima were loaded.
macro_rules! add_min {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vbroadcastss {t}, [", $g, " + 4]\n",
        "vfmadd231ps ", $a, ", {c0}, {t}\n", "vfmadd231ps ", $b, ", {c1}, {t}\n",
    ) };
}

/// Float sums go back to memory.
macro_rules! keep {
    ($x:literal, $g:literal, $a:literal, $b:literal, $at:literal) => { concat!(
        "vmovaps [{sums} + ", $at, "], ", $a, "\n", "vmovaps [{sums} + ", $at, " + 32], ", $b, "\n",
    ) };
}

/// Every operand must be named, hence the remark: products of signed codes alone use those two.
macro_rules! group {
    ($name:ident, $doc:literal, $($text:expr),* $(,)?) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// The machine has AVX2 and FMA; the group's weights, in this format, and four rows of its activations are
        /// readable.
        #[inline]
        #[target_feature(enable = "avx2,fma")]
        pub(super) unsafe fn $name(place: Place, sums: &mut Sums) {
            // SAFETY: reads what the caller promises and what is in `sums`, and writes there.
            unsafe {
                asm!(
                    "vpcmpeqw {ones}, {ones}, {ones}",
                    "vpabsw {ones}, {ones}",
                    "# {m0} {m1}",
                    $($text,)*
                    w = in(reg) place.weights,
                    x = in(reg) place.x,
                    xs = in(reg) place.x_stride,
                    x3 = in(reg) 3 * place.x_stride,
                    g = in(reg) place.groups,
                    gs = in(reg) place.group_stride,
                    g3 = in(reg) 3 * place.group_stride,
                    sums = in(reg) sums,
                    a0 = out(ymm_reg) _, a1 = out(ymm_reg) _, a2 = out(ymm_reg) _, a3 = out(ymm_reg) _,
                    b0 = out(ymm_reg) _, b1 = out(ymm_reg) _, b2 = out(ymm_reg) _, b3 = out(ymm_reg) _,
                    c0 = out(ymm_reg) _, c1 = out(ymm_reg) _, m0 = out(ymm_reg) _, m1 = out(ymm_reg) _,
                    t = out(ymm_reg) _, p = out(ymm_reg) _, ones = out(ymm_reg) _,
                    options(nostack, preserves_flags)
                );
            }
        }
    };
}

group!(four_zero, "Codes of 4 bits with their zero point.",
    four_bits!("64"), rows!(take_zero, "8", "3"), load!("0"), rows!(scale), rows!(keep));
group!(four_min, "Codes of 4 bits, and minima.",
    four_bits!("128"), load!("0"), rows!(scale), load!("64"), rows!(add_min), rows!(keep));
group!(five_zero, "Codes of 5 bits with their zero point.",
    five_bits!("64"), rows!(take_zero, "8", "4"), load!("0"), rows!(scale), rows!(keep));
group!(five_min, "Codes of 5 bits, and minima.",
    five_bits!("128"), load!("0"), rows!(scale), load!("64"), rows!(add_min), rows!(keep));
group!(six_first, "Sixteen codes of 6 bits with their zero point, the first of 32 activations.",
    six_bits!("64"), rows!(take_zero, "12", "5"), load!("0"), rows!(scale), rows!(keep));
group!(six_last, "Sixteen codes of 6 bits with their zero point, the last of 32 activations.",
    six_bits!("64"), rows!(take_zero, "16", "5"), load!("0"), rows!(scale), rows!(keep));
group!(eight, "Codes of 8 bits, signed.",
    rows!(clear), signed_word!("0"), signed_word!("1"), signed_word!("2"), signed_word!("3"),
    signed_word!("4"), signed_word!("5"), signed_word!("6"), signed_word!("7"),
    load!("0"), rows!(scale), rows!(keep));
