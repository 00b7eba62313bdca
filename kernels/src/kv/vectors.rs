//! Vectors of a head's dimensions, one for each slot and head, in the type they are kept in.

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

/// One vector as it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vector<'a> {
    /// Bits of f16.
    F16(&'a [u16]),
    /// Codes, and what they are multiplied by.
    Int8(&'a [i8], f32),
}

impl Vector<'_> {
    /// Its dimensions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> {
        let (bits, codes, scale) = match *self {
            Self::F16(bits) => (bits, &[][..], 1.0),
            Self::Int8(codes, scale) => (&[][..], codes, f64::from(scale)),
        };
        let halves = bits.iter().map(|&bits| f16::from_bits(bits).to_f64());
        halves.chain(codes.iter().map(move |&code| f64::from(code) * scale))
    }
}

/// Storage `[head][slot][dim]`.
#[derive(Debug)]
pub(super) enum Vectors {
    F16(Vec<u16>),
    Int8 { codes: Vec<i8>, scales: Vec<f32> },
}

impl Vectors {
    /// `count` zeros of `dim`, their pages unmapped until first written.
    pub(super) fn new(kind: KvType, count: usize, dim: usize) -> Self {
        // `vec![0; n]` asks the allocator for zeroed memory: large ones are fresh, lazy pages.
        match kind {
            KvType::F16 => Self::F16(vec![0; count * dim]),
            KvType::Int8 => Self::Int8 { codes: vec![0; count * dim], scales: vec![0.0; count] },
        }
    }

    /// Vector `index`.
    pub(super) fn get(&self, index: usize, dim: usize) -> Vector<'_> {
        match self {
            Self::F16(bits) => Vector::F16(&bits[index * dim..][..dim]),
            Self::Int8 { codes, scales } => {
                Vector::Int8(&codes[index * dim..][..dim], scales[index])
            }
        }
    }

    /// Where the elements of vector `index` begin.
    pub(super) fn elements(&self, index: usize, dim: usize) -> *const u8 {
        match self {
            Self::F16(bits) => bits[index * dim..][..dim].as_ptr().cast(),
            Self::Int8 { codes, .. } => codes[index * dim..][..dim].as_ptr().cast(),
        }
    }

    /// What codes of vector `index` are multiplied by; `None` for floats.
    pub(super) fn scale(&self, index: usize) -> Option<f32> {
        match self {
            Self::F16(_) => None,
            Self::Int8 { scales, .. } => Some(scales[index]),
        }
    }

    pub(super) fn copy(&mut self, from: usize, to: usize, count: usize, dim: usize) {
        let elements = from * dim..(from + count) * dim;
        match self {
            Self::F16(bits) => bits.copy_within(elements, to * dim),
            Self::Int8 { codes, scales } => {
                codes.copy_within(elements, to * dim);
                scales.copy_within(from..from + count, to);
            }
        }
    }

    /// Makes every vector NaN.
    pub(super) fn poison(&mut self) {
        match self {
            Self::F16(bits) => bits.fill(f16::NAN.to_bits()),
            Self::Int8 { scales, .. } => scales.fill(f32::NAN),
        }
    }

    /// For tasks that write vectors of their own.
    pub(super) fn shards(&mut self) -> VectorShards {
        match self {
            Self::F16(bits) => VectorShards::F16(Shards::new(bits)),
            Self::Int8 { codes, scales } => {
                VectorShards::Int8 { codes: Shards::new(codes), scales: Shards::new(scales) }
            }
        }
    }
}

/// [`Vectors`] shared out among tasks.
#[derive(Clone, Copy)]
pub(super) enum VectorShards {
    F16(Shards<u16>),
    Int8 { codes: Shards<i8>, scales: Shards<f32> },
}

impl VectorShards {
    /// Writes `x` as vector `index`.
    ///
    /// # Safety
    /// The vector exists, and nobody else touches it meanwhile.
    pub(super) unsafe fn write(&self, isa: Isa, index: usize, x: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F16(bits) => narrow(isa, x, bits.slice(index * x.len(), x.len())),
                Self::Int8 { codes, scales } => {
                    let codes = codes.slice(index * x.len(), x.len());
                    scales.slice(index, 1)[0] = encode(isa, x, codes);
                }
            }
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

/// f32 to codes of eight bits; gives their scale.
fn encode(isa: Isa, x: &[f32], out: &mut [i8]) -> f32 {
    /// The same for every instruction set, compiled for more registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn encode_avx2(x: &[f32], out: &mut [i8]) -> f32 {
        eight_bit::encode(x, out)
    }
    #[cfg(target_arch = "x86_64")]
    if isa.avx2() {
        // SAFETY: the machine has AVX2.
        return unsafe { encode_avx2(x, out) };
    }
    let _ = isa;
    eight_bit::encode(x, out)
}
