//! Logits near the reference's, however the tokens are cut and whatever rides along.

use std::sync::Arc;

use pith_engine::executor::LoadError;
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::step::Want;
use pith_kernels::Pool;
use pith_kernels::device::kv::DeviceKvKind;
use pith_model::ModelFile;

use crate::executor_harness::{StepBuilder, goldens, literal, logits_of, run, table_of};
use crate::{BLOCK, Golden, TOLERANCE, device, executor, golden, worst};

/// The fixtures whose heads the kernels take: those of whole sixteens. The others are refused at load.
fn computed() -> Vec<Golden> {
    let (taken, refused): (Vec<_>, Vec<_>) = goldens().into_iter().partition(|golden| {
        let file = ModelFile::open(&golden.model).unwrap();
        file.plan().layers.iter().all(|layer| layer.head_dim.is_multiple_of(16))
    });
    assert!(taken.len() >= 5, "most fixtures are computed");
    for golden in refused {
        let file = Arc::new(ModelFile::open(&golden.model).unwrap());
        let config = GpuConfig { kv_bytes: Some(1 << 20), max_rows: 16, ..GpuConfig::new() };
        let loaded = GpuExecutor::load(file, config, Pool::new(1), Box::new(|| Ok(device())));
        assert!(matches!(loaded, Err(LoadError::Device(_))), "{}", golden.name);
    }
    taken
}

/// The whole of `golden` in steps of `chunk` tokens, beside the same tokens backwards where `neighbour`. `plant` may spoil the block table of
/// the step that begins at a position.
fn teacher_forced(
    executor: &mut GpuExecutor,
    golden: &Golden,
    first_step: u64,
    chunk: usize,
    neighbour: bool,
    plant: impl Fn(usize, &mut Vec<u32>),
) -> Vec<Vec<f32>> {
    let (blocks, other) =
        (table_of(0, golden.ids.len(), BLOCK), table_of(1, golden.ids.len(), BLOCK));
    let backwards: Vec<u32> = golden.ids.iter().rev().copied().collect();
    let mut found = Vec::new();
    for (index, ids) in golden.ids.chunks(chunk).enumerate() {
        let from = index * chunk;
        let mut blocks = blocks.to_vec();
        plant(from, &mut blocks);
        let blocks: Arc<[u32]> = blocks.into();
        let want = |position: usize| match golden.positions.contains(&position) {
            true => vec![Want::Logits],
            false => vec![],
        };
        let mut step = StepBuilder::with_block(first_step + index as u64, BLOCK);
        if neighbour {
            let tokens = &backwards[from..from + ids.len()];
            step = step.sequence(&literal(tokens), from, &other, |_| vec![]);
        }
        let step = step.sequence(&literal(ids), from, &blocks, want);
        found.extend(logits_of(run(executor, step.0).unwrap().wanted));
    }
    found
}

#[test]
fn logits_are_near_the_reference_however_the_tokens_are_cut() {
    for golden in computed() {
        let mut executor = executor(&golden, |_| {});
        let mut step = 0;
        for (chunk, neighbour) in [(golden.ids.len(), false), (7, true), (1, false)] {
            let found = teacher_forced(&mut executor, &golden, step, chunk, neighbour, |_, _| {});
            let worst = worst(&found, &golden.logits);
            println!("{}, steps of {chunk}, neighbour {neighbour}: {worst:.2e}", golden.name);
            let tolerance = if golden.name == "quants" { 2.0 * TOLERANCE } else { TOLERANCE };
            assert!(worst < tolerance, "{}, steps of {chunk}: {worst}", golden.name);
            step += golden.ids.len() as u64;
        }
    }
}

#[test]
fn company_changes_no_bit_of_a_decode_row_and_little_else() {
    let golden = golden("llama3");
    let mut executor = executor(&golden, |_| {});
    let alone = teacher_forced(&mut executor, &golden, 0, 1, false, |_, _| {});
    let beside = teacher_forced(&mut executor, &golden, 100, 1, true, |_, _| {});
    assert_eq!(alone, beside);
    let cut = teacher_forced(&mut executor, &golden, 200, 9, false, |_, _| {});
    assert!(worst(&alone, &cut) < TOLERANCE);
}

#[test]
fn a_block_table_off_by_one_is_seen() {
    for golden in computed() {
        let mut executor = executor(&golden, |_| {});
        let sound = teacher_forced(&mut executor, &golden, 0, BLOCK, false, |_, _| {});
        let last = (golden.ids.len() - 1) / BLOCK * BLOCK;
        let faulty = teacher_forced(&mut executor, &golden, 100, BLOCK, false, |from, blocks| {
            if from == last {
                blocks[from / BLOCK - 1] -= 1;
            }
        });
        // The host's fresh blocks hold NaN, a card's anything.
        assert!(worst(&sound[1..], &faulty[1..]) > 1e-3, "{}", golden.name);
    }
}

#[test]
fn eight_bit_keys_and_values_stay_near() {
    let golden = golden("llama3");
    let kind = DeviceKvKind::F8;
    let mut executor = executor(&golden, |config| config.kv_kind = kind);
    let found = teacher_forced(&mut executor, &golden, 0, 9, false, |_, _| {});
    let worst = worst(&found, &golden.logits);
    assert!(worst < 4.0 * TOLERANCE, "{worst}");
}
