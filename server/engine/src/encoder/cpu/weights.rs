//! Weights in the layout the CPU's kernels compute in.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use pith_kernels::norm::LayerNorm;
use pith_kernels::quant::quantize_q8_0;
use pith_kernels::{Matrix, MatrixBuilder, Pool, Quant};

use super::super::weights::{self, Keep, Kept, Norm};
use super::super::{EncoderError, Precision};

pub(super) type Weights = weights::Weights<Vec<f16>, Matrix, Vec<f32>>;
pub(super) type LayerWeights = weights::LayerWeights<Matrix, Vec<f32>>;

/// Keeps matrices in `precision`, repacked by the workers of `pool`.
pub(super) struct Keeper<'a> {
    pub(super) pool: &'a Pool,
    pub(super) precision: Precision,
}

impl Keep for Keeper<'_> {
    type Table = Vec<f16>;
    type Matrix = Matrix;
    type Vector = Vec<f32>;

    fn table(&self, rows: Vec<f32>) -> Result<Vec<f16>, EncoderError> {
        let mut halves = vec![f16::ZERO; rows.len()];
        halves.convert_from_f32_slice(&rows);
        Ok(halves)
    }

    fn matrix(&self, name: &str, cols: usize, rows: Vec<f32>) -> Result<Matrix, EncoderError> {
        let quant = match self.precision {
            Precision::EightBit if cols.is_multiple_of(Quant::Q8_0.block_len()) => Quant::Q8_0,
            Precision::EightBit | Precision::Float => Quant::F32,
        };
        let mut bytes = Vec::new();
        match quant {
            Quant::Q8_0 => quantize_q8_0(&rows, &mut bytes),
            _ => bytes.extend(rows.iter().flat_map(|number| number.to_le_bytes())),
        }
        let shape = |why| EncoderError::Shape { tensor: name.to_owned(), why };
        let mut builder = MatrixBuilder::new(cols);
        let building = builder.segment(quant).map_err(shape)?;
        building.push_rows_on(self.pool, &bytes).map_err(shape)?;
        Ok(builder.finish())
    }

    fn vector(&self, numbers: Vec<f32>) -> Result<Vec<f32>, EncoderError> {
        Ok(numbers)
    }
}

impl Kept for Matrix {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl Norm<Vec<f32>> {
    pub(super) fn view(&self) -> LayerNorm<'_> {
        LayerNorm { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }
}
