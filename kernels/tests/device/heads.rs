//! Bias, norm, rotation and cache of heads, against a plain loop in f64.

use pith_kernels::device::heads::{HeadsShape, heads};
use pith_kernels::device::kv::{DeviceKv, DeviceKvKind};
use pith_kernels::device::{Device, DeviceError, DeviceVec};
use proptest::prelude::*;

use crate::{bits, devices, is_bf16_of, narrow, noise, on_both, wide};

const BLOCK_SIZE: usize = 16;

/// What a layer is given.
#[derive(Debug, Clone)]
struct Case {
    shape: HeadsShape,
    kind: DeviceKvKind,
    blocks: usize,
    qkv: Vec<u16>,
    bias: Option<Vec<f32>>,
    norms: Option<(Vec<f32>, Vec<f32>)>,
    inv_freq: Vec<f32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
}

/// What came out: queries, elements of keys and values, and scales of both.
#[derive(Debug, PartialEq)]
struct Out {
    queries: Vec<u16>,
    elements: [Vec<u8>; 2],
    scales: [Vec<u32>; 2],
}

fn run(case: &Case, device: &Device) -> Result<Out, DeviceError> {
    let HeadsShape { heads: query_heads, kv_heads, head_dim, .. } = case.shape;
    let kv = DeviceKv::new(device, case.kind, kv_heads, head_dim, BLOCK_SIZE, case.blocks)?;
    for elements in [&kv.keys, &kv.values] {
        elements.as_slice().fill(0)?;
    }
    let qkv = DeviceVec::from_slice(device, &case.qkv)?;
    let floats = |values: &Vec<f32>| DeviceVec::from_slice(device, values);
    let bias = case.bias.as_ref().map(floats).transpose()?;
    let query_norm = case.norms.as_ref().map(|norms| floats(&norms.0)).transpose()?;
    let key_norm = case.norms.as_ref().map(|norms| floats(&norms.1)).transpose()?;
    let inv_freq = floats(&case.inv_freq)?;
    let positions = DeviceVec::from_slice(device, &case.positions)?;
    let slots = DeviceVec::from_slice(device, &case.slots)?;
    let queries = DeviceVec::new(device, case.positions.len() * query_heads * head_dim)?;
    heads(
        device,
        &case.shape,
        qkv.as_slice(),
        bias.as_ref().map(|bias| bias.as_slice()),
        query_norm.as_ref().zip(key_norm.as_ref()).map(|(q, k)| (q.as_slice(), k.as_slice())),
        inv_freq.as_slice(),
        positions.as_slice(),
        slots.as_slice(),
        queries.as_slice(),
        &kv,
    )?;
    let scales = [&kv.key_scales, &kv.value_scales];
    Ok(Out {
        queries: queries.as_slice().to_vec()?,
        elements: [kv.keys.as_slice().to_vec()?, kv.values.as_slice().to_vec()?],
        scales: scales
            .map(|s| s.as_ref().map_or(vec![], |s| bits(&s.as_slice().to_vec().unwrap()))),
    })
}

/// A head of a row in f64: with its bias, normalised and rotated.
fn exact(case: &Case, row: usize, head: usize) -> Vec<f64> {
    let HeadsShape { heads, kv_heads, head_dim, adjacent, magnitude, eps } = case.shape;
    let at = |d: usize| (row * (heads + 2 * kv_heads) + head) * head_dim + d;
    let bias = |d: usize| case.bias.as_ref().map_or(0.0, |bias| bias[head * head_dim + d]);
    let mut x: Vec<f64> =
        (0..head_dim).map(|d| wide(case.qkv[at(d)]) + f64::from(bias(d))).collect();
    if head >= heads + kv_heads {
        return x;
    }
    if let Some((query, key)) = &case.norms {
        let squares: f64 = x.iter().map(|x| x * x).sum();
        let factor = 1.0 / (squares / head_dim as f64 + f64::from(eps)).sqrt();
        let weight = if head < heads { query } else { key };
        x.iter_mut().zip(weight).for_each(|(x, &weight)| *x *= factor * f64::from(weight));
    }
    for (j, &freq) in case.inv_freq.iter().enumerate() {
        let (sin, cos) = (f64::from(case.positions[row]) * f64::from(freq)).sin_cos();
        let second = if adjacent { 2 * j + 1 } else { j + case.inv_freq.len() };
        let first = if adjacent { 2 * j } else { j };
        let (a, b) = (x[first], x[second]);
        x[first] = f64::from(magnitude) * (a * cos - b * sin);
        x[second] = f64::from(magnitude) * (a * sin + b * cos);
    }
    x
}

