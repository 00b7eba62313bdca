//! Tokens drawn on the device against a plain reference in f64 that sorts, and against the distribution.

use pith_kernels::device::sample::{PackedSampling, SampleFailure, SampleRow, SampleRows, sample};
use pith_kernels::device::{Device, DeviceError, DeviceVec};
use proptest::prelude::*;

use crate::{bits, devices, noise, on_both};

/// A row's settings, with lists of its own.
#[derive(Debug, Clone)]
struct Spec {
    row: SampleRow<'static>,
    seen: Vec<(u32, u32)>,
    banned: Vec<u32>,
    bias: Vec<(u32, f32)>,
    /// One for each token; empty: the row is not masked.
    allowed: Vec<bool>,
}

fn at(temperature: f32) -> Spec {
    let row = SampleRow {
        temperature,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seen: &[],
        banned: &[],
        logit_bias: &[],
        masked: false,
        seed: 7,
        draw: 0,
    };
    Spec { row, seen: vec![], banned: vec![], bias: vec![], allowed: vec![] }
}

/// Tokens, bits of likelihoods and statuses; `None` is a row that is not sampled. Logits must come back as they were.
fn draw(device: &Device, logits: &[f32], specs: &[Option<Spec>]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let (rows, vocab) = (specs.len(), logits.len() / specs.len());
    let mut packed = SampleRows::default();
    packed.begin(rows);
    let words = vocab.div_ceil(32);
    let mut masks = vec![0u32; rows * words];
    for (row, spec) in specs.iter().enumerate().filter_map(|(row, s)| Some((row, s.as_ref()?))) {
        let (seen, banned, logit_bias) = (&spec.seen[..], &spec.banned[..], &spec.bias[..]);
        let masked = !spec.allowed.is_empty();
        packed.set(row, &SampleRow { seen, banned, logit_bias, masked, ..spec.row });
        for (id, _) in spec.allowed.iter().enumerate().filter(|&(_, &allowed)| allowed) {
            masks[row * words + id / 32] |= 1 << (id % 32);
        }
    }
    let room = PackedSampling::new(device, rows, packed.edits()).unwrap();
    assert!(room.fits(&packed));
    room.upload(&packed).unwrap();
    let on_device = DeviceVec::from_slice(device, logits).unwrap();
    let masks = DeviceVec::from_slice(device, &masks).unwrap();
    let masks = specs
        .iter()
        .any(|spec| spec.as_ref().is_some_and(|spec| !spec.allowed.is_empty()))
        .then_some(masks.as_slice());
    let (tokens, status) = (DeviceVec::new(device, rows), DeviceVec::new(device, rows));
    let (tokens, status) = (tokens.unwrap(), status.unwrap());
    let logprobs = DeviceVec::<f32>::new(device, rows).unwrap();
    let (t, l, s) = (tokens.as_slice(), logprobs.as_slice(), status.as_slice());
    sample(device, on_device.as_slice(), &room, masks, t, l, s).unwrap();
    assert_eq!(bits(&on_device.as_slice().to_vec().unwrap()), bits(logits), "logits changed");
    (t.to_vec().unwrap(), bits(&l.to_vec().unwrap()), s.to_vec().unwrap())
}

