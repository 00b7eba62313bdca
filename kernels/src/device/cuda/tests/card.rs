//! Tests of a card, with the feature `card` alone: the first, or that of the number in `PITH_TEST_DEVICE` (`cuda:N`).

use std::process::Command;
use std::sync::OnceLock;

use half::bf16;

use super::super::device;
use crate::device::copy::copy_blocks;
use crate::device::{Argument, Device, DeviceError, DeviceVec, Graph, Launch, Product, ProductOut};

/// The number of the card that is tested.
fn ordinal() -> u32 {
    let text = std::env::var("PITH_TEST_DEVICE").unwrap_or_default();
    match text.trim_start_matches("cuda:") {
        "" => 0,
        number => number.parse().expect("PITH_TEST_DEVICE is cuda:N, a card"),
    }
}

/// The card, opened once.
fn card() -> &'static Device {
    static CARD: OnceLock<Device> = OnceLock::new();
    CARD.get_or_init(|| device(ordinal()).unwrap())
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + seed) * 31 % 251) as u8).collect()
}

#[test]
fn what_goes_up_comes_down() {
    let card = card();
    // More than the ring of staging buffers holds, and ends that lie anywhere.
    for len in [1, 3, 63, 4096, (16 << 20) - 1, (16 << 20) + 1, (70 << 20) + 13] {
        let values = bytes(len, len);
        let on_card = DeviceVec::from_slice(card, &values).unwrap();
        assert!(on_card.as_slice().to_vec().unwrap() == values, "{len} bytes");
    }
}

#[test]
fn small_uploads_one_after_another_do_not_overtake_each_other() {
    let card = card();
    let on_card = DeviceVec::<u8>::zeroed(card, 1000).unwrap();
    let mut downloads = Vec::new();
    for round in 0..200 {
        on_card.as_slice().upload(&bytes(1000, round)).unwrap();
        downloads.push(on_card.as_slice().download().unwrap());
    }
    for (round, download) in downloads.into_iter().enumerate() {
        if round % 3 == 0 {
            // Given up: its buffer is used again, and nothing else is disturbed.
            drop(download);
        } else {
            assert_eq!(download.wait().unwrap(), bytes(1000, round), "round {round}");
        }
    }
}

#[test]
fn threads_share_a_card() {
    let card = card();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                for round in 0..50 {
                    let values = bytes(10_000, seed * 1000 + round);
                    let on_card = DeviceVec::from_slice(card, &values).unwrap();
                    assert_eq!(on_card.as_slice().to_vec().unwrap(), values);
                }
            });
        }
    });
}

#[test]
fn a_recording_is_done_when_replayed() {
    let card = card();
    let cache = DeviceVec::from_slice(card, &[1u8; 48]).unwrap();
    let pairs = DeviceVec::from_slice(card, &[0u32, 1]).unwrap();
    let graph = Graph::record(card, || {
        copy_blocks(card, cache.as_slice(), 16, pairs.as_slice())?;
        cache.slice(32..48).fill(9)
    })
    .unwrap();
    cache.as_slice().upload(&[7; 48]).unwrap();
    assert_eq!(cache.as_slice().to_vec().unwrap(), [7; 48]);
    cache.slice(0..16).upload(&[5; 16]).unwrap();
    for _ in 0..3 {
        graph.replay().unwrap();
    }
    let after = cache.as_slice().to_vec().unwrap();
    assert_eq!((&after[..32], &after[32..]), (&[5u8; 32][..], &[9u8; 16][..]));
}

#[test]
fn time_passes_between_marks() {
    let card = card();
    let from = card.mark().unwrap();
    let large = DeviceVec::<u8>::zeroed(card, 1 << 30).unwrap();
    for value in 0..20 {
        large.as_slice().fill(value).unwrap();
    }
    let seconds = card.seconds(from, card.mark().unwrap()).unwrap();
    // 20 GiB written: at 10 TB/s in two milliseconds.
    assert!((0.002..10.0).contains(&seconds), "{seconds}");
}

