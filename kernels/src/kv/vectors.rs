//! Vectors of a head's dimensions, one for each slot and head, in the type they are kept in.

use std::ops::Range;

use half::f16;

use crate::pool::Shards;
use crate::{Isa, eight_bit};

/// The type keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half precision: 2 bytes a dimension.
    F16,
    /// Integers of eight bits with a scale for each vector, `max|x| / 127`: 1 byte a dimension and 4 a vector.
    Int8,
}

impl KvType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::F16, Self::Int8];

    /// Lower-case name, as settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a vector of `dim`.
    pub(super) fn bytes(self, dim: usize) -> usize {
        match self {
            Self::F16 => dim * size_of::<u16>(),
            Self::Int8 => dim * size_of::<i8>() + size_of::<f32>(),
        }
    }
}

/// Some elements as they are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vector<'a> {
    /// Bits of f16.
    F16(&'a [u16]),
    /// Codes, to be multiplied by their vector's scale.
    Int8(&'a [i8]),
}

/// Vectors of `dim` elements, `lanes` of them side by side: `[index / lanes][dim][index % lanes]`.
#[derive(Debug)]
pub(super) struct Vectors {
    elements: Elements,
    dim: usize,
    lanes: usize,
}

#[derive(Debug)]
enum Elements {
    F16(Vec<u16>),
    /// A scale for each vector.
    Int8(Vec<i8>, Vec<f32>),
}

impl Vectors {
    /// `count` zeros of `dim`, their pages unmapped until first written.
    pub(super) fn new(kind: KvType, count: usize, dim: usize, lanes: usize) -> Self {
        debug_assert!(count.is_multiple_of(lanes), "{count} vectors");
        // `vec![0; n]` asks the allocator for zeroed memory: large ones are fresh, lazy pages.
        let elements = match kind {
            KvType::F16 => Elements::F16(vec![0; count * dim]),
            KvType::Int8 => Elements::Int8(vec![0; count * dim], vec![0.0; count]),
        };
        Self { elements, dim, lanes }
    }

    /// Where the elements of vector `index`, and of those beside it, lie.
    fn place(&self, index: usize) -> Range<usize> {
        let len = self.dim * self.lanes;
        index / self.lanes * len..(index / self.lanes + 1) * len
    }

    /// The elements of vector `index`, and of those beside it.
    #[inline]
    pub(super) fn group(&self, index: usize) -> Vector<'_> {
        match &self.elements {
            Elements::F16(bits) => Vector::F16(&bits[self.place(index)]),
            Elements::Int8(codes, _) => Vector::Int8(&codes[self.place(index)]),
        }
    }

    /// Dimensions of vector `index`.
    pub(super) fn iter(&self, index: usize) -> impl Iterator<Item = f64> {
        let elements = self.place(index).skip(index % self.lanes).step_by(self.lanes);
        elements.map(move |at| match &self.elements {
            Elements::F16(bits) => f16::from_bits(bits[at]).to_f64(),
            Elements::Int8(codes, scales) => f64::from(codes[at]) * f64::from(scales[index]),
        })
    }

    /// Where the elements of vector `index`, and of those beside it, begin.
    #[inline]
    pub(super) fn elements(&self, index: usize) -> *const u8 {
        match self.group(index) {
            Vector::F16(bits) => bits.as_ptr().cast(),
            Vector::Int8(codes) => codes.as_ptr().cast(),
        }
    }

    /// What codes of vector `index` are multiplied by; `None` for floats.
    pub(super) fn scale(&self, index: usize) -> Option<f32> {
        match &self.elements {
            Elements::F16(_) => None,
            Elements::Int8(_, scales) => Some(scales[index]),
        }
    }

    /// Copies `count` vectors from `from` on to `to` on.
    pub(super) fn copy(&mut self, from: usize, to: usize, count: usize) {
        let Self { dim, lanes, .. } = *self;
        let whole = [from, to, count].iter().all(|n| n.is_multiple_of(lanes));
        /// By groups where they are whole.
        fn elements<T: Copy>(
            all: &mut [T],
            whole: bool,
            (from, to, count): (usize, usize, usize),
            (dim, lanes): (usize, usize),
        ) {
            if whole {
                return all.copy_within(from * dim..(from + count) * dim, to * dim);
            }
            let first = |index: usize| index / lanes * lanes * dim + index % lanes;
            for (from, to) in (from..from + count).zip(to..) {
                for d in 0..dim {
                    all[first(to) + d * lanes] = all[first(from) + d * lanes];
                }
            }
        }
        match &mut self.elements {
            Elements::F16(bits) => elements(bits, whole, (from, to, count), (dim, lanes)),
            Elements::Int8(codes, scales) => {
                elements(codes, whole, (from, to, count), (dim, lanes));
                scales.copy_within(from..from + count, to);
            }
        }
    }

    /// Makes every vector NaN.
    pub(super) fn poison(&mut self) {
        match &mut self.elements {
            Elements::F16(bits) => bits.fill(f16::NAN.to_bits()),
            Elements::Int8(_, scales) => scales.fill(f32::NAN),
        }
    }

    /// For tasks that write vectors of their own.
    pub(super) fn shards(&mut self) -> VectorShards {
        let elements = match &mut self.elements {
            Elements::F16(bits) => ElementShards::F16(Shards::new(bits)),
            Elements::Int8(codes, scales) => {
                ElementShards::Int8(Shards::new(codes), Shards::new(scales))
            }
        };
        VectorShards { elements, lanes: self.lanes }
    }
}

