//! The GPU executor: a plan interpreted by kernels queued on a device.
//!
//! A step is queued whole when it is submitted: its words go over in one upload, its kernels follow, its answers come back into pinned
//! memory. Nothing waits in between, so that step N + 1 is planned and queued while N runs; tokens not yet known to the host are read
//! where they were drawn. Decode steps are played from recordings ([`graphs`]).
//!
//! The device is whatever stands behind [`Device`]: a GPU, or in tests the host in its place.

use std::fmt;
use std::sync::Arc;

use pith_kernels::Pool;
use pith_kernels::device::attention::PrefillPath;
use pith_kernels::device::kv::DeviceKvKind;
use pith_kernels::device::matrix::MatmulPath;
use pith_kernels::device::{Device, DeviceError};
use pith_model::ModelFile;

use super::tickets::Tickets;
use super::{Capabilities, Executor, ExecutorError, LoadError, Ticket};
use crate::step::{Outcome, Step};

mod answers;
mod forward;
mod graphs;
mod loaded;
mod masses;
mod pack;
mod shapes;
mod warm_up;
mod weights;

use loaded::{Loaded, Queued, capabilities};

/// How much of a device an executor takes. See [`GpuConfig::new`] for the usual values.
#[derive(Debug, Clone)]
pub struct GpuConfig {
    /// How keys and values are kept.
    pub kv_kind: DeviceKvKind,
    /// Most bytes of KV cache; `None`: what is left of the device's memory once weights and work space have theirs, but for a
    /// twentieth of all.
    pub kv_bytes: Option<usize>,
    /// Tokens per KV block: a power of two from 16 on.
    pub block_size: usize,
    /// Most rows in a step. Work space for as many is taken at load.
    pub max_rows: usize,
    /// Most tokens of a sequence, if fewer than the model was trained for.
    pub max_context: Option<usize>,
    /// Steps that may be submitted before the oldest is waited for, at least 1.
    pub depth: usize,
    /// How products are computed.
    pub matmul: MatmulPath,
    /// How prompts are attended.
    pub prefill: PrefillPath,
    /// Whether decode steps are recorded and played.
    pub graphs: bool,
}

impl GpuConfig {
    /// KV in bfloat16 in all the memory that is left, blocks of 32 tokens, steps of up to 2,048 rows, the model's whole context, depth 2.
    pub fn new() -> Self {
        Self {
            kv_kind: DeviceKvKind::Bf16,
            kv_bytes: None,
            block_size: 32,
            max_rows: 2048,
            max_context: None,
            depth: 2,
            matmul: MatmulPath::Auto,
            prefill: PrefillPath::Auto,
            graphs: true,
        }
    }
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens the device, again after it was lost.
pub type OpenDevice = Box<dyn FnMut() -> Result<Device, DeviceError> + Send>;

/// A model on a device with its KV cache.
pub struct GpuExecutor {
    capabilities: Capabilities,
    config: GpuConfig,
    file: Arc<ModelFile>,
    pool: Pool,
    open: OpenDevice,
    /// Query heads of each layer.
    heads: Vec<usize>,
    /// `None` between the loss of a device and the next one.
    loaded: Option<Loaded>,
    tickets: Tickets<Queued>,
    /// All rows of the step submitted last that were asked for something, in the order their tokens lie in.
    last_asked: Vec<u32>,
}

impl GpuExecutor {
    /// Opens a device and streams the weights of `file` to it.
    ///
    /// # Errors
    /// There is no device, the model does not fit, or a setting is out of range.
    pub fn load(
        file: Arc<ModelFile>,
        config: GpuConfig,
        pool: Pool,
        mut open: OpenDevice,
    ) -> Result<Self, LoadError> {
        let setting = |valid: bool, field, rule| {
            if valid { Ok(()) } else { Err(LoadError::Config { field, rule }) }
        };
        let block_size = config.block_size;
        setting(
            block_size.is_power_of_two() && (16..=1024).contains(&block_size),
            "block_size",
            "a power of two between 16 and 1024",
        )?;
        setting(config.max_rows > 0, "max_rows", "at least 1")?;
        setting(config.depth > 0, "depth", "at least 1")?;
        setting(config.max_context != Some(0), "max_context", "at least 1")?;
        let loaded = Loaded::new(&file, &config, &pool, open()?)?;
        let capabilities = capabilities(&config, &loaded);
        Ok(Self {
            heads: loaded.weights.plan.layers.iter().map(|layer| layer.heads).collect(),
            capabilities,
            config,
            file,
            pool,
            open,
            loaded: Some(loaded),
            tickets: Tickets::new(),
            last_asked: Vec::new(),
        })
    }

    /// Bytes of the weights on the device.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.loaded.as_ref().map_or(0, |loaded| loaded.weights.bytes())
    }

    /// Decode passes recorded so far.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.loaded.as_ref().map_or(0, |loaded| loaded.graphs.len())
    }

    fn submit_checked(&mut self, step: Step) -> Result<Queued, ExecutorError> {
        let lost = || ExecutorError::Lost("it has not come back".to_owned());
        let loaded = self.loaded.as_mut().ok_or_else(lost)?;
        loaded.queue(&self.config, step, &self.last_asked)
    }

    fn failed(&mut self, error: ExecutorError) -> ExecutorError {
        self.last_asked.clear();
        self.tickets.fail(error)
    }
}

impl fmt::Debug for GpuExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuExecutor").field("name", &self.capabilities.name).finish_non_exhaustive()
    }
}

impl Executor for GpuExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, step: Step) -> Result<Ticket, ExecutorError> {
        let admitted = self.tickets.admit(&step, &self.capabilities, &self.heads)?;
        match self.submit_checked(step) {
            Ok(queued) => {
                self.last_asked = queued.coming.rows().collect();
                Ok(self.tickets.push(admitted, queued))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Outcome, ExecutorError> {
        let Queued { step, masses, coming, begun, ended } = self.tickets.take(ticket)?;
        let arrived = match &self.loaded {
            Some(loaded) => (loaded.device.seconds(begun, ended).map_err(ExecutorError::from))
                .and_then(|seconds| Ok((seconds, coming.arrive(&step, &masses)?))),
            None => Err(ExecutorError::Lost("it has not come back".to_owned())),
        };
        match arrived {
            Ok((seconds, wanted)) => Ok(Outcome { id: step.id, wanted, seconds }),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn revive(&mut self) -> Result<(), ExecutorError> {
        // The old device's memory goes before the new one takes as much.
        self.tickets.clear();
        self.loaded = None;
        let lost = |error: &dyn fmt::Display| ExecutorError::Lost(error.to_string());
        let device = (self.open)().map_err(|error| lost(&error))?;
        // The scheduler was told how much there is: as much is taken, whatever others have taken meanwhile.
        let kv_bytes = Some(self.capabilities.kv_bytes);
        let config = GpuConfig { kv_bytes, ..self.config.clone() };
        let loaded =
            Loaded::new(&self.file, &config, &self.pool, device).map_err(|error| lost(&error))?;
        self.loaded = Some(loaded);
        Ok(())
    }
}

impl From<DeviceError> for ExecutorError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Lost(why) => Self::Lost(why),
            error => Self::Failed(error.to_string()),
        }
    }
}
