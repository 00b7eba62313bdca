//! Sampling against a naive reference that sorts, and its edge cases.

use std::sync::Arc;

use proptest::prelude::*;

use super::nucleus::{Cut, Scale};
use super::*;

fn at(temperature: f32) -> SampleSpec {
    SampleSpec { temperature, seed: 7, ..SampleSpec::greedy() }
}

fn once(logits: &[f32], spec: &SampleSpec) -> Result<Drawn, SampleError> {
    sample(Isa::detect(), &mut logits.to_vec(), spec, &mut SampleScratch::default())
}

/// Ids kept by the fast path.
fn kept(logits: &[f32], spec: &SampleSpec) -> Vec<u32> {
    let scale = Scale {
        top: exponential::top(Isa::Scalar, logits).unwrap(),
        inverse: 1.0 / spec.temperature,
    };
    let mut scratch = SampleScratch::default();
    let cut =
        narrow(Isa::detect(), logits, spec, scale, &mut scratch.candidates, &mut scratch.masses);
    (0u32..)
        .zip(logits)
        .filter(|&(id, &l)| l > f32::NEG_INFINITY && cut.keeps(l, id))
        .map(|(id, _)| id)
        .collect()
}

/// The same by sorting everything, in f64. Also the smallest relative distance of a decision from
/// its threshold: where it is tiny, rounding may decide either way.
fn kept_naively(logits: &[f32], spec: &SampleSpec) -> (Vec<u32>, f64) {
    let mut order: Vec<u32> =
        (0..logits.len() as u32).filter(|&id| logits[id as usize] > f32::NEG_INFINITY).collect();
    order.sort_by(|&a, &b| {
        logits[b as usize].partial_cmp(&logits[a as usize]).unwrap().then(a.cmp(&b))
    });
    let top = f64::from(logits[order[0] as usize]);
    let weight =
        |id: u32| ((f64::from(logits[id as usize]) - top) / f64::from(spec.temperature)).exp();
    let mut margin = f64::INFINITY;
    if spec.top_k > 0 {
        order.truncate(spec.top_k as usize);
    }
    if spec.top_p < 1.0 {
        let all: f64 = order.iter().map(|&id| weight(id)).sum();
        let mut sum = 0.0;
        let mut keep = 0;
        for &id in &order {
            sum += weight(id);
            keep += 1;
            margin = margin.min((sum / all - f64::from(spec.top_p)).abs());
            if sum / all >= f64::from(spec.top_p) {
                break;
            }
        }
        order.truncate(keep);
    }
    if spec.min_p > 0.0 {
        for &id in &order {
            margin = margin.min((weight(id) / f64::from(spec.min_p) - 1.0).abs());
        }
        order.retain(|&id| weight(id) >= f64::from(spec.min_p));
    }
    order.sort_unstable();
    (order, margin)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn narrowing_matches_sorting(
        mut logits in prop::collection::vec(-12.0f32..12.0, 1..1200),
        // Coarse steps make ties.
        step in prop_oneof![Just(0.0f32), Just(0.25), Just(2.0)],
        temperature in 0.2f32..3.0,
        top_k in prop_oneof![Just(0u32), 1..8u32, 1..1300u32],
        top_p in prop_oneof![Just(1.0f32), 0.0f32..1.0, 0.9f32..1.0],
        min_p in prop_oneof![Just(0.0f32), 0.0f32..0.5],
        banned_every in 2usize..50,
    ) {
        for (id, logit) in logits.iter_mut().enumerate() {
            if step > 0.0 {
                *logit = (*logit / step).round() * step;
            }
            if id % banned_every == 1 {
                *logit = f32::NEG_INFINITY;
            }
        }
        let spec = SampleSpec { top_k, top_p, min_p, ..at(temperature) };
        let (naive, margin) = kept_naively(&logits, &spec);
        // f32 weights carry about 1e-6 of relative error each.
        prop_assume!(margin > 1e-5);
        prop_assert_eq!(kept(&logits, &spec), naive);
    }

    #[test]
    fn whatever_is_drawn_was_kept_and_the_row_comes_back(
        logits in prop::collection::vec(-12.0f32..12.0, 1..700),
        temperature in prop_oneof![Just(0.0f32), 0.2f32..3.0],
        top_k in 0..40u32,
        top_p in 0.05f32..=1.0,
        repetition in 0.5f32..2.0,
        bias in -20.0f32..20.0,
        draw in any::<u64>(),
    ) {
        let n = logits.len() as u32;
        let spec = SampleSpec {
            top_k, top_p, draw,
            repetition_penalty: repetition,
            frequency_penalty: 0.3,
            presence_penalty: 0.2,
            seen: Arc::new([(0, 3), (n / 2, 0), (n + 5, 1)]),
            banned: if n > 1 { Arc::new([n - 1, n + 9]) } else { Arc::new([]) },
            logit_bias: Arc::new([(n / 3, bias), (n + 1, 1.0)]),
            ..at(temperature)
        };
        let mut row = logits.clone();
        let mut scratch = SampleScratch::default();
        let drawn = sample(Isa::detect(), &mut row, &spec, &mut scratch).unwrap();
        prop_assert_eq!(&row, &logits);

        let mut edited = logits.clone();
        edit_naively(&mut edited, &spec);
        if temperature == 0.0 {
            let best = edited.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(edited.iter().position(|&l| l == best), Some(drawn.id as usize));
        } else {
            prop_assert!(kept(&edited, &spec).contains(&drawn.id));
        }
        let all: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let logprob = f64::from(logits[drawn.id as usize]) - all.ln();
        prop_assert!((f64::from(drawn.logprob) - logprob).abs() < 1e-5);
    }
}