/// One row on both devices.
fn once(logits: &[f32], spec: &Spec) -> Result<(u32, f32), SampleFailure> {
    let (tokens, logprobs, status) = on_both(|device| draw(device, logits, &[Some(spec.clone())]));
    match SampleFailure::of(status[0]) {
        None => Ok((tokens[0], f32::from_bits(logprobs[0]))),
        Some(failure) => Err(failure),
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uniform(seed: u64, draw: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = mix(seed.wrapping_add(GOLDEN));
    let bits = mix(start.wrapping_add(GOLDEN.wrapping_mul(draw.wrapping_add(1))));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Edits by the rules, in f32 as they are said to be.
fn edited(logits: &[f32], spec: &Spec) -> Vec<f32> {
    let mut logits = logits.to_vec();
    let clamp = |logit: f32| logit.clamp(-1e30, 1e30);
    for &(id, bias) in &spec.bias {
        if let Some(logit) = logits.get_mut(id as usize).filter(|logit| logit.is_finite()) {
            *logit = clamp(*logit + bias);
        }
    }
    let SampleRow { repetition_penalty, frequency_penalty, presence_penalty, .. } = spec.row;
    for &(id, count) in &spec.seen {
        if let Some(logit) = logits.get_mut(id as usize).filter(|logit| logit.is_finite()) {
            let once = if count > 0 { presence_penalty } else { 0.0 };
            let subtract = frequency_penalty * count as f32 + once;
            let positive = *logit > 0.0;
            let repeated =
                if positive { *logit / repetition_penalty } else { *logit * repetition_penalty };
            *logit = clamp(repeated - subtract);
        }
    }
    let dropped = spec.banned.iter().map(|&id| id as usize);
    for id in dropped.chain((0..spec.allowed.len()).filter(|&id| !spec.allowed[id])) {
        if let Some(logit) = logits.get_mut(id) {
            *logit = f32::NEG_INFINITY;
        }
    }
    logits
}

/// The token, and how near the nearest decision came to its threshold, as a share of the weights it is taken among: below
/// some 1e-6 the rounding of weights may decide either way.
fn reference(logits: &[f32], spec: &Spec) -> Option<(u32, f64)> {
    let logits = edited(logits, spec);
    let mut order: Vec<u32> =
        (0..logits.len() as u32).filter(|&id| logits[id as usize] > f32::NEG_INFINITY).collect();
    let logit = |id: u32| logits[id as usize];
    order.sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).unwrap().then(a.cmp(&b)));
    let best = *order.first()?;
    let row = &spec.row;
    if row.temperature < 1e-5 {
        return Some((best, f64::INFINITY));
    }
    let top = f64::from(logit(best));
    let weight = |id: u32| ((f64::from(logit(id)) - top) / f64::from(row.temperature)).exp();
    let mut margin = f64::INFINITY;
    if row.top_k > 0 {
        order.truncate(row.top_k as usize);
    }
    if row.top_p < 1.0 {
        let all: f64 = order.iter().map(|&id| weight(id)).sum();
        let mut sum = 0.0;
        let reached = |&id: &u32| {
            sum += weight(id);
            margin = margin.min((sum / all - f64::from(row.top_p)).abs());
            sum / all >= f64::from(row.top_p)
        };
        let keep = order.iter().position(reached).map_or(order.len(), |last| last + 1);
        order.truncate(keep);
    }
    if row.min_p > 0.0 {
        for &id in &order {
            margin = margin.min((weight(id) / f64::from(row.min_p) - 1.0).abs());
        }
        order.retain(|&id| weight(id) >= f64::from(row.min_p));
    }
    order.sort_unstable();
    let all: f64 = order.iter().map(|&id| weight(id)).sum();
    let (number, mut sum, mut chosen) = (uniform(row.seed, row.draw), 0.0, None);
    for &id in &order {
        sum += weight(id) / all;
        margin = margin.min((sum - number).abs());
        if sum > number {
            chosen = chosen.or(Some(id));
        }
    }
    Some((chosen.or(order.last().copied())?, margin))
}

fn logprob(logits: &[f32], id: u32) -> f64 {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - top).exp()).sum();
    f64::from(logits[id as usize]) - top - sum.ln()
}

prop_compose! {
    fn specs(vocab: usize)(
        temperature in prop_oneof![1 => Just(0.0f32), 5 => 0.2f32..3.0],
        top_k in prop_oneof![Just(0u32), 1..8u32, 1..(vocab as u32 + 50)],
        top_p in prop_oneof![Just(1.0f32), 0.0f32..1.0, 0.9f32..1.0],
        min_p in prop_oneof![Just(0.0f32), 0.0f32..0.5],
        penalties in prop::option::of((0.5f32..2.0, -0.5f32..0.5, -0.5f32..0.5)),
        mut tokens in prop::collection::vec((0..vocab as u32 + 9, 0u32..4, -20f32..20.0), 0..40),
        masked in prop::option::of(2usize..9),
        (seed, draw) in any::<(u64, u64)>(),
    ) -> Spec {
        tokens.sort_by_key(|token| token.0);
        tokens.dedup_by_key(|token| token.0);
        let mut spec = at(temperature);
        spec.row = SampleRow { top_k, top_p, min_p, seed, draw, ..spec.row };
        // Each token falls to one, two or all three of the lists.
        let part = |which: u32| tokens.iter().filter(move |token| token.0 * 7 % 11 % 4 >= which);
        spec.bias = part(1).map(|&(id, _, bias)| (id, bias)).collect();
        spec.banned = part(3).map(|token| token.0).collect();
        if let Some((repetition, frequency, presence)) = penalties {
            spec.row.repetition_penalty = repetition;
            spec.row.frequency_penalty = frequency;
            spec.row.presence_penalty = presence;
            spec.seen = part(0).map(|&(id, count, _)| (id, count)).collect();
        }
        if let Some(every) = masked {
            spec.allowed = (0..vocab).map(|id| id % every != 0).collect();
        }
        spec
    }
}

