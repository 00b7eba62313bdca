//! The encoder's vectors against those of a reference implementation, whatever stands beside a text.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod encoder_harness;

use std::cell::Cell;

use encoder_harness::{FIXTURES, cases, distance, embed, open};
use pith_engine::encoder::{Encoder, EncoderError, Precision, ROWS};
use pith_kernels::{Isa, Pool};

/// Largest difference of a component from the reference's, with weights as the file has them. Seen: 4e-7.
const TOLERANCE: f32 = 3e-6;

/// Largest cosine distance from the reference in eight bits. Random weights amplify what trained ones forgive.
const EIGHT_BIT_DISTANCE: f32 = 2e-3;

fn load(name: &str, isa: Isa, threads: usize, precision: Precision) -> Encoder {
    Encoder::load(open(name), isa, Pool::new(threads), precision).unwrap()
}

#[test]
fn tokens_are_the_references() {
    for name in FIXTURES {
        let file = open(name);
        for case in cases(name) {
            let encoding = file.tokenizer().encode(&case.text).unwrap();
            assert_eq!(encoding.ids, case.ids, "{name}: {:?}", case.text);
            let longest = case.text.len() > 400;
            assert_eq!(encoding.truncated, longest, "{name}: {:?}", case.text);
        }
    }
}

#[test]
fn vectors_match_the_reference() {
    for name in FIXTURES {
        let cases = cases(name);
        let texts: Vec<&str> = cases.iter().map(|case| &*case.text).collect();
        for isa in Isa::available() {
            for precision in [Precision::Float, Precision::EightBit] {
                let encoder = load(name, isa, 2, precision);
                let (mut worst, mut farthest) = (0.0f32, 0.0f32);
                for (case, vector) in cases.iter().zip(embed(&encoder, &texts)) {
                    for (a, b) in vector.iter().zip(&case.vector) {
                        worst = worst.max((a - b).abs());
                    }
                    farthest = farthest.max(distance(&vector, &case.vector));
                }
                println!(
                    "{name} on {}, {precision:?}: within {worst:.1e}, distance {farthest:.1e}",
                    isa.name()
                );
                match precision {
                    Precision::Float => {
                        assert!(worst < TOLERANCE, "{name} on {}: {worst}", isa.name())
                    }
                    Precision::EightBit => assert!(
                        farthest < EIGHT_BIT_DISTANCE,
                        "{name} on {}: {farthest}",
                        isa.name()
                    ),
                }
            }
        }
    }
}

#[test]
fn company_and_threads_change_no_bit() {
    for name in FIXTURES {
        let cases = cases(name);
        // Enough for several batches, of which none begins where another does.
        let texts: Vec<&str> =
            cases.iter().cycle().take(7 * cases.len()).map(|c| &*c.text).collect();
        let rows: usize = cases.iter().map(|case| 7 * case.ids.len()).sum();
        assert!(rows > 3 * ROWS, "{rows} rows are too few");
        for isa in Isa::available() {
            let alone = load(name, isa, 1, Precision::EightBit);
            let expected: Vec<Vec<f32>> =
                texts.iter().map(|text| embed(&alone, &[text]).remove(0)).collect();
            for threads in [1, 2, 3] {
                let encoder = load(name, isa, threads, Precision::EightBit);
                assert_eq!(encoder.identity(), alone.identity());
                assert!(
                    embed(&encoder, &texts) == expected,
                    "{name} on {}, {threads} threads",
                    isa.name()
                );
                let backwards: Vec<&str> = texts.iter().rev().copied().collect();
                let mut turned = embed(&encoder, &backwards);
                turned.reverse();
                assert!(turned == expected, "{name} on {}, backwards", isa.name());
            }
        }
    }
}

#[test]
fn callers_beside_each_other_get_their_own_vectors() {
    let cases = cases("tiny");
    let encoder = load("tiny", Isa::detect(), 2, Precision::EightBit);
    let expected: Vec<Vec<f32>> =
        cases.iter().map(|case| embed(&encoder, &[&case.text]).remove(0)).collect();
    std::thread::scope(|scope| {
        for shift in 0..4 {
            let (encoder, cases, expected) = (&encoder, &cases, &expected);
            scope.spawn(move || {
                for round in 0..20 {
                    let at = (shift * 3 + round) % cases.len();
                    let texts: Vec<&str> = cases[at..].iter().map(|case| &*case.text).collect();
                    assert!(embed(encoder, &texts) == expected[at..]);
                }
            });
        }
    });
}

#[test]
fn a_call_that_is_stopped_leaves_nothing() {
    let cases = cases("tiny");
    let encoder = load("tiny", Isa::detect(), 1, Precision::EightBit);
    let texts: Vec<&str> = cases.iter().cycle().take(300).map(|case| &*case.text).collect();
    let asked = Cell::new(0);
    for allowed in 0..5 {
        asked.set(0);
        let go_on = || asked.replace(asked.get() + 1) < allowed;
        let mut out = vec![1.0, 2.0];
        let stopped = encoder.embed(&texts, &mut out, go_on);
        assert!(matches!(stopped, Err(EncoderError::Stopped)), "{stopped:?}");
        assert_eq!((out, asked.get()), (vec![1.0, 2.0], allowed + 1));
    }
    assert!(encoder.embed(&[], &mut Vec::new(), || true).unwrap().is_empty());
}

#[test]
fn identity_tells_precisions_and_models_apart() {
    let identity = |name, precision| load(name, Isa::detect(), 1, precision).identity().to_owned();
    let all = [
        identity("tiny", Precision::Float),
        identity("tiny", Precision::EightBit),
        identity("odd", Precision::EightBit),
    ];
    assert!(all[0] != all[1] && all[1] != all[2]);
    assert_eq!(all[1], identity("tiny", Precision::EightBit));
}
