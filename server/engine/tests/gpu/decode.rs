//! Decode steps: tokens in flight, recordings, and more rows than there is room for.

use pith_engine::executor::gpu::GpuConfig;
use pith_engine::executor::gpu::GpuExecutor;
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{Want, Wanted};
use pith_kernels::device::matrix::MatmulPath;

use crate::executor_harness::{StepBuilder, literal, run, table_of};
use crate::{BLOCK, drawn, executor, golden, token, warm, worst};

#[test]
fn tokens_in_flight_and_recorded_steps_change_nothing() {
    for golden in [golden("llama3"), golden("gemma3")] {
        // The vendor's library is timed anew by each executor, and may add in another order in each.
        let own = |config: &mut GpuConfig| config.matmul = MatmulPath::Own;
        let mut plain = executor(&golden, |config| {
            own(config);
            config.graphs = false;
        });
        let mut recorded = executor(&golden, own);
        let expected = drawn(&mut plain, &golden, 0, false);
        assert_eq!(drawn(&mut plain, &golden, 100, true), expected, "in flight");
        assert_eq!(plain.recorded(), 0);
        assert_eq!(drawn(&mut recorded, &golden, 0, false), expected, "recorded");
        assert_eq!(drawn(&mut recorded, &golden, 100, true), expected, "recorded, in flight");
        assert!(recorded.recorded() > 0);
    }
}

#[test]
fn a_bucket_with_idle_rows_computes_its_step() {
    let golden = golden("qwen2");
    let rows = 5;
    let decode = |executor: &mut GpuExecutor, lanes: &[u32], first: u64| -> Vec<u32> {
        let mut found = Vec::new();
        let mut tokens = vec![3u32; lanes.len()];
        for position in 0..4 {
            let mut step = StepBuilder::with_block(first + position as u64, BLOCK);
            for (&lane, &token) in lanes.iter().zip(&tokens) {
                let blocks = table_of(lane, 32, BLOCK);
                let spec = SampleSpec { seed: u64::from(lane), draw: position as u64, ..warm(0) };
                step = step.sequence(&literal(&[token]), position, &blocks, |_| {
                    vec![Want::Sample(spec.clone())]
                });
            }
            let wanted = run(executor, step.0).unwrap().wanted;
            tokens = wanted.iter().map(|w| token(std::slice::from_ref(w))).collect();
            found.push(tokens[0]);
        }
        found
    };
    let mut executor = executor(&golden, |_| {});
    let crowd: Vec<u32> = (0..rows).collect();
    let together = decode(&mut executor, &crowd, 0);
    let alone = decode(&mut executor, &crowd[..1], 100);
    assert_eq!(together, alone);
}

#[test]
fn more_decode_rows_than_there_is_room_for_take_the_other_way() {
    let golden = golden("llama3");
    let mut executor = executor(&golden, |config| config.max_rows = 600);
    let ask = |executor: &mut GpuExecutor, id, lanes: std::ops::Range<u32>| {
        let mut step = StepBuilder::with_block(id, BLOCK);
        for lane in lanes {
            let blocks = table_of(lane, 1, BLOCK);
            step = step
                .sequence(&literal(&[lane % 30]), 0, &blocks, |_| vec![Want::Likelihood(vec![7])]);
        }
        let wanted = run(executor, step.0).unwrap().wanted;
        let likelihood = |wanted: &Wanted| match wanted {
            Wanted::Likelihood(found) => found[0],
            other => panic!("{other:?}"),
        };
        wanted.iter().map(likelihood).collect::<Vec<f32>>()
    };
    let all = ask(&mut executor, 0, 0..530);
    let last = ask(&mut executor, 1, 520..530);
    assert!(worst(&[all[520..].to_vec()], &[last]) < 5e-2);
}
