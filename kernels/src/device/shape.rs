//! What launchers check and plan alike.

use super::{DeviceError, DeviceSlice, Launch};

/// Numbers a thread takes at once.
pub(super) const GROUP: usize = 8;

/// Threads of a block whose threads share nothing.
const THREADS: usize = 256;

/// Rows of `width` in `values`, all of them whole.
pub(super) fn rows_of<T>(
    values: DeviceSlice<'_, T>,
    width: usize,
    what: &str,
) -> Result<usize, DeviceError> {
    if width == 0 || !values.len().is_multiple_of(width) {
        let why = format!("{} numbers of {what} for rows of {width}", values.len());
        return Err(DeviceError::Shape(why));
    }
    Ok(values.len() / width)
}

/// Whether rows of `width` numbers that begin at `addresses` can be read and written by sixteen bytes.
pub(super) fn wide<const N: usize>(width: usize, addresses: [u64; N]) -> bool {
    width.is_multiple_of(GROUP) && addresses.iter().all(|address| address.is_multiple_of(16))
}

/// Threads of a block that has one row: a group of numbers for each as far as a block goes.
pub(super) fn row_threads(width: usize) -> u32 {
    (width.div_ceil(GROUP).next_multiple_of(32)).clamp(32, 1024) as u32
}

/// Bytes of shared memory of a block that sums `times` over all its threads.
pub(super) fn sum_bytes(threads: u32, times: usize) -> usize {
    threads as usize / 32 * times * size_of::<f32>()
}

/// Threads of a block that has a row of `vocab` logits, and takes two fours of each at once.
pub(super) fn logit_threads(vocab: usize) -> u32 {
    (vocab.div_ceil(8).next_multiple_of(32)).clamp(32, 1024) as u32
}

/// Bytes of shared memory in which a block measures a row of logits (`SPREAD_BYTES` of `logits.cuh` for each warp).
pub(super) fn spread_bytes(threads: u32) -> usize {
    threads as usize / 32 * 16
}

/// A thread for each group of each of `rows` rows of `width`.
///
/// # Errors
/// There are more groups than a kernel counts.
pub(super) fn group_launch(rows: usize, width: usize) -> Result<Launch, DeviceError> {
    let groups = rows.saturating_mul(width.div_ceil(GROUP));
    // Threads past the end are numbered too.
    if groups > u32::MAX as usize - THREADS || width > i32::MAX as usize {
        return Err(DeviceError::Shape(format!("{rows} rows of {width} are too many")));
    }
    Ok(Launch::row(groups.div_ceil(THREADS), THREADS as u32))
}

#[cfg(test)]
mod tests {
    use super::{group_launch, row_threads, sum_bytes, wide};

    #[test]
    fn blocks_fit_their_rows() {
        assert_eq!(
            [1, 8, 256, 257, 576, 4096, 8192, 50_000].map(row_threads),
            [32, 32, 32, 64, 96, 512, 1024, 1024]
        );
        assert_eq!(sum_bytes(96, 2), 24);
        assert_eq!(group_launch(3, 9).unwrap().blocks, [1, 1, 1]);
        assert_eq!(group_launch(0, 9).unwrap().blocks, [0, 1, 1]);
        assert_eq!(group_launch(129, 15).unwrap().blocks, [2, 1, 1]);
        assert!(group_launch(1 << 20, 1 << 20).is_err());
    }

    #[test]
    fn only_aligned_rows_are_wide() {
        assert!(wide(16, [0, 32]));
        assert!(!wide(12, [0, 32]));
        assert!(!wide(16, [0, 40]));
    }
}