fn cases() -> impl Strategy<Value = (usize, Vec<Option<Spec>>)> {
    prop_oneof![2usize..600, 4000usize..9000, Just(6144usize)].prop_flat_map(|vocab| {
        (Just(vocab), prop::collection::vec(prop::option::weighted(0.9, specs(vocab)), 1..4))
    })
}

proptest! {
    #![proptest_config(crate::cases(48))]

    #[test]
    fn tokens_are_those_of_the_reference(
        (vocab, specs) in cases(),
        // Coarse steps make ties; wide rows are settled by a list, flat ones are not.
        step in prop::sample::select(vec![0.0f32, 0.25, 2.0]),
        size in prop::sample::select(vec![0.5f32, 4.0, 14.0]),
        seed in any::<u64>(),
    ) {
        let mut logits = noise(specs.len() * vocab, seed, size);
        for (at, logit) in logits.iter_mut().enumerate() {
            if step > 0.0 {
                *logit = (*logit / step).round() * step;
            }
            if at % 97 == 5 {
                *logit = f32::NEG_INFINITY;
            }
        }
        let (tokens, logprobs, status) = on_both(|device| draw(device, &logits, &specs));
        for (row, spec) in specs.iter().enumerate() {
            let logits = &logits[row * vocab..][..vocab];
            let got = (tokens[row], status[row]);
            let Some(spec) = spec else {
                prop_assert_eq!(got, (0, 0));
                continue;
            };
            let Some((expected, margin)) = reference(logits, spec) else {
                prop_assert_eq!(got, (0, 2));
                continue;
            };
            if margin > 3e-6 {
                prop_assert_eq!(got, (expected, 0), "by a margin of {}", margin);
            }
            let likelihood = f64::from(f32::from_bits(logprobs[row]));
            let exact = logprob(logits, tokens[row]);
            prop_assert!((likelihood - exact).abs() < 1e-5 * (1.0 + exact.abs()));
        }
    }
}

/// Nearly all of the cases above must have been decided, or they would have shown nothing.
#[test]
fn margins_are_rarely_narrow() {
    let logits = noise(8000, 5, 4.0);
    let narrow = (0..300)
        .filter(|&draw| {
            let mut spec = at(1.0);
            (spec.row.draw, spec.row.top_p) = (draw, 0.9);
            reference(&logits, &spec).is_none_or(|(_, margin)| margin <= 3e-6)
        })
        .count();
    assert!(narrow < 60, "{narrow} of 300");
}

