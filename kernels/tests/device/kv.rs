//! The layout of the paged cache.

use pith_kernels::device::DeviceError;
use pith_kernels::device::kv::{DeviceKv, DeviceKvKind};

use crate::devices;

#[test]
fn a_cache_takes_what_its_blocks_are_said_to_take() {
    let [device, _] = devices();
    for (kind, expected) in [(DeviceKvKind::Bf16, 24_576), (DeviceKvKind::F8, 12_288 + 384)] {
        let kv = DeviceKv::new(&device, kind, 3, 128, 16, 5).unwrap();
        let scales = [&kv.key_scales, &kv.value_scales]
            .map(|s| s.as_ref().map_or(0, |scales| scales.bytes()));
        let bytes = kv.keys.bytes() + kv.values.bytes() + scales[0] + scales[1];
        let per_block = DeviceKv::bytes_per_block(kind, 3, 128, 16);
        assert_eq!((bytes, per_block, kv.slots()), (5 * per_block, expected, 80));
    }
}

#[test]
fn sizes_no_kernel_takes_are_refused() {
    let [device, _] = devices();
    for (head_dim, block_size, blocks) in [(64, 24, 1), (64, 8, 1), (20, 16, 1), (64, 16, 1 << 28)]
    {
        let kv = DeviceKv::new(&device, DeviceKvKind::Bf16, 1, head_dim, block_size, blocks);
        assert!(matches!(kv, Err(DeviceError::Shape(_))), "{kv:?}");
    }
}
