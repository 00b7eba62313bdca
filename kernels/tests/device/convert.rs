//! Conversions agree with those of the host to the bit.

use pith_kernels::device::DeviceVec;
use pith_kernels::device::convert::{narrow, widen};
use proptest::prelude::*;

use crate::{bits, on_both};

proptest! {
    #![proptest_config(crate::cases(40))]

    #[test]
    fn numbers_keep_what_fits(
        raw in prop::collection::vec(any::<u32>(), 0..3000), shift in 0usize..3,
    ) {
        let values: Vec<f32> = raw.iter().map(|&bits| f32::from_bits(bits)).collect();
        let from = shift.min(values.len())..values.len();
        let (narrowed, widened) = on_both(|device| {
            let all = DeviceVec::from_slice(device, &values).unwrap();
            let to = DeviceVec::new(device, from.len()).unwrap();
            narrow(device, all.slice(from.clone()), to.as_slice()).unwrap();
            let back = DeviceVec::new(device, from.len()).unwrap();
            widen(device, to.as_slice(), back.as_slice()).unwrap();
            (to.as_slice().to_vec().unwrap(), bits(&back.as_slice().to_vec().unwrap()))
        });
        let expected: Vec<u16> =
            values[from].iter().map(|&value| half::bf16::from_f32(value).to_bits()).collect();
        let wide: Vec<u32> = expected.iter().map(|&bits| u32::from(bits) << 16).collect();
        prop_assert_eq!(narrowed, expected);
        prop_assert_eq!(widened, wide);
    }
}