/// Draws follow the distribution: Pearson's chi-square over fixed seeds stays below the 99.9 % quantile.
fn chi_square(logits: &[f32], spec: &Spec, expected: &[f64], limit: f64) {
    let [device, _] = devices();
    let (steps, rows) = (20u64, 64u64);
    let many: Vec<f32> = (0..rows).flat_map(|_| logits.iter().copied()).collect();
    let mut counts = vec![0u64; logits.len()];
    for step in 0..steps {
        // Half vary the draw, half the seed.
        let specs: Vec<Option<Spec>> = (0..rows)
            .map(|row| {
                let mut spec = spec.clone();
                let number = step * rows + row;
                if row % 2 == 0 {
                    spec.row.draw = number
                } else {
                    spec.row.seed = number
                }
                Some(spec)
            })
            .collect();
        let (tokens, _, _) = draw(&device, &many, &specs);
        tokens.iter().for_each(|&token| counts[token as usize] += 1);
    }
    let mut statistic = 0.0;
    for (&count, &p) in counts.iter().zip(expected) {
        if p == 0.0 {
            assert_eq!(count, 0, "drew a token that was cut off");
        } else {
            let mean = p * (steps * rows) as f64;
            statistic += (count as f64 - mean).powi(2) / mean;
        }
    }
    assert!(statistic < limit, "chi-square {statistic} of {counts:?}");
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.3f32, -1.0, 2.0, 1.5, 0.0, -0.5, 1.0, 0.7, -2.0, 0.1];
    let softmax = |temperature: f64, keep: &[usize]| -> Vec<f64> {
        let weight = |(id, &l): (usize, &f32)| {
            if keep.contains(&id) { (f64::from(l) / temperature).exp() } else { 0.0 }
        };
        let weights: Vec<f64> = logits.iter().enumerate().map(weight).collect();
        let all: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / all).collect()
    };
    let all: Vec<usize> = (0..10).collect();
    // 9 degrees of freedom: 27.88 at 99.9 %; 2 degrees: 13.82.
    chi_square(&logits, &at(1.0), &softmax(1.0, &all), 27.88);
    chi_square(&logits, &at(1.7), &softmax(1.7, &all), 27.88);
    let mut likeliest = at(1.0);
    likeliest.row.top_k = 3;
    chi_square(&logits, &likeliest, &softmax(1.0, &[2, 3, 6]), 13.82);
}

#[test]
fn greedy_takes_the_lowest_id_of_equals() {
    let mut logits = vec![0.0f32; 9000];
    for id in [8097, 4140, 4141] {
        logits[id] = 5.0;
    }
    assert_eq!(once(&logits, &at(0.0)).unwrap().0, 4140);
    let spec = Spec { banned: vec![4140], ..at(0.0) };
    assert_eq!(once(&logits, &spec).unwrap().0, 4141);
    let spec = Spec { bias: vec![(8097, 0.5)], ..at(0.0) };
    let (id, likelihood) = once(&logits, &spec).unwrap();
    // The bias does not show in the likelihood.
    assert_eq!(id, 8097);
    assert!((f64::from(likelihood) - logprob(&logits, 8097)).abs() < 1e-5);
    let spec = Spec { allowed: (0..9000).map(|id| id == 77).collect(), ..at(0.0) };
    assert_eq!(once(&logits, &spec).unwrap().0, 77);
}

#[test]
fn ties_at_the_cut_go_to_the_lower_ids() {
    let mut logits = vec![1.0f32; 9000];
    logits[8500] = 2.0;
    // Zeros of both signs are equals.
    let zeros: Vec<f32> = (0..9000).map(|id| if id % 2 == 0 { -0.0 } else { 0.0 }).collect();
    let ten = vec![0.0f32; 1000];
    for draw in 0..40 {
        let mut spec = at(5.0);
        (spec.row.top_k, spec.row.draw) = (4, draw);
        assert!([0, 1, 2, 8500].contains(&once(&logits, &spec).unwrap().0));
        spec.row.top_k = 2;
        assert!([0, 1].contains(&once(&zeros, &spec).unwrap().0));
        (spec.row.top_k, spec.row.top_p) = (0, 0.0095);
        assert!(once(&ten, &spec).unwrap().0 < 10);
    }
}

#[test]
fn failures_are_told_and_do_not_spread() {
    let vocab = 5000;
    for bad in [f32::NAN, f32::INFINITY] {
        for place in [0, 4999] {
            let mut logits = vec![0.0; 2 * vocab];
            logits[place] = bad;
            let mut busy = at(1.0);
            (busy.row.top_p, busy.row.top_k, busy.bias) = (0.5, 9, vec![(0, 1.0)]);
            let specs = [Some(busy.clone()), Some(busy)];
            let (tokens, likelihoods, status) = on_both(|device| draw(device, &logits, &specs));
            assert_eq!((tokens[0], f32::from_bits(likelihoods[0])), (0, 0.0));
            assert_eq!(
                status.iter().map(|&s| SampleFailure::of(s)).collect::<Vec<_>>(),
                [Some(SampleFailure::NotFinite), None]
            );
        }
    }
    for temperature in [0.0, 1.0] {
        let spec = Spec { banned: vec![0, 1, 2], ..at(temperature) };
        assert_eq!(once(&[1.0, 2.0, 3.0], &spec), Err(SampleFailure::NothingLeft));
        let spec = Spec { allowed: vec![true, false, false], banned: vec![0], ..at(temperature) };
        assert_eq!(once(&[1.0, 2.0, 3.0], &spec), Err(SampleFailure::NothingLeft));
        let none = [f32::NEG_INFINITY; 40];
        assert_eq!(once(&none, &at(temperature)), Err(SampleFailure::NothingLeft));
    }
}

