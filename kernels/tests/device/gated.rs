//! Activations against the formulas in f64.

use pith_kernels::activation::Activation;
use pith_kernels::device::gated::{gated, gelu};
use pith_kernels::device::{DeviceError, DeviceVec};
use pith_kernels::{Isa, Pool};
use proptest::prelude::*;

use crate::{devices, is_bf16_of, narrow, noise, on_both, wide};

fn exact(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(40))]

    #[test]
    fn gates_let_through(
        rows in 0usize..5,
        width in prop_oneof![1usize..70, Just(512usize)],
        size in prop_oneof![Just(4.0f32), Just(300.0)],
        activation in prop_oneof![Just(Activation::Silu), Just(Activation::GeluTanh)],
    ) {
        let gate_up = narrow(&noise(2 * rows * width, (rows * width) as u64, size));
        let out = on_both(|device| {
            let gate_up = DeviceVec::from_slice(device, &gate_up).unwrap();
            let out = DeviceVec::new(device, rows * width).unwrap();
            gated(device, activation, gate_up.as_slice(), width, out.as_slice()).unwrap();
            out.as_slice().to_vec().unwrap()
        });
        for (at, &got) in out.iter().enumerate() {
            let row = at / width * 2 * width + at % width;
            let (gate, up) = (wide(gate_up[row]), wide(gate_up[row + width]));
            let expected = exact(activation, gate) * up;
            prop_assert!(is_bf16_of(got, expected, 1e-6 * up.abs()), "{gate} {up}: {got} for {expected}");
        }
    }

    /// The CPU's function is within 4e-7 of the formula, says its own test.
    #[test]
    fn the_exact_gelu_is_the_cpus(
        rows in 0usize..5, width in prop_oneof![1usize..70, Just(384usize)], size in 1.0f32..12.0,
    ) {
        let x = narrow(&noise(rows * width, 5, size));
        let bias = noise(width, 6, 1.0);
        let out = on_both(|device| {
            let values = DeviceVec::from_slice(device, &x).unwrap();
            let bias = DeviceVec::from_slice(device, &bias).unwrap();
            gelu(device, values.as_slice(), bias.as_slice()).unwrap();
            values.as_slice().to_vec().unwrap()
        });
        let mut expected: Vec<f32> = x.iter().map(|&x| wide(x) as f32).collect();
        pith_kernels::gelu::bias_gelu(Isa::Scalar, &Pool::new(1), &mut expected, &bias).unwrap();
        for (&got, expected) in out.iter().zip(expected) {
            prop_assert!(is_bf16_of(got, f64::from(expected), 1e-5), "{} for {expected}", wide(got));
        }
    }
}

#[test]
fn half_a_gate_is_refused() {
    let [device, _] = devices();
    let gate_up = DeviceVec::<u16>::zeroed(&device, 15).unwrap();
    let out = DeviceVec::<u16>::zeroed(&device, 8).unwrap();
    let made = gated(&device, Activation::Silu, gate_up.as_slice(), 8, out.as_slice());
    assert!(matches!(made, Err(DeviceError::Shape(_))), "{made:?}");
}
