//! The encoder's promises on a device, on the host in its place or, where `PITH_TEST_DEVICE` names one, on a card: vectors near the
//! reference's, whatever stands beside a text, and a device that is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod encoder_harness;

use std::collections::VecDeque;
use std::sync::Arc;

use encoder_harness::{FIXTURES, cases, distance, embed, open};
use pith_engine::encoder::{DEVICE_ROWS, Encoder, EncoderError, Precision};
use pith_kernels::device::host::HostDevice;
use pith_kernels::device::{Device, DeviceError, cuda};
use pith_kernels::{Isa, Pool};

/// Largest cosine distance from the reference. Weights and activations are bfloat16; random weights amplify what trained ones forgive.
/// Seen: 8.2e-5.
const DISTANCE: f32 = 3e-4;

/// A device for tests.
fn device() -> Device {
    match std::env::var("PITH_TEST_DEVICE").as_deref() {
        Ok(ordinal) => cuda::device(ordinal.trim_start_matches("cuda:").parse().unwrap()).unwrap(),
        Err(_) => Device::new(Arc::new(HostDevice::new(3, false))),
    }
}

fn load(name: &str) -> Encoder {
    Encoder::load_on(open(name), Pool::new(2), Box::new(|| Ok(device()))).unwrap()
}

#[test]
fn vectors_are_near_the_reference() {
    for name in FIXTURES {
        // An empty text and ones longer than the encoder takes are among them.
        let cases = cases(name);
        assert!(cases[0].text.is_empty() && cases.iter().any(|case| case.ids.len() == 40));
        let texts: Vec<&str> = cases.iter().map(|case| &*case.text).collect();
        let mut farthest = 0.0f32;
        for (case, vector) in cases.iter().zip(embed(&load(name), &texts)) {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-5, "{name}: {:?} is {length} long", case.text);
            farthest = farthest.max(distance(&vector, &case.vector));
        }
        println!("{name}: distance {farthest:.1e}");
        assert!(farthest < DISTANCE, "{name}: {farthest}");
    }
}

#[test]
fn what_is_known_of_a_text_does_not_depend_on_the_machine() {
    for name in FIXTURES {
        let cases = cases(name);
        let texts: Vec<&str> = cases.iter().map(|case| &*case.text).collect();
        let on_cpu = Encoder::load(open(name), Isa::detect(), Pool::new(1), Precision::Float);
        let [on_cpu, on_device] = [on_cpu.unwrap(), load(name)]
            .map(|encoder| encoder.embed(&texts, &mut Vec::new(), || true).unwrap());
        assert_eq!(on_cpu, on_device);
    }
}

#[test]
fn company_and_turns_change_no_bit() {
    for name in FIXTURES {
        let cases = cases(name);
        let texts: Vec<&str> = cases.iter().map(|case| &*case.text).collect();
        let encoder = load(name);
        let alone: Vec<Vec<f32>> =
            texts.iter().map(|text| embed(&encoder, &[text]).remove(0)).collect();
        assert!(embed(&encoder, &texts) == alone, "{name}");
        let backwards: Vec<&str> = texts.iter().rev().copied().collect();
        let mut turned = embed(&encoder, &backwards);
        turned.reverse();
        assert!(turned == alone, "{name}, backwards");
        // What a larger batch left in the work space changes nothing either.
        assert!(embed(&encoder, &texts[..1]) == alone[..1], "{name}, afterwards");
    }
}

#[test]
fn more_texts_than_one_batch_takes_keep_their_order() {
    let cases = cases("tiny");
    // Mostly the longest text, so that neither all rows nor all texts go into one batch.
    let longest = (0..cases.len()).max_by_key(|&at| cases[at].ids.len()).unwrap();
    let which = |at: usize| if at.is_multiple_of(8) { at / 8 % cases.len() } else { longest };
    let texts: Vec<&str> = (0..270).map(|at| &*cases[which(at)].text).collect();
    let rows: usize = (0..256).map(|at| cases[which(at)].ids.len()).sum();
    assert!(rows > DEVICE_ROWS, "{rows} rows are too few");
    let encoder = load("tiny");
    let vectors = embed(&encoder, &texts);
    let alone: Vec<Vec<f32>> =
        cases.iter().map(|case| embed(&encoder, &[&case.text]).remove(0)).collect();
    for (at, vector) in vectors.iter().enumerate() {
        assert!(*vector == alone[which(at)], "text {at}");
    }
    assert!(encoder.embed(&[], &mut Vec::new(), || true).unwrap().is_empty());
    let mut out = vec![1.0];
    let stopped = encoder.embed(&texts, &mut out, || false);
    assert!(matches!(stopped, Err(EncoderError::Stopped)) && out == [1.0]);
}