#[test]
fn extreme_edits_stay_finite() {
    let mut spec = at(1.0);
    spec.bias = vec![(0, f32::MAX), (1, -f32::MAX)];
    spec.seen = vec![(0, u32::MAX), (2, 9)];
    spec.row.frequency_penalty = -f32::MAX;
    for repetition in [f32::MIN_POSITIVE, f32::MAX] {
        spec.row.repetition_penalty = repetition;
        let (id, likelihood) = once(&[4.0, 5.0, 6.0], &spec).unwrap();
        assert!(id == 0 || id == 2);
        assert!(likelihood.is_finite());
    }
}

/// The same bits alone, in company, and wherever the row lies.
#[test]
fn a_rows_token_is_its_own() {
    let (vocab, rows) = (5003, 4);
    let logits = noise(rows * vocab, 21, 6.0);
    let mut specs: Vec<Option<Spec>> = (0..rows as u64)
        .map(|row| {
            let mut spec = at(1.3);
            (spec.row.seed, spec.row.top_p) = (row, 0.9);
            Some(spec)
        })
        .collect();
    specs[1] = Some(Spec { banned: vec![0, 5, 4000], ..at(2.0) });
    let [device, _] = devices();
    let together = draw(&device, &logits, &specs);
    for row in 0..rows {
        let alone = draw(&device, &logits[row * vocab..][..vocab], &specs[row..=row]);
        let (tokens, likelihoods, _) = &together;
        assert_eq!((alone.0[0], alone.1[0]), (tokens[row], likelihoods[row]));
    }
}

/// The largest vocabulary in use, settled in a list and not, with thresholds deep in ties.
#[test]
fn a_large_vocabulary_is_narrowed() {
    let vocab = 262_144;
    for (size, step) in [(16.0f32, 0.0f32), (0.5, 0.0), (16.0, 1.0)] {
        let mut logits = noise(vocab, 31, size);
        if step > 0.0 {
            logits.iter_mut().for_each(|logit| *logit = (*logit / step).round() * step);
        }
        for (draw, (top_k, top_p, min_p)) in
            [(0, 1.0f32, 0.0f32), (50, 0.9, 0.0), (0, 0.5, 0.0), (100_000, 1.0, 0.01)]
                .into_iter()
                .enumerate()
        {
            let mut spec = at(1.0);
            spec.row = SampleRow { top_k, top_p, min_p, draw: draw as u64, ..spec.row };
            let (expected, margin) = reference(&logits, &spec).unwrap();
            let (got, _) = once(&logits, &spec).unwrap();
            // The vocabulary's tokens are this much nearer to each other.
            assert!(got == expected || margin < 3e-7, "{got} for {expected} by {margin}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [device, _] = devices();
    let logits = DeviceVec::<f32>::zeroed(&device, 40).unwrap();
    let ids = DeviceVec::<u32>::zeroed(&device, 4).unwrap();
    let floats = DeviceVec::<f32>::zeroed(&device, 4).unwrap();
    let packed = PackedSampling::new(&device, 2, 1).unwrap();
    let (logits, t, l) = (logits.as_slice(), ids.as_slice(), floats.as_slice());
    for made in [
        sample(&device, logits, &packed, None, t, l, t),
        sample(&device, logits.first(39), &packed, None, t.first(2), l.first(2), t.first(2)),
        sample(&device, logits, &packed, None, t.first(2), l.first(1), t.first(2)),
        sample(&device, logits, &packed, Some(t.first(1)), t.first(2), l.first(2), t.first(2)),
    ] {
        assert!(matches!(made, Err(DeviceError::Shape(_))), "{made:?}");
    }
    let mut rows = SampleRows::default();
    rows.begin(2);
    rows.set(0, &SampleRow { banned: &[1, 2], ..at(1.0).row });
    assert!(!packed.fits(&rows));
    assert!(matches!(packed.upload(&rows), Err(DeviceError::Shape(_))));
}
