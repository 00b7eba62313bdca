//! Products of a matrix with rows of input: which kernels, in which pieces.

use super::{DeviceFormat, DeviceMatrix, Part, plan};
use crate::device::{Argument, Device, DeviceError, DeviceSlice, Launch, Product, ProductOut};

/// Which kernels multiply. See [above](super) for what that means to the bits of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatmulPath {
    /// The fastest for so many rows.
    Auto,
    /// The same without the vendor's library.
    Own,
    /// The kernels for few rows, 32 at a time.
    Gemv,
    /// Our kernel for many rows.
    Gemm,
    /// The vendor's library, or an error where it is missing.
    Vendor,
}

/// Where a product goes, `[rows, outputs]`.
#[derive(Debug, Clone, Copy)]
pub enum OutSlice<'a> {
    /// Stored as bfloat16.
    Bf16(DeviceSlice<'a, u16>),
    /// Stored.
    F32(DeviceSlice<'a, f32>),
    /// Added to what is there.
    AddF32(DeviceSlice<'a, f32>),
}

impl OutSlice<'_> {
    fn kind(self) -> ProductOut {
        match self {
            Self::Bf16(_) => ProductOut::Bf16,
            Self::F32(_) => ProductOut::F32,
            Self::AddF32(_) => ProductOut::AddF32,
        }
    }

    fn address(self) -> u64 {
        match self {
            Self::Bf16(slice) => slice.address(),
            Self::F32(slice) | Self::AddF32(slice) => slice.address(),
        }
    }

    fn expect_len(self, len: usize) -> Result<(), DeviceError> {
        match self {
            Self::Bf16(slice) => slice.expect_len(len, "a product"),
            Self::F32(slice) | Self::AddF32(slice) => slice.expect_len(len, "a product"),
        }
    }
}

/// Numbers of scratch that [`matmul`] is at its best with for up to `rows` rows on any path: room for some rows of the matrix
/// made bfloat16 at a time, 64 MiB where rows are not huge. It may be had with less, down to 128 of them, or all; not at all
/// by the kernels for few rows, nor for matrices of bfloat16.
pub fn scratch_len(matrix: &DeviceMatrix, rows: usize) -> usize {
    let coded = matrix.parts.iter().filter(|part| part.format != DeviceFormat::Bf16);
    let most = coded.map(|part| plan::scratch_len(part.rows, matrix.cols)).max();
    most.filter(|_| rows > 0).unwrap_or(0)
}

/// `out[m, n] (+)= sum_k input[m, k] * matrix[n, k]` for `rows` rows of `input`, bfloat16, sums in f32.
///
/// Coded weights are multiplied as they are by the kernels for few rows, their scales applied to sums over a group in f32;
/// for the others they are rounded to bfloat16 in `scratch`, of which [`scratch_len`] numbers are best.
///
/// # Errors
/// The lengths do not fit each other, `input` or `scratch` does not begin at a multiple of sixteen bytes, `path` wants a
/// library that is not there, or the device failed.
pub fn matmul(
    device: &Device,
    matrix: &DeviceMatrix,
    input: DeviceSlice<'_, u16>,
    rows: usize,
    out: OutSlice<'_>,
    scratch: DeviceSlice<'_, u16>,
    path: MatmulPath,
) -> Result<(), DeviceError> {
    let numbers = |columns: usize| rows.saturating_mul(columns);
    input.expect_len(numbers(matrix.cols), "the input of a product")?;
    out.expect_len(numbers(matrix.rows))?;
    let wrong = |why: &str| Err(DeviceError::Shape(why.to_owned()));
    if [rows, matrix.rows, matrix.cols].iter().any(|&count| count > i32::MAX as usize) {
        return wrong("a product too large for the counters of kernels");
    }
    let begins_well = |address: u64| address.is_multiple_of(16);
    if !begins_well(input.address()) || !(scratch.is_empty() || begins_well(scratch.address())) {
        return wrong("the input of a product begins at an odd place");
    }
    if rows == 0 {
        return Ok(());
    }
    for part in &matrix.parts {
        let width = if out.kind() == ProductOut::Bf16 { 2 } else { 4 };
        let call = Call {
            device,
            path,
            input: input.address(),
            rows,
            inputs: matrix.cols,
            out: out.address() + (part.first_row * width) as u64,
            out_width: width,
            out_stride: matrix.rows,
            kind: out.kind(),
        };
        call.multiply(part, scratch)?;
    }
    Ok(())
}

/// One part's share of a product: `out` is its first number. All lengths were checked.
#[derive(Clone, Copy)]
struct Call<'a> {
    device: &'a Device,
    path: MatmulPath,
    input: u64,
    rows: usize,
    inputs: usize,
    out: u64,
    /// Bytes of a number of it.
    out_width: usize,
    /// Numbers from a row of it to the next.
    out_stride: usize,
    kind: ProductOut,
}