#[test]
fn too_much_is_refused_and_harms_nothing() {
    let card = card();
    let wanted = 1usize << 46;
    let refused = DeviceVec::<u8>::new(card, wanted).unwrap_err();
    assert_eq!(refused, DeviceError::OutOfMemory { wanted });
    assert!(card.free_bytes().unwrap() > 0);
    card.synchronize().unwrap();
}

#[test]
fn launches_that_cannot_be_are_refused_and_harm_nothing() {
    let card = card();
    let launch = |name, arguments: &[Argument]| {
        // SAFETY: refused before anything is launched.
        unsafe { card.launch(name, Launch::row(1, 32), arguments) }
    };
    for refused in [
        launch("there_is_no_such_kernel", &[]),
        launch("copy_blocks", &[Argument::U32(1)]),
        launch("copy_blocks", &[Argument::U32(1); 4]),
        launch("copy_blocks", &[Argument::U32(1); 60]),
    ] {
        assert!(matches!(refused, Err(DeviceError::Kernel { .. })), "{refused:?}");
    }
    card.synchronize().unwrap();
}

/// `a b^T`, sums in f64.
fn oracle(a: &[f32], b: &[f32], inputs: usize, outputs: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let rows = a.chunks_exact(inputs);
    rows.flat_map(|a| b.chunks_exact(inputs).take(outputs).map(move |b| dot(a, b))).collect()
}

/// Numbers of bfloat16 between -1 and 1.
fn numbers(len: usize, seed: usize) -> (Vec<u16>, Vec<f32>) {
    let number = |at: usize| ((at + seed).wrapping_mul(2_654_435_761) >> 8) % 2001;
    let values = (0..len).map(|at| bf16::from_f32(number(at) as f32 / 1000.0 - 1.0));
    values.map(|value| (value.to_bits(), value.to_f32())).unzip()
}

