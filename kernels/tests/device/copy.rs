//! `copy_blocks` moves what it is told to, and nothing else.

use pith_kernels::device::copy::copy_blocks;
use pith_kernels::device::{DeviceError, DeviceVec};
use proptest::prelude::*;

use crate::devices;

proptest! {
    #![proptest_config(crate::cases(40))]

    #[test]
    fn blocks_named_are_copied(
        words in 1usize..400,
        order in Just((0u32..9).collect::<Vec<_>>()).prop_shuffle(),
        pairs in 0usize..=4,
    ) {
        for device in devices() {
            let block_bytes = words * 16;
            let before: Vec<u8> = (0..9 * block_bytes).map(|at| (at * 31 % 251) as u8).collect();
            let cache = DeviceVec::from_slice(&device, &before).unwrap();
            // The last pair leaves the cache.
            let mut named = order[..2 * pairs].to_vec();
            named.extend([0, 9]);
            let on_device = DeviceVec::from_slice(&device, &named).unwrap();
            copy_blocks(&device, cache.as_slice(), block_bytes, on_device.as_slice()).unwrap();
            let mut after = before.clone();
            for pair in order[..2 * pairs].chunks_exact(2) {
                let from = pair[0] as usize * block_bytes;
                after.copy_within(from..from + block_bytes, pair[1] as usize * block_bytes);
            }
            prop_assert_eq!(cache.as_slice().to_vec().unwrap(), after);
        }
    }
}

#[test]
fn blocks_of_odd_sizes_are_refused() {
    let [device, _] = devices();
    let cache = DeviceVec::<u8>::zeroed(&device, 64).unwrap();
    let pairs = DeviceVec::from_slice(&device, &[0u32, 1]).unwrap();
    let copied = copy_blocks(&device, cache.as_slice(), 24, pairs.as_slice());
    assert!(matches!(copied, Err(DeviceError::Shape(_))), "{copied:?}");
}