impl Call<'_> {
    fn multiply(self, part: &Part, scratch: DeviceSlice<'_, u16>) -> Result<(), DeviceError> {
        let few = match self.path {
            MatmulPath::Auto => self.rows <= plan::few_rows(part.format, true),
            MatmulPath::Own => self.rows <= plan::few_rows(part.format, false),
            MatmulPath::Gemv => true,
            MatmulPath::Gemm | MatmulPath::Vendor => false,
        };
        if few {
            return self.gemv(part);
        }
        if part.format == DeviceFormat::Bf16 {
            return self.product(part.codes.as_slice().address(), part.rows);
        }
        let Some(slab) = plan::slab_rows(part.rows, self.inputs, scratch.len()) else {
            let why = format!("{} numbers of scratch are too few", scratch.len());
            return Err(DeviceError::Shape(why));
        };
        for first in (0..part.rows).step_by(slab) {
            let count = slab.min(part.rows - first);
            dequantise(self.device, part, self.inputs, first, count, scratch)?;
            let here = Self { out: self.out + (first * self.out_width) as u64, ..self };
            here.product(scratch.address(), count)?;
        }
        Ok(())
    }

    /// The last arguments of every kernel here.
    fn tail(&self, outputs: usize) -> [Argument; 4] {
        let kind = match self.kind {
            ProductOut::Bf16 => 0u32,
            ProductOut::F32 => 1,
            ProductOut::AddF32 => 2,
        };
        [outputs.into(), self.inputs.into(), self.out_stride.into(), kind.into()]
    }

    /// The rows `first..first + count` alone.
    fn rows_from(self, first: usize, count: usize) -> Self {
        let input = self.input + (first * self.inputs * 2) as u64;
        let out = self.out + (first * self.out_stride * self.out_width) as u64;
        Self { input, out, rows: count, ..self }
    }

    fn gemv(self, part: &Part) -> Result<(), DeviceError> {
        let codes = part.codes.as_slice();
        if part.format == DeviceFormat::Bf16 && !self.inputs.is_multiple_of(8) {
            return self.gemv_odd(codes.address(), part.rows);
        }
        let processors = self.device.limits().multiprocessors;
        let warps = plan::gemv_warps(part.rows, self.inputs, part.format, processors);
        for first in (0..self.rows).step_by(plan::FEW_ROWS) {
            let call = self.rows_from(first, plan::FEW_ROWS.min(self.rows - first));
            let tiles = plan::gemv_tiles(call.rows);
            let launch = Launch::row(part.rows.div_ceil(plan::GEMV_OUTPUTS), 32 * warps as u32)
                .shared(warps * tiles * 8 * plan::GEMV_OUTPUTS * 4);
            let [outputs, inputs, stride, kind] = call.tail(part.rows);
            let arguments = [
                codes.into(),
                part.scales.as_slice().into(),
                Argument::Address(call.input),
                Argument::Address(call.out),
                call.rows.into(),
                outputs,
                inputs,
                stride,
                kind,
            ];
            // SAFETY: the part has as many rows of its format, and the input and result as many rows of their lengths;
            // a warp's sums take 512 bytes for each tile.
            unsafe { self.device.launch(gemv_kernel(part.format, tiles), launch, &arguments) }?;
        }
        Ok(())
    }

    /// A product with `outputs` rows of bfloat16 at `weights`.
    fn product(self, weights: u64, outputs: usize) -> Result<(), DeviceError> {
        if matches!(self.path, MatmulPath::Auto | MatmulPath::Vendor) {
            let product = Product {
                rows: self.rows,
                outputs,
                inputs: self.inputs,
                a: self.input,
                b: weights,
                out: self.out,
                out_stride: self.out_stride,
                kind: self.kind,
            };
            // SAFETY: all three lie within living allocations that have room for these shapes.
            if unsafe { self.device.driver().product(&product) }? {
                return Ok(());
            }
            if self.path == MatmulPath::Vendor {
                let why = "no library of the vendor's takes this product".to_owned();
                return Err(DeviceError::Missing(why));
            }
        }
        if !self.inputs.is_multiple_of(8) {
            return self.gemv_odd(weights, outputs);
        }
        let processors = self.device.limits().multiprocessors;
        let tile = plan::gemm_tile(self.rows, outputs, processors);
        let (down, across) = (self.rows.div_ceil(tile.side), outputs.div_ceil(tile.side));
        let launch = Launch::plane(down, across, tile.threads).shared(tile.shared_bytes());
        let [outputs, inputs, stride, kind] = self.tail(outputs);
        let arguments = [
            Argument::Address(self.input),
            Argument::Address(weights),
            Argument::Address(self.out),
            self.rows.into(),
            outputs,
            inputs,
            stride,
            kind,
        ];
        // SAFETY: as above; the rows of both operands are whole chunks of sixteen bytes.
        unsafe { self.device.launch(tile.kernel, launch, &arguments) }
    }

    /// The same for rows that are no whole chunks of sixteen bytes.
    fn gemv_odd(self, weights: u64, outputs: usize) -> Result<(), DeviceError> {
        const WARPS: usize = 8;
        // As many as a grid may have in that direction.
        const ROWS: usize = 65_535;
        for first in (0..self.rows).step_by(ROWS) {
            let call = self.rows_from(first, ROWS.min(self.rows - first));
            let launch = Launch::plane(outputs.div_ceil(WARPS), call.rows, 32 * WARPS as u32);
            let [outputs, inputs, stride, kind] = call.tail(outputs);
            let arguments = [
                Argument::Address(weights),
                Argument::Address(call.input),
                Argument::Address(call.out),
                outputs,
                inputs,
                stride,
                kind,
            ];
            // SAFETY: as above; a row of the grid for each row of the input.
            unsafe { self.device.launch("gemv_odd", launch, &arguments) }?;
        }
        Ok(())
    }
}

