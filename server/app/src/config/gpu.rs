//! `[gpu]`: a model on a card.

use pith_kernels::device::kv::DeviceKvKind;
use serde::{Deserialize, Serialize};

use super::{ConfigError, KvType, invalid};

/// `[gpu]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config/pith.toml")]
pub struct Gpu {
    pub kv_mib: usize,
    pub kv_type: GpuKvType,
    pub block_size: usize,
    pub max_context: usize,
    pub batch_invariant: bool,
}

impl Gpu {
    /// Refuses numbers outside their ranges, which `within` looks at.
    pub(super) fn check(
        &self,
        within: impl Fn(&str, u64, u64, u64) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        within("gpu.kv_mib", self.kv_mib as u64, 0, 1 << 24)?;
        within("gpu.block_size", self.block_size as u64, 16, 1024)?;
        if !self.block_size.is_power_of_two() {
            let message = format!("is {}; it must be a power of two", self.block_size);
            return Err(invalid("gpu.block_size", message));
        }
        within("gpu.max_context", self.max_context as u64, 0, 1 << 24)
    }
}

/// `gpu.kv_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuKvType {
    /// bfloat16
    Bf16,
    /// Eight-bit floats, with a scale for each token and head
    Fp8,
}

impl From<GpuKvType> for DeviceKvKind {
    fn from(kind: GpuKvType) -> Self {
        match kind {
            GpuKvType::Bf16 => Self::Bf16,
            GpuKvType::Fp8 => Self::F8,
        }
    }
}

/// Where one flag speaks of either kind of device: half precision, or eight bits.
impl From<KvType> for DeviceKvKind {
    fn from(kind: KvType) -> Self {
        match kind {
            KvType::F16 => Self::Bf16,
            KvType::Int8 => Self::F8,
        }
    }
}
