//! The CPU executor's door: every want, tokens in flight, block copies, and steps it must refuse.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod executor_harness;

use std::sync::Arc;

use executor_harness::{
    BLOCK, Golden, StepBuilder, goldens, greedy, literal, load, logits_of, run, table,
};
use pith_engine::executor::cpu::{CpuConfig, CpuExecutor, LoadError};
use pith_engine::executor::{Executor, ExecutorError, Ticket};
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{
    AttentionBias, BlockCopy, MassSpec, Step, StepId, TokenSource, Want, Wanted,
};
use pith_kernels::{Isa, Pool};
use pith_model::ModelFile;

/// A fixture without a window: every row sees all before it.
fn llama() -> Golden {
    goldens().into_iter().find(|golden| golden.name == "llama").unwrap()
}

fn executor(golden: &Golden, settings: impl Fn(&mut CpuConfig)) -> CpuExecutor {
    load(&golden.model, Isa::detect(), settings)
}

/// One step over all of `golden`, its last position wanting `wants`.
fn prompt(golden: &Golden, id: u64, wants: &[Want]) -> Step {
    let last = golden.ids.len() - 1;
    let blocks = table(0, golden.ids.len() + 8);
    let want = |position| if position == last { wants.to_vec() } else { vec![] };
    StepBuilder::new(id).sequence(&literal(&golden.ids), 0, &blocks, want).0
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == best).unwrap() as u32
}

#[test]
fn every_want_of_one_row_is_answered_from_the_same_logits() {
    let golden = llama();
    let mut executor = executor(&golden, |_| {});
    let vocab = executor.capabilities().vocab as u32;
    let everything = 0..golden.ids.len() as u32;
    let spans = vec![everything, 0..3, 3..3, 1..golden.ids.len() as u32];
    let wants = [
        Want::Likelihood(vec![0, 1, vocab - 1]),
        Want::Sample(SampleSpec {
            banned: Arc::new([3]),
            logit_bias: Arc::new([(5, 1000.0)]),
            ..SampleSpec::greedy()
        }),
        Want::Embedding,
        Want::AttentionMass(MassSpec { layer: 0, heads: vec![0, 1], spans }),
        greedy(),
        Want::Logits,
        Want::Likelihood(vec![]),
    ];
    let wanted = run(&mut executor, prompt(&golden, 0, &wants)).unwrap().wanted;
    assert_eq!(wanted.len(), wants.len());
    let Wanted::Logits(logits) = &wanted[5] else { panic!("{:?}", wanted[5]) };
    let all: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    let logprob = |id: u32| f64::from(logits[id as usize]) - all.ln();

    let Wanted::Likelihood(likelihood) = &wanted[0] else { panic!("{:?}", wanted[0]) };
    for (&found, id) in likelihood.iter().zip([0, 1, vocab - 1]) {
        assert!((f64::from(found) - logprob(id)).abs() < 1e-5);
    }
    assert_eq!(likelihood.len(), 3);
    // The edits of one sample leave no trace in the next.
    let Wanted::Token { id: 5, logprob: biased } = wanted[1] else { panic!("{:?}", wanted[1]) };
    assert!((f64::from(biased) - logprob(5)).abs() < 1e-5);
    let Wanted::Token { id, .. } = wanted[4] else { panic!("{:?}", wanted[4]) };
    assert_eq!(id, argmax(logits));

    let Wanted::Embedding(embedding) = &wanted[2] else { panic!("{:?}", wanted[2]) };
    let length: f64 = embedding.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    assert!((length - 1.0).abs() < 1e-5);
    let Wanted::AttentionMass(mass) = &wanted[3] else { panic!("{:?}", wanted[3]) };
    assert_eq!(mass.len(), 4);
    assert!((mass[0] - 1.0).abs() < 1e-4, "{mass:?}");
    assert_eq!(mass[2], 0.0);
    assert!(mass[1] > 0.0 && mass[1] < 1.0 && mass[3] < 1.0, "{mass:?}");
    let Wanted::Likelihood(none) = &wanted[6] else { panic!("{:?}", wanted[6]) };
    assert!(none.is_empty());
}

