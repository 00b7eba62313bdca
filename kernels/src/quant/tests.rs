//! The oracle against the `gguf` Python package (see `tests/golden/generate.py`).

use half::{bf16, f16};

use super::{Quant, quantize_q8_0};

/// A row of random codes with scales that are finite and of ordinary size.
pub(crate) fn random_row(quant: Quant, cols: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut row = vec![0u8; quant.row_bytes(cols).unwrap()];
    row.iter_mut().for_each(|b| *b = next() as u8);
    for block in row.chunks_exact_mut(quant.block_bytes()) {
        let mut put = |at: usize| {
            let scale = next() as f32 / u32::MAX as f32 - 0.5;
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale / 16.0).to_le_bytes());
        };
        match quant {
            Quant::F16 | Quant::Q4_0 | Quant::Q5_0 | Quant::Q8_0 => put(0),
            Quant::Q4_1 | Quant::Q5_1 | Quant::Q4_K | Quant::Q5_K => {
                (0..2).for_each(|i| put(2 * i))
            }
            Quant::Q6_K => put(208),
            Quant::F32 => {
                let w = next() as f32 / u32::MAX as f32 - 0.5;
                block.copy_from_slice(&w.to_le_bytes());
            }
            Quant::BF16 => {
                let w = bf16::from_f32(next() as f32 / u32::MAX as f32 - 0.5);
                block.copy_from_slice(&w.to_le_bytes());
            }
        }
    }
    row
}

#[test]
fn row_bytes_refuses_broken_blocks_and_overflow() {
    assert_eq!(Quant::Q4_1.row_bytes(576), Some(18 * 20));
    assert_eq!(Quant::Q6_K.row_bytes(512), Some(420));
    assert_eq!(Quant::Q4_K.row_bytes(576), None);
    assert_eq!(Quant::F32.row_bytes(usize::MAX), None);
}

#[test]
fn dequantisation_matches_the_reference() {
    let mut rest: &[u8] = include_bytes!("../../tests/golden/dequantize.bin");
    for quant in Quant::ALL {
        let (rows, after) = rest.split_at(quant.row_bytes(1024).unwrap());
        let (expected, after) = after.split_at(4096);
        rest = after;
        let mut got = vec![f32::NAN; 1024];
        for (row, out) in rows.chunks_exact(rows.len() / 2).zip(got.chunks_exact_mut(512)) {
            quant.dequantize_row(row, out);
        }
        for (i, (&got, expected)) in got.iter().zip(expected.as_chunks::<4>().0).enumerate() {
            let expected = f32::from_le_bytes(*expected);
            // Numbers, not bits: the two may differ in the sign of a zero.
            assert_eq!(got, expected, "{quant:?} weight {i}");
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn floats_come_back_from_q8_0_within_half_a_scale() {
    let mut row: Vec<f32> = (0..256).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    row[32..64].fill(0.0);
    row[64] = 1000.0;
    let mut bytes = Vec::new();
    quantize_q8_0(&row, &mut bytes);
    let mut back = vec![f32::NAN; row.len()];
    Quant::Q8_0.dequantize_row(&bytes, &mut back);
    for (block, back) in row.chunks(32).zip(back.chunks(32)) {
        let largest = block.iter().fold(0.0f32, |max, w| max.max(w.abs()));
        for (w, back) in block.iter().zip(back) {
            // Half a code, and 2^-11 of the scale's own rounding.
            assert!((w - back).abs() <= largest * (0.5 / 127.0 + 1.0 / 2048.0), "{w} {back}");
        }
    }
    assert_eq!(back[32..64], [0.0; 32]);
    row[3] = f32::NAN;
    bytes.clear();
    quantize_q8_0(&row, &mut bytes);
    Quant::Q8_0.dequantize_row(&bytes, &mut back);
    assert!(back[3].is_nan());
}
