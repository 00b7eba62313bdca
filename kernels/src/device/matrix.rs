//! Weight matrices on a device: their formats, how they come there, and products with them.
//!
//! # Which sums a row gets
//!
//! Few rows are multiplied by kernels that read the weights once as they are stored ([`MatmulPath::Gemv`]); many by the
//! vendor's library or a kernel of our own ([`MatmulPath::Gemm`]), for which coded weights are rounded to bfloat16. These
//! add in different orders, and only the library's bits may depend on how many rows there are: on the path `Gemv`, and on
//! the path `Gemm`, a row has the same bits whatever other rows it is computed with, and however many. [`MatmulPath::Auto`]
//! and [`MatmulPath::Own`] choose by the number of rows, so that bits change where they change over.

use super::{DeviceError, DeviceVec};

mod builder;
mod embed;
mod format;
mod multiply;
mod plan;

pub use builder::DeviceMatrixBuilder;
pub use embed::embed_rows;
pub use format::DeviceFormat;
pub use multiply::{MatmulPath, OutSlice, matmul, scratch_len};

/// A weight matrix of `rows` outputs by `cols` inputs on a device, made by a [`DeviceMatrixBuilder`].
///
/// Tensors stacked one below the other are one matrix, in as many parts as they have different formats.
#[derive(Debug)]
pub struct DeviceMatrix {
    rows: usize,
    cols: usize,
    parts: Vec<Part>,
}

/// Consecutive rows of one format; at least one.
#[derive(Debug)]
struct Part {
    format: DeviceFormat,
    first_row: usize,
    rows: usize,
    /// Codes, or the weights themselves, row by row without gaps.
    codes: DeviceVec<u8>,
    /// Scales and offsets likewise; nothing for `Bf16`.
    scales: DeviceVec<u8>,
}

impl DeviceMatrix {
    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of the device's memory.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.codes.bytes() + part.scales.bytes()).sum()
    }

    /// Formats of its parts, from the first row to the last.
    pub fn formats(&self) -> impl Iterator<Item = DeviceFormat> {
        self.parts.iter().map(|part| part.format)
    }

    /// Where all of its weights lie as bfloat16, row by row without gaps, if they do.
    pub fn bf16_address(&self) -> Option<u64> {
        match self.parts.as_slice() {
            [part] if part.format == DeviceFormat::Bf16 => Some(part.codes.as_slice().address()),
            _ => None,
        }
    }

    /// The only part.
    fn single(&self) -> Result<&Part, DeviceError> {
        match self.parts.as_slice() {
            [part] => Ok(part),
            parts => Err(DeviceError::Shape(format!("a table of {} parts", parts.len()))),
        }
    }
}
