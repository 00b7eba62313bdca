//! From a panel's bits to what products take: codes and scales, or sixteen f32 weights of a column.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_sllv_epi32, _mm256_srli_epi32,
    _mm256_srlv_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi8, _mm256_xor_si256,
};
use std::marker::PhantomData;
use std::ops::Range;

use super::coded::Kernel;
use crate::Quant;
use crate::matrix::panel::{HEIGHT, Shape, WORD};

/// Sixteen weights of one column.
pub(super) type Column = [__m256; 2];

/// A format of plain floats.
pub(super) trait Plain {
    /// # Safety
    /// The machine has AVX2, FMA and F16C; `panel` is one of this format and has column `column`.
    unsafe fn column(panel: *const u8, column: usize) -> Column;

    /// Writes columns `start..start + depth` to `out`, 16 floats each.
    ///
    /// # Safety
    /// As [`Plain::column`], and `out` has room.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn columns(panel: *const u8, start: usize, depth: usize, out: *mut f32) {
        for k in 0..depth {
            // SAFETY: the caller's promise.
            unsafe {
                let column = Self::column(panel, start + k);
                _mm256_storeu_ps(out.add(k * HEIGHT), column[0]);
                _mm256_storeu_ps(out.add(k * HEIGHT + 8), column[1]);
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
        impl Plain for $format {
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn column(panel: *const u8, column: usize) -> Column {
                // SAFETY: 16 weights begin there.
                unsafe {
                    let at = panel.add(column * HEIGHT * $bytes);
                    [$load(at), $load(at.add(8 * $bytes))]
                }
            }
        }
    };
}

plain!(F32, 4, |at: *const u8| _mm256_loadu_ps(at.cast()));
plain!(F16, 2, |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())));
plain!(Bf16, 2, |at: *const u8| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
    _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()))
)));

/// A coded format.
pub(super) trait Format: Copy {
    const SHAPE: Shape;
}

macro_rules! formats {
    ($($name:ident: $quant:ident),*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;
        impl Format for $name {
            const SHAPE: Shape = match Shape::of(Quant::$quant) {
                Some(shape) => shape,
                None => panic!("no coded format"),
            };
        }
    )*};
}

formats!(Q4_0: Q4_0, Q4_1: Q4_1, Q5_0: Q5_0, Q5_1: Q5_1, Q8_0: Q8_0, Q4K: Q4_K, Q5K: Q5_K, Q6K: Q6_K);

/// What a group of sixteen rows is scaled by and what is added: a weight is `d * (code - zero) + min`.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    pub(super) d: Column,
    /// Formats with minima only.
    pub(super) min: Column,
}

/// How unpacked codes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As [`Source::codes`] gives them.
    Stored,
    /// Unsigned, with their zero point.
    Unsigned,
    /// Signed: the zero point is taken off.
    Signed,
}

/// Where the codes and scales of a panel come from.
pub(super) trait Source: Copy {
    /// # Safety
    /// The machine has AVX2, FMA and F16C, and the source has this group.
    unsafe fn scales(&self, group: usize) -> Scales;

    /// Codes of the columns `4 word..4 word + 4` of a group, rows `8 half..8 half + 8`: a row's four are a lane's
    /// bytes. Unsigned and with their zero point, but for `Q8_0`, whose codes are signed and have none.
    ///
    /// # Safety
    /// As [`Source::scales`].
    unsafe fn codes(&self, group: usize, word: usize, half: usize) -> __m256i;
}

/// A panel as it is stored.
#[derive(Clone, Copy)]
pub(super) struct Packed<F> {
    panel: *const u8,
    format: PhantomData<F>,
}

impl<F: Format> Packed<F> {
    /// `panel` is one of this format.
    pub(super) fn new(panel: *const u8) -> Self {
        Self { panel, format: PhantomData }
    }

    /// Where the bytes of some groups, whole superblocks, lie, and how many there are.
    pub(super) fn bytes(&self, groups: Range<usize>) -> (*const u8, usize) {
        let block = |group: usize| group / F::SHAPE.groups() * F::SHAPE.bytes();
        (self.panel.wrapping_add(block(groups.start)), block(groups.end) - block(groups.start))
    }

    /// The superblock of `group`, and the group's number in it.
    #[inline]
    pub(super) unsafe fn block(&self, group: usize) -> (*const u8, usize) {
        let shape = F::SHAPE;
        // SAFETY: the caller asks for a group the panel has.
        let block = unsafe { self.panel.add(group / shape.groups() * shape.bytes()) };
        (block, group % shape.groups())
    }
}

