//! Weight matrices: repacked once into row panels, kept in their quantised bits.

use crate::{Isa, Pool, PoolError, Quant};

/// A weight matrix of `rows` outputs by `cols` inputs, in panels of interleaved rows.
///
/// Rows may come in segments of different formats (a fused Q|K|V of Q5_0 and Q8_0).
#[derive(Debug)]
pub struct Matrix {}

/// Fills a [`Matrix`] row by row, straight from file bytes.
#[derive(Debug)]
pub struct MatrixBuilder {}

impl MatrixBuilder {
    /// An empty matrix of `cols` inputs.
    pub fn new(cols: usize) -> Self { unimplemented!() }
    /// Starts a segment of rows stored as `quant`. Errors if `cols` does not fit its block.
    pub fn segment(&mut self, quant: Quant) -> Result<&mut Self, String> { unimplemented!() }
    /// Appends whole rows in ggml block layout (`bytes.len()` a multiple of the row's bytes)
    /// to the segment last started. Rows are repacked as they arrive; nothing else is kept.
    pub fn push_rows(&mut self, bytes: &[u8]) -> Result<(), String> { unimplemented!() }
    /// The finished matrix (a segment's rows need be no multiple of the panel height: padded inside).
    pub fn finish(self) -> Matrix { unimplemented!() }
}

impl Matrix {
    /// Outputs.
    pub fn rows(&self) -> usize { unimplemented!() }
    /// Inputs.
    pub fn cols(&self) -> usize { unimplemented!() }
    /// Heap bytes held.
    pub fn bytes(&self) -> usize { unimplemented!() }
    /// Dequantises row `row` into `out` (`cols` long), exactly as [`Quant::dequantize_row`] would up to
    /// the rounding of repacked scales (stated in the tests).
    pub fn row(&self, row: usize, out: &mut [f32]) { unimplemented!() }
    /// `y[i, n] = sum_k x[i, k] * w[n, k]` for `m = x.len() / cols` rows; `y` is `m * rows` long.
    ///
    /// A row of `y` does not depend on the other rows of `x` beyond the rounding stated in
    /// the tests.
    pub fn matmul(&self, isa: Isa, pool: &Pool, x: &[f32], y: &mut [f32]) -> Result<(), PoolError> { unimplemented!() }
}
