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
fn no_numbers_take_no_memory() {
    let driver = Arc::new(HostDevice::new(2, false));
    let device = Device::new(Arc::clone(&driver) as _);
    let none = DeviceVec::<f32>::zeroed(&device, 0).unwrap();
    none.as_slice().copy_to(none.as_slice()).unwrap();
    assert_eq!((none.as_slice().to_vec().unwrap().len(), none.as_slice().address()), (0, 0));
    drop(none);
    assert_eq!(driver.allocations(), 0);
}

#[test]
fn room_is_made_where_there_is_less() {
    let driver = Arc::new(HostDevice::new(2, false));
    let device = Device::new(Arc::clone(&driver) as _);
    let all = device.free_bytes().unwrap();
    let mut room = DeviceVec::<u32>::new(&device, 0).unwrap();
    for (asked, there, taken) in [(0, 0, 0), (5, 8, 1), (8, 8, 1), (3, 8, 1), (9, 16, 2)] {
        room.make_room(asked).unwrap();
        assert_eq!((room.len(), driver.allocations()), (there, taken), "room for {asked}");
    }
    assert_eq!(device.free_bytes().unwrap(), all - room.bytes());
    assert!(matches!(room.make_room(usize::MAX), Err(DeviceError::OutOfMemory { .. })));
    assert!(room.is_empty());
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
