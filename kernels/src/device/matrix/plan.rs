//! How a product is cut: into kernels, blocks and pieces. Plain arithmetic, known before anything is launched.

use super::DeviceFormat;

/// Most rows the kernels for few rows take at once.
pub(super) const FEW_ROWS: usize = 32;

/// Outputs of a block of these.
pub(super) const GEMV_OUTPUTS: usize = 16;

/// Most rows that are multiplied by the kernels for few rows, `vendor` telling whether its library may be used.
///
/// For coded weights that is as many as these kernels take: anything else reads and writes the weights as bfloat16 on top,
/// seven times the bytes of `Q4`. For bfloat16 the library reads them once too, and from 9 rows on these kernels do twice the
/// work.
pub(super) fn few_rows(format: DeviceFormat, vendor: bool) -> usize {
    match format {
        DeviceFormat::Bf16 if vendor => 8,
        _ => FEW_ROWS,
    }
}

/// Tiles of eight rows of a kernel for few rows: 1, 2 or 4.
pub(super) fn gemv_tiles(rows: usize) -> usize {
    rows.div_ceil(8).next_power_of_two()
}

/// Warps of a block of these: those share the inputs of its outputs out.
///
/// A warp keeps 4 KiB on their way, and memory is busy with some 48 KiB for each multiprocessor: hence twelve warps for each,
/// if there are so many. Eight at least, where the inputs suffice: blocks that read for long end at different times, and
/// the last ones alone. Nothing here depends on the number of rows, and so the order of sums does not.
pub(super) fn gemv_warps(
    outputs: usize,
    inputs: usize,
    format: DeviceFormat,
    multiprocessors: u32,
) -> usize {
    let blocks = outputs.div_ceil(GEMV_OUTPUTS);
    let warps = if blocks * 8 < 12 * multiprocessors as usize { 16 } else { 8 };
    // None that would have nothing to do.
    let chunks = inputs.div_ceil(format.chunk()).max(1);
    let share = chunks.div_ceil(warps);
    chunks.div_ceil(share)
}

/// A tile shape of the kernels for many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) kernel: &'static str,
    /// Rows, and outputs.
    pub(super) side: usize,
    pub(super) threads: u32,
}

impl Tile {
    /// Bytes of shared memory: four stages of 32 columns of both operands.
    pub(super) fn shared_bytes(self) -> usize {
        4 * 32 * 2 * 2 * self.side
    }
}

/// From the fastest, if they fill the device, to the smallest.
const TILES: [Tile; 3] = [
    Tile { kernel: "gemm_128", side: 128, threads: 256 },
    Tile { kernel: "gemm_64", side: 64, threads: 128 },
    Tile { kernel: "gemm_32", side: 32, threads: 128 },
];

/// The largest tile that gives every multiprocessor a block and is not half empty for want of rows. All give the same bits.
pub(super) fn gemm_tile(rows: usize, outputs: usize, multiprocessors: u32) -> Tile {
    let [larger @ .., smallest] = TILES;
    let fits = |tile: &Tile| {
        let blocks = rows.div_ceil(tile.side) * outputs.div_ceil(tile.side);
        blocks >= multiprocessors as usize && rows > tile.side / 2
    };
    larger.into_iter().find(fits).unwrap_or(smallest)
}

/// Numbers of scratch worth having: 64 MiB.
const SCRATCH: usize = 32 << 20;

/// Rows made bfloat16 at once are a multiple of this, a tile.
const SLAB_STEP: usize = 128;

/// Numbers of scratch worth having for a coded matrix.
pub(super) fn scratch_len(rows: usize, cols: usize) -> usize {
    let most = (SCRATCH / cols.max(1) / SLAB_STEP * SLAB_STEP).max(SLAB_STEP);
    rows.min(most) * cols
}

/// Rows that are made bfloat16 at once in a scratch of `scratch` numbers, as evenly as can be; `None`: too few.
pub(super) fn slab_rows(rows: usize, cols: usize, scratch: usize) -> Option<usize> {
    let room = scratch / cols.max(1);
    if room >= rows {
        return Some(rows);
    }
    let most = room / SLAB_STEP * SLAB_STEP;
    let slabs = rows.div_ceil(if most == 0 { return None } else { most });
    Some(rows.div_ceil(slabs).next_multiple_of(SLAB_STEP).min(most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tiles_grow_with_the_rows() {
        assert_eq!([1, 8, 9, 16, 17, 32].map(gemv_tiles), [1, 1, 2, 2, 4, 4]);
    }

    #[test]
    fn a_device_is_kept_busy_by_few_outputs_too() {
        let warps = |outputs, inputs| gemv_warps(outputs, inputs, DeviceFormat::Bf16, 132);
        assert_eq!(warps(128_256, 4096), 8);
        assert_eq!(warps(4096, 14_336), 8);
        assert_eq!(warps(1024, 4096), 16);
        // Eighteen chunks are nine shares of two.
        assert_eq!(warps(576, 576), 9);
        assert_eq!(gemv_warps(576, 576, DeviceFormat::Q4, 132), 5);
        assert_eq!(warps(576, 8), 1);
    }

    #[test]
    fn large_products_take_large_tiles() {
        assert_eq!(gemm_tile(2048, 4096, 132).side, 128);
        assert_eq!(gemm_tile(256, 4096, 132).side, 64);
        assert_eq!(gemm_tile(64, 4096, 132).side, 32);
        // Many blocks, but most rows of a larger tile would be empty.
        assert_eq!(gemm_tile(16, 128_256, 132).side, 32);
        assert_eq!(gemm_tile(40, 128_256, 132).side, 64);
    }

    proptest! {
        #[test]
        fn slabs_fit_and_cover(rows in 1usize..5000, cols in 1usize..300, scratch in 0usize..500_000) {
            match slab_rows(rows, cols, scratch) {
                Some(slab) => {
                    prop_assert!(slab > 0 && slab * cols <= scratch);
                    prop_assert!(slab == rows || slab % SLAB_STEP == 0);
                }
                None => prop_assert!(scratch < cols * SLAB_STEP.min(rows)),
            }
            prop_assert!(slab_rows(rows, cols, scratch_len(rows, cols)).is_some());
        }

        #[test]
        fn every_warp_has_inputs(outputs in 1usize..9000, inputs in 1usize..20_000, processors in 1u32..200) {
            for format in [DeviceFormat::Bf16, DeviceFormat::Q4, DeviceFormat::Q8] {
                let warps = gemv_warps(outputs, inputs, format, processors);
                let chunks = inputs.div_ceil(format.chunk());
                prop_assert!((1..=16).contains(&warps));
                prop_assert!((warps - 1) * chunks.div_ceil(warps) < chunks);
            }
        }
    }
}