fn edit_naively(logits: &mut [f32], spec: &SampleSpec) {
    for (id, logit) in logits.iter_mut().enumerate() {
        let id = id as u32;
        for &(token, bias) in spec.logit_bias.iter() {
            if token == id {
                *logit += bias;
            }
        }
        for &(token, count) in spec.seen.iter() {
            if token == id {
                *logit = if *logit > 0.0 {
                    *logit / spec.repetition_penalty
                } else {
                    *logit * spec.repetition_penalty
                };
                *logit -= spec.frequency_penalty * count as f32
                    + if count > 0 { spec.presence_penalty } else { 0.0 };
            }
        }
        if spec.banned.contains(&id) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Draws follow the distribution: Pearson's chi-square over fixed seeds stays below the 99.9 %
/// quantile. The seeds are fixed, so the test cannot flicker.
fn chi_square(logits: &[f32], spec: &SampleSpec, expected: &[f64], limit: f64) {
    let draws = 20_000u64;
    let mut counts = vec![0u64; logits.len()];
    let mut scratch = SampleScratch::default();
    let mut row = logits.to_vec();
    for draw in 0..draws {
        // Half vary the draw, half the seed.
        let spec = if draw % 2 == 0 {
            SampleSpec { draw, ..spec.clone() }
        } else {
            SampleSpec { seed: draw, ..spec.clone() }
        };
        counts[sample(Isa::detect(), &mut row, &spec, &mut scratch).unwrap().id as usize] += 1;
    }
    let mut statistic = 0.0;
    for (&count, &p) in counts.iter().zip(expected) {
        if p == 0.0 {
            assert_eq!(count, 0, "drew a token that was cut off");
        } else {
            let mean = p * draws as f64;
            statistic += (count as f64 - mean).powi(2) / mean;
        }
    }
    assert!(statistic < limit, "chi-square {statistic} of {counts:?}");
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
    let all: f64 = weights.iter().sum();
    weights.iter().map(|w| w / all).collect()
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.3f32, -1.0, 2.0, 1.5, 0.0, -0.5, 1.0, 0.7, -2.0, 0.1];
    // 9 degrees of freedom: 27.88 at 99.9 %.
    chi_square(&logits, &at(1.0), &softmax(&logits, 1.0), 27.88);
    chi_square(&logits, &at(1.7), &softmax(&logits, 1.7), 27.88);
    // Top 3: tokens 2, 3, 6. 2 degrees: 13.82.
    let mut expected = softmax(&logits, 1.0);
    let all = expected[2] + expected[3] + expected[6];
    for (id, p) in expected.iter_mut().enumerate() {
        *p = if [2, 3, 6].contains(&id) { *p / all } else { 0.0 };
    }
    chi_square(&logits, &SampleSpec { top_k: 3, ..at(1.0) }, &expected, 13.82);
}

#[test]
fn draws_reach_every_stretch_of_a_large_vocabulary() {
    // 5,000 equal tokens, counted by tens of 500: 9 degrees of freedom.
    let mut row = vec![1.0f32; 5_000];
    let mut counts = [0u32; 10];
    let mut scratch = SampleScratch::default();
    for draw in 0..10_000 {
        let drawn =
            sample(Isa::detect(), &mut row, &SampleSpec { draw, ..at(1.0) }, &mut scratch).unwrap();
        counts[drawn.id as usize / 500] += 1;
        assert!((drawn.logprob + 5_000f32.ln()).abs() < 1e-5);
    }
    let statistic: f64 = counts.iter().map(|&c| (f64::from(c) - 1e3).powi(2) / 1e3).sum();
    assert!(statistic < 27.88, "chi-square {statistic} of {counts:?}");
}

#[test]
fn randomness_is_that_of_splitmix64() {
    // The published generator's first outputs from state 0, by way of its finaliser.
    assert_eq!((random::mix(random::GOLDEN)), 0xe220_a839_7b1d_cdaf);
    assert_eq!((random::mix(random::GOLDEN.wrapping_mul(2))), 0x6e78_9e6a_a1b9_65f4);
    for seed in [0, 1, u64::MAX] {
        for counter in 0..1000 {
            assert!((0.0..1.0).contains(&random::uniform(seed, counter)));
        }
    }
}

#[test]
fn the_draw_depends_on_seed_and_index_only() {
    let logits: Vec<f32> = (0..400).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let spec = SampleSpec { top_p: 0.9, ..at(1.2) };
    let ids = |seed| -> Vec<u32> {
        (0..40)
            .map(|draw| once(&logits, &SampleSpec { seed, draw, ..spec.clone() }).unwrap().id)
            .collect()
    };
    assert_eq!(ids(3), ids(3));
    assert_ne!(ids(3), ids(4));
    let mut backwards: Vec<u32> = (0..40)
        .rev()
        .map(|draw| once(&logits, &SampleSpec { seed: 3, draw, ..spec.clone() }).unwrap().id)
        .collect();
    backwards.reverse();
    assert_eq!(ids(3), backwards);
}

#[test]
fn greedy_takes_the_lowest_id_of_equals() {
    let mut logits = vec![0.0f32; 100];
    for id in [97, 40, 41] {
        logits[id] = 5.0;
    }
    assert_eq!(once(&logits, &SampleSpec::greedy()).unwrap().id, 40);
    let spec = SampleSpec { banned: Arc::new([40]), ..SampleSpec::greedy() };
    assert_eq!(once(&logits, &spec).unwrap().id, 41);
    let spec = SampleSpec { logit_bias: Arc::new([(97, 0.5)]), ..SampleSpec::greedy() };
    let drawn = once(&logits, &spec).unwrap();
    assert_eq!(drawn.id, 97);
    // The bias does not show in the log-probability.
    let all: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    assert!((f64::from(drawn.logprob) - (5.0 - all.ln())).abs() < 1e-5);
}

#[test]
fn one_candidate_is_greedy() {
    let logits: Vec<f32> = (0..300).map(|i| ((i * 7919) % 300) as f32 * 0.01).collect();
    let best = once(&logits, &SampleSpec::greedy()).unwrap().id;
    for draw in 0..50 {
        for spec in [
            SampleSpec { top_k: 1, ..at(5.0) },
            SampleSpec { top_p: 1e-9, ..at(5.0) },
            SampleSpec { top_p: 0.0, ..at(5.0) },
            SampleSpec { min_p: 1.0, ..at(5.0) },
            at(1e-7),
        ] {
            assert_eq!(once(&logits, &SampleSpec { draw, ..spec }).unwrap().id, best);
        }
    }
}

#[test]
fn ties_at_the_cut_go_to_the_lower_ids() {
    let mut logits = vec![1.0f32; 900];
    logits[500] = 2.0;
    let spec = SampleSpec { top_k: 4, ..at(1.0) };
    assert_eq!(kept(&logits, &spec), [0, 1, 2, 500]);
    let flat = vec![0.0f32; 1000];
    let spec = SampleSpec { top_p: 0.0095, ..at(1.0) };
    assert_eq!(kept(&flat, &spec), (0..10).collect::<Vec<_>>());
    // Zeros of both signs are equals.
    let zeros = [-0.0f32, 0.0, -0.0, 0.0];
    assert_eq!(kept(&zeros, &SampleSpec { top_k: 2, ..at(1.0) }), [0, 1]);
}

#[test]
fn nothing_left_and_not_finite_are_errors() {
    let spec = SampleSpec { banned: Arc::new([0, 1, 2]), ..SampleSpec::greedy() };
    assert_eq!(once(&[1.0, 2.0, 3.0], &spec), Err(SampleError::NothingLeft));
    let spec = SampleSpec { temperature: 1.0, top_k: 2, top_p: 0.5, ..spec };
    assert_eq!(once(&[1.0, 2.0, 3.0], &spec), Err(SampleError::NothingLeft));
    assert_eq!(spec.check(3), Err("every token is banned"));
    assert_eq!(spec.check(4), Ok(()));
    assert_eq!(once(&[], &SampleSpec::greedy()), Err(SampleError::NothingLeft));
    for bad in [f32::NAN, f32::INFINITY] {
        for at_index in [0, 13, 16] {
            let mut logits = vec![0.0; 17];
            logits[at_index] = bad;
            assert_eq!(once(&logits, &SampleSpec::greedy()), Err(SampleError::NotFinite));
            assert_eq!(once(&logits, &at(1.0)), Err(SampleError::NotFinite));
        }
    }
}

#[test]
fn extreme_edits_stay_finite() {
    let spec = SampleSpec {
        logit_bias: Arc::new([(0, f32::MAX), (1, -f32::MAX)]),
        frequency_penalty: -f32::MAX,
        repetition_penalty: f32::MIN_POSITIVE,
        seen: Arc::new([(0, u32::MAX), (2, 9)]),
        ..at(1.0)
    };
    let infinite_both_ways = SampleSpec { repetition_penalty: f32::MAX, ..spec.clone() };
    once(&[-4.0, -5.0, -6.0], &infinite_both_ways).unwrap();
    assert_eq!(spec.check(3), Ok(()));
    let drawn = once(&[4.0, 5.0, 6.0], &spec).unwrap();
    assert!(drawn.id == 0 || drawn.id == 2);
    assert!(drawn.logprob.is_finite());
}

#[test]
fn the_exponential_is_accurate() {
    assert_eq!(exponential::exp(0.0), 1.0);
    assert_eq!(exponential::exp(-200.0), 0.0);
    assert_eq!(exponential::exp(f32::NEG_INFINITY), 0.0);
    for i in 0..87_000 {
        let x = -(i as f32) * 1e-3;
        let exact = f64::from(x).exp();
        let error = (f64::from(exponential::exp(x)) - exact).abs() / exact;
        assert!(error < 3e-7, "exp({x}) is off by {error}");
    }
}

#[test]
fn specs_without_meaning_are_refused() {
    assert_eq!(SampleSpec::greedy().check(10), Ok(()));
    for bad in [
        at(-1.0),
        at(f32::NAN),
        SampleSpec { top_p: 1.5, ..at(1.0) },
        SampleSpec { min_p: -0.1, ..at(1.0) },
        SampleSpec { repetition_penalty: 0.0, ..at(1.0) },
        SampleSpec { presence_penalty: f32::INFINITY, ..at(1.0) },
        SampleSpec { logit_bias: Arc::new([(1, f32::NAN)]), ..at(1.0) },
    ] {
        assert!(bad.check(10).is_err(), "{bad:?}");
    }
    assert_eq!(Cut::EVERYTHING.raised(f32::NEG_INFINITY), Cut::EVERYTHING);
}

#[test]
fn every_instruction_set_draws_alike() {
    let row: Vec<f32> =
        (0..5003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 3e6).collect();
    let specs = [
        SampleSpec::greedy(),
        at(0.7),
        SampleSpec { top_p: 0.9, ..at(1.3) },
        SampleSpec { top_k: 40, ..at(2.0) },
    ];
    for spec in specs {
        let draw =
            |isa| sample(isa, &mut row.clone(), &spec, &mut SampleScratch::default()).unwrap();
        for isa in Isa::available() {
            assert_eq!(draw(isa), draw(Isa::Scalar), "{isa:?}");
        }
    }
}
