//! Seconds of a call.

use super::Extent;
use crate::device::{Device, DeviceError, Graph};

/// Most calls of a recording.
const MOST_CALLS: f64 = 1000.0;

/// Seconds of one of `call(0)`, `call(1)`, ...: the median of several samples of as many calls as fill one. A call may neither
/// upload nor download.
pub(super) fn seconds(
    device: &Device,
    extent: &Extent,
    call: impl Fn(usize) -> Result<(), DeviceError>,
) -> Result<f64, DeviceError> {
    // What happens once, such as the choice of an algorithm, happens here.
    call(0)?;
    let once = between(device, || call(1))?;
    let calls = (extent.sample_seconds / once.max(1e-9)).ceil().clamp(1.0, MOST_CALLS) as usize;
    let graph = Graph::record(device, || (0..calls).try_for_each(&call))?;
    graph.replay()?;
    let mut samples = Vec::with_capacity(extent.samples.max(1));
    for _ in 0..extent.samples.max(1) {
        samples.push(between(device, || graph.replay())? / calls as f64);
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[samples.len() / 2])
}

/// Seconds the device takes for what `work` queues.
fn between(
    device: &Device,
    work: impl FnOnce() -> Result<(), DeviceError>,
) -> Result<f64, DeviceError> {
    device.synchronize()?;
    let begun = device.mark()?;
    work()?;
    let ended = device.mark()?;
    device.seconds(begun, ended)
}
