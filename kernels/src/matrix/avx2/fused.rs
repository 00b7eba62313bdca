//! Few rows: weights are decoded in registers and used at once.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::Part;
use super::decode::Decode;
use crate::matrix::panel::HEIGHT;

/// Most rows whose sums fit the registers beside a column of weights.
const MOST: usize = 6;

/// Computes a part whose rows are few.
///
/// # Safety
/// As [`Part::choose`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn part<D: Decode>(part: &Part<'_>) {
    let rows = part.rows();
    let height = rows.div_ceil(rows.div_ceil(MOST));
    // One row leaves registers for four panels, two rows for two: more sums in flight hide the
    // latency of the adds, and more streams keep memory busy.
    let streams = match height {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    for index in part.panels.clone().step_by(streams) {
        for first in (0..rows).step_by(height) {
            // SAFETY: the caller's promise; row and panel belong to the part.
            unsafe {
                match height {
                    1 => block::<D, 1, 4>(part, first, index),
                    2 => block::<D, 2, 2>(part, first, index),
                    3 | 4 => block::<D, 4, 1>(part, first, index),
                    _ => block::<D, 6, 1>(part, first, index),
                }
            }
        }
    }
}

/// Up to `M` rows by `P` panels. Where the part ends before, the last row or panel is computed again
/// and not written: that is rare, and a kernel for every remainder would be slow to build.
///
/// # Safety
/// As [`part`]; row `first` and panel `index` belong to the part.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<D: Decode, const M: usize, const P: usize>(
    part: &Part<'_>,
    first: usize,
    index: usize,
) {
    let cols = part.cols;
    let rows = M.min(part.rows() - first);
    let count = P.min(part.panels.end - index);
    let panels: [*const u8; P] = std::array::from_fn(|p| part.panel(index + p.min(count - 1)).0);
    let x: [*const f32; M] =
        std::array::from_fn(|i| part.x[(first + i.min(rows - 1)) * cols..].as_ptr());
    let mut sums: [[[__m256; 2]; P]; M] = [[[_mm256_setzero_ps(); 2]; P]; M];
    for group in 0..cols / D::GROUP {
        // SAFETY: the group lies in every panel, and its columns in every row of x.
        unsafe {
            let scales: [D::Scales; P] = panels.map(|panel| D::scales(panel, group));
            for quad in 0..D::GROUP / D::QUAD {
                for p in 0..P {
                    let columns = D::quad(panels[p], group, quad, &scales[p]);
                    for (i, column) in columns[..D::QUAD].iter().enumerate() {
                        let k = group * D::GROUP + quad * D::QUAD + i;
                        for (sums, x) in sums.iter_mut().zip(&x) {
                            let x = _mm256_broadcast_ss(&*x.add(k));
                            sums[p][0] = _mm256_fmadd_ps(x, column[0], sums[p][0]);
                            sums[p][1] = _mm256_fmadd_ps(x, column[1], sums[p][1]);
                        }
                    }
                }
            }
        }
    }
    for (i, sums) in sums[..rows].iter().enumerate() {
        for (p, sums) in sums[..count].iter().enumerate() {
            let height = part.panel(index + p).1;
            let mut buffer = [0.0f32; HEIGHT];
            // SAFETY: the buffer holds 16 floats; the row and panel belong to the part.
            unsafe {
                _mm256_storeu_ps(buffer.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(buffer.as_mut_ptr().add(8), sums[1]);
                part.out(first + i, index + p, height).copy_from_slice(&buffer[..height]);
            }
        }
    }
}
