//! A device that is lost.

use std::sync::Arc;

use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::executor::{Executor as _, ExecutorError};
use pith_engine::step::StepId;
use pith_kernels::Pool;
use pith_kernels::device::host::HostDevice;
use pith_kernels::device::{Device, DeviceVec};
use pith_model::ModelFile;

use crate::executor_harness::{greedy, run};
use crate::{BLOCK, golden, passed_over, prompt, token};

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
