//! Every product against the oracle, and the promise that a row does not see its neighbours.

use proptest::prelude::*;

use super::panel::Shape;
use super::{Matrix, MatrixBuilder};
use crate::quant::tests::random_row;
use crate::{Isa, Pool, Quant, eight_bit};

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
    fn products_match_the_exact_ones((cols, segments) in shapes(), m in 0usize..40, seed: u64) {
        let (matrix, dense) = build(cols, &segments, seed);
        let x = inputs(m * cols, seed);
        let coded: Vec<bool> = segments
            .iter()
            .flat_map(|&(quant, rows)| std::iter::repeat_n(Shape::of(quant).is_some(), rows))
            .collect();
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; m * matrix.rows()];
            matrix.matmul(isa, &Pool::new(2), &x, &mut y).unwrap();
            for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(matrix.rows())) {
                let rounded = eight_bit::round(x);
                for ((w, &y), &coded) in dense.chunks_exact(cols).zip(y).zip(&coded) {
                    let x = if coded { &rounded } else { x };
                    let exact: f64 = terms(x, w).sum();
                    let error = (f64::from(y) - exact).abs();
                    let bound = rounding(x, w, coded && isa != Isa::Scalar);
                    prop_assert!(error <= bound, "{isa:?}: off by {error}, {bound} allowed");
                }
            }
        }
    }

    #[test]
    fn eight_bits_move_an_activation_by_half_a_step_at_most(
        x in prop::collection::vec(-3.0f32..3.0, 32..200),
    ) {
        let x = &x[..x.len() / 32 * 32];
        for (x, rounded) in x.chunks(32).zip(eight_bit::round(x).chunks(32)) {
            let step = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
            for (x, rounded) in x.iter().zip(rounded) {
                prop_assert!((x - rounded).abs() <= step * 0.50001, "{x} became {rounded}");
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch((cols, segments) in shapes(), m in 2usize..40, seed: u64) {
        let (matrix, _) = build(cols, &segments, seed);
        let x = inputs(m * cols, seed);
        for isa in Isa::available() {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn fast_sets_give_the_same_bits((cols, segments) in shapes(), m in 1usize..60, seed: u64) {
        let (matrix, _) = build(cols, &segments, seed);
        let x = inputs(m * cols, seed);
        let products = |isa| {
            let mut y = vec![f32::NAN; m * matrix.rows()];
            matrix.matmul(isa, &Pool::new(2), &x, &mut y).unwrap();
            bits(&y)
        };
        let expected = products(Isa::Avx2);
        for isa in Isa::available().filter(|&isa| isa > Isa::Avx2) {
            prop_assert!(products(isa) == expected, "{:?}", isa);
        }
    }
}

fn terms(x: &[f32], w: &[f32]) -> impl Iterator<Item = f64> {
    x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w))
}

/// What rounding every sum and product of a dot product to f32 may cost. With `coded`, integers are summed
/// exactly within a group of 16 or 32, then code and minimum are multiplied apart, each as large as
/// the largest weight of its group four times over.
fn rounding(x: &[f32], w: &[f32], coded: bool) -> f64 {
    let (sums, magnitude) = match coded {
        false => (x.len() as f64, terms(x, w).map(f64::abs).sum()),
        true => {
            let size = |v: &[f32]| v.iter().map(|&v| f64::from(v).abs()).collect::<Vec<_>>();
            let groups = x.chunks(32).zip(w.chunks(32));
            let largest = groups.map(|(x, w)| {
                size(x).iter().sum::<f64>() * size(w).into_iter().fold(0.0, f64::max)
            });
            (2.0 + x.len() as f64 / 16.0, 4.0 * largest.sum::<f64>())
        }
    };
    sums * magnitude * 2f64.powi(-23) + 1e-30
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
        for isa in Isa::available().filter(|&isa| isa > Isa::Scalar) {
            let mut together = vec![f32::NAN; m * 23];
            matrix.matmul(isa, &Pool::new(2), &x, &mut together).unwrap();
            for i in [0, 143, 144, 191, 192, 197, 390] {
                let mut alone = vec![f32::NAN; 23];
                let x = &x[i * 1024..][..1024];
                matrix.matmul(isa, &Pool::new(1), x, &mut alone).unwrap();
                let same = bits(&alone) == bits(&together[i * 23..][..23]);
                assert!(same, "{quant:?} row {i} on {isa:?}");
            }
        }
    }
}

/// What is no number stays none: a poisoned activation must show.
#[test]
fn one_activation_without_a_number_spoils_its_row_alone() {
    for quant in [Quant::Q4_1, Quant::Q4_0, Quant::Q8_0, Quant::Q6_K] {
        let (matrix, _) = build(256, &[(quant, 20)], 3);
        for isa in Isa::available() {
            for (m, bad) in [(1, f32::NAN), (3, f32::INFINITY), (9, f32::NAN)] {
                let mut x = inputs(m * 256, 7);
                x[(m - 1) * 256 + 77] = bad;
                let mut y = vec![0.0; m * 20];
                matrix.matmul(isa, &Pool::new(1), &x, &mut y).unwrap();
                let (sound, spoilt) = y.split_at((m - 1) * 20);
                assert!(sound.iter().all(|y| y.is_finite()), "{quant:?} on {isa:?}");
                assert!(spoilt.iter().all(|y| !y.is_finite()), "{quant:?} on {isa:?}: {spoilt:?}");
            }
        }
    }
}

#[test]
fn zeros_and_the_tiniest_numbers_give_next_to_nothing() {
    let (matrix, _) = build(64, &[(Quant::Q4_0, 16), (Quant::Q5_1, 16)], 3);
    for tiny in [0.0, -0.0, f32::MIN_POSITIVE, 1e-44] {
        let mut y = vec![f32::NAN; 32];
        matrix.matmul(Isa::detect(), &Pool::new(1), &[tiny; 64], &mut y).unwrap();
        assert!(y.iter().all(|y| y.abs() < 1e-30), "{tiny}: {y:?}");
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
