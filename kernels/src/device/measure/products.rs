//! Products with a matrix.

use super::clock::seconds;
use super::{Amount, Extent, Measured, data};
use crate::device::matrix::{
    DeviceMatrix, DeviceMatrixBuilder, MatmulPath, OutSlice, matmul, scratch_len,
};
use crate::device::{Device, DeviceError, DeviceVec};
use crate::{Pool, Quant};

/// A product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) quant: Quant,
    pub(super) path: MatmulPath,
}

/// Products with `rows[0]` rows, `rows[1]`, ...
pub(super) fn measure(
    device: &Device,
    pool: &Pool,
    shape: Shape,
    rows: &[usize],
    extent: &Extent,
) -> Vec<Result<Measured, DeviceError>> {
    let matrices = match matrices(device, pool, shape, extent.rotated_bytes) {
        Ok(matrices) => matrices,
        Err(error) => return rows.iter().map(|_| Err(error.clone())).collect(),
    };
    rows.iter().map(|&rows| product(device, &matrices, shape.path, rows, extent)).collect()
}

/// As many matrices as take `rotated_bytes`; one at least.
fn matrices(
    device: &Device,
    pool: &Pool,
    shape: Shape,
    rotated_bytes: usize,
) -> Result<Vec<DeviceMatrix>, DeviceError> {
    let Shape { outputs, inputs, quant, .. } = shape;
    let pattern = data::weights(quant, outputs, inputs);
    let row_bytes = quant.row_bytes(inputs).unwrap_or(0).max(1);
    let mut matrices: Vec<DeviceMatrix> = Vec::new();
    while matrices.iter().map(DeviceMatrix::bytes).sum::<usize>() < rotated_bytes.max(1) {
        let mut builder = DeviceMatrixBuilder::new(device, inputs);
        builder.segment(quant).map_err(DeviceError::Shape)?.reserve(outputs)?;
        let mut left = outputs;
        while left > 0 {
            let now = left.min(pattern.len() / row_bytes).max(1);
            builder.push_rows(pool, &pattern[..now * row_bytes])?;
            left -= now;
        }
        matrices.push(builder.finish()?);
    }
    Ok(matrices)
}

/// A product of `rows` rows with each of `matrices` in turn.
fn product(
    device: &Device,
    matrices: &[DeviceMatrix],
    path: MatmulPath,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let Some(first) = matrices.first() else {
        return Err(DeviceError::Shape("no matrix".to_owned()));
    };
    let input = data::halves(device, rows * first.cols())?;
    let out = DeviceVec::<u16>::new(device, rows * first.rows())?;
    let scratch = DeviceVec::<u16>::new(device, scratch_len(first, rows))?;
    let call = |at: usize| {
        let matrix = &matrices[at % matrices.len()];
        let to = OutSlice::Bf16(out.as_slice());
        matmul(device, matrix, input.as_slice(), rows, to, scratch.as_slice(), path)
    };
    let seconds = seconds(device, extent, call)?;
    let amount = match path {
        MatmulPath::Gemv => Amount::Bytes((first.bytes() + input.bytes() + out.bytes()) as f64),
        _ => Amount::Operations(2.0 * rows as f64 * first.rows() as f64 * first.cols() as f64),
    };
    Ok(Measured { seconds, amount })
}
