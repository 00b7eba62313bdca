//! The GPU executor's promises, on the host in a device's place or, where `PITH_TEST_DEVICE` names one, on a card: logits near the
//! reference's however the tokens are cut and whatever rides along, decode steps recorded and played to the same bits, tokens in flight,
//! every want, and a device that is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod executor_harness;
mod gpu {
    mod memory;
}

use std::io::Write as _;
use std::sync::Arc;

use executor_harness::{
    Golden, StepBuilder, goldens, greedy, literal, load, logits_of, run, table_of,
};
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::executor::{Executor as _, ExecutorError, LoadError};
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{
    AttentionBias, BlockCopy, MassSpec, Step, StepId, TokenSource, Want, Wanted,
};
use pith_kernels::device::host::HostDevice;
use pith_kernels::device::matrix::MatmulPath;
use pith_kernels::device::{Device, DeviceError, DeviceVec, cuda};
use pith_kernels::{Isa, Pool};
use pith_model::ModelFile;

/// Tokens per block.
const BLOCK: usize = 16;

/// Largest difference of a logit from the reference's. Activations, keys and values are bfloat16, whose steps are eight times those of the
/// f16 that the CPU's cache keeps, and they pass through every product.
const TOLERANCE: f32 = 2.5e-1;

/// A device for tests.
fn device() -> Device {
    match std::env::var("PITH_TEST_DEVICE").as_deref() {
        Ok(ordinal) => cuda::device(ordinal.trim_start_matches("cuda:").parse().unwrap()).unwrap(),
        Err(_) => Device::new(Arc::new(HostDevice::new(3, false))),
    }
}

/// Whether a test of `what` the host alone does is to be passed over, which is told past the capture of output.
#[expect(clippy::explicit_write, reason = "what is printed is captured")]
fn passed_over(what: &str) -> bool {
    let on_card = std::env::var_os("PITH_TEST_DEVICE").is_some();
    if on_card {
        writeln!(std::io::stderr(), "passed over on a card: {what}").unwrap();
    }
    on_card
}

fn executor(golden: &Golden, settings: impl Fn(&mut GpuConfig)) -> GpuExecutor {
    let file = Arc::new(ModelFile::open(&golden.model).unwrap());
    let mut config =
        GpuConfig { kv_bytes: Some(4 << 20), block_size: BLOCK, max_rows: 128, ..GpuConfig::new() };
    settings(&mut config);
    GpuExecutor::load(file, config, Pool::new(2), Box::new(|| Ok(device()))).unwrap()
}

fn golden(name: &str) -> Golden {
    goldens().into_iter().find(|golden| golden.name == name).unwrap()
}

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

/// The largest difference.
fn worst(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let rows = a.iter().zip(b);
    let differences = rows.flat_map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| match (a - b).abs() {
            difference if difference.is_nan() => f32::INFINITY,
            difference => difference,
        })
    });
    differences.fold(0.0, f32::max)
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
    let kind = pith_kernels::device::kv::DeviceKvKind::F8;
    let mut executor = executor(&golden, |config| config.kv_kind = kind);
    let found = teacher_forced(&mut executor, &golden, 0, 9, false, |_, _| {});
    let worst = worst(&found, &golden.logits);
    assert!(worst < 4.0 * TOLERANCE, "{worst}");
}

fn warm(draw: u64) -> SampleSpec {
    SampleSpec {
        temperature: 0.9,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.2,
        seen: Arc::new([(3, 1), (9, 0)]),
        banned: Arc::new([5]),
        logit_bias: Arc::new([(4, 0.5)]),
        seed: 7,
        draw,
        ..SampleSpec::greedy()
    }
}

fn token(wanted: &[Wanted]) -> u32 {
    match wanted {
        [Wanted::Token { id, logprob }] => {
            assert!(logprob.is_finite() && *logprob <= 0.0, "{logprob}");
            *id
        }
        other => panic!("{other:?}"),
    }
}

/// A prompt that wants `wants` of its last row.
fn prompt(golden: &Golden, id: u64, wants: &[Want]) -> Step {
    let end = golden.ids.len() - 1;
    let blocks = table_of(0, golden.ids.len() + 32, BLOCK);
    let want = |at| if at == end { wants.to_vec() } else { vec![] };
    StepBuilder::with_block(id, BLOCK).sequence(&literal(&golden.ids), 0, &blocks, want).0
}

/// Tokens drawn after the prompt, one a step, each waited for before the next is sent unless `ahead`.
fn drawn(executor: &mut GpuExecutor, golden: &Golden, first: u64, ahead: bool) -> Vec<u32> {
    let blocks = table_of(0, golden.ids.len() + 32, BLOCK);
    let last_row = golden.ids.len() as u32 - 1;
    let mut waiting = executor.submit(prompt(golden, first, &[Want::Sample(warm(0))])).unwrap();
    let mut found = Vec::new();
    for n in 0..12u64 {
        let row = if n == 0 { last_row } else { 0 };
        let position = golden.ids.len() + n as usize;
        let want = |_| vec![Want::Sample(warm(n + 1))];
        let next = |source| {
            StepBuilder::with_block(first + 1 + n, BLOCK)
                .sequence(&[source], position, &blocks, want)
                .0
        };
        if ahead {
            let next = executor.submit(next(TokenSource::InFlight { row })).unwrap();
            found.push(token(&executor.wait(waiting).unwrap().wanted));
            waiting = next;
        } else {
            found.push(token(&executor.wait(waiting).unwrap().wanted));
            let known = TokenSource::Literal(found[found.len() - 1]);
            waiting = executor.submit(next(known)).unwrap();
        }
    }
    found.push(token(&executor.wait(waiting).unwrap().wanted));
    found
}

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

