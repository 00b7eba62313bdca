//! Moving blocks of the KV cache.

use super::{Device, DeviceError, DeviceSlice, Launch};

const THREADS: u32 = 256;
/// Bytes a thread moves at once.
const WORD: usize = 16;
/// Words of a block that one block of threads moves before another is worth its start.
const WORDS_EACH: usize = 4 * THREADS as usize;

/// For each `(from, to)` of `pairs` (numbers of blocks, one after the other), copies block `from` of `cache` over block
/// `to`; a block takes `block_bytes`, a multiple of 16. Pairs that name a block beyond the cache are passed over. No
/// block is written twice, nor read and written.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn copy_blocks(
    device: &Device,
    cache: DeviceSlice<'_, u8>,
    block_bytes: usize,
    pairs: DeviceSlice<'_, u32>,
) -> Result<(), DeviceError> {
    if block_bytes == 0 || !block_bytes.is_multiple_of(WORD) || !pairs.len().is_multiple_of(2) {
        let what = format!("{} numbers for blocks of {block_bytes} bytes", pairs.len());
        return Err(DeviceError::Shape(what));
    }
    let (blocks, words) = (cache.len() / block_bytes, block_bytes / WORD);
    let launch = Launch::plane(pairs.len() / 2, words.div_ceil(WORDS_EACH), THREADS);
    let arguments = [cache.into(), pairs.into(), blocks.into(), words.into()];
    // SAFETY: the kernel reads as many pairs as there are columns of the grid, and passes over those that leave the cache.
    unsafe { device.launch("copy_blocks", launch, &arguments) }
}