/// [`Vectors`] shared out among tasks.
#[derive(Clone, Copy)]
pub(super) struct VectorShards {
    elements: ElementShards,
    lanes: usize,
}

#[derive(Clone, Copy)]
enum ElementShards {
    F16(Shards<u16>),
    Int8(Shards<i8>, Shards<f32>),
}

impl VectorShards {
    /// Writes `x` as vector `index`.
    ///
    /// # Safety
    /// The vector exists, and nobody else touches it or those beside it meanwhile.
    pub(super) unsafe fn write(&self, isa: Isa, index: usize, x: &[f32]) {
        let len = x.len() * self.lanes;
        let (first, lane) = (index / self.lanes * len, index % self.lanes);
        // SAFETY: the caller's promise.
        unsafe {
            match self.elements {
                ElementShards::F16(bits) => {
                    let to = bits.slice(first, len);
                    scatter(x, to, lane, self.lanes, |x, out| narrow(isa, x, out));
                }
                ElementShards::Int8(codes, scales) => {
                    let to = codes.slice(first, len);
                    let (scale, inverse) = eight_bit::scale(largest(isa, x));
                    scatter(x, to, lane, self.lanes, |x, out| encode(isa, x, inverse, out));
                    scales.slice(index, 1)[0] = scale;
                }
            }
        }
    }
}

/// Elements converted at once on their way to a lane.
const PIECE: usize = 64;

/// Writes the elements that `convert` makes of `x` to lane `lane` of `to`.
fn scatter<T: Copy + Default>(
    x: &[f32],
    to: &mut [T],
    lane: usize,
    lanes: usize,
    convert: impl Fn(&[f32], &mut [T]),
) {
    if lanes == 1 {
        return convert(x, to);
    }
    let mut piece = [T::default(); PIECE];
    for (x, to) in x.chunks(PIECE).zip(to.chunks_mut(PIECE * lanes)) {
        convert(x, &mut piece[..x.len()]);
        for (&element, to) in piece.iter().zip(to.chunks_exact_mut(lanes)) {
            to[lane] = element;
        }
    }
}

/// f32 to the bits of f16, nearest even.
fn narrow(isa: Isa, x: &[f32], out: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if isa.avx2() {
        // SAFETY: the machine has F16C.
        unsafe { narrow_f16c(x, out) };
        return;
    }
    let _ = isa;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f16::from_f32(x).to_bits();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn narrow_f16c(x: &[f32], out: &mut [u16]) {
    use std::arch::x86_64::{
        _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps,
    };
    let (xs, x_tail) = x.as_chunks::<8>();
    let (outs, out_tail) = out.as_chunks_mut::<8>();
    for (out, x) in outs.iter_mut().zip(xs) {
        // SAFETY: `x` is 8 floats and `out` 16 bytes.
        unsafe {
            let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bits);
        }
    }
    for (out, &x) in out_tail.iter_mut().zip(x_tail) {
        *out = f16::from_f32(x).to_bits();
    }
}

/// The largest magnitude.
fn largest(isa: Isa, x: &[f32]) -> f32 {
    isa.vectorize(
        #[inline(always)]
        || eight_bit::largest(x),
    )
}

/// f32 to codes of eight bits.
fn encode(isa: Isa, x: &[f32], inverse: f32, out: &mut [i8]) {
    isa.vectorize(
        #[inline(always)]
        || eight_bit::codes(x, inverse, out),
    );
}