#[test]
fn products_are_those_of_plain_loops() {
    let card = card();
    let driver = card.driver();
    // Rows that share an algorithm, and addresses that are hardly aligned.
    for (rows, outputs, inputs) in
        [(1, 64, 128), (33, 200, 256), (64, 200, 256), (50, 200, 256), (3, 8, 72), (300, 512, 1024)]
    {
        let ((a, a_plain), (b, b_plain)) =
            (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let wanted = oracle(&a_plain, &b_plain, inputs, outputs);
        let a = DeviceVec::from_slice(card, &a).unwrap();
        let b = DeviceVec::from_slice(card, &b).unwrap();
        let stride = outputs + 8;
        for kind in [ProductOut::Bf16, ProductOut::F32, ProductOut::AddF32] {
            let before = vec![0.5f32; rows * stride];
            let out = DeviceVec::from_slice(card, &before).unwrap();
            let product = Product {
                rows,
                outputs,
                inputs,
                a: a.as_slice().address(),
                b: b.as_slice().address(),
                out: out.as_slice().address(),
                out_stride: stride,
                kind,
            };
            // SAFETY: all three matrices are allocated.
            let multiply = || unsafe { driver.product(&product) };
            // The first of a shape times algorithms, the second uses the best; those that add must still add once each.
            let times = if kind == ProductOut::AddF32 { 2.0 } else { 1.0 };
            for _ in 0..2 {
                assert!(multiply().unwrap(), "the library takes no {product:?}");
            }
            let start = if kind == ProductOut::AddF32 { 0.5 } else { 0.0 };
            let found = out.as_slice().to_vec().unwrap();
            let found: Vec<f32> = match kind {
                ProductOut::F32 | ProductOut::AddF32 => found,
                ProductOut::Bf16 => found
                    .iter()
                    .flat_map(|pair| [pair.to_bits() as u16, (pair.to_bits() >> 16) as u16])
                    .map(|bits| bf16::from_bits(bits).to_f32())
                    .collect(),
            };
            let tolerance = match kind {
                ProductOut::Bf16 => 0.005,
                ProductOut::F32 | ProductOut::AddF32 => 1e-5,
            };
            for (at, wanted) in wanted.iter().enumerate() {
                let value = f64::from(found[at / outputs * stride + at % outputs]);
                let wanted = start + times * wanted;
                let scale = (inputs as f64).sqrt().max(wanted.abs());
                let off = (value - wanted).abs() / scale;
                assert!(off < tolerance, "{product:?}: {value} is not {wanted} at {at}");
            }
        }
    }
}

#[test]
fn products_first_met_in_a_recording_are_right_too() {
    let card = card();
    let (rows, outputs, inputs) = (5, 96, 320);
    let ((a, a_plain), (b, b_plain)) = (numbers(rows * inputs, 3), numbers(outputs * inputs, 4));
    let a = DeviceVec::from_slice(card, &a).unwrap();
    let b = DeviceVec::from_slice(card, &b).unwrap();
    let out = DeviceVec::<f32>::zeroed(card, rows * outputs).unwrap();
    let product = Product {
        rows,
        outputs,
        inputs,
        a: a.as_slice().address(),
        b: b.as_slice().address(),
        out: out.as_slice().address(),
        out_stride: outputs,
        kind: ProductOut::AddF32,
    };
    // SAFETY: all three matrices are allocated, and outlive the recording.
    let multiply = || unsafe { card.driver().product(&product) }.map(|taken| assert!(taken));
    let graph = Graph::record(card, multiply).unwrap();
    graph.replay().unwrap();
    graph.replay().unwrap();
    let found = out.as_slice().to_vec().unwrap();
    for (found, wanted) in found.iter().zip(oracle(&a_plain, &b_plain, inputs, outputs)) {
        assert!((f64::from(*found) - 2.0 * wanted).abs() < 1e-3, "{found} is not 2 * {wanted}");
    }
}

#[test]
fn the_bus_is_used() {
    let card = card();
    let values = bytes(1 << 30, 0);
    let on_card = DeviceVec::from_slice(card, &values).unwrap();
    card.synchronize().unwrap();
    let began = std::time::Instant::now();
    on_card.as_slice().upload(&values).unwrap();
    card.synchronize().unwrap();
    let rate = values.len() as f64 / began.elapsed().as_secs_f64() / 1e9;
    println!("uploads: {rate:.1} GB/s");
    // Half of what four lanes of PCIe 4.0 give: less is no bus, but a path without pinned memory.
    assert!(rate > 4.0, "{rate} GB/s");
}

#[test]
fn a_kernel_that_leaves_its_memory_loses_the_device_until_it_is_opened_again() {
    const ALONE: &str = "PITH_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // The other tests of this process would lose it too.
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!(
            "{module}::a_kernel_that_leaves_its_memory_loses_the_device_until_it_is_opened_again"
        );
        let mut process = Command::new(std::env::current_exe().unwrap());
        let ended = process.args([&name, "--exact"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let lost = device(ordinal()).unwrap();
    let pairs = DeviceVec::from_slice(&lost, &[0u32, 1]).unwrap();
    let nowhere = Argument::Address(0x10);
    let arguments = [nowhere, pairs.as_slice().into(), 2u32.into(), 1u32.into()];
    // SAFETY: none: this is how a device is lost.
    let launched = unsafe { lost.launch("copy_blocks", Launch::row(1, 32), &arguments) };
    launched.unwrap();
    assert!(matches!(lost.synchronize(), Err(DeviceError::Lost(_))));
    assert!(matches!(pairs.as_slice().to_vec(), Err(DeviceError::Lost(_))));
    assert!(matches!(lost.free_bytes(), Err(DeviceError::Lost(_))));
    drop((pairs, lost));
    let again = device(ordinal()).unwrap();
    let values = DeviceVec::from_slice(&again, &[1u32, 2, 3]).unwrap();
    assert_eq!(values.as_slice().to_vec().unwrap(), [1, 2, 3]);
}
