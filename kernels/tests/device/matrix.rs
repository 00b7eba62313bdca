//! Weights come to the device as their files have them.

use pith_kernels::device::matrix::{
    DeviceFormat, DeviceMatrix, DeviceMatrixBuilder, embed_rows, scratch_len,
};
use pith_kernels::device::{Device, DeviceError, DeviceVec};
use pith_kernels::{Pool, Quant};
use proptest::prelude::*;

use crate::devices;

/// Numbers that look random.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// Between -1 and 1.
    pub(super) fn float(&mut self) -> f32 {
        self.next() as f32 / u32::MAX as f32 * 2.0 - 1.0
    }
}

/// The upper half of a float's bits, to the nearest.
pub(super) fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

pub(super) fn float(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Random f16 bits, of size 2^-9 to 2^-4.
fn f16(numbers: &mut Numbers) -> [u8; 2] {
    let bits = numbers.next();
    ((bits & 0x83ff) as u16 | (6 + bits as u16 / 0x400 % 5) << 10).to_le_bytes()
}

/// Rows of `quant` as a file has them: random codes, scales of ordinary size.
pub(super) fn random_rows(quant: Quant, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut bytes = vec![0u8; rows * quant.row_bytes(cols).unwrap()];
    bytes.iter_mut().for_each(|byte| *byte = numbers.next() as u8);
    for block in bytes.chunks_exact_mut(quant.block_bytes()) {
        match quant {
            Quant::F32 => block.copy_from_slice(&numbers.float().to_le_bytes()),
            Quant::BF16 => block.copy_from_slice(&bf16(numbers.float()).to_le_bytes()),
            Quant::F16 | Quant::Q4_0 | Quant::Q5_0 | Quant::Q8_0 => {
                block[..2].copy_from_slice(&f16(&mut numbers));
            }
            Quant::Q4_1 | Quant::Q5_1 | Quant::Q4_K | Quant::Q5_K => {
                block[..2].copy_from_slice(&f16(&mut numbers));
                block[2..4].copy_from_slice(&f16(&mut numbers));
            }
            Quant::Q6_K => block[208..].copy_from_slice(&f16(&mut numbers)),
        }
    }
    bytes
}

/// The weights of `rows`, by the oracle.
pub(super) fn dequantised(quant: Quant, rows: &[u8], cols: usize) -> Vec<f32> {
    let mut weights = vec![f32::NAN; rows.len() / quant.row_bytes(cols).unwrap() * cols];
    let rows = rows.chunks_exact(quant.row_bytes(cols).unwrap());
    for (row, weights) in rows.zip(weights.chunks_exact_mut(cols)) {
        quant.dequantize_row(row, weights);
    }
    weights
}

/// For each weight, the largest of the sixteen it is among. A group's codes are random, so that its scale and offset
/// are at most a few times as large.
pub(super) fn largest_near(weights: &[f32]) -> Vec<f64> {
    let groups = weights.chunks(16);
    groups
        .flat_map(|group| {
            let most = group.iter().fold(0.0, |most: f64, &w| most.max(f64::from(w).abs()));
            std::iter::repeat_n(most, group.len())
        })
        .collect()
}

pub(super) fn build(device: &Device, quant: Quant, cols: usize, rows: &[u8]) -> DeviceMatrix {
    let mut builder = DeviceMatrixBuilder::new(device, cols);
    builder.segment(quant).unwrap().push_rows(&Pool::new(1), rows).unwrap();
    builder.finish().unwrap()
}

fn embedded(device: &Device, table: &DeviceMatrix, tokens: &[u32], scale: f32) -> Vec<f32> {
    let stream = DeviceVec::new(device, tokens.len() * table.cols()).unwrap();
    let tokens = DeviceVec::from_slice(device, tokens).unwrap();
    embed_rows(device, table, tokens.as_slice(), scale, stream.as_slice()).unwrap();
    stream.as_slice().to_vec().unwrap()
}

proptest! {
    #![proptest_config(crate::cases(20))]

    /// Every weight of every format is there: exactly where its scale is one number of the file, within 2^-11 of scale and
    /// offset where it is a product, and to bfloat16's 2^-8 where it was a float.
    #[test]
    fn embeddings_are_the_rows_of_their_tokens(
        rows in 1usize..6,
        blocks in 1usize..9,
        tokens in prop::collection::vec(0u32..7, 0..4),
        scale in 0.5f32..3.0,
        seed in 0u64..1000,
    ) {
        for quant in Quant::ALL {
            let blocks = if quant.block_len() == 256 { blocks.div_ceil(4) } else { blocks };
            let cols = blocks * quant.block_len();
            let bytes = random_rows(quant, rows, cols, seed);
            let weights = dequantised(quant, &bytes, cols);
            let near = largest_near(&weights);
            let bound = match quant {
                Quant::Q4_K | Quant::Q5_K | Quant::Q6_K => 4.0 / 2048.0,
                Quant::F32 | Quant::F16 => 1.0 / 256.0,
                _ => 0.0,
            };
            for device in devices() {
                let table = build(&device, quant, cols, &bytes);
                prop_assert_eq!(table.formats().collect::<Vec<_>>(), [DeviceFormat::of(quant)]);
                let got = embedded(&device, &table, &tokens, scale);
                for (&token, got) in tokens.iter().zip(got.chunks_exact(cols)) {
                    // A token beyond the table stands for its last.
                    let token = rows.min(token as usize + 1);
                    let row = (token - 1) * cols..token * cols;
                    for ((got, w), near) in got.iter().zip(&weights[row.clone()]).zip(&near[row]) {
                        let off = f64::from(got - scale * w).abs();
                        let allowed = f64::from(scale) * near * (bound + 2f64.powi(-22));
                        prop_assert!(off <= allowed, "{:?}: {} for {}", quant, got, scale * w);
                    }
                }
            }
        }
    }
}

#[test]
fn pieces_and_workers_make_the_same_matrix() {
    let [device, _] = devices();
    let tokens: Vec<u32> = (0..70).collect();
    for quant in [Quant::Q4_0, Quant::Q6_K, Quant::F16, Quant::BF16] {
        let bytes = random_rows(quant, 70, 256, 3);
        let whole = build(&device, quant, 256, &bytes);
        let all = embedded(&device, &whole, &tokens, 1.0);
        // No room in advance, and room for more rows than come.
        for reserved in [0, 90] {
            let mut pieces = DeviceMatrixBuilder::new(&device, 256);
            pieces.segment(quant).unwrap().reserve(reserved).unwrap();
            for piece in bytes.chunks(27 * quant.row_bytes(256).unwrap()) {
                pieces.push_rows(&Pool::new(2), piece).unwrap();
            }
            let pieces = pieces.finish().unwrap();
            assert_eq!((pieces.rows(), pieces.cols()), (70, 256));
            assert_eq!(pieces.bytes(), whole.bytes());
            assert_eq!(embedded(&device, &pieces, &tokens, 1.0), all);
        }
    }
}

#[test]
fn segments_of_one_format_are_one_part() {
    let [device, _] = devices();
    let kinds = [Quant::F16, Quant::F32, Quant::BF16];
    let mut floats = DeviceMatrixBuilder::new(&device, 24);
    for (seed, quant) in (0..).zip(kinds) {
        floats
            .segment(quant)
            .unwrap()
            .push_rows(&Pool::new(1), &random_rows(quant, 2, 24, seed))
            .unwrap();
    }
    let floats = floats.finish().unwrap();
    assert_eq!(floats.formats().collect::<Vec<_>>(), [DeviceFormat::Bf16]);
    assert_eq!((floats.bytes(), scratch_len(&floats, 1)), (6 * 24 * 2, 0));
    assert!(floats.bf16_address().is_some());
    let expected: Vec<f32> = (0..)
        .zip(kinds)
        .flat_map(|(seed, quant)| dequantised(quant, &random_rows(quant, 2, 24, seed), 24))
        .map(|weight| float(bf16(weight)))
        .collect();
    assert_eq!(embedded(&device, &floats, &[0, 1, 2, 3, 4, 5], 1.0), expected);

    let mut mixed = DeviceMatrixBuilder::new(&device, 256);
    for quant in [Quant::Q4_K, Quant::Q4_1, Quant::Q6_K] {
        mixed
            .segment(quant)
            .unwrap()
            .push_rows(&Pool::new(1), &random_rows(quant, 3, 256, 1))
            .unwrap();
    }
    let mixed = mixed.finish().unwrap();
    let formats: Vec<_> = mixed.formats().collect();
    assert_eq!(formats, [DeviceFormat::Q4, DeviceFormat::Q8Fine]);
    assert_eq!((mixed.rows(), mixed.bf16_address()), (9, None));
    assert_eq!(mixed.bytes(), 6 * (128 + 32) + 3 * (256 + 32));
    assert_eq!(scratch_len(&mixed, 1), 6 * 256);
    // No table of embeddings is stacked.
    let (stream, tokens) = (DeviceVec::new(&device, 256), DeviceVec::from_slice(&device, &[0u32]));
    let (stream, tokens) = (stream.unwrap(), tokens.unwrap());
    let embedded = embed_rows(&device, &mixed, tokens.as_slice(), 1.0, stream.as_slice());
    assert!(matches!(embedded, Err(DeviceError::Shape(_))), "{embedded:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let [device, _] = devices();
    let mut builder = DeviceMatrixBuilder::new(&device, 100);
    assert!(matches!(builder.push_rows(&Pool::new(1), &[0; 4]), Err(DeviceError::Shape(_))));
    assert!(builder.segment(Quant::Q4_K).unwrap_err().contains("256"));
    let pushed = builder.segment(Quant::F16).unwrap().push_rows(&Pool::new(1), &[0; 199]);
    assert!(matches!(pushed, Err(DeviceError::Shape(_))));
    let matrix = builder.finish().unwrap();
    assert_eq!((matrix.rows(), matrix.cols(), matrix.bytes()), (0, 100, 0));
    assert!(DeviceMatrixBuilder::new(&device, 0).segment(Quant::F32).is_err());
}
