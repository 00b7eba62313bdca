//! From the settings to what computes: the CPU's executor or a card's. All that runs an engine comes through here.

use pith_engine::executor::cpu::{CpuConfig, CpuExecutor};
use pith_engine::executor::{Executor, LoadError};
use pith_kernels::Pool;
use pith_kernels::device::{DeviceError, cuda};
use pith_model::ModelFile;

use crate::config::DeviceChoice;

/// Loads `file` on what `choice` names: on the CPU with `cpu`'s settings and the threads of `pool`. Where the choice is free, a
/// card that cannot be had is logged, and the CPU takes its place.
pub(crate) fn load(
    choice: DeviceChoice,
    file: &ModelFile,
    cpu: CpuConfig,
    pool: Pool,
) -> Result<Box<dyn Executor>, LoadError> {
    let on_cpu = |cpu, pool| -> Result<Box<dyn Executor>, LoadError> {
        Ok(Box::new(CpuExecutor::load(file, cpu, pool)?))
    };
    match choice {
        DeviceChoice::Cpu => on_cpu(cpu, pool),
        DeviceChoice::Cuda(ordinal) => on_card(ordinal),
        DeviceChoice::Auto if !has_card() => on_cpu(cpu, pool),
        DeviceChoice::Auto => match on_card(0) {
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

/// The executor on the card of that number. There is none yet, whatever the card: what is missing besides is told first.
fn on_card(ordinal: u32) -> Result<Box<dyn Executor>, LoadError> {
    let name = cuda::limits(ordinal)?.name;
    let why =
        format!("cuda:{ordinal} is here ({name}), but models are computed on the CPU alone yet");
    Err(DeviceError::Missing(why).into())
}