impl<F: Format> Source for Packed<F> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scales(&self, group: usize) -> Scales {
        let shape = F::SHAPE;
        let mut scales = Scales { d: [_mm256_setzero_ps(); 2], min: [_mm256_setzero_ps(); 2] };
        for h in 0..2 {
            // SAFETY: scales and minima of sixteen rows begin at these places of the superblock.
            unsafe {
                let (block, g) = self.block(group);
                let halves =
                    |at: usize| _mm256_cvtph_ps(_mm_loadu_si128(block.add(at + 16 * h).cast()));
                let bytes = |at: usize| {
                    let bytes = _mm_loadl_epi64(block.add(at + 8 * h).cast());
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
                };
                scales.d[h] = halves(0);
                if shape.sub {
                    scales.d[h] = _mm256_mul_ps(scales.d[h], bytes(shape.sub_at(g)));
                }
                if shape.min {
                    scales.min[h] = halves(2 * HEIGHT);
                    if shape.sub {
                        let sub = bytes(shape.sub_at(g) + HEIGHT);
                        scales.min[h] = _mm256_mul_ps(scales.min[h], sub);
                    }
                }
            }
        }
        scales
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes(&self, group: usize, word: usize, half: usize) -> __m256i {
        let shape = F::SHAPE;
        // SAFETY: the group's codes begin there, 32 bytes further for the upper eight rows.
        let load = |at: usize| unsafe {
            let (block, g) = self.block(group);
            _mm256_loadu_si256(block.add(shape.codes_at(g) + 32 * half + at).cast())
        };
        if shape.bits == 8 {
            return _mm256_xor_si256(load(word * WORD), _mm256_set1_epi8(i8::MIN));
        }
        let mut low = load(shape.high_bytes() + word / 2 * WORD);
        if word % 2 == 1 {
            low = _mm256_srli_epi32::<4>(low);
        }
        low = _mm256_and_si256(low, _mm256_set1_epi8(15));
        if shape.bits == 4 {
            return low;
        }
        let width = shape.bits - 4;
        let shift = 4 - (width * word) as i32; // brings the bits to bit 4 of their byte
        let high = if shift >= 0 {
            _mm256_sllv_epi32(load(0), _mm256_set1_epi32(shift))
        } else {
            _mm256_srlv_epi32(load(0), _mm256_set1_epi32(-shift))
        };
        let mask = if width == 1 { 0x10 } else { 0x30 };
        _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(mask)))
    }
}

/// Groups of a panel, codes in bytes and scales in f32: `d`, minima if any, codes.
#[derive(Clone, Copy)]
pub(super) struct Unpacked<F> {
    groups: *const u8,
    format: PhantomData<F>,
}

impl<F: Format> Unpacked<F> {
    /// Bytes of a row of scales.
    const SCALES: usize = 4 * HEIGHT;
    /// Bytes before the codes of a group.
    const HEAD: usize = if F::SHAPE.min { 2 * Self::SCALES } else { Self::SCALES };
    /// Bytes of a group.
    const BYTES: usize = Self::HEAD + F::SHAPE.group * HEIGHT;

    /// Unpacks `groups` of a panel into `scratch`, codes in the kernel's form.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C, the panel has the groups, and `scratch` has room and outlives the source.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn fill<K: Kernel>(
        scratch: *mut u8,
        panel: Packed<F>,
        groups: Range<usize>,
    ) -> Self {
        for (i, group) in groups.enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let out = scratch.add(i * Self::BYTES);
                let scales = panel.scales(group);
                for h in 0..2 {
                    _mm256_storeu_ps(out.add(32 * h).cast(), scales.d[h]);
                    if F::SHAPE.min {
                        _mm256_storeu_ps(out.add(Self::SCALES + 32 * h).cast(), scales.min[h]);
                    }
                    for word in 0..F::SHAPE.group / 4 {
                        let to = out.add(Self::HEAD + word * WORD + 32 * h);
                        let codes = panel.codes(group, word, h);
                        let codes = match (K::FORM, F::SHAPE.bits) {
                            (Form::Unsigned, 8) => {
                                _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN))
                            }
                            (Form::Signed, ..8) if F::SHAPE.zero > 0 => {
                                _mm256_sub_epi8(codes, _mm256_set1_epi8(F::SHAPE.zero as i8))
                            }
                            _ => codes,
                        };
                        _mm256_storeu_si256(to.cast(), codes);
                    }
                }
            }
        }
        Self { groups: scratch, format: PhantomData }
    }

    /// Where a group begins, on a multiple of 64 bytes if the scratch does.
    #[inline]
    pub(super) fn at(&self, group: usize) -> *const u8 {
        self.groups.wrapping_add(group * Self::BYTES)
    }

    /// Where the scales and the minima, if any, of a group begin: sixteen floats.
    #[inline]
    pub(super) fn scales_at(&self, group: usize) -> [*const f32; 2] {
        let at = self.at(group);
        [at.cast(), at.wrapping_add(Self::SCALES).cast()]
    }

    /// Where the codes of a group begin: words, each the codes of four columns.
    #[inline]
    pub(super) fn codes_at(&self, group: usize) -> *const u8 {
        self.at(group).wrapping_add(Self::HEAD)
    }
}
