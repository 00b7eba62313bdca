//! Products on the device against sums in f64 of the oracle's weights, on every path.

use pith_kernels::device::matrix::{
    DeviceMatrix, DeviceMatrixBuilder, MatmulPath, OutSlice, matmul, scratch_len,
};
use pith_kernels::device::{Device, DeviceError, DeviceVec, Graph};
use pith_kernels::{Pool, Quant};
use proptest::prelude::*;

use super::matrix::{Numbers, bf16, build, dequantised, float, largest_near, random_rows};
use crate::{bits, devices, passed_over};

const OWN: [MatmulPath; 4] =
    [MatmulPath::Auto, MatmulPath::Own, MatmulPath::Gemv, MatmulPath::Gemm];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Bf16,
    F32,
    AddF32,
}

/// What is in an f32 result before something is added.
const BEFORE: f32 = 0.75;

/// A product of `rows` rows, with no more scratch than `scratch` numbers.
fn product(
    device: &Device,
    path: MatmulPath,
    matrix: &DeviceMatrix,
    input: &[u16],
    kind: Kind,
    scratch: usize,
) -> Result<Vec<f32>, DeviceError> {
    let rows = input.len() / matrix.cols();
    let input = DeviceVec::from_slice(device, input)?;
    let scratch = DeviceVec::new(device, scratch)?;
    let len = rows * matrix.rows();
    let run = |out: OutSlice<'_>| {
        matmul(device, matrix, input.as_slice(), rows, out, scratch.as_slice(), path)
    };
    if kind == Kind::Bf16 {
        let out = DeviceVec::new(device, len)?;
        run(OutSlice::Bf16(out.as_slice()))?;
        return Ok(out.as_slice().to_vec()?.into_iter().map(float).collect());
    }
    let out = DeviceVec::from_slice(device, &vec![BEFORE; len])?;
    match kind {
        Kind::F32 => run(OutSlice::F32(out.as_slice()))?,
        _ => run(OutSlice::AddF32(out.as_slice()))?,
    }
    out.as_slice().to_vec()
}

fn inputs(len: usize, seed: u64) -> Vec<u16> {
    let mut numbers = Numbers::new(seed + 77);
    (0..len).map(|_| bf16(numbers.float())).collect()
}

/// Products in f64, each with the sum of what its terms may be at most, for bounds.
fn expected(weights: &[f32], cols: usize, input: &[u16]) -> Vec<(f64, f64)> {
    let near = largest_near(weights);
    let mut all = Vec::new();
    for x in input.chunks_exact(cols) {
        for (w, near) in weights.chunks_exact(cols).zip(near.chunks_exact(cols)) {
            let x = x.iter().map(|&x| f64::from(float(x)));
            let sum = x.clone().zip(w).map(|(x, &w)| x * f64::from(w)).sum();
            let size = x.zip(near).map(|(x, near)| x.abs() * near).sum();
            all.push((sum, size));
        }
    }
    all
}

/// What a term may be off, of the largest weight near it: what the format rounds, then bfloat16 where weights pass
/// through it, and f32's sums.
fn bound(quant: Quant, path: MatmulPath) -> f64 {
    let stored = match quant {
        Quant::Q4_K | Quant::Q5_K | Quant::Q6_K => 4.0 / 2048.0,
        Quant::F32 | Quant::F16 => 1.0 / 256.0,
        _ => 0.0,
    };
    let through = if path == MatmulPath::Gemv { 0.0 } else { 1.0 / 256.0 };
    stored + through + 2f64.powi(-16)
}

fn check(got: &[f32], expected: &[(f64, f64)], bound: f64, kind: Kind, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (&got, &(sum, size))) in got.iter().zip(expected).enumerate() {
        let (before, rounded) = match kind {
            Kind::Bf16 => (0.0, sum.abs() / 256.0),
            Kind::F32 => (0.0, 0.0),
            Kind::AddF32 => (f64::from(BEFORE), 1e-6),
        };
        let off = (f64::from(got) - sum - before).abs();
        assert!(off <= size * bound + rounded + 1e-9, "{what}: {got} for {sum} at {at}");
    }
}