#[test]
fn callers_beside_each_other_get_their_own_vectors() {
    let cases = cases("tiny");
    let encoder = load("tiny");
    let expected: Vec<Vec<f32>> =
        cases.iter().map(|case| embed(&encoder, &[&case.text]).remove(0)).collect();
    std::thread::scope(|scope| {
        for shift in 0..3 {
            let (encoder, cases, expected) = (&encoder, &cases, &expected);
            scope.spawn(move || {
                for round in 0..4 {
                    let at = (shift * 3 + round) % cases.len();
                    let texts: Vec<&str> = cases[at..].iter().map(|case| &*case.text).collect();
                    assert!(embed(encoder, &texts) == expected[at..]);
                }
            });
        }
    });
}

#[test]
fn vectors_of_a_device_have_an_identity_of_their_own() {
    let on_cpu = |precision| Encoder::load(open("tiny"), Isa::detect(), Pool::new(1), precision);
    let on_device = load("tiny");
    for precision in [Precision::Float, Precision::EightBit] {
        let on_cpu = on_cpu(precision).unwrap();
        assert_ne!(on_cpu.identity(), on_device.identity());
        assert!(on_cpu.place().starts_with("cpu"), "{}", on_cpu.place());
    }
    assert_eq!(on_device.identity(), load("tiny").identity());
    assert_ne!(on_device.identity(), load("odd").identity());
    assert!(!on_device.place().starts_with("cpu") && on_device.weight_bytes() > 0);
}

/// What `open` answers with, one after the other; then no device.
fn opening(
    answers: impl IntoIterator<Item = Arc<HostDevice>>,
) -> pith_engine::executor::gpu::OpenDevice {
    let mut answers: VecDeque<_> = answers.into_iter().collect();
    let missing = || DeviceError::Missing("none is left".to_owned());
    Box::new(move || Ok(Device::new(answers.pop_front().ok_or_else(missing)?)))
}

#[test]
fn a_lost_device_is_an_error_and_the_next_call_opens_it_again() {
    let hosts = [0, 1].map(|_| Arc::new(HostDevice::new(3, false)));
    let opens = opening(hosts.clone());
    let encoder = Encoder::load_on(open("tiny"), Pool::new(1), opens).unwrap();
    let sound = embed(&encoder, &["the cat sat"]);
    hosts[0].lose();
    let mut out = vec![1.0];
    let lost = encoder.embed(&["the cat sat"], &mut out, || true);
    assert!(matches!(lost, Err(EncoderError::Device(DeviceError::Lost(_)))), "{lost:?}");
    assert_eq!(out, [1.0]);
    assert!(embed(&encoder, &["the cat sat"]) == sound);
    hosts[1].lose();
    // Nobody has asked since: what is on the device is given up all the same, and once only.
    assert!(encoder.weight_bytes() > 0);
    encoder.let_go_of_lost();
    assert_eq!(encoder.weight_bytes(), 0);
    let missing = encoder.embed(&["the cat sat"], &mut out, || true);
    assert!(matches!(missing, Err(EncoderError::Device(DeviceError::Missing(_)))), "{missing:?}");
}

#[test]
fn a_device_in_order_is_not_given_up() {
    let encoder = load("tiny");
    let bytes = encoder.weight_bytes();
    encoder.let_go_of_lost();
    assert_eq!(encoder.weight_bytes(), bytes);
}

#[test]
fn no_device_is_an_error() {
    let loaded = Encoder::load_on(open("tiny"), Pool::new(1), opening([]));
    assert!(matches!(loaded, Err(EncoderError::Device(DeviceError::Missing(_)))), "{loaded:?}");
}