#[test]
fn a_row_does_not_care_what_others_want() {
    // The last layer leaves out rows nobody asks about: the others must not notice.
    let golden = llama();
    let mut executor = executor(&golden, |_| {});
    let alone = run(&mut executor, prompt(&golden, 0, &[Want::Logits])).unwrap().wanted;
    let blocks = table(0, golden.ids.len());
    let everyone =
        StepBuilder::new(1).sequence(&literal(&golden.ids), 0, &blocks, |_| vec![Want::Logits]).0;
    let everyone = run(&mut executor, everyone).unwrap().wanted;
    let (alone, everyone) = (logits_of(alone), logits_of(everyone));
    assert_eq!(everyone.len(), golden.ids.len());
    for (a, b) in alone[0].iter().zip(everyone.last().unwrap()) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn a_token_in_flight_is_the_one_sampled_before() {
    let golden = llama();
    let ids = &golden.ids;
    let blocks = table(0, ids.len() + 8);
    let sample = |_| vec![greedy()];
    let next = |id: u64, at: usize, token: TokenSource| {
        StepBuilder::new(id).sequence(&[token], at, &blocks, sample).0
    };
    let token = |wanted: &[Wanted]| match wanted {
        [Wanted::Token { id, .. }] => *id,
        other => panic!("{other:?}"),
    };
    // Step by step, every token known.
    let mut known = executor(&golden, |_| {});
    let mut expected = Vec::new();
    let mut outcome = run(&mut known, prompt(&golden, 0, &[greedy()])).unwrap();
    for i in 0..4 {
        expected.push(token(&outcome.wanted));
        let step = next(i + 1, ids.len() + i as usize, TokenSource::Literal(expected[i as usize]));
        outcome = run(&mut known, step).unwrap();
    }
    // Planned a step ahead.
    let mut ahead = executor(&golden, |config| config.depth = 2);
    let row = ids.len() as u32 - 1;
    let mut waiting = ahead.submit(prompt(&golden, 0, &[greedy()])).unwrap();
    let mut found = Vec::new();
    for i in 0..4 {
        let row = if i == 0 { row } else { 0 };
        let step = next(i + 1, ids.len() + i as usize, TokenSource::InFlight { row });
        let submitted = ahead.submit(step).unwrap();
        found.push(token(&ahead.wait(waiting).unwrap().wanted));
        waiting = submitted;
    }
    assert_eq!(found, expected);
    // Depth is a bound, and tickets are waited for in order.
    let step = next(9, ids.len() + 4, TokenSource::InFlight { row: 0 });
    let second = ahead.submit(step).unwrap();
    let third = next(10, ids.len() + 5, TokenSource::InFlight { row: 0 });
    assert!(matches!(ahead.submit(third), Err(ExecutorError::Malformed(_))));
    assert!(matches!(ahead.wait(second), Err(ExecutorError::Malformed(_))));
    ahead.wait(waiting).unwrap();
    ahead.wait(Ticket(StepId(9))).unwrap();
    assert!(matches!(ahead.wait(Ticket(StepId(9))), Err(ExecutorError::Malformed(_))));
}

#[test]
fn a_copied_block_reads_as_its_source() {
    let golden = llama();
    let mut executor = executor(&golden, |_| {});
    executor.poison_kv();
    let (head, tail) = golden.ids.split_at(2 * BLOCK);
    let blocks = table(0, golden.ids.len());
    let prefill = |id, ids: &[u32], from, blocks: &Arc<[u32]>| {
        StepBuilder::new(id).sequence(&literal(ids), from, blocks, |_| vec![Want::Logits]).0
    };
    run(&mut executor, prefill(0, head, 0, &blocks)).unwrap();
    let expected = run(&mut executor, prefill(1, tail, head.len(), &blocks)).unwrap();
    let copy = table(1, golden.ids.len());
    let mut step = prefill(2, tail, head.len(), &copy);
    step.copies = (0..2).map(|i| BlockCopy { from: blocks[i], to: copy[i] }).collect();
    let found = run(&mut executor, step).unwrap();
    assert_eq!(logits_of(found.wanted), logits_of(expected.wanted));
}

#[test]
fn a_bias_of_one_changes_no_bit_and_another_does() {
    let golden = llama();
    let mut executor = executor(&golden, |_| {});
    let mut logits = |id, weight: Option<f32>| {
        let mut step = prompt(&golden, id, &[Want::Logits]);
        if let Some(weight) = weight {
            step.sequences[0].bias = Arc::new([AttentionBias { span: 1..4, weight }]);
        }
        logits_of(run(&mut executor, step).unwrap().wanted)
    };
    let plain = logits(0, None);
    assert_eq!(plain, logits(1, Some(1.0)));
    assert_ne!(plain, logits(2, Some(8.0)));
}

#[test]
fn a_row_without_numbers_fails_alone() {
    let golden = llama();
    let mut executor = executor(&golden, |config| config.depth = 2);
    let sound = run(&mut executor, prompt(&golden, 0, &[greedy()])).unwrap().wanted;
    // A context read from poisoned blocks yields NaN, which nothing can be sampled from.
    executor.poison_kv();
    let (poisoned, blocks) = (table(0, golden.ids.len()), table(1, golden.ids.len()));
    let end = golden.ids.len() - 1;
    let step = StepBuilder::new(1)
        .sequence(&literal(&golden.ids[4..5]), 4, &poisoned, |_| vec![greedy()])
        .sequence(&literal(&golden.ids), 0, &blocks, |p| match p == end {
            true => vec![greedy()],
            false => vec![],
        });
    let behind = StepBuilder::new(2)
        .sequence(&[TokenSource::InFlight { row: 0 }], 5, &poisoned, |_| vec![])
        .sequence(&literal(&golden.ids[..1]), 0, &blocks, |_| vec![greedy()]);
    let (step, behind) = (executor.submit(step.0).unwrap(), executor.submit(behind.0).unwrap());
    let wanted = executor.wait(step).unwrap().wanted;
    assert!(matches!(&wanted[0], Wanted::Failed(why) if why.contains("row 0")), "{wanted:?}");
    assert_eq!(format!("{:?}", &wanted[1..]), format!("{sound:?}"));
    assert!(matches!(executor.wait(behind).unwrap().wanted[..], [Wanted::Token { .. }]));
}

/// Plants one fault in a sound step.
type Spoil = Box<dyn Fn(&mut Step)>;

#[test]
fn contradictory_steps_are_refused_and_do_no_harm() {
    let golden = llama();
    let mut executor = executor(&golden, |_| {});
    let &pith_engine::executor::Capabilities { blocks, vocab, max_rows, .. } =
        executor.capabilities();
    let whole = golden.ids.len() as u32;
    let spoil: Vec<(&str, Spoil)> = vec![
        ("no rows", Box::new(|s| *s = StepBuilder::new(0).0)),
        ("positions short", Box::new(|s| _ = s.positions.pop())),
        ("slots short", Box::new(|s| _ = s.slots.pop())),
        ("token", Box::new(move |s| s.tokens[0] = TokenSource::Literal(vocab as u32))),
        ("in flight", Box::new(|s| s.tokens[0] = TokenSource::InFlight { row: 0 })),
        ("position", Box::new(|s| s.positions[1] += 1)),
        ("slot", Box::new(|s| s.slots[1] += 1)),
        ("slot huge", Box::new(|s| s.slots[1] = u32::MAX)),
        ("no sequences", Box::new(|s| s.sequences.clear())),
        ("first row", Box::new(|s| s.sequences[0].first_row = 1)),
        ("rows over", Box::new(|s| s.sequences[0].rows += 1)),
        ("rows huge", Box::new(|s| s.sequences[0].rows = u32::MAX)),
        ("rows zero", Box::new(|s| s.sequences[0].rows = 0)),
        ("context short", Box::new(|s| s.sequences[0].context = 1)),
        ("context huge", Box::new(|s| s.sequences[0].context = u32::MAX)),
        ("few blocks", Box::new(|s| s.sequences[0].blocks = Arc::new([1]))),
        ("block", {
            Box::new(move |s| {
                let mut table = s.sequences[0].blocks.to_vec();
                table.push(blocks as u32);
                s.sequences[0].blocks = table.into();
            })
        }),
        ("one slot twice", {
            Box::new(|s| {
                let table = vec![1; s.sequences[0].blocks.len()];
                for (slot, position) in s.slots.iter_mut().zip(&s.positions) {
                    *slot = BLOCK as u32 + position % BLOCK as u32;
                }
                s.sequences[0].blocks = table.into();
            })
        }),
        ("copy from", Box::new(move |s| s.copies.push(BlockCopy { from: blocks as u32, to: 0 }))),
        ("copy to", Box::new(move |s| s.copies.push(BlockCopy { from: 0, to: blocks as u32 }))),
        ("copy onto itself", Box::new(|s| s.copies.push(BlockCopy { from: 3, to: 3 }))),
        ("want of no row", Box::new(move |s| s.wants.push((whole, Want::Logits)))),
        ("wants unordered", Box::new(|s| s.wants.push((0, Want::Logits)))),
        ("target", Box::new(move |s| s.wants[0].1 = Want::Likelihood(vec![vocab as u32]))),
        ("bias order", {
            Box::new(|s| {
                let bias = |span| AttentionBias { span, weight: 2.0 };
                s.sequences[0].bias = Arc::new([bias(2..4), bias(3..5)]);
            })
        }),
        ("bias weight", {
            Box::new(|s| {
                let bias = AttentionBias { span: 0..2, weight: f32::NAN };
                s.sequences[0].bias = Arc::new([bias]);
            })
        }),
        ("temperature", {
            Box::new(|s| {
                s.wants[0].1 =
                    Want::Sample(SampleSpec { temperature: f32::NAN, ..SampleSpec::greedy() });
            })
        }),
        ("everything banned", {
            Box::new(move |s| {
                let banned = (0..vocab as u32).collect();
                s.wants[0].1 = Want::Sample(SampleSpec { banned, ..SampleSpec::greedy() });
            })
        }),
        ("layer", Box::new(|s| s.wants[0].1 = mass(u32::MAX, vec![0], 0..1))),
        ("head", Box::new(|s| s.wants[0].1 = mass(0, vec![usize::MAX], 0..1))),
        ("no heads", Box::new(|s| s.wants[0].1 = mass(0, vec![], 0..1))),
        ("span", Box::new(move |s| s.wants[0].1 = mass(0, vec![0], 0..whole + 1))),
        ("span backwards", {
            #[expect(clippy::reversed_empty_ranges, reason = "that is the fault")]
            Box::new(|s| s.wants[0].1 = mass(0, vec![0], 3..2))
        }),
    ];
    let sound = || prompt(&golden, 0, &[Want::Logits]);
    for (what, spoil) in &spoil {
        let mut step = sound();
        spoil(&mut step);
        let refused = executor.submit(step);
        assert!(matches!(refused, Err(ExecutorError::Malformed(_))), "{what}: {refused:?}");
    }
    let mut step = sound();
    step.sequences[0].adapter = Some(1);
    assert!(matches!(executor.submit(step), Err(ExecutorError::Unsupported(_))));
    let many = vec![golden.ids[0]; max_rows + 1];
    let step = StepBuilder::new(0).sequence(&literal(&many), 0, &table(0, many.len()), |_| vec![]);
    assert!(matches!(executor.submit(step.0), Err(ExecutorError::Malformed(_))));
    // After all that a sound step is computed, and its id is taken.
    run(&mut executor, sound()).unwrap();
    assert!(matches!(executor.submit(sound()), Err(ExecutorError::Malformed(_))));
}

fn mass(layer: u32, heads: Vec<usize>, span: std::ops::Range<u32>) -> Want {
    Want::AttentionMass(MassSpec { layer, heads, spans: vec![span] })
}

#[test]
fn the_pool_fits_its_bytes() {
    let golden = llama();
    let file = ModelFile::open(&golden.model).unwrap();
    let config = |kv_bytes| CpuConfig::new(Isa::Scalar, kv_bytes);
    let load = |config| CpuExecutor::load(&file, config, Pool::new(1));
    let Err(LoadError::NoRoom { block_bytes, .. }) = load(config(1)) else { panic!("room for 1") };
    let executor = load(config(block_bytes * 10 + block_bytes / 2)).unwrap();
    let capabilities = executor.capabilities();
    assert_eq!((capabilities.blocks, capabilities.kv_bytes), (10, 10 * block_bytes));
    assert!(capabilities.max_context <= 160);
    let zero = CpuConfig { block_size: 0, ..config(1 << 20) };
    assert!(matches!(load(zero), Err(LoadError::Config { field: "block_size", .. })));
}