proptest! {
    #![proptest_config(crate::cases(8))]

    /// All formats by all paths, in both orders of threads to the bit.
    #[test]
    fn products_are_those_of_the_oracle(
        rows in prop::sample::select(vec![1usize, 2, 3, 7, 8, 9, 12, 17]),
        outputs in 1usize..40,
        blocks in 1usize..7,
        seed in 0u64..1000,
    ) {
        let kinds = [Kind::Bf16, Kind::F32, Kind::AddF32];
        for (index, quant) in Quant::ALL.into_iter().enumerate() {
            let cols = match quant.block_len() {
                1 => 8 * blocks,
                32 => 32 * blocks,
                block => block,
            };
            let kind = kinds[(index + seed as usize) % 3];
            let bytes = random_rows(quant, outputs, cols, seed);
            let weights = dequantised(quant, &bytes, cols);
            let input = inputs(rows * cols, seed);
            let expected = expected(&weights, cols, &input);
            for path in [MatmulPath::Gemv, MatmulPath::Gemm] {
                let [forwards, backwards] = devices().map(|device| {
                    let matrix = build(&device, quant, cols, &bytes);
                    product(&device, path, &matrix, &input, kind, scratch_len(&matrix, 1)).unwrap()
                });
                let what = format!("{quant:?} {rows}x{cols}x{outputs} {path:?} {kind:?}");
                check(&forwards, &expected, bound(quant, path), kind, &what);
                prop_assert_eq!(bits(&forwards), bits(&backwards), "{}", what);
            }
        }
    }
}

/// Rows so long that every warp has several chunks of them, and more than it asks for at once; the last has fewer.
#[test]
fn long_rows_are_shared_by_warps() {
    for (quant, cols) in [
        (Quant::BF16, 2600),
        (Quant::Q4_1, 128 * 82 + 32),
        (Quant::Q8_0, 64 * 82 + 32),
        (Quant::Q6_K, 2560),
        (Quant::Q5_1, 64 * 35),
    ] {
        let bytes = random_rows(quant, 17, cols, 7);
        let weights = dequantised(quant, &bytes, cols);
        for rows in [1, 9, 17] {
            let input = inputs(rows * cols, 7);
            let expected = expected(&weights, cols, &input);
            let [forwards, backwards] = devices().map(|device| {
                let matrix = build(&device, quant, cols, &bytes);
                product(&device, MatmulPath::Gemv, &matrix, &input, Kind::F32, 0).unwrap()
            });
            let what = format!("{quant:?} {rows}x{cols}");
            check(&forwards, &expected, bound(quant, MatmulPath::Gemv), Kind::F32, &what);
            assert_eq!(bits(&forwards), bits(&backwards), "{what}");
        }
    }
}

/// 33 rows are more than the kernels for few rows take at once; 130 more than the largest tile has.
#[test]
fn many_rows_are_taken_in_pieces() {
    for (rows, outputs, cols, quant) in
        [(33, 20, 64, Quant::Q8_0), (130, 17, 32, Quant::Q4_1), (130, 150, 40, Quant::BF16)]
    {
        let bytes = random_rows(quant, outputs, cols, 5);
        let weights = dequantised(quant, &bytes, cols);
        let input = inputs(rows * cols, 5);
        let expected = expected(&weights, cols, &input);
        for path in OWN {
            let [device, _] = devices();
            let matrix = build(&device, quant, cols, &bytes);
            let scratch = scratch_len(&matrix, 1);
            let got = product(&device, path, &matrix, &input, Kind::F32, scratch).unwrap();
            let what = format!("{quant:?} {path:?}");
            check(&got, &expected, bound(quant, path), Kind::F32, &what);
        }
    }
}