/// An e4m3 number, from its definition.
fn f8(code: u8) -> f64 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let size = match exponent {
        0 => fraction / 8.0 * 2f64.powi(-6),
        _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
    };
    if code & 0x80 == 0 { size } else { -size }
}

fn check(case: &Case, out: &Out) -> Result<(), TestCaseError> {
    let HeadsShape { heads, kv_heads, head_dim, .. } = case.shape;
    let mut written = vec![false; case.blocks * BLOCK_SIZE * kv_heads];
    for row in 0..case.positions.len() {
        for head in 0..heads + 2 * kv_heads {
            let expected = exact(case, row, head);
            let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            // A sum of two products each rounded in f32, and angles good to 1e-7.
            let slack = 2e-6 * largest;
            if head < heads {
                let got = &out.queries[(row * heads + head) * head_dim..][..head_dim];
                for (&got, &expected) in got.iter().zip(&expected) {
                    prop_assert!(is_bf16_of(got, expected, slack), "{} for {expected}", wide(got));
                }
                continue;
            }
            let slot = case.slots[row] as usize;
            if slot >= case.blocks * BLOCK_SIZE {
                continue;
            }
            let (which, kv_head) = ((head - heads) / kv_heads, (head - heads) % kv_heads);
            let vector = (slot / BLOCK_SIZE * kv_heads + kv_head) * BLOCK_SIZE + slot % BLOCK_SIZE;
            written[vector] = true;
            for (d, &expected) in expected.iter().enumerate() {
                let at = vector * head_dim + d;
                match case.kind {
                    DeviceKvKind::Bf16 => {
                        let pair = &out.elements[which][2 * at..2 * at + 2];
                        let got = u16::from_le_bytes([pair[0], pair[1]]);
                        prop_assert!(is_bf16_of(got, expected, slack));
                    }
                    DeviceKvKind::F8 => {
                        let scale = f64::from(f32::from_bits(out.scales[which][vector]));
                        prop_assert!((scale - largest / 448.0).abs() <= 1e-5 * scale);
                        let got = f8(out.elements[which][at]) * scale;
                        // Half a step of three bits, or of the smallest numbers.
                        let bound = expected.abs() / 16.0 * 1.001 + scale * 2f64.powi(-10) * 1.001;
                        prop_assert!(
                            (got - expected).abs() <= bound + slack,
                            "{got} for {expected}"
                        );
                    }
                }
            }
        }
    }
    let bytes = head_dim * case.kind.bytes();
    for elements in &out.elements {
        for (vector, elements) in elements.chunks_exact(bytes).enumerate() {
            prop_assert!(
                written[vector] || elements.iter().all(|&byte| byte == 0),
                "a stray write"
            );
        }
    }
    Ok(())
}

