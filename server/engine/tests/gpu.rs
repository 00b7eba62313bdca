//! The GPU executor's promises, on the host in a device's place or, where `PITH_TEST_DEVICE` names one, on a card: logits near the
//! reference's however the tokens are cut and whatever rides along, decode steps recorded and played to the same bits, tokens in flight,
//! every want, and a device that is lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod executor_harness;
mod gpu {
    mod decode;
    mod logits;
    mod loss;
    mod memory;
    mod wants;
}

use std::io::Write as _;
use std::sync::Arc;

use executor_harness::{Golden, StepBuilder, goldens, literal, table_of};
use pith_engine::executor::Executor as _;
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{Step, TokenSource, Want, Wanted};
use pith_kernels::Pool;
use pith_kernels::device::host::HostDevice;
use pith_kernels::device::{Device, cuda};
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
