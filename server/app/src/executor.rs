//! From the settings to what computes: the CPU's executor or a card's. All that runs an engine comes through here.

use std::fmt;
use std::sync::Arc;

use pith_engine::executor::cpu::{CpuConfig, CpuExecutor};
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::executor::{Executor, LoadError};
use pith_kernels::Pool;
use pith_kernels::device::{DeviceError, cuda};
use pith_model::ModelFile;

use crate::config::DeviceChoice;

/// How an executor is made where it may turn out to be either.
pub(crate) struct Settings {
    pub(crate) cpu: CpuConfig,
    pub(crate) gpu: GpuConfig,
    /// Computes on the CPU; repacks weights on their way to a card.
    pub(crate) pool: Pool,
    /// Makes all else that this process has on a card give it up if that was lost: until then the card does not come back.
    pub(crate) let_go: Box<dyn Fn() + Send>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, gpu, pool, .. } = self;
        let mut shown = f.debug_struct("Settings");
        shown.field("cpu", cpu).field("gpu", gpu).field("pool", pool).finish_non_exhaustive()
    }
}

/// The number of the card that `choice` means, if there may be one.
pub(crate) fn card(choice: DeviceChoice) -> Option<u32> {
    match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda(ordinal) => Some(ordinal),
        DeviceChoice::Auto => has_card().then_some(0),
    }
}

/// Loads `file` on what `choice` names. Where the choice is free, a card that cannot be had is logged, and the CPU takes its place.
pub(crate) fn load(
    choice: DeviceChoice,
    file: &Arc<ModelFile>,
    settings: Settings,
) -> Result<Box<dyn Executor>, LoadError> {
    let Settings { cpu, gpu, pool, let_go } = settings;
    let on_cpu = |cpu, pool| -> Result<Box<dyn Executor>, LoadError> {
        Ok(Box::new(CpuExecutor::load(file, cpu, pool)?))
    };
    let Some(ordinal) = card(choice) else {
        return on_cpu(cpu, pool);
    };
    match on_card(ordinal, file, gpu, pool.clone(), let_go) {
        Err(LoadError::Device(DeviceError::Missing(why))) if choice == DeviceChoice::Auto => {
            tracing::warn!(why, "there is a card, and it is not used");
            on_cpu(cpu, pool)
        }
        result => result,
    }
}

/// What to do about an error of [`load`].
pub(crate) fn hint(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::Device(DeviceError::Missing(_)) => Some(
            "`pith doctor` says what is there; without --device, or with --device cpu, the CPU computes",
        ),
        _ => None,
    }
}

/// Whether this machine has a card and a driver that knows it.
fn has_card() -> bool {
    cuda::count().is_ok_and(|count| count > 0)
}

/// The executor on the card of that number; should that be lost, on whatever card then has the number.
fn on_card(
    ordinal: u32,
    file: &Arc<ModelFile>,
    config: GpuConfig,
    pool: Pool,
    let_go: Box<dyn Fn() + Send>,
) -> Result<Box<dyn Executor>, LoadError> {
    let open = Box::new(move || {
        let_go();
        cuda::device(ordinal)
    });
    Ok(Box::new(GpuExecutor::load(Arc::clone(file), config, pool, open)?))
}
