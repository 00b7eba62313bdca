//! Sequences of launches recorded once and queued as one: a decode step is a hundred small kernels, whose launches one by one
//! would take longer than their work.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Device, DeviceError, GraphId};

/// Memory whose owner is gone, kept while a recording may still name it.
#[derive(Debug, Default)]
pub(super) struct Freed {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Recordings that live or are being made.
    graphs: usize,
    /// Address and bytes.
    kept: Vec<(u64, usize)>,
}

impl Freed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    /// Gives memory back, or keeps it until no recording is left that may name it.
    ///
    /// # Safety
    /// As [`super::Driver::free`].
    pub(super) unsafe fn free(&self, address: u64, bytes: usize) {
        let mut state = self.freed.lock();
        if state.graphs > 0 {
            state.kept.push((address, bytes));
        } else {
            // SAFETY: the caller's.
            unsafe { self.driver.free(address, bytes) };
        }
    }

    fn graph_gone(&self) {
        let mut state = self.freed.lock();
        state.graphs -= 1;
        if state.graphs == 0 {
            for (address, bytes) in state.kept.drain(..) {
                // SAFETY: `free` was promised this of it, and no recording is left.
                unsafe { self.driver.free(address, bytes) };
            }
        }
    }
}

/// A recorded sequence of launches. While one lives, no memory of its device is given back, so that all it names is there.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    id: GraphId,
}

impl Graph {
    /// Records what `launches` queues on `device`, which is not done now. It may neither upload nor download, and nothing else
    /// is queued on the device meanwhile.
    ///
    /// # Errors
    /// What `launches` returned, or the device cannot record this.
    pub fn record<E: From<DeviceError>>(
        device: &Device,
        launches: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        device.freed.lock().graphs += 1;
        let recorded = device.driver.begin_recording().map_err(E::from).and_then(|()| {
            let queued = launches();
            let id = device.driver.end_recording().map_err(E::from)?;
            queued.map(|()| id).inspect_err(|_| device.driver.discard(id))
        });
        match recorded {
            Ok(id) => Ok(Self { device: device.clone(), id }),
            Err(error) => {
                device.graph_gone();
                Err(error)
            }
        }
    }

    /// Queues everything recorded, with the arguments it was recorded with.
    pub fn replay(&self) -> Result<(), DeviceError> {
        // SAFETY: memory that was alive when this was recorded has not been given back since.
        unsafe { self.device.driver.replay(self.id) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.device.driver.discard(self.id);
        self.device.graph_gone();
    }
}