#[test]
fn a_lost_device_is_told_and_comes_back() {
    if passed_over("a device is lost on demand") {
        return;
    }
    let golden = golden("llama3");
    let file = Arc::new(ModelFile::open(&golden.model).unwrap());
    let config =
        GpuConfig { kv_bytes: Some(1 << 20), block_size: BLOCK, max_rows: 64, ..GpuConfig::new() };
    // The first device is taken away; there is a second.
    let first = Arc::new(HostDevice::new(2, false));
    let mut devices = vec![Arc::new(HostDevice::new(2, false)), Arc::clone(&first)];
    let open = move || Ok(Device::new(devices.pop().unwrap() as _));
    let mut executor = GpuExecutor::load(file, config, Pool::new(1), Box::new(open)).unwrap();
    let sound = run(&mut executor, prompt(&golden, 0, &[greedy()])).unwrap().wanted;
    first.lose();
    let lost = run(&mut executor, prompt(&golden, 1, &[greedy()]));
    assert!(matches!(lost, Err(ExecutorError::Lost(_))), "{lost:?}");
    executor.revive().unwrap();
    let again = run(&mut executor, prompt(&golden, 2, &[greedy()])).unwrap();
    assert_eq!(again.id, StepId(2));
    assert_eq!(token(&again.wanted), token(&sound));
}

#[test]
fn a_device_that_others_use_by_now_comes_back_with_all_its_blocks() {
    if passed_over("a device is lost on demand") {
        return;
    }
    let golden = golden("llama3");
    let file = Arc::new(ModelFile::open(&golden.model).unwrap());
    let config = GpuConfig { block_size: BLOCK, max_rows: 64, ..GpuConfig::new() };
    let first = Arc::new(HostDevice::new(2, false));
    let second = Arc::new(HostDevice::new(2, false));
    let mut devices = vec![Arc::clone(&second), Arc::clone(&first)];
    let open = move || Ok(Device::new(devices.pop().unwrap() as _));
    let mut executor = GpuExecutor::load(file, config, Pool::new(1), Box::new(open)).unwrap();
    first.lose();
    // Half of what was left to others.
    let other = Device::new(second);
    let _taken = DeviceVec::<u8>::new(&other, other.limits().memory_bytes / 40).unwrap();
    executor.revive().unwrap();
    let wanted = run(&mut executor, prompt(&golden, 1, &[greedy()])).unwrap().wanted;
    token(&wanted);
}

#[test]
fn the_cache_takes_what_the_largest_step_leaves() {
    let golden = golden("llama3");
    let executor = executor(&golden, |config| {
        config.kv_bytes = None;
        config.max_rows = 32;
    });
    let capabilities = executor.capabilities();
    let all = device().limits().memory_bytes;
    assert!(capabilities.kv_bytes > all / 2, "{} of {all}", capabilities.kv_bytes);
    assert!(capabilities.kv_bytes < all - all / 25, "{} of {all}", capabilities.kv_bytes);
    assert_eq!(executor.recorded(), 0);
    // The warm-up leaves nothing behind.
    let mut measured = executor;
    let mut plain = self::executor(&golden, |_| {});
    let ask = |id| prompt(&golden, id, &[greedy()]);
    let found = run(&mut measured, ask(0));
    // More rows than a step takes.
    assert!(matches!(found, Err(ExecutorError::Malformed(_))), "{found:?}");
    let short = |executor: &mut GpuExecutor| {
        let blocks = table_of(0, 20, BLOCK);
        let want = |at| if at == 19 { vec![greedy()] } else { vec![] };
        let step = StepBuilder::with_block(1, BLOCK)
            .sequence(&literal(&golden.ids[..20]), 0, &blocks, want)
            .0;
        token(&run(executor, step).unwrap().wanted)
    };
    assert_eq!(short(&mut measured), short(&mut plain));
}

#[test]
fn a_model_that_does_not_fit_is_refused() {
    let golden = golden("llama3");
    let file = Arc::new(ModelFile::open(&golden.model).unwrap());
    let config =
        GpuConfig { kv_bytes: Some(1 << 50), block_size: BLOCK, max_rows: 16, ..GpuConfig::new() };
    let loaded = GpuExecutor::load(file, config, Pool::new(1), Box::new(|| Ok(device())));
    let error = loaded.map(drop).unwrap_err();
    assert!(
        matches!(error, LoadError::Device(DeviceError::OutOfMemory { .. } | DeviceError::Shape(_))),
        "{error}"
    );
}