/// The vendor's library, where there is one, asked for all results, in order and in a recording.
#[test]
fn the_vendors_products_are_those_of_the_oracle() {
    let [device, _] = devices();
    for (rows, outputs, cols, quant) in
        [(1, 48, 64, Quant::BF16), (40, 300, 128, Quant::BF16), (130, 150, 256, Quant::Q4_K)]
    {
        let bytes = random_rows(quant, outputs, cols, 8);
        let input = inputs(rows * cols, 8);
        let expected = expected(&dequantised(quant, &bytes, cols), cols, &input);
        let matrix = build(&device, quant, cols, &bytes);
        let path = MatmulPath::Vendor;
        for kind in [Kind::Bf16, Kind::F32, Kind::AddF32] {
            match product(&device, path, &matrix, &input, kind, scratch_len(&matrix, rows)) {
                Ok(got) => check(&got, &expected, bound(quant, path), kind, "the vendor's"),
                Err(DeviceError::Missing(_)) => {
                    passed_over("there is no library of the vendor's, nor a test of it");
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let rows_in = DeviceVec::from_slice(&device, &input).unwrap();
        let out = DeviceVec::new(&device, rows * outputs).unwrap();
        let scratch = DeviceVec::new(&device, scratch_len(&matrix, rows)).unwrap();
        let (from, to) = (rows_in.as_slice(), OutSlice::F32(out.as_slice()));
        let graph = Graph::record(&device, || {
            matmul(&device, &matrix, from, rows, to, scratch.as_slice(), path)
        });
        graph.unwrap().replay().unwrap();
        let got = out.as_slice().to_vec().unwrap();
        check(&got, &expected, bound(quant, path), Kind::F32, "the vendor's, recorded");
    }
}

/// Gated and batched, large and small: a row has the bits it has alone, within a path.
#[test]
fn a_row_has_the_same_bits_in_company() {
    for quant in [Quant::BF16, Quant::Q4_K, Quant::Q8_0, Quant::Q6_K, Quant::Q5_1] {
        let cols = 256;
        let bytes = random_rows(quant, 35, cols, 9);
        let input = inputs(40 * cols, 9);
        let [device, _] = devices();
        let matrix = build(&device, quant, cols, &bytes);
        for path in [MatmulPath::Gemv, MatmulPath::Gemm] {
            let scratch = scratch_len(&matrix, 1);
            let run = |first: usize, rows: usize| {
                let input = &input[first * cols..][..rows * cols];
                product(&device, path, &matrix, input, Kind::F32, scratch).unwrap()
            };
            let together = run(0, 40);
            for (first, rows) in [(0, 1), (39, 1), (3, 8), (20, 9), (7, 17)] {
                let alone = run(first, rows);
                let same = bits(&alone) == bits(&together[first * 35..][..rows * 35]);
                assert!(same, "{quant:?} {path:?} {first} {rows}");
            }
        }
    }
}

/// All tile shapes give a number the same bits: a device that claims to be larger takes smaller ones.
#[test]
fn tiles_of_all_shapes_give_the_same_bits() {
    if passed_over("a device claims to be larger than it is") {
        return;
    }
    let bytes = random_rows(Quant::BF16, 140, 72, 2);
    let input = inputs(70 * 72, 2);
    let mut all = Vec::new();
    // Two blocks of 128, six of 64, fifteen of 32.
    for processors in [1, 5, 100] {
        let device = pith_kernels::device::host::device(processors);
        let matrix = build(&device, Quant::BF16, 72, &bytes);
        let got = product(&device, MatmulPath::Gemm, &matrix, &input, Kind::F32, 0).unwrap();
        all.push(bits(&got));
    }
    assert!(all.iter().all(|got| *got == all[0]));
}

/// Tensors of several formats stacked, made bfloat16 in several slabs.
#[test]
fn stacks_and_slabs_fill_their_columns() {
    let cols = 32;
    let segments = [(Quant::Q4_0, 150), (Quant::BF16, 9), (Quant::Q5_1, 3), (Quant::Q8_0, 131)];
    let outputs: usize = segments.iter().map(|&(_, rows)| rows).sum();
    for device in devices() {
        let mut builder = DeviceMatrixBuilder::new(&device, cols);
        let mut weights = Vec::new();
        for (quant, rows) in segments {
            let bytes = random_rows(quant, rows, cols, rows as u64);
            builder.segment(quant).unwrap().push_rows(&Pool::new(1), &bytes).unwrap();
            weights.extend(dequantised(quant, &bytes, cols));
        }
        let matrix = builder.finish().unwrap();
        assert_eq!((matrix.rows(), scratch_len(&matrix, 1)), (outputs, 150 * cols));
        let input = inputs(3 * cols, 4);
        let expected = expected(&weights, cols, &input);
        let mut by_slabs = Vec::new();
        for (path, scratch) in
            [(MatmulPath::Gemv, 0), (MatmulPath::Gemm, 150 * cols), (MatmulPath::Gemm, 140 * cols)]
        {
            for kind in [Kind::Bf16, Kind::F32, Kind::AddF32] {
                let got = product(&device, path, &matrix, &input, kind, scratch).unwrap();
                check(&got, &expected, bound(Quant::Q4_0, path), kind, "a stack");
                if path == MatmulPath::Gemm && kind == Kind::F32 {
                    by_slabs.push(bits(&got));
                }
            }
        }
        assert!(by_slabs.iter().all(|got| *got == by_slabs[0]), "slabs of other sizes");
        let few = product(&device, MatmulPath::Gemm, &matrix, &input, Kind::F32, 127 * cols);
        assert!(matches!(few, Err(DeviceError::Shape(_))), "{few:?}");
    }
}

#[test]
fn rows_of_odd_lengths_are_multiplied_too() {
    for path in OWN {
        for rows in [1, 35] {
            let bytes = random_rows(Quant::F16, 5, 37, 6);
            let input = inputs(rows * 37, 6);
            let weights = dequantised(Quant::F16, &bytes, 37);
            let expected = expected(&weights, 37, &input);
            for device in devices() {
                let matrix = build(&device, Quant::F16, 37, &bytes);
                let got = product(&device, path, &matrix, &input, Kind::AddF32, 0).unwrap();
                check(&got, &expected, bound(Quant::F16, path), Kind::AddF32, "37 columns");
            }
        }
    }
}

#[test]
fn one_input_without_a_number_spoils_its_row_alone() {
    let [device, _] = devices();
    for quant in [Quant::BF16, Quant::Q4_1, Quant::Q8_0, Quant::Q6_K] {
        let bytes = random_rows(quant, 20, 256, 3);
        let matrix = build(&device, quant, 256, &bytes);
        let mut input = inputs(3 * 256, 3);
        input[256 + 77] = 0x7fc0;
        for path in [MatmulPath::Gemv, MatmulPath::Gemm] {
            let scratch = scratch_len(&matrix, 1);
            let got = product(&device, path, &matrix, &input, Kind::F32, scratch).unwrap();
            for (row, got) in got.chunks_exact(20).enumerate() {
                let spoilt = got.iter().all(|x| x.is_nan());
                assert_eq!(spoilt, row == 1, "{quant:?} {path:?}");
                assert!(spoilt || got.iter().all(|x| x.is_finite()), "{quant:?} {path:?}");
            }
        }
    }
}

#[test]
fn nothing_is_multiplied_where_nothing_is() {
    let [device, _] = devices();
    let matrix = build(&device, Quant::Q8_0, 64, &random_rows(Quant::Q8_0, 4, 64, 1));
    let rowless = DeviceMatrixBuilder::new(&device, 64).finish().unwrap();
    for path in OWN {
        assert_eq!(product(&device, path, &matrix, &[], Kind::F32, 0).unwrap(), []);
        let none = product(&device, path, &rowless, &inputs(128, 1), Kind::F32, 0);
        assert_eq!(none.unwrap(), []);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [device, _] = devices();
    let matrix = build(&device, Quant::Q8_0, 64, &random_rows(Quant::Q8_0, 4, 64, 1));
    let input = DeviceVec::<u16>::zeroed(&device, 136).unwrap();
    let out = DeviceVec::<f32>::zeroed(&device, 8).unwrap();
    let scratch = DeviceVec::<u16>::new(&device, 264).unwrap();
    let run = |path, at: usize, rows, numbers, scratch| {
        let (input, out) = (input.slice(at..at + 64 * 2), out.slice(0..numbers));
        matmul(&device, &matrix, input, rows, OutSlice::F32(out), scratch, path)
    };
    let all = scratch.slice(0..256);
    run(MatmulPath::Gemm, 0, 2, 8, all).unwrap();
    run(MatmulPath::Gemm, 8, 2, 8, all).unwrap();
    let shape = |result| assert!(matches!(result, Err(DeviceError::Shape(_))), "{result:?}");
    shape(run(MatmulPath::Gemv, 0, 3, 8, all));
    shape(run(MatmulPath::Gemv, 0, 2, 7, all));
    shape(run(MatmulPath::Gemv, 4, 2, 8, all));
    shape(run(MatmulPath::Gemm, 0, 2, 8, scratch.slice(4..260)));
    shape(run(MatmulPath::Gemm, 0, 2, 8, scratch.slice(0..255)));
    if !passed_over("there is no library of the vendor's") {
        let missing = run(MatmulPath::Vendor, 0, 2, 8, all);
        assert!(matches!(missing, Err(DeviceError::Missing(_))), "{missing:?}");
    }
}
