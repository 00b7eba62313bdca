//! What everything that computes in this process shares: an instruction set and the worker pool.

use pith_kernels::{Isa, Pool};

use crate::config::Cpu;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) isa: Isa,
    pub(super) pool: Pool,
}

impl Machine {
    pub(super) fn new(cpu: &Cpu) -> anyhow::Result<Self> {
        let isa = match cpu.isa.as_str() {
            "" => Isa::select(),
            name => Isa::from_name(name).map_err(|why| format!("cpu.isa: {why}")),
        };
        let isa = isa.map_err(|why| anyhow::anyhow!("{why}"))?;
        let pool = if cpu.pin { Pool::pinned(cpu.threads) } else { Pool::new(cpu.threads) };
        Ok(Self { isa, pool })
    }
}
