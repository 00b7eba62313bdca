//! The GPU executor: a plan interpreted by kernels queued on a device.
//!
//! A step is queued whole when it is submitted: its words go over in one upload, its kernels follow, its answers come back into pinned
//! memory. Nothing waits in between, so that step N + 1 is planned and queued while N runs; tokens not yet known to the host are read
//! where they were drawn. Decode steps are played from recordings ([`graphs`]).
//!
//! The device is whatever stands behind [`Device`]: a GPU, or in tests the host in its place.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use pith_kernels::Pool;
use pith_kernels::device::attention::{DecodePlan, MetaLayout, PrefillPath};
use pith_kernels::device::kv::{DeviceKv, DeviceKvKind};
use pith_kernels::device::matrix::MatmulPath;
use pith_kernels::device::{Device, DeviceError, DeviceVec, Mark};
use pith_model::ModelFile;
use pith_model::plan::{Layer, Plan};

use super::check::{Limits, check, sampled_rows};
use super::{Capabilities, Executor, ExecutorError, LoadError, Ticket};
use crate::step::{Outcome, Step, StepId};

mod answers;
mod forward;
mod graphs;
mod masses;
mod pack;
mod shapes;
mod warm_up;
mod weights;

use answers::{Answers, Coming};
use forward::{Forward, Words};
use graphs::Graphs;
use masses::Masses;
use pack::{Asked, MOST_DECODE_ROWS, Packed, Packing, asked_rows, decode_reach, is_plain_decode};
use shapes::{Reach, Shapes};
use weights::Weights;

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
    /// Submitted, not yet waited for, oldest first.
    queue: VecDeque<Queued>,
    last_submitted: Option<StepId>,
    /// Rows of that step which a next one may name as in flight.
    last_sampled: Vec<u32>,
    /// All rows of that step that were asked for something, in the order their tokens lie in.
    last_asked: Vec<u32>,
    /// A failure, and the last step it takes down with it.
    failure: Option<(StepId, ExecutorError)>,
}

/// What lies on the device.
#[derive(Debug)]
struct Loaded {
    // Dropped before the memory they name.
    graphs: Graphs,
    weights: Weights,
    kv: Vec<DeviceKv>,
    forward: Forward,
    answers: Answers,
    shapes: Shapes,
    words: DeviceVec<u32>,
    device: Device,
}

/// A step on its way.
#[derive(Debug)]
struct Queued {
    step: Step,
    masses: Masses,
    coming: Coming,
    begun: Mark,
    ended: Mark,
}

/// Words that a step's description has room for at first; more where sequences are long and many.
const WORDS: usize = 1 << 20;
/// Share of the device's memory left to others.
const LEFT_SHARE: usize = 20;

impl Loaded {
    fn new(
        file: &ModelFile,
        config: &GpuConfig,
        pool: &Pool,
        device: Device,
    ) -> Result<Self, LoadError> {
        let weights = weights::read(&device, file, pool)?;
        let shapes = Shapes::new(&weights.plan, device.limits(), config.kv_kind, config.prefill);
        let decode = Reach {
            rows: config.max_rows.min(MOST_DECODE_ROWS),
            keys: longest(config, &weights.plan),
        };
        let paths = (config.matmul, config.prefill);
        let forward = Forward::new(&device, &weights, config.max_rows, &shapes, decode, paths)?;
        let answers = Answers::new(&device, &weights, config.max_rows)?;
        let words = DeviceVec::new(&device, WORDS)?;
        let graphs = Graphs::default();
        let kv = Vec::new();
        let mut loaded = Self { graphs, weights, kv, forward, answers, shapes, words, device };
        let block_bytes = block_bytes(config, &loaded.weights.plan);
        let kv_bytes = match config.kv_bytes {
            Some(bytes) => bytes,
            None => loaded.bytes_left(config)?,
        };
        // Slots are numbered by a u32, the largest of which means none.
        let blocks = (kv_bytes / block_bytes).min((u32::MAX as usize) / config.block_size);
        if blocks == 0 {
            return Err(LoadError::NoRoom { kv_bytes, block_bytes });
        }
        loaded.kv = loaded.cache(config, blocks)?;
        loaded.device.synchronize()?;
        Ok(loaded)
    }