prop_compose! {
    fn cases()(
        heads in 1usize..7,
        kv_heads in 1usize..4,
        head_dim in prop::sample::select(vec![8usize, 24, 64, 80, 128, 256, 264]),
        part in 0usize..=4,
        kind in prop::sample::select(vec![DeviceKvKind::Bf16, DeviceKvKind::F8]),
        (adjacent, biased, normed) in any::<(bool, bool, bool)>(),
        magnitude in prop::sample::select(vec![1.0f32, 1.2]),
        positions in prop::collection::vec(prop_oneof![0u32..100, 0u32..1_000_000], 0..5),
        order in Just((0u32..48).collect::<Vec<_>>()).prop_shuffle(),
        missing in prop::option::of(0usize..5),
        seed in any::<u64>(),
    ) -> Case {
        let rows = positions.len();
        let all = (heads + 2 * kv_heads) * head_dim;
        let pairs = head_dim / 2 * part / 4;
        let mut slots = order[..rows].to_vec();
        if let Some(slot) = missing.and_then(|row| slots.get_mut(row)) {
            *slot = if seed % 2 == 0 { u32::MAX } else { 48 };
        }
        let norm = |seed| noise(head_dim, seed, 2.0);
        Case {
            shape: HeadsShape { heads, kv_heads, head_dim, adjacent, magnitude, eps: 1e-6 },
            kind,
            blocks: 3,
            qkv: narrow(&noise(rows * all, seed, 3.0)),
            bias: biased.then(|| noise(all, seed ^ 1, 1.0)),
            norms: normed.then(|| (norm(seed ^ 2), norm(seed ^ 3))),
            inv_freq: (0..pairs).map(|j| 10_000f32.powf(-(j as f32) / pairs as f32)).collect(),
            positions,
            slots,
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(60))]

    #[test]
    fn heads_are_made_ready(case in cases()) {
        let out = on_both(|device| run(&case, device).unwrap());
        check(&case, &out)?;
    }
}

/// One pair that is all of a head: what comes out is the sine and cosine themselves.
#[test]
fn far_positions_turn_by_the_right_angle() {
    let positions: Vec<u32> = (0..400).map(|i| 1_000_000 - i * 2477).chain([u32::MAX]).collect();
    let rows = positions.len();
    for freq in [1.0f32, 0.1, 0.749_894_2, 1e-4, 0.0] {
        let case = Case {
            shape: HeadsShape {
                heads: 1,
                kv_heads: 0,
                head_dim: 8,
                adjacent: true,
                magnitude: 1.0,
                eps: 0.0,
            },
            kind: DeviceKvKind::Bf16,
            blocks: 1,
            qkv: (0..rows)
                .flat_map(|_| narrow(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]))
                .collect(),
            bias: None,
            norms: None,
            inv_freq: vec![freq],
            positions: positions.clone(),
            slots: vec![u32::MAX; rows],
        };
        let out = on_both(|device| run(&case, device).unwrap());
        for (row, &position) in positions.iter().enumerate() {
            let (sin, cos) = (f64::from(position) * f64::from(freq)).sin_cos();
            for (&got, expected) in out.queries[row * 8..].iter().zip([cos, sin, 1.0, 0.0]) {
                assert!(is_bf16_of(got, expected, 2e-7), "{position} * {freq}: {}", wide(got));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [device, _] = devices();
    let shape = HeadsShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        adjacent: false,
        magnitude: 1.0,
        eps: 0.0,
    };
    let fits = Case {
        shape,
        kind: DeviceKvKind::Bf16,
        blocks: 1,
        qkv: vec![0; 4 * 16 * 2],
        bias: None,
        norms: None,
        inv_freq: vec![1.0; 8],
        positions: vec![0, 1],
        slots: vec![0, 1],
    };
    run(&fits, &device).unwrap();
    for case in [
        Case { qkv: vec![0; 4 * 16], ..fits.clone() },
        Case { inv_freq: vec![1.0; 9], ..fits.clone() },
        Case { slots: vec![0], ..fits.clone() },
        Case { bias: Some(vec![0.0; 16]), ..fits.clone() },
        Case { norms: Some((vec![0.0; 16], vec![0.0; 15])), ..fits },
    ] {
        assert!(matches!(run(&case, &device), Err(DeviceError::Shape(_))));
    }
}
