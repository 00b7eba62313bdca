//! Weight matrices: repacked once into row panels, kept in their quantised bits.

mod panel;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use panel::{HEIGHT, Layout, Panel, Shape};

use crate::pool::Shards;
use crate::{Isa, Pool, PoolError, Quant, eight_bit};

/// A weight matrix of `rows` outputs by `cols` inputs, in panels of interleaved rows.
///
/// Rows may come in segments of different formats (a fused Q|K|V of Q5_0 and Q8_0).
#[derive(Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    segments: Vec<Segment>,
}

/// Consecutive rows of one format.
#[derive(Debug)]
struct Segment {
    layout: Layout,
    first_row: usize,
    rows: usize,
    lines: Vec<Line>,
}

/// Storage in whole cache lines, so that no load of 32 bytes straddles two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Segment {
    fn panels(&self) -> usize {
        self.rows.div_ceil(HEIGHT)
    }

    /// Makes room for `rows` rows in all: exactly, never twice the need.
    fn reserve(&mut self, rows: usize) {
        let lines = (rows.div_ceil(HEIGHT) * self.layout.panel_bytes()).div_ceil(64);
        self.lines.reserve_exact(lines.saturating_sub(self.lines.len()));
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `Line` is 64 initialised bytes without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.lines.len() * 64;
        // SAFETY: as above; any byte is a valid one.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    fn panel(&self, index: usize) -> Panel<'_> {
        let size = self.layout.panel_bytes();
        self.layout.view(&self.bytes()[index * size..][..size])
    }
}

/// Panels that make a task worth handing out while rows are packed.
const PANELS_AT_ONCE: usize = 16;

/// Fills a [`Matrix`] row by row, straight from file bytes.
#[derive(Debug)]
pub struct MatrixBuilder {
    matrix: Matrix,
}

impl MatrixBuilder {
    /// An empty matrix of `cols` inputs.
    pub fn new(cols: usize) -> Self {
        Self { matrix: Matrix { rows: 0, cols, segments: Vec::new() } }
    }

    /// Starts a segment of rows stored as `quant`. Errors if `cols` does not fit its block.
    pub fn segment(&mut self, quant: Quant) -> Result<&mut Self, String> {
        let cols = self.matrix.cols;
        let layout = Layout::new(quant, cols).ok_or_else(|| {
            format!("{cols} columns are no multiple of {} ({quant:?})", quant.block_len())
        })?;
        let first_row = self.matrix.rows;
        self.matrix.segments.push(Segment { layout, first_row, rows: 0, lines: Vec::new() });
        Ok(self)
    }

    /// Makes room for `rows` more rows of the segment last started, so that they are not moved as they arrive
    /// piece by piece.
    pub fn reserve(&mut self, rows: usize) {
        if let Some(segment) = self.matrix.segments.last_mut() {
            segment.reserve(segment.rows + rows);
        }
    }

    /// Appends whole rows in ggml block layout (`bytes.len()` a multiple of the row's bytes)
    /// to the segment last started. Rows are repacked as they arrive; nothing else is kept.
    pub fn push_rows(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.push_rows_on(&Pool::new(1), bytes)
    }

    /// As [`MatrixBuilder::push_rows`], by all workers of `pool`.
    pub fn push_rows_on(&mut self, pool: &Pool, bytes: &[u8]) -> Result<(), String> {
        let Some(segment) = self.matrix.segments.last_mut() else {
            return Err("rows before a segment was started".to_owned());
        };
        let row_bytes = segment.layout.row_bytes();
        if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
            return Err(format!("{} bytes are no whole rows of {row_bytes}", bytes.len()));
        }
        let added = bytes.len() / row_bytes;
        let rows = segment.rows + added;
        let size = rows.div_ceil(HEIGHT) * segment.layout.panel_bytes();
        segment.reserve(rows);
        segment.lines.resize(size.div_ceil(64), Line([0; 64]));
        let layout = segment.layout;
        let panel_bytes = layout.panel_bytes();
        let (start, first) = (segment.rows, segment.rows / HEIGHT);
        let panels = &mut segment.bytes_mut()[first * panel_bytes..size];
        let packed = pool.chunks(panels, PANELS_AT_ONCE * panel_bytes, |task, panels| {
            let first = first + task * PANELS_AT_ONCE;
            for (index, panel) in (first..).zip(panels.chunks_exact_mut(panel_bytes)) {
                for row in start.max(index * HEIGHT)..rows.min((index + 1) * HEIGHT) {
                    let bytes = &bytes[(row - start) * row_bytes..][..row_bytes];
                    layout.pack(panel, row % HEIGHT, bytes);
                }
            }
        });
        packed.map_err(|error| error.to_string())?;
        segment.rows = rows;
        self.matrix.rows += added;
        Ok(())
    }

    /// The finished matrix (a segment's rows need be no multiple of the panel height: padded inside).
    pub fn finish(self) -> Matrix {
        self.matrix
    }
}

impl Matrix {
    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Heap bytes held.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|s| s.lines.capacity() * 64).sum()
    }

    /// Dequantises row `row` into `out` (`cols` long), exactly as [`Quant::dequantize_row`] would:
    /// repacking moves codes and scales about and rounds nothing.
    /// # Panics
    /// If `row` is out of bounds or `out` has another length.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let index = self.segments.partition_point(|s| s.first_row + s.rows <= row);
        let segment = &self.segments[index];
        let row = row - segment.first_row;
        segment.panel(row / HEIGHT).row(row % HEIGHT, out);
    }

    /// `y[i, n] = sum_k x[i, k] * w[n, k]` for `m = x.len() / cols` rows; `y` is `m * rows` long.
    ///
    /// Where the weights are coded (all but F32, F16 and BF16), `x` is rounded to eight bits first: 32 neighbours
    /// share a scale, `max|x| / 127`, and each moves by at most half of it. Weights are the very ones
    /// [`Matrix::row`] gives. Sums run over `k` in one order, so a row of `y` has
    /// the same bits whatever other rows are in `x` and however many threads compute it, and the same with AVX2,
    /// AVX-512 and AMX. The oracle differs by the rounding of f32 sums alone.
    /// # Panics
    /// If `x` is no whole number of rows, or `y` does not fit.
    pub fn matmul(&self, isa: Isa, pool: &Pool, x: &[f32], y: &mut [f32]) -> Result<(), PoolError> {
        if self.cols == 0 || self.rows == 0 || x.is_empty() {
            assert!(x.is_empty() || self.rows == 0, "a matrix without inputs");
            y.fill(0.0);
            return Ok(());
        }
        let m = x.len() / self.cols;
        assert_eq!(x.len(), m * self.cols, "x is no whole number of rows");
        assert_eq!(y.len(), m * self.rows, "y of {m} rows");
        #[cfg(target_arch = "x86_64")]
        if isa.avx2() {
            return x86::matmul(self, isa.min(Isa::detect()), pool, x, y);
        }
        let _ = isa;
        let y = Shards::new(y);
        let tasks: Vec<(usize, usize)> = (0..self.segments.len())
            .flat_map(|s| (0..self.segments[s].panels()).map(move |p| (s, p)))
            .collect();
        let coded = |s: &Segment| Shape::of(s.layout.quant).is_some();
        let rounded = match self.segments.iter().any(coded) {
            true => eight_bit::round(x),
            false => Vec::new(),
        };
        pool.run(tasks.len(), |task| {
            let (s, p) = tasks[task];
            let segment = &self.segments[s];
            let x = if coded(segment) { &rounded } else { x };
            scalar::panel(self, segment, p, x, y);
        })
    }
}

#[cfg(test)]
mod tests;
