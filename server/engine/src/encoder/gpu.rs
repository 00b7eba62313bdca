//! An encoder on a device, beside the models that generate and on a queue of its own.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pith_kernels::Pool;
use pith_kernels::device::{Device, DeviceError};
use pith_model::EncoderFile;
use pith_model::encoder::Encoding;

use super::{EncoderError, TEXTS};
use crate::executor::gpu::OpenDevice;

mod forward;
#[cfg(test)]
mod tests;
mod weights;

use forward::Forward;
use weights::{Keeper, Weights};

/// Most rows (tokens) computed at once; work space for as many is taken at load. Enough to fill a card, and few enough for a
/// model on the same card to have it back soon.
pub(super) const ROWS: usize = 8192;

/// Weights and work space on a device. Calls from several threads take turns, batch by batch.
pub(super) struct GpuEncoder {
    /// What the card computes like: cards of one kind round alike.
    capability: (u32, u32),
    name: String,
    state: Mutex<State>,
}

struct State {
    open: OpenDevice,
    /// `None` between the loss of a device and the next one.
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    weights: Weights,
    forward: Forward,
    device: Device,
}

impl Loaded {
    fn new(file: &EncoderFile, pool: &Pool, device: Device) -> Result<Self, EncoderError> {
        let weights = super::weights::read(file, &Keeper { device: &device, pool })?;
        let rows = ROWS.max(file.config().max_tokens);
        let forward = Forward::new(&device, file.config(), (rows, TEXTS))?;
        // Kernels are compiled, and shapes they do not take refused, now and not when the first text comes.
        forward.run(&weights, &[file.tokenizer().encode("")?])?;
        Ok(Self { weights, forward, device })
    }
}

impl GpuEncoder {
    pub(super) fn load(
        file: &EncoderFile,
        pool: &Pool,
        mut open: OpenDevice,
    ) -> Result<Self, EncoderError> {
        let device = open()?;
        let limits = device.limits();
        let (capability, name) = (limits.capability, limits.name.clone());
        let loaded = Some(Loaded::new(file, pool, device)?);
        Ok(Self { capability, name, state: Mutex::new(State { open, loaded }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked had taken what was loaded, or had finished with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What people call the device.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Major and minor version of what it can compute.
    pub(super) fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// Bytes of the weights on the device.
    pub(super) fn weight_bytes(&self) -> usize {
        self.state().loaded.as_ref().map_or(0, |loaded| loaded.weights.bytes())
    }

    /// Appends the vector of each text of `batch` to `out`. After the loss of a device, opens it again first.
    pub(super) fn run(
        &self,
        file: &EncoderFile,
        pool: &Pool,
        batch: &[Encoding],
        out: &mut Vec<f32>,
    ) -> Result<(), EncoderError> {
        let mut state = self.state();
        let loaded = match state.loaded.take() {
            Some(loaded) => loaded,
            None => self.load_again(&mut state.open, file, pool)?,
        };
        let computed = loaded.forward.run(&loaded.weights, batch);
        if !matches!(computed, Err(DeviceError::Lost(_))) {
            state.loaded = Some(loaded);
        }
        out.extend(computed?);
        Ok(())
    }

    fn load_again(
        &self,
        open: &mut OpenDevice,
        file: &EncoderFile,
        pool: &Pool,
    ) -> Result<Loaded, EncoderError> {
        let device = open()?;
        if device.limits().capability != self.capability {
            let why = format!("{} came back in its place", device.limits().name);
            return Err(DeviceError::Lost(why).into());
        }
        Loaded::new(file, pool, device)
    }

    /// Gives up what lies on the device if that was lost.
    pub(super) fn let_go_of_lost(&self) {
        let mut state = self.state();
        // Every batch was waited for: nothing is queued that this would wait for.
        let lost =
            |loaded: &Loaded| matches!(loaded.device.synchronize(), Err(DeviceError::Lost(_)));
        if state.loaded.as_ref().is_some_and(lost) {
            state.loaded = None;
        }
    }
}

impl fmt::Debug for GpuEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuEncoder").field("name", &self.name).finish_non_exhaustive()
    }
}
