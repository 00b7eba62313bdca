//! Likelihoods against a plain sum in f64.

use pith_kernels::device::score::{likelihoods, softcap};
use pith_kernels::device::{DeviceError, DeviceVec};
use proptest::prelude::*;

use crate::{bits, devices, noise, on_both};

/// Likelihoods on both devices, as bits.
fn scored(logits: &[f32], vocab: usize, shift: usize, targets: &[u32], rows: &[u32]) -> Vec<f32> {
    let out = on_both(|device| {
        let mut shifted = vec![0.0; shift];
        shifted.extend_from_slice(logits);
        let logits = DeviceVec::from_slice(device, &shifted).unwrap();
        let targets = DeviceVec::from_slice(device, targets).unwrap();
        let rows = DeviceVec::from_slice(device, rows).unwrap();
        let out = DeviceVec::new(device, targets.len()).unwrap();
        let logits = logits.slice(shift..shifted.len());
        let (targets, rows) = (targets.as_slice(), rows.as_slice());
        likelihoods(device, logits, vocab, targets, rows, out.as_slice()).unwrap();
        bits(&out.as_slice().to_vec().unwrap())
    });
    out.into_iter().map(f32::from_bits).collect()
}

proptest! {
    #![proptest_config(crate::cases(25))]

    #[test]
    fn likelihoods_are_those_of_softmax(
        vocab in prop_oneof![1usize..300, Just(4096usize), 4000usize..9000],
        rows in 1usize..4,
        asked in prop::collection::vec((any::<u32>(), 0u32..5), 0..5),
        size in prop::sample::select(vec![0.0f32, 2.0, 30.0, 3e4]),
        shift in 0usize..2,
    ) {
        let mut logits = noise(rows * vocab, vocab as u64, size);
        // A banned token here and there.
        logits.iter_mut().skip(1).step_by(17).for_each(|logit| *logit = f32::NEG_INFINITY);
        let targets: Vec<u32> = asked.iter().map(|&(id, _)| id % (vocab as u32 + 1)).collect();
        let target_rows: Vec<u32> = asked.iter().map(|&(_, row)| row).collect();
        let out = scored(&logits, vocab, shift, &targets, &target_rows);
        for ((&target, &row), &got) in targets.iter().zip(&target_rows).zip(&out) {
            if target as usize >= vocab || row as usize >= rows {
                prop_assert!(got.is_nan());
                continue;
            }
            let row = &logits[row as usize * vocab..][..vocab];
            let top = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            if top == f64::NEG_INFINITY {
                prop_assert!(got.is_nan());
                continue;
            }
            let sum: f64 = row.iter().map(|&x| (f64::from(x) - top).exp()).sum();
            let expected = f64::from(row[target as usize]) - top - sum.ln();
            if expected == f64::NEG_INFINITY {
                prop_assert_eq!(got, f32::NEG_INFINITY);
            } else {
                let off = (f64::from(got) - expected).abs();
                prop_assert!(off < 3e-6 * (1.0 + expected.abs()), "{got} for {expected}");
            }
        }
    }

    #[test]
    fn caps_are_soft(
        len in 0usize..3000, cap in prop::sample::select(vec![5.0f32, 30.0]), shift in 0usize..2,
    ) {
        let before = noise(len + shift, 3, 80.0);
        let after = on_both(|device| {
            let logits = DeviceVec::from_slice(device, &before).unwrap();
            softcap(device, logits.slice(shift..len + shift), cap).unwrap();
            logits.as_slice().to_vec().unwrap()
        });
        prop_assert_eq!(&after[..shift], &before[..shift]);
        for (&after, &before) in after.iter().zip(&before).skip(shift) {
            let expected = f64::from(cap) * (f64::from(before) / f64::from(cap)).tanh();
            prop_assert!((f64::from(after) - expected).abs() < 1e-5, "{after} for {before}");
        }
    }
}

#[test]
fn rows_that_are_not_finite_have_no_likelihoods() {
    let vocab = 5000;
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
        for at in [0, 4097, vocab - 1] {
            let mut logits = noise(2 * vocab, 1, 2.0);
            logits[at] = bad;
            let out = scored(&logits, vocab, 0, &[3, 3], &[0, 1]);
            assert!(out[0].is_nan() && out[1].is_finite(), "{out:?}");
        }
    }
    assert!(scored(&[f32::NEG_INFINITY; 40], 40, 0, &[3], &[0])[0].is_nan());
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let [device, _] = devices();
    let logits = DeviceVec::<f32>::zeroed(&device, 10).unwrap();
    let ids = DeviceVec::<u32>::zeroed(&device, 3).unwrap();
    let out = DeviceVec::<f32>::zeroed(&device, 3).unwrap();
    let (logits, ids, out) = (logits.as_slice(), ids.as_slice(), out.as_slice());
    for made in [
        likelihoods(&device, logits, 4, ids, ids, out),
        likelihoods(&device, logits, 0, ids, ids, out),
        likelihoods(&device, logits, 5, ids, ids.first(2), out),
        likelihoods(&device, logits, 5, ids, ids, out.first(1)),
        softcap(&device, logits, 0.0),
        softcap(&device, logits, f32::NAN),
    ] {
        assert!(matches!(made, Err(DeviceError::Shape(_))), "{made:?}");
    }
}
