//! From rows of a file to a matrix on the device, piece by piece.

use super::{DeviceFormat, DeviceMatrix, Part};
use crate::device::{Device, DeviceError, DeviceVec};
use crate::{Pool, Quant};

/// Bytes of the device's layout made on the host at once; as many again may be on their way.
const PIECE_BYTES: usize = 16 << 20;

/// Rows that make a task worth handing out while they are packed.
const ROWS_AT_ONCE: usize = 16;

/// Fills a [`DeviceMatrix`] row by row, straight from file bytes. Little of it is on the host at any time.
#[derive(Debug)]
pub struct DeviceMatrixBuilder {
    device: Device,
    cols: usize,
    rows: usize,
    parts: Vec<Growing>,
    /// Format of the segment last started.
    quant: Option<Quant>,
}

/// A part that is still filled.
#[derive(Debug)]
struct Growing {
    format: DeviceFormat,
    rows: usize,
    codes: Buffer,
    scales: Buffer,
}

/// Bytes that are written front to back.
#[derive(Debug)]
struct Buffer {
    bytes: DeviceVec<u8>,
    used: usize,
}

impl Buffer {
    fn new(device: &Device) -> Result<Self, DeviceError> {
        Ok(Self { bytes: DeviceVec::new(device, 0)?, used: 0 })
    }

    /// Makes room for exactly `size` bytes in all, if there is less, or if there is more and `exactly` that is wanted.
    fn resize(&mut self, device: &Device, size: usize, exactly: bool) -> Result<(), DeviceError> {
        if size == self.bytes.len() || (size < self.bytes.len() && !exactly) {
            return Ok(());
        }
        let moved = DeviceVec::new(device, size)?;
        self.bytes.slice(0..self.used).copy_to(moved.slice(0..self.used))?;
        self.bytes = moved;
        Ok(())
    }

    /// Appends `bytes`, for which there is room.
    fn push(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.bytes.slice(self.used..self.used + bytes.len()).upload(bytes)?;
        self.used += bytes.len();
        Ok(())
    }
}

impl Growing {
    /// Makes room for `rows` rows in all.
    fn reserve(&mut self, device: &Device, cols: usize, rows: usize) -> Result<(), DeviceError> {
        let [codes, scales] = [self.format.code_bytes(cols), self.format.scale_bytes(cols)];
        self.codes.resize(device, codes * rows, false)?;
        self.scales.resize(device, scales * rows, false)
    }
}

fn wrong<T>(why: String) -> Result<T, DeviceError> {
    Err(DeviceError::Shape(why))
}

impl DeviceMatrixBuilder {
    /// An empty matrix of `cols` inputs.
    pub fn new(device: &Device, cols: usize) -> Self {
        Self { device: device.clone(), cols, rows: 0, parts: Vec::new(), quant: None }
    }

    /// Starts a segment of rows stored as `quant`: the next rows of the part before if that has the same
    /// [`DeviceFormat`], else a new part.
    ///
    /// # Errors
    /// `cols` does not fit the block of `quant`, or the device failed.
    pub fn segment(&mut self, quant: Quant) -> Result<&mut Self, DeviceError> {
        if self.cols == 0 || quant.row_bytes(self.cols).is_none() {
            let (cols, block) = (self.cols, quant.block_len());
            return wrong(format!("{cols} columns are no multiple of {block} ({quant:?})"));
        }
        let format = DeviceFormat::of(quant);
        if self.parts.last().is_none_or(|part| part.format != format) {
            let [codes, scales] = [Buffer::new(&self.device)?, Buffer::new(&self.device)?];
            self.parts.push(Growing { format, rows: 0, codes, scales });
        }
        self.quant = Some(quant);
        Ok(self)
    }

    /// Makes room for `rows` more rows of the segment last started, so that they are not moved on the device as they arrive
    /// piece by piece.
    ///
    /// # Errors
    /// The device has no room.
    pub fn reserve(&mut self, rows: usize) -> Result<(), DeviceError> {
        match self.parts.last_mut() {
            Some(part) => part.reserve(&self.device, self.cols, part.rows + rows),
            None => Ok(()),
        }
    }

