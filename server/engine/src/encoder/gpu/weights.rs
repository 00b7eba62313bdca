//! Weights in a device's memory.

use half::bf16;
use half::slice::HalfFloatSliceExt as _;
use pith_kernels::device::matrix::{DeviceMatrix, DeviceMatrixBuilder};
use pith_kernels::device::{Device, DeviceVec};
use pith_kernels::{Pool, Quant};

use super::super::EncoderError;
use super::super::weights::{self, Keep, Kept};

/// Tables of tokens are bfloat16.
pub(super) type Weights = weights::Weights<DeviceVec<u16>, DeviceMatrix, DeviceVec<f32>>;
pub(super) type LayerWeights = weights::LayerWeights<DeviceMatrix, DeviceVec<f32>>;
pub(super) type Norm = weights::Norm<DeviceVec<f32>>;

/// Sends everything to `device`; matrices are rounded to bfloat16 by the workers of `pool`.
pub(super) struct Keeper<'a> {
    pub(super) device: &'a Device,
    pub(super) pool: &'a Pool,
}

impl Keep for Keeper<'_> {
    type Table = DeviceVec<u16>;
    type Matrix = DeviceMatrix;
    type Vector = DeviceVec<f32>;

    fn table(&self, rows: Vec<f32>) -> Result<DeviceVec<u16>, EncoderError> {
        let mut halves = vec![bf16::ZERO; rows.len()];
        halves.convert_from_f32_slice(&rows);
        let bits: Vec<u16> = halves.into_iter().map(bf16::to_bits).collect();
        Ok(DeviceVec::from_slice(self.device, &bits)?)
    }

    fn matrix(
        &self,
        name: &str,
        cols: usize,
        rows: Vec<f32>,
    ) -> Result<DeviceMatrix, EncoderError> {
        let bytes: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
        let shape = |why| EncoderError::Shape { tensor: name.to_owned(), why };
        let mut builder = DeviceMatrixBuilder::new(self.device, cols);
        builder.segment(Quant::F32).map_err(shape)?.reserve(rows.len() / cols)?;
        builder.push_rows(self.pool, &bytes)?;
        Ok(builder.finish()?)
    }

    fn vector(&self, numbers: Vec<f32>) -> Result<DeviceVec<f32>, EncoderError> {
        Ok(DeviceVec::from_slice(self.device, &numbers)?)
    }
}

impl Kept for DeviceMatrix {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl<N> Kept for DeviceVec<N> {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}
