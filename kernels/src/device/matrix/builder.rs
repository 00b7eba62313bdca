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
#[derive(Debug, Default)]
struct Buffer {
    /// None yet: no room.
    bytes: Option<DeviceVec<u8>>,
    used: usize,
}

impl Buffer {
    fn room(&self) -> usize {
        self.bytes.as_ref().map_or(0, DeviceVec::len)
    }

    /// Moves what is there to where there is room for `size` bytes.
    fn move_to(&mut self, device: &Device, size: usize) -> Result<(), DeviceError> {
        let moved = DeviceVec::new(device, size)?;
        if let Some(bytes) = &self.bytes {
            bytes.slice(0..self.used).copy_to(moved.slice(0..self.used))?;
        }
        self.bytes = Some(moved);
        Ok(())
    }

    /// Makes room for `more` bytes.
    fn reserve(&mut self, device: &Device, more: usize) -> Result<(), DeviceError> {
        match self.used + more {
            size if size > self.room() => self.move_to(device, size),
            _ => Ok(()),
        }
    }

    /// Appends `bytes`; where there is no room for them, there will be for as much again.
    fn push(&mut self, device: &Device, bytes: &[u8]) -> Result<(), DeviceError> {
        let size = self.used + bytes.len();
        if size > self.room() {
            self.move_to(device, size.max(2 * self.room()))?;
        }
        if let Some(all) = &self.bytes {
            all.slice(self.used..size).upload(bytes)?;
            self.used = size;
        }
        Ok(())
    }

    /// All of it, in no more memory than it takes.
    fn finish(mut self, device: &Device) -> Result<DeviceVec<u8>, DeviceError> {
        if self.room() != self.used {
            self.move_to(device, self.used)?;
        }
        match self.bytes {
            Some(bytes) => Ok(bytes),
            None => DeviceVec::new(device, 0),
        }
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
    /// `cols` does not fit the block of `quant`.
    pub fn segment(&mut self, quant: Quant) -> Result<&mut Self, String> {
        if self.cols == 0 || quant.row_bytes(self.cols).is_none() {
            let (cols, block) = (self.cols, quant.block_len());
            return Err(format!("{cols} columns are no multiple of {block} ({quant:?})"));
        }
        let format = DeviceFormat::of(quant);
        if self.parts.last().is_none_or(|part| part.format != format) {
            let (codes, scales) = (Buffer::default(), Buffer::default());
            self.parts.push(Growing { format, rows: 0, codes, scales });
        }
        self.quant = Some(quant);
        Ok(self)
    }

    /// Makes room for `rows` more rows of the segment last started. Without, what has arrived is moved on the device now and
    /// then, and for a while takes two or three times its memory.
    ///
    /// # Errors
    /// The device has no room.
    pub fn reserve(&mut self, rows: usize) -> Result<(), DeviceError> {
        let Some(part) = self.parts.last_mut() else {
            return Ok(());
        };
        part.codes.reserve(&self.device, rows * part.format.code_bytes(self.cols))?;
        part.scales.reserve(&self.device, rows * part.format.scale_bytes(self.cols))
    }

    /// Appends whole rows in ggml block layout (`bytes.len()` a multiple of the row's bytes) to the segment last started,
    /// packed by the workers of `pool`.
    ///
    /// # Errors
    /// There is no segment, the bytes are no whole rows, or the device failed.
    pub fn push_rows(&mut self, pool: &Pool, bytes: &[u8]) -> Result<(), DeviceError> {
        let (Some(quant), Some(part)) = (self.quant, self.parts.last_mut()) else {
            return wrong("rows before a segment was started".to_owned());
        };
        let row_bytes = quant.row_bytes(self.cols).unwrap_or(0);
        if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
            return wrong(format!("{} bytes are no whole rows of {row_bytes}", bytes.len()));
        }
        let added = bytes.len() / row_bytes;
        if quant == Quant::BF16 {
            // They lie in the file as they will on the device.
            part.codes.push(&self.device, bytes)?;
        } else {
            let code_bytes = part.format.code_bytes(self.cols);
            let rows_a_piece = (PIECE_BYTES / code_bytes).max(1);
            for piece in bytes.chunks(rows_a_piece * row_bytes) {
                let (codes, scales) = pack(part.format, quant, self.cols, pool, piece)?;
                part.codes.push(&self.device, &codes)?;
                part.scales.push(&self.device, &scales)?;
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
        for part in self.parts.into_iter().filter(|part| part.rows > 0) {
            let Growing { format, rows, codes, scales } = part;
            let (codes, scales) = (codes.finish(&self.device)?, scales.finish(&self.device)?);
            parts.push(Part { format, first_row, rows, codes, scales });
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
