//! The oracle: dequantise a row, multiply, add.

use super::panel::HEIGHT;
use super::{Matrix, Segment};
use crate::pool::Shards;

/// Computes panel `index` of `segment` for every row of `x`.
pub(super) fn panel(matrix: &Matrix, segment: &Segment, index: usize, x: &[f32], y: Shards<f32>) {
    let height = HEIGHT.min(segment.rows - index * HEIGHT);
    let first = segment.first_row + index * HEIGHT;
    let panel = segment.panel(index);
    // Weights by column, so that sixteen sums run side by side, each in the order of k.
    let mut columns = vec![[0.0f32; HEIGHT]; matrix.cols];
    let mut row = vec![0.0; matrix.cols];
    for r in 0..height {
        panel.row(r, &mut row);
        for (column, &w) in columns.iter_mut().zip(&row) {
            column[r] = w;
        }
    }
    for (i, x) in x.chunks_exact(matrix.cols).enumerate() {
        let mut sums = [0.0f32; HEIGHT];
        for (&x, column) in x.iter().zip(&columns) {
            for (sum, &w) in sums.iter_mut().zip(column) {
                *sum += x * w;
            }
        }
        // SAFETY: row `i` of y, columns `first..first + height`: inside y (checked by the caller),
        // and of this panel alone.
        let out = unsafe { y.slice(i * matrix.rows + first, height) };
        out.copy_from_slice(&sums[..height]);
    }
}
