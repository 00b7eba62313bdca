//! Every kernel of the device against its oracle: random shapes, guard pages, poisoned memory, threads in both orders.
//!
//! The host is in the device's place, or a card where `PITH_TEST_DEVICE` names one (`cuda:N`). Then nothing is poisoned and threads have the
//! order they have; tests of the host's own strictness are passed over, and say so. `PITH_TEST_CASES` bounds the random cases of
//! a test, for tools that slow everything down.

#![expect(clippy::unwrap_used, reason = "a test")]

mod device {
    mod attention;
    mod copy;
    mod encoder;
    mod gated;
    mod heads;
    mod host;
    mod kv;
    mod matrix;
    mod matrix_multiply;
    mod matrix_vendor;
    mod measure;
    mod norm;
    mod sample;
    mod score;
    mod tokens;
}

use std::cell::OnceCell;
use std::env;
use std::fmt::Debug;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use pith_kernels::device::{Device, cuda, host};
use proptest::prelude::ProptestConfig;

/// The number of the card that is tested, if one is.
fn ordinal() -> Option<u32> {
    let text = env::var("PITH_TEST_DEVICE").ok()?;
    let number = text.trim_start_matches("cuda:").parse();
    Some(number.expect("PITH_TEST_DEVICE is cuda:N, a card"))
}

/// The card that is tested, if one is. Each test has a queue of its own, so that none records or times what others do.
fn card() -> Option<Device> {
    /// Keeps the card's context for all tests.
    static FIRST: OnceLock<Device> = OnceLock::new();
    thread_local! {
        static CARD: OnceCell<Device> = const { OnceCell::new() };
    }
    let open = |ordinal| cuda::device(ordinal).unwrap();
    let ordinal = ordinal()?;
    FIRST.get_or_init(|| open(ordinal));
    Some(CARD.with(|card| card.get_or_init(|| open(ordinal)).clone()))
}

/// A device whose threads run forwards and one whose run backwards; or the card, twice.
fn devices() -> [Device; 2] {
    match card() {
        Some(card) => [card.clone(), card],
        None => [host::device(3), host::backwards_device(3)],
    }
}

/// Whether a test of `what` the host alone does is to be passed over, which is told past the capture of output.
#[expect(clippy::explicit_write, reason = "what is printed is captured")]
fn passed_over(what: &str) -> bool {
    let on_card = ordinal().is_some();
    if on_card {
        writeln!(io::stderr(), "passed over on a card: {what}").unwrap();
    }
    on_card
}

/// Random cases of a test: `usual`, or as many as `PITH_TEST_CASES` allows.
fn cases(usual: u32) -> ProptestConfig {
    let most = env::var("PITH_TEST_CASES").ok().map(|text| text.parse().unwrap());
    ProptestConfig::with_cases(usual.min(most.unwrap_or(u32::MAX)))
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