    /// Appends whole rows in ggml block layout (`bytes.len()` a multiple of the row's bytes) to the segment last started.
    ///
    /// # Errors
    /// There is no segment, the bytes are no whole rows, or the device failed.
    pub fn push_rows(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.push_rows_on(&Pool::new(1), bytes)
    }

    /// As [`DeviceMatrixBuilder::push_rows`], packed by all workers of `pool`.
    ///
    /// # Errors
    /// As there.
    pub fn push_rows_on(&mut self, pool: &Pool, bytes: &[u8]) -> Result<(), DeviceError> {
        let (Some(quant), Some(part)) = (self.quant, self.parts.last_mut()) else {
            return wrong("rows before a segment was started".to_owned());
        };
        let row_bytes = quant.row_bytes(self.cols).unwrap_or(0);
        if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
            return wrong(format!("{} bytes are no whole rows of {row_bytes}", bytes.len()));
        }
        let added = bytes.len() / row_bytes;
        part.reserve(&self.device, self.cols, part.rows + added)?;
        if quant == Quant::BF16 {
            // They lie in the file as they will on the device.
            part.codes.push(bytes)?;
        } else {
            let code_bytes = part.format.code_bytes(self.cols);
            let rows_a_piece = (PIECE_BYTES / code_bytes).max(1);
            for piece in bytes.chunks(rows_a_piece * row_bytes) {
                let (codes, scales) = pack(part.format, quant, self.cols, pool, piece)?;
                part.codes.push(&codes)?;
                part.scales.push(&scales)?;
            }
        }
        part.rows += added;
        self.rows += added;
        Ok(())
    }

    /// The finished matrix. Room reserved for rows that never came is given back.
    ///
    /// # Errors
    /// The device failed.
    pub fn finish(self) -> Result<DeviceMatrix, DeviceError> {
        let mut parts = Vec::with_capacity(self.parts.len());
        let mut first_row = 0;
        for mut part in self.parts.into_iter().filter(|part| part.rows > 0) {
            part.codes.resize(&self.device, part.codes.used, true)?;
            part.scales.resize(&self.device, part.scales.used, true)?;
            let Growing { format, rows, codes, scales } = part;
            parts.push(Part { format, first_row, rows, codes: codes.bytes, scales: scales.bytes });
            first_row += rows;
        }
        Ok(DeviceMatrix { rows: self.rows, cols: self.cols, parts })
    }
}

/// Codes and scales of the rows of `bytes`.
fn pack(
    format: DeviceFormat,
    quant: Quant,
    cols: usize,
    pool: &Pool,
    bytes: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), DeviceError> {
    let row_bytes = quant.row_bytes(cols).unwrap_or(0);
    let [code_bytes, scale_bytes] = [format.code_bytes(cols), format.scale_bytes(cols)];
    let rows = bytes.len() / row_bytes;
    let mut codes = vec![0; rows * code_bytes];
    let mut scales = vec![0; rows * scale_bytes];
    let mut rest = scales.as_mut_slice();
    // What each task reads and writes.
    let mut tasks: Vec<_> = (bytes.chunks(ROWS_AT_ONCE * row_bytes))
        .zip(codes.chunks_mut(ROWS_AT_ONCE * code_bytes))
        .map(|(bytes, codes)| {
            let here = bytes.len() / row_bytes * scale_bytes;
            let scales = rest.split_off_mut(..here).unwrap_or_default();
            (bytes, codes, scales)
        })
        .collect();
    let packed = pool.chunks(&mut tasks, 1, |_, tasks| {
        for (bytes, codes, scales) in tasks {
            let rows = bytes.chunks_exact(row_bytes).zip(codes.chunks_exact_mut(code_bytes));
            for (index, (row, codes)) in rows.enumerate() {
                let scales = &mut scales[index * scale_bytes..][..scale_bytes];
                format.pack(quant, row, codes, scales);
            }
        }
    });
    match packed {
        Ok(()) => Ok((codes, scales)),
        Err(error) => wrong(error.to_string()),
    }
}
