//! Every product against the oracle, and the promise that a row does not see its neighbours.

use proptest::prelude::*;

use super::{Matrix, MatrixBuilder};
use crate::quant::tests::random_row;
use crate::{Isa, Pool, Quant};

/// A matrix of the given segments, and its rows dequantised by the oracle.
fn build(cols: usize, segments: &[(Quant, usize)], seed: u64) -> (Matrix, Vec<f32>) {
    let mut builder = MatrixBuilder::new(cols);
    let mut dense = Vec::new();
    for (s, &(quant, rows)) in segments.iter().enumerate() {
        builder.segment(quant).unwrap();
        for r in 0..rows {
            let bytes = random_row(quant, cols, seed ^ (s * 1000 + r) as u64);
            builder.push_rows(&bytes).unwrap();
            let mut row = vec![0.0; cols];
            quant.dequantize_row(&bytes, &mut row);
            dense.extend(row);
        }
    }
    (builder.finish(), dense)
}

fn inputs(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn any_quant() -> impl Strategy<Value = Quant> {
    (0..Quant::ALL.len()).prop_map(|i| Quant::ALL[i])
}

fn shapes() -> impl Strategy<Value = (usize, Vec<(Quant, usize)>)> {
    let segments = prop::collection::vec((any_quant(), 1usize..70), 1..4);
    (1usize..4, segments).prop_map(|(blocks, segments)| {
        let block = segments.iter().map(|(quant, _)| quant.block_len()).max().unwrap_or(1);
        let cols = if block == 1 { 37 * blocks } else { block * blocks };
        (cols, segments)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_come_back_bit_for_bit((cols, segments) in shapes(), seed: u64) {
        let (matrix, dense) = build(cols, &segments, seed);
        for (r, expected) in dense.chunks_exact(cols).enumerate() {
            let mut row = vec![f32::NAN; cols];
            matrix.row(r, &mut row);
            prop_assert_eq!(bits(&row), bits(expected), "row {}", r);
        }
    }

    #[test]
    fn products_match_the_oracle((cols, segments) in shapes(), m in 0usize..40, seed: u64) {
        let (matrix, dense) = build(cols, &segments, seed);
        let x = inputs(m * cols, seed);
        for isa in [Isa::Scalar, Isa::detect()] {
            let mut y = vec![f32::NAN; m * matrix.rows()];
            matrix.matmul(isa, &Pool::new(2), &x, &mut y).unwrap();
            for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(matrix.rows())) {
                for (w, &y) in dense.chunks_exact(cols).zip(y) {
                    let terms = || x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                    let magnitude: f64 = terms().map(f64::abs).sum();
                    let bound = cols as f64 * magnitude * 2f64.powi(-23) + 1e-30;
                    let error = (f64::from(y) - terms().sum::<f64>()).abs();
                    prop_assert!(error <= bound, "{isa:?}: off by {error}, {bound} allowed");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch((cols, segments) in shapes(), m in 2usize..40, seed: u64) {
        let (matrix, _) = build(cols, &segments, seed);
        let x = inputs(m * cols, seed);
        for isa in [Isa::Scalar, Isa::detect()] {
            let mut together = vec![f32::NAN; m * matrix.rows()];
            matrix.matmul(isa, &Pool::new(3), &x, &mut together).unwrap();
            for (x, together) in x.chunks_exact(cols).zip(together.chunks_exact(matrix.rows())) {
                let mut alone = vec![f32::NAN; matrix.rows()];
                matrix.matmul(isa, &Pool::new(1), x, &mut alone).unwrap();
                prop_assert_eq!(bits(&alone), bits(together));
            }
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// More columns than a scratch holds, more rows than a task takes: sums go through y in between.
#[test]
fn deep_and_tall_products_keep_the_order_of_their_sums() {
    for quant in [Quant::Q4_1, Quant::Q6_K, Quant::F16] {
        let (matrix, _) = build(1024, &[(quant, 23)], 5);
        let m = 391;
        let x = inputs(m * 1024, 9);
        let mut together = vec![f32::NAN; m * 23];
        matrix.matmul(Isa::detect(), &Pool::new(2), &x, &mut together).unwrap();
        for i in [0, 191, 192, 197, 390] {
            let mut alone = vec![f32::NAN; 23];
            let x = &x[i * 1024..][..1024];
            matrix.matmul(Isa::detect(), &Pool::new(1), x, &mut alone).unwrap();
            assert_eq!(bits(&alone), bits(&together[i * 23..][..23]), "{quant:?} row {i}");
        }
    }
}

#[test]
fn whole_tensors_and_single_rows_pack_alike() {
    let rows: Vec<u8> = (0..40).flat_map(|r| random_row(Quant::Q5_0, 96, r)).collect();
    let mut whole = MatrixBuilder::new(96);
    whole.segment(Quant::Q5_0).unwrap().push_rows(&rows).unwrap();
    let mut single = MatrixBuilder::new(96);
    single.segment(Quant::Q5_0).unwrap();
    for row in rows.chunks_exact(3 * Quant::Q5_0.block_bytes()) {
        single.push_rows(row).unwrap();
    }
    let (whole, single) = (whole.finish(), single.finish());
    assert_eq!(whole.segments[0].bytes(), single.segments[0].bytes());
    let packed = 3 * 16 * 3 * Quant::Q5_0.block_bytes();
    assert_eq!(whole.bytes(), packed.next_multiple_of(64), "40 rows are three panels");
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut builder = MatrixBuilder::new(100);
    assert!(builder.push_rows(&[0; 4]).unwrap_err().contains("before a segment"));
    assert!(builder.segment(Quant::Q4_K).unwrap_err().contains("256"));
    assert!(builder.segment(Quant::F16).unwrap().push_rows(&[0; 199]).is_err());
    let matrix = builder.finish();
    assert_eq!((matrix.rows(), matrix.cols(), matrix.bytes()), (0, 100, 0));
    matrix.matmul(Isa::detect(), &Pool::new(1), &[0.0; 200], &mut []).unwrap();
}
