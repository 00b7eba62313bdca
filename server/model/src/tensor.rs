//! Tensors and how they are stored.

use crate::ModelError;

/// Storage format of a tensor, by its GGUF name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the format")]
#[allow(non_camel_case_types)]
pub enum TensorType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl TensorType {
    /// The type of a ggml type code.
    pub fn from_ggml(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// The name of a ggml type that exists but is not computed with here.
    pub(crate) fn unsupported_name(code: u32) -> Option<&'static str> {
        Some(match code {
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            40 => "NVFP4",
            41 => "Q1_0",
            _ => return None,
        })
    }

    /// Weights in a block; blocks lie along a row.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }
}

/// A tensor of the file: `rows` of `cols` weights (a vector has one row).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Storage format.
    pub kind: TensorType,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bytes of one row.
    pub row_bytes: usize,
}

impl Tensor {
    /// `rows` of `cols` weights of a `kind` made of single numbers; nothing if its bytes cannot be counted.
    pub(crate) fn of_floats(kind: TensorType, rows: usize, cols: usize) -> Option<Self> {
        let row_bytes = cols.checked_mul(kind.block_bytes())?;
        row_bytes.checked_mul(rows)?;
        Some(Self { kind, rows, cols, row_bytes })
    }

    /// Refuses quantised types, for callers who want numbers.
    pub(crate) fn check_floats(&self, name: &str) -> Result<(), ModelError> {
        match self.kind.block_len() {
            1 => Ok(()),
            _ => Err(ModelError::Invalid(format!(
                "tensor {name} of type {:?} is not made of floats",
                self.kind
            ))),
        }
    }
}

/// IEEE 754 half to single precision, exact.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        // Subnormals count steps of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 * (-24f32).exp2()).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}