    /// A KV cache of `blocks` blocks.
    fn cache(&self, config: &GpuConfig, blocks: usize) -> Result<Vec<DeviceKv>, DeviceError> {
        let layer = |l: &Layer| {
            let (kind, block) = (config.kv_kind, config.block_size);
            DeviceKv::new(&self.device, kind, l.kv_heads, l.head_dim, block, blocks)
        };
        self.weights.plan.layers.iter().map(layer).collect()
    }

    /// Bytes that are free once the largest step has been computed, but for a share of all that others may need: kernels,
    /// libraries and what they take for themselves are loaded by then.
    fn bytes_left(&mut self, config: &GpuConfig) -> Result<usize, LoadError> {
        let rows = config.max_rows.min(longest(config, &self.weights.plan));
        self.kv = self.cache(config, rows.div_ceil(config.block_size))?;
        for step in warm_up::steps(rows, config.block_size) {
            let queued = self.queue(config, step, &[]).map_err(LoadError::WarmUp)?;
            queued.coming.arrive(&queued.step, &queued.masses).map_err(LoadError::WarmUp)?;
            self.device.seconds(queued.begun, queued.ended)?;
        }
        self.graphs = Graphs::default();
        self.kv = Vec::new();
        let left = self.device.limits().memory_bytes / LEFT_SHARE;
        Ok(self.device.free_bytes()?.saturating_sub(left))
    }

    /// Queues all of `step`. `last_asked` are the rows the step before was asked for.
    fn queue(
        &mut self,
        config: &GpuConfig,
        step: Step,
        last_asked: &[u32],
    ) -> Result<Queued, ExecutorError> {
        let asked = asked_rows(&step);
        if asked.len() > self.answers.most_asked() {
            return Err(ExecutorError::Unsupported("that many samples of one step's rows"));
        }
        let recordable = self.recordable(config, &step);
        let reach = recordable.unwrap_or_else(|| decode_reach(&step));
        let plans = self.shapes.plans(reach)?;
        let packing = Packing {
            last_asked,
            asked: &asked,
            rows: recordable.map_or(step.tokens.len(), |reach| reach.rows),
            rows_at_once: self.answers.rows_at_once(),
            attention: MetaLayout {
                decode: &plans,
                tile_rows: self.shapes.tile_rows,
                bias_spans: 0,
                block_size: config.block_size,
            },
        };
        let rows = packing.rows;
        let packed = Packed::new(&step, &packing)?;
        // From here on the device works; what the host did before it would count where the queue is empty.
        let begun = self.device.mark()?;
        self.send(&packed.words)?;
        let words = (&packed.layout, plans.as_slice(), rows);
        let coming = match recordable {
            Some(reach) => self.play(&step, words, reach, asked)?,
            None => self.compute(&step, words, asked)?,
        };
        let ended = self.device.mark()?;
        Ok(Queued { step, masses: packed.layout.masses, coming, begun, ended })
    }

    /// The bucket of a recorded pass that computes `step`, if there can be one.
    fn recordable(&self, config: &GpuConfig, step: &Step) -> Option<Reach> {
        if !config.graphs || !is_plain_decode(step) {
            return None;
        }
        let reach = decode_reach(step);
        let most = config.max_rows.min(self.answers.rows_at_once());
        graphs::bucket(reach.rows, reach.keys, most)
    }

    /// Sends a step's words; recordings name where they lie, so these go when the words move.
    fn send(&mut self, words: &[u32]) -> Result<(), DeviceError> {
        if words.len() > self.words.len() {
            self.graphs = Graphs::default();
            self.words = DeviceVec::new(&self.device, words.len().next_power_of_two())?;
        }
        self.words.as_slice().first(words.len()).upload(words)
    }

    /// A plain decode step by its bucket's recording.
    fn play(
        &mut self,
        step: &Step,
        (layout, plans, rows): (&pack::Layout, &[DecodePlan], usize),
        reach: Reach,
        asked: Vec<Asked>,
    ) -> Result<Coming, DeviceError> {
        let Self { graphs, weights, kv, forward, answers, shapes, words, device } = self;
        if !answers.send(device, step, &asked, rows)? {
            *graphs = Graphs::default();
        }
        let words = Words { words: words.as_slice(), layout, plans, shapes, rows };
        graphs.run(device, reach, || {
            forward.run(weights, kv, words, answers.drawn(), None)?;
            answers.decode(forward, weights, words)
        })?;
        answers.fetch(asked, rows)
    }

