//! What the executor takes of the device's memory, and when.

use std::sync::Arc;

use pith_engine::executor::Executor as _;
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::sampling::SampleSpec;
use pith_engine::step::{MassSpec, Want};
use pith_kernels::Pool;
use pith_kernels::device::Device;
use pith_kernels::device::host::HostDevice;
use pith_model::ModelFile;

use crate::executor_harness::{greedy, run};
use crate::{BLOCK, Golden, drawn, golden, passed_over, prompt};

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
