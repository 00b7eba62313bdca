//! Norms against plain loops in f64.

use pith_kernels::device::norm::{
    add_bias, add_bias_f32, layer_norm, rms_norm, rms_norm_add, unit_rows,
};
use pith_kernels::device::{DeviceError, DeviceVec};
use proptest::prelude::*;

use crate::{bits, devices, is_bf16_of, narrow, noise, on_both, wide};

/// Widths with and without a tail, and one that no block's threads cover at once.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..70, Just(576usize), Just(1000), Just(2048), Just(8200)]
}

/// The row scaled to a mean square of 1.
fn normalised(row: &[f32], eps: f64) -> Vec<f64> {
    let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
    let factor = 1.0 / (squares / row.len() as f64 + eps).sqrt();
    row.iter().map(|&x| f64::from(x) * factor).collect()
}

proptest! {
    #![proptest_config(crate::cases(30))]

    #[test]
    fn rows_gathered_are_normalised(
        width in widths(),
        input_rows in 1usize..5,
        gathered in prop::option::of(prop::collection::vec(0u32..7, 0..6)),
        shift in 0usize..2,
    ) {
        let input = noise(input_rows * width + shift, width as u64, 5.0);
        let weight = noise(width, 9, 2.0);
        let from = shift..shift + input_rows * width;
        let rows = gathered.as_ref().map_or(input_rows, Vec::len);
        let out = on_both(|device| {
            let input = DeviceVec::from_slice(device, &input).unwrap();
            let weight = DeviceVec::from_slice(device, &weight).unwrap();
            let gathered =
                gathered.as_ref().map(|rows| DeviceVec::from_slice(device, rows).unwrap());
            let out = DeviceVec::new(device, rows * width).unwrap();
            let gathered = gathered.as_ref().map(|rows| rows.as_slice());
            let input = input.slice(from.clone());
            rms_norm(device, input, gathered, weight.as_slice(), 1e-5, out.as_slice()).unwrap();
            out.as_slice().to_vec().unwrap()
        });
        for (row, out) in out.chunks_exact(width).enumerate() {
            let which = gathered.as_ref().map_or(row, |rows| rows[row] as usize);
            let which = which.min(input_rows - 1);
            let expected = normalised(&input[from.clone()][which * width..][..width], 1e-5);
            for ((&got, expected), &weight) in out.iter().zip(expected).zip(&weight) {
                let expected = expected * f64::from(weight);
                prop_assert!(is_bf16_of(got, expected, 1e-6), "{} for {expected}", wide(got));
            }
        }
    }

    #[test]
    fn what_is_added_is_normalised_first(width in widths(), rows in 0usize..4) {
        let added = noise(rows * width, 1, 50.0);
        let weight = noise(width, 2, 2.0);
        let before = noise(rows * width, 3, 4.0);
        let after = on_both(|device| {
            let stream = DeviceVec::from_slice(device, &before).unwrap();
            let added = DeviceVec::from_slice(device, &added).unwrap();
            let weight = DeviceVec::from_slice(device, &weight).unwrap();
            let (added, weight) = (added.as_slice(), weight.as_slice());
            rms_norm_add(device, added, weight, 1e-6, stream.as_slice()).unwrap();
            bits(&stream.as_slice().to_vec().unwrap())
        });
        for (row, after) in after.chunks_exact(width).enumerate() {
            let expected = normalised(&added[row * width..][..width], 1e-6);
            for (at, &got) in after.iter().enumerate() {
                let expected = f64::from(before[row * width + at])
                    + expected[at] * f64::from(weight[at]);
                let got = f64::from(f32::from_bits(got));
                prop_assert!((got - expected).abs() < 1e-5 * (1.0 + expected.abs()));
            }
        }
    }

    /// Far from 0 too, where a variance by way of squares would cancel.
    #[test]
    fn layer_norm_centres(
        width in widths(), rows in 0usize..4, offset in prop_oneof![Just(0.0f32), Just(100.0)],
        in_place in any::<bool>(), kept in any::<bool>(),
    ) {
        let input: Vec<f32> =
            noise(rows * width, 4, 3.0).iter().map(|value| value + offset).collect();
        let (weight, bias) = (noise(width, 5, 2.0), noise(width, 6, 1.0));
        let (out, stream) = on_both(|device| {
            let input = DeviceVec::from_slice(device, &input).unwrap();
            let other = DeviceVec::<f32>::zeroed(device, rows * width).unwrap();
            let weight = DeviceVec::from_slice(device, &weight).unwrap();
            let bias = DeviceVec::from_slice(device, &bias).unwrap();
            let out = DeviceVec::new(device, rows * width).unwrap();
            let stream = if in_place { input.as_slice() } else { other.as_slice() };
            let (weight, bias, kept) = (weight.as_slice(), bias.as_slice(), kept.then_some(stream));
            let input = input.as_slice();
            layer_norm(device, input, weight, bias, 1e-12, kept, out.as_slice()).unwrap();
            (out.as_slice().to_vec().unwrap(), bits(&stream.to_vec().unwrap()))
        });
        for row in 0..rows {
            let at = row * width..(row + 1) * width;
            let x: Vec<f64> = input[at.clone()].iter().map(|&x| f64::from(x)).collect();
            let mean = x.iter().sum::<f64>() / width as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            for (i, index) in at.enumerate() {
                let unit = (x[i] - mean) / (variance + 1e-12).sqrt();
                let expected = unit * f64::from(weight[i]) + f64::from(bias[i]);
                // A row of one number is all mean: rounding decides what is left of it.
                if width > 1 {
                    let got = f64::from(f32::from_bits(stream[index]));
                    let off = (got - expected).abs();
                    prop_assert!(!kept || off < 1e-4 * (1.0 + unit.abs()), "{got} for {expected}");
                    prop_assert!(is_bf16_of(out[index], expected, 1e-4 * (1.0 + unit.abs())));
                }
            }
        }
        if !kept {
            let untouched = if in_place { bits(&input) } else { vec![0; rows * width] };
            prop_assert_eq!(stream, untouched);
        }
    }

    #[test]
    fn vectors_get_length_one(width in widths(), rows in 0usize..4) {
        let mut before = noise((rows + 1) * width, 7, 8.0);
        before[rows * width..].fill(0.0);
        let after = on_both(|device| {
            let values = DeviceVec::from_slice(device, &before).unwrap();
            unit_rows(device, values.as_slice(), width).unwrap();
            bits(&values.as_slice().to_vec().unwrap())
        });
        for (row, after) in after.chunks_exact(width).enumerate() {
            let x = &before[row * width..][..width];
            let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            for (&got, &x) in after.iter().zip(x) {
                let expected = if row == rows { 0.0 } else { f64::from(x) / length };
                prop_assert!((f64::from(f32::from_bits(got)) - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn biases_are_added(width in widths(), rows in 0usize..4, shift in 0usize..2) {
        let x = noise(rows * width + shift, 8, 3.0);
        let bias = noise(width, 9, 3.0);
        let (halves, floats) = on_both(|device| {
            let halves = DeviceVec::from_slice(device, &narrow(&x)).unwrap();
            let floats = DeviceVec::from_slice(device, &x).unwrap();
            let bias = DeviceVec::from_slice(device, &bias).unwrap();
            let (h, f) = (halves.slice(shift..x.len()), floats.slice(shift..x.len()));
            add_bias(device, h, bias.as_slice()).unwrap();
            add_bias_f32(device, f, bias.as_slice()).unwrap();
            (h.to_vec().unwrap(), f.to_vec().unwrap())
        });
        for (at, x) in x[shift..].iter().enumerate() {
            prop_assert_eq!(floats[at], x + bias[at % width]);
            let rounded = wide(narrow(&[*x])[0]) as f32;
            prop_assert_eq!(halves[at], narrow(&[rounded + bias[at % width]])[0]);
        }
    }
}

/// Alone, in company, aligned or not: the same bits.
#[test]
fn a_rows_norm_is_its_own() {
    let (width, rows) = (1024, 6);
    let input = noise(rows * width + 1, 11, 2.0);
    let weight = noise(width, 12, 1.0);
    let [device, _] = devices();
    let weight = DeviceVec::from_slice(&device, &weight).unwrap();
    let norm = |from: usize, to: usize, shift: usize| {
        let mut shifted = vec![0.0; shift];
        shifted.extend_from_slice(&input[from * width..to * width]);
        let input = DeviceVec::from_slice(&device, &shifted).unwrap();
        let out = DeviceVec::new(&device, shifted.len() - shift).unwrap();
        let rows = input.slice(shift..shifted.len());
        rms_norm(&device, rows, None, weight.as_slice(), 1e-5, out.as_slice()).unwrap();
        out.as_slice().to_vec().unwrap()
    };
    let all = norm(0, rows, 0);
    assert_eq!(norm(3, 4, 0), all[3 * width..4 * width]);
    assert_eq!(norm(3, 5, 1), all[3 * width..5 * width]);
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let [device, _] = devices();
    let floats = DeviceVec::<f32>::zeroed(&device, 24).unwrap();
    let halves = DeviceVec::<u16>::zeroed(&device, 24).unwrap();
    let (f, h) = (|len| floats.slice(0..len), |len| halves.slice(0..len));
    let all = [
        rms_norm(&device, f(24), None, f(7), 0.0, h(24)),
        rms_norm(&device, f(24), None, f(8), 0.0, h(16)),
        rms_norm(&device, f(24), None, f(0), 0.0, h(24)),
        rms_norm_add(&device, f(16), f(8), 0.0, f(24)),
        layer_norm(&device, f(24), f(8), f(7), 0.0, None, h(24)),
        layer_norm(&device, f(24), f(8), f(8), 0.0, Some(f(16)), h(24)),
        unit_rows(&device, f(24), 5),
        add_bias(&device, h(24), f(5)),
        add_bias_f32(&device, f(24), f(0)),
    ];
    for (at, made) in all.into_iter().enumerate() {
        assert!(matches!(made, Err(DeviceError::Shape(_))), "{at}: {made:?}");
    }
}