    /// Any step, launch by launch.
    fn compute(
        &mut self,
        step: &Step,
        (layout, plans, rows): (&pack::Layout, &[DecodePlan], usize),
        asked: Vec<Asked>,
    ) -> Result<Coming, DeviceError> {
        let Self { weights, kv, forward, answers, shapes, words, device, .. } = self;
        let words = Words { words: words.as_slice(), layout, plans, shapes, rows };
        let copies = words.part(&layout.copies);
        if !copies.is_empty() {
            for kv in kv.iter() {
                kv.copy_blocks(device, copies)?;
            }
        }
        let room = layout.masses.room(device)?;
        forward.run(weights, kv, words, answers.drawn(), room.as_ref())?;
        answers.collect(forward, weights, step, words, asked, room)
    }
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
            queue: VecDeque::new(),
            last_submitted: None,
            last_sampled: Vec::new(),
            last_asked: Vec::new(),
            failure: None,
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

    /// Remembers a failure: steps behind it were planned on tokens and KV that never came to be.
    fn failed(&mut self, error: ExecutorError) -> ExecutorError {
        self.failure = self.last_submitted.map(|last| (last, error.clone()));
        self.last_sampled.clear();
        self.last_asked.clear();
        error
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
        if self.queue.len() >= self.capabilities.depth {
            let why = format!("{} steps are in flight already", self.queue.len());
            return Err(ExecutorError::Malformed(why));
        }
        if self.last_submitted.is_some_and(|last| step.id <= last) {
            return Err(ExecutorError::Malformed(format!("step {} comes late", step.id.0)));
        }
        let limits = Limits {
            capabilities: &self.capabilities,
            heads: &self.heads,
            sampled_before: &self.last_sampled,
        };
        check(&step, &limits)?;
        let id = step.id;
        self.last_submitted = Some(id);
        let sampled = sampled_rows(&step);
        match self.submit_checked(step) {
            Ok(queued) => {
                self.last_sampled = sampled;
                self.last_asked = queued.coming.rows().collect();
                self.queue.push_back(queued);
                Ok(Ticket(id))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Outcome, ExecutorError> {
        let Some(queued) = self.queue.pop_front() else {
            return Err(ExecutorError::Malformed(format!("step {} not in flight", ticket.0.0)));
        };
        let id = queued.step.id;
        if id != ticket.0 {
            let why = format!("step {} waited for before step {}", ticket.0.0, id.0);
            self.queue.push_front(queued);
            return Err(ExecutorError::Malformed(why));
        }
        if let Some((last, why)) = &self.failure
            && id <= *last
        {
            return Err(why.clone());
        }
        let Queued { step, masses, coming, begun, ended } = queued;
        let arrived = match &self.loaded {
            Some(loaded) => (loaded.device.seconds(begun, ended).map_err(ExecutorError::from))
                .and_then(|seconds| Ok((seconds, coming.arrive(&step, &masses)?))),
            None => Err(ExecutorError::Lost("it has not come back".to_owned())),
        };
        match arrived {
            Ok((seconds, wanted)) => Ok(Outcome { id, wanted, seconds }),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn revive(&mut self) -> Result<(), ExecutorError> {
        // The old device's memory goes before the new one takes as much.
        self.queue.clear();
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

fn capabilities(config: &GpuConfig, loaded: &Loaded) -> Capabilities {
    let plan = &loaded.weights.plan;
    let blocks = loaded.kv.first().map_or(0, |kv| kv.blocks);
    Capabilities {
        block_size: config.block_size,
        blocks,
        depth: config.depth,
        max_rows: config.max_rows,
        max_wants: config.max_rows,
        vocab: plan.vocab,
        max_context: longest(config, plan).min(blocks * config.block_size),
        kv_bytes: blocks * block_bytes(config, plan),
        kv_type: config.kv_kind.name(),
        name: loaded.device.limits().name.clone(),
    }
}

/// Most tokens of a sequence.
fn longest(config: &GpuConfig, plan: &Plan) -> usize {
    plan.context.min(config.max_context.unwrap_or(usize::MAX))
}

fn block_bytes(config: &GpuConfig, plan: &Plan) -> usize {
    let of_layer = |l: &Layer| {
        DeviceKv::bytes_per_block(config.kv_kind, l.kv_heads, l.head_dim, config.block_size)
    };
    plan.layers.iter().map(of_layer).sum::<usize>().max(1)
}
