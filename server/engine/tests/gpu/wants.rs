//! What is asked of rows, and what befalls them.

use std::sync::Arc;

use pith_engine::executor::gpu::GpuExecutor;
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{AttentionBias, BlockCopy, MassSpec, Want, Wanted};
use pith_kernels::Isa;

use crate::executor_harness::{StepBuilder, greedy, literal, load, logits_of, run, table_of};
use crate::{BLOCK, TOLERANCE, executor, golden, passed_over, prompt, token, worst};

#[test]
fn every_want_is_answered_as_on_the_cpu() {
    let golden = golden("llama3");
    let mut gpu = executor(&golden, |_| {});
    let mut cpu = load(&golden.model, Isa::Scalar, |config| config.block_size = BLOCK);
    let mass = MassSpec { layer: 1, heads: vec![0, 1], spans: vec![0..10, 10..30, 30..40] };
    let wants = [
        Want::Likelihood(vec![0, 7, 31]),
        Want::Logits,
        Want::AttentionMass(mass),
        Want::Embedding,
        greedy(),
        Want::Sample(SampleSpec { banned: Arc::new([1, 2, 3]), ..SampleSpec::greedy() }),
    ];
    let found = run(&mut gpu, prompt(&golden, 0, &wants)).unwrap().wanted;
    let expected = run(&mut cpu, prompt(&golden, 0, &wants)).unwrap().wanted;
    assert_eq!(found.len(), wants.len());
    for (found, expected) in found.iter().zip(&expected) {
        let near = |a: &[f32], b: &[f32], tolerance: f32| {
            assert!(worst(&[a.to_vec()], &[b.to_vec()]) < tolerance, "{a:?}, not {b:?}");
        };
        match (found, expected) {
            (Wanted::Likelihood(a), Wanted::Likelihood(b)) => near(a, b, TOLERANCE),
            (Wanted::Logits(a), Wanted::Logits(b)) => near(a, b, TOLERANCE),
            (Wanted::AttentionMass(a), Wanted::AttentionMass(b)) => near(a, b, 3e-2),
            (Wanted::Embedding(a), Wanted::Embedding(b)) => near(a, b, 5e-2),
            (Wanted::Token { logprob: a, .. }, Wanted::Token { logprob: b, .. }) => {
                near(&[*a], &[*b], TOLERANCE);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn copies_and_biases_reach_the_device() {
    let golden = golden("llama3");
    let mut executor = executor(&golden, |_| {});
    let logits = |executor: &mut GpuExecutor, step| logits_of(run(executor, step).unwrap().wanted);
    let plain = logits(&mut executor, prompt(&golden, 0, &[Want::Logits]));
    let mut biased = |id, weight| {
        let mut step = prompt(&golden, id, &[Want::Logits]);
        step.sequences[0].bias = Arc::new([AttentionBias { span: 1..4, weight }]);
        logits(&mut executor, step)
    };
    assert_eq!(plain, biased(1, 1.0));
    assert_ne!(plain, biased(2, 8.0));

    let (head, tail) = golden.ids.split_at(BLOCK);
    let blocks = table_of(0, golden.ids.len(), BLOCK);
    let copy = table_of(1, golden.ids.len(), BLOCK);
    let prefill = |id, ids: &[u32], from, blocks: &Arc<[u32]>| {
        StepBuilder::with_block(id, BLOCK)
            .sequence(&literal(ids), from, blocks, |_| vec![Want::Logits])
            .0
    };
    logits(&mut executor, prefill(3, head, 0, &blocks));
    let expected = logits(&mut executor, prefill(4, tail, BLOCK, &blocks));
    let mut step = prefill(5, tail, BLOCK, &copy);
    step.copies = vec![BlockCopy { from: blocks[0], to: copy[0] }];
    assert_eq!(logits(&mut executor, step), expected);
}

#[test]
fn a_row_without_numbers_fails_alone() {
    let golden = golden("llama3");
    let mut executor = executor(&golden, |_| {});
    let sound = run(&mut executor, prompt(&golden, 0, &[greedy()])).unwrap().wanted;
    // Blocks that nobody wrote hold NaN on the host, and anything on a card.
    if passed_over("fresh blocks hold NaN") {
        return;
    }
    let fresh = table_of(3, 64, BLOCK);
    let blocks = table_of(0, golden.ids.len(), BLOCK);
    let end = golden.ids.len() - 1;
    let step = StepBuilder::with_block(1, BLOCK)
        .sequence(&literal(&golden.ids[4..5]), 4, &fresh, |_| vec![greedy()])
        .sequence(&literal(&golden.ids), 0, &blocks, |p| match p == end {
            true => vec![greedy()],
            false => vec![],
        });
    let wanted = run(&mut executor, step.0).unwrap().wanted;
    assert!(matches!(&wanted[0], Wanted::Failed(why) if why.contains("row 0")), "{wanted:?}");
    assert_eq!(token(&wanted[1..]), token(&sound));
}
