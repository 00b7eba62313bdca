//! What the executor takes of the device's memory, and when.

use std::sync::Arc;

use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::executor::{Executor as _, ExecutorError, LoadError};
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{MassSpec, Want};
use pith_kernels::Pool;
use pith_kernels::device::host::HostDevice;
use pith_kernels::device::{Device, DeviceError};
use pith_model::ModelFile;

use crate::executor_harness::{StepBuilder, greedy, literal, run, table_of};
use crate::{BLOCK, Golden, device, drawn, executor, golden, passed_over, prompt, token};

/// An executor, and the device it is on.
fn on_host(golden: &Golden, max_rows: usize) -> (GpuExecutor, Arc<HostDevice>) {
    let file = Arc::new(ModelFile::open(&golden.model).unwrap());
    let config =
        GpuConfig { kv_bytes: Some(1 << 20), block_size: BLOCK, max_rows, ..GpuConfig::new() };
    let host = Arc::new(HostDevice::new(2, false));
    let device = Device::new(Arc::clone(&host) as _);
    let open = Box::new(move || Ok(device.clone()));
    (GpuExecutor::load(file, config, Pool::new(1), open).unwrap(), host)
}

#[test]
fn steps_like_those_before_take_no_memory() {
    if passed_over("allocations are counted") {
        return;
    }
    let golden = golden("llama3");
    let (mut executor, host) = on_host(&golden, 64);
    let mut id = 0;
    // Everything a prompt can want, nothing, and decode steps by themselves and from recordings.
    let mut turn = |executor: &mut GpuExecutor| {
        let mass = MassSpec { layer: 1, heads: vec![0, 1], spans: vec![0..10, 10..30] };
        let wants = [
            Want::Likelihood(vec![0, 7, 31]),
            Want::Logits,
            Want::AttentionMass(mass),
            Want::Embedding,
            greedy(),
        ];
        run(executor, prompt(&golden, id, &wants)).unwrap();
        run(executor, prompt(&golden, id + 1, &[])).unwrap();
        drawn(executor, &golden, id + 2, true);
        id += 100;
    };
    let loaded = host.allocations();
    turn(&mut executor);
    let warm = host.allocations();
    assert!(warm > loaded, "room for answers is taken when it is needed");
    assert!(executor.recorded() > 0);
    for _ in 0..3 {
        turn(&mut executor);
    }
    assert_eq!(host.allocations(), warm);
}

#[test]
fn recordings_follow_settings_that_took_more_room() {
    if passed_over("allocations are counted") {
        return;
    }
    let golden = golden("llama3");
    let (mut executor, host) = on_host(&golden, 2200);
    let expected = drawn(&mut executor, &golden, 0, false);
    assert!(executor.recorded() > 0);
    // More edits of logits than there is room for at first.
    let vocab = executor.capabilities().vocab as u32;
    let spec = SampleSpec { banned: (1..vocab).collect(), ..SampleSpec::greedy() };
    let wants = vec![Want::Sample(spec); executor.capabilities().max_wants];
    let before = host.allocations();
    run(&mut executor, prompt(&golden, 100, &wants)).unwrap();
    assert_eq!(host.allocations(), before + 1, "room for settings");
    assert_eq!(drawn(&mut executor, &golden, 200, false), expected);
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
    let mut plain = crate::executor(&golden, |_| {});
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