fn gemv_kernel(format: DeviceFormat, tiles: usize) -> &'static str {
    let [few, more, most] = match format {
        DeviceFormat::Bf16 => ["gemv_bf16_8", "gemv_bf16_16", "gemv_bf16_32"],
        DeviceFormat::Q4 => ["gemv_q4_8", "gemv_q4_16", "gemv_q4_32"],
        DeviceFormat::Q8 => ["gemv_q8_8", "gemv_q8_16", "gemv_q8_32"],
        DeviceFormat::Q8Fine => ["gemv_q8_fine_8", "gemv_q8_fine_16", "gemv_q8_fine_32"],
        DeviceFormat::Q8Offset => ["gemv_q8_offset_8", "gemv_q8_offset_16", "gemv_q8_offset_32"],
    };
    match tiles {
        1 => few,
        2 => more,
        _ => most,
    }
}

/// Rows `first..first + count` of a coded part as bfloat16 at the beginning of `out`, which has room.
fn dequantise(
    device: &Device,
    part: &Part,
    cols: usize,
    first: usize,
    count: usize,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    const THREADS: usize = 256;
    let kernel = match part.format {
        DeviceFormat::Q4 => "dequantise_q4",
        DeviceFormat::Q8 => "dequantise_q8",
        DeviceFormat::Q8Fine => "dequantise_q8_fine",
        DeviceFormat::Q8Offset => "dequantise_q8_offset",
        DeviceFormat::Bf16 => return Err(DeviceError::Shape("bfloat16 is not coded".to_owned())),
    };
    out.expect_room(count * cols, "a part of a matrix")?;
    let rows = |bytes: usize| first * bytes..(first + count) * bytes;
    let code_bytes = part.format.code_bytes(cols);
    let arguments = [
        part.codes.slice(rows(code_bytes)).into(),
        part.scales.slice(rows(part.format.scale_bytes(cols))).into(),
        out.first(count * cols).into(),
        count.into(),
        cols.into(),
    ];
    let launch = Launch::row((count * code_bytes / 16).div_ceil(THREADS), THREADS as u32);
    // SAFETY: a thread for each sixteen bytes of the rows' codes; the slices have these lengths.
    unsafe { device.launch(kernel, launch, &arguments) }
}
