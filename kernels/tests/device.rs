//! Every kernel of the device against its oracle, on the host in the device's place: random shapes, guard pages,
//! poisoned memory, threads in both orders.

#![expect(clippy::unwrap_used, reason = "a test")]

mod device {
    mod attention;
    mod convert;
    mod copy;
    mod embed;
    mod encoder;
    mod gated;
    mod heads;
    mod host;
    mod kv;
    mod matrix;
    mod matrix_multiply;
    mod matrix_vendor;
    mod norm;
    mod sample;
    mod score;
}

use std::fmt::Debug;
use std::sync::OnceLock;

use pith_kernels::device::{Device, cuda, host};

/// A device whose threads run forwards and one whose run backwards; with `PITH_TEST_DEVICE=cuda:N` the card of that number,
/// twice, so that what holds on the host is held to on the card too.
fn devices() -> [Device; 2] {
    static CARD: OnceLock<Option<Device>> = OnceLock::new();
    let card = CARD.get_or_init(|| {
        let name = std::env::var("PITH_TEST_DEVICE").ok()?;
        let ordinal = name.trim_start_matches("cuda:").parse().unwrap();
        Some(cuda::device(ordinal).unwrap())
    });
    match card {
        Some(card) => [card.clone(), card.clone()],
        None => [host::device(3), host::backwards_device(3)],
    }
}

/// What `run` makes of a device whose threads run forwards, and of one whose run backwards: the same.
fn on_both<T: PartialEq + Debug>(run: impl Fn(&Device) -> T) -> T {
    let [forwards, backwards] = devices().map(|device| run(&device));
    assert_eq!(forwards, backwards, "the order of threads shows");
    forwards
}

/// The bits of `values`, for comparisons in which NaN equals itself.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn narrow(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| half::bf16::from_f32(value).to_bits()).collect()
}

fn wide(value: u16) -> f64 {
    f64::from(half::bf16::from_bits(value).to_f32())
}

/// Whether a bfloat16 is `expected` but for its own rounding and `slack`.
fn is_bf16_of(got: u16, expected: f64, slack: f64) -> bool {
    (wide(got) - expected).abs() <= expected.abs() / 256.0 + slack
}

/// Numbers that look random, between -`size` and `size`.
fn noise(len: usize, seed: u64, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
    };
    (0..len).map(|_| next()).collect()
}
