//! The device's memory, its recordings, and the strictness the host adds.

use std::sync::Arc;

use pith_kernels::device::copy::copy_blocks;
use pith_kernels::device::host::HostDevice;
use pith_kernels::device::{Device, DeviceError, DeviceVec, Graph};

use crate::{devices, passed_over};

#[test]
fn fresh_memory_is_poisoned() {
    if passed_over("fresh memory holds NaN") {
        return;
    }
    let [device, _] = devices();
    let fresh = DeviceVec::<f32>::new(&device, 5).unwrap();
    assert!(fresh.as_slice().to_vec().unwrap().iter().all(|value| value.is_nan()));
}

#[test]
fn a_recording_is_done_when_replayed() {
    let [device, _] = devices();
    let cache = DeviceVec::from_slice(&device, &[1u8; 32]).unwrap();
    let pairs = DeviceVec::from_slice(&device, &[0u32, 1]).unwrap();
    let copy = || copy_blocks(&device, cache.as_slice(), 16, pairs.as_slice());
    let graph = Graph::record(&device, copy).unwrap();
    cache.slice(0..16).upload(&[7; 16]).unwrap();
    assert_eq!(cache.slice(16..32).to_vec().unwrap(), [1; 16]);
    graph.replay().unwrap();
    assert_eq!(cache.slice(16..32).to_vec().unwrap(), [7; 16]);
    // Its memory outlives what owned it.
    drop(pairs);
    cache.slice(0..16).upload(&[8; 16]).unwrap();
    graph.replay().unwrap();
    assert_eq!(cache.slice(16..32).to_vec().unwrap(), [8; 16]);
}

#[test]
fn a_recording_takes_no_upload() {
    let [device, _] = devices();
    let cache = DeviceVec::from_slice(&device, &[1u8; 32]).unwrap();
    let recorded = Graph::record(&device, || cache.as_slice().upload(&[2; 32]));
    assert!(matches!(recorded, Err(DeviceError::Shape(_))), "{recorded:?}");
    cache.as_slice().upload(&[3; 32]).unwrap();
    assert_eq!(cache.as_slice().to_vec().unwrap(), [3; 32]);
}

#[test]
fn a_lost_device_says_so() {
    if passed_over("a device is lost on demand") {
        return;
    }
    let driver = Arc::new(HostDevice::new(2, false));
    let device = Device::new(Arc::clone(&driver) as _);
    let values = DeviceVec::from_slice(&device, &[1u32, 2]).unwrap();
    driver.lose();
    assert!(matches!(values.as_slice().to_vec(), Err(DeviceError::Lost(_))));
    assert!(matches!(device.synchronize(), Err(DeviceError::Lost(_))));
}
