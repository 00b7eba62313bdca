//! From the settings to what computes: the CPU's executor or a card's. All that runs an engine comes through here.

use std::sync::Arc;

use pith_engine::executor::cpu::{CpuConfig, CpuExecutor};
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::executor::{Executor, LoadError};
use pith_kernels::Pool;
use pith_kernels::device::{DeviceError, cuda};
use pith_model::ModelFile;

use crate::config::DeviceChoice;

/// How an executor is made where it may turn out to be either.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) cpu: CpuConfig,
    pub(crate) gpu: GpuConfig,
    /// Computes on the CPU; repacks weights on their way to a card.
    pub(crate) pool: Pool,
}

/// Loads `file` on what `choice` names. Where the choice is free, a card that cannot be had is logged, and the CPU takes its place.
pub(crate) fn load(
    choice: DeviceChoice,
    file: &Arc<ModelFile>,
    settings: Settings,
) -> Result<Box<dyn Executor>, LoadError> {
    let Settings { cpu, gpu, pool } = settings;
    let on_cpu = |cpu, pool| -> Result<Box<dyn Executor>, LoadError> {
        Ok(Box::new(CpuExecutor::load(file, cpu, pool)?))
    };
    match choice {
        DeviceChoice::Cpu => on_cpu(cpu, pool),
        DeviceChoice::Cuda(ordinal) => on_card(ordinal, file, gpu, pool),
        DeviceChoice::Auto if !has_card() => on_cpu(cpu, pool),
        DeviceChoice::Auto => match on_card(0, file, gpu, pool.clone()) {
            Err(LoadError::Device(DeviceError::Missing(why))) => {
                tracing::warn!(why, "there is a card, and it is not used");
                on_cpu(cpu, pool)
            }
            result => result,
        },
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
) -> Result<Box<dyn Executor>, LoadError> {
    let open = Box::new(move || cuda::device(ordinal));
    Ok(Box::new(GpuExecutor::load(Arc::clone(file), config, pool, open)?))
}
