//! A model on a device: its weights, its KV cache, and how a step is queued.

use pith_kernels::Pool;
use pith_kernels::device::attention::{DecodePlan, MetaLayout};
use pith_kernels::device::kv::DeviceKv;
use pith_kernels::device::{Device, DeviceError, DeviceVec, Mark};
use pith_model::ModelFile;
use pith_model::plan::{Layer, Plan};

use super::GpuConfig;
use super::answers::{Answers, Coming};
use super::forward::{Forward, Words};
use super::graphs::{self, Graphs};
use super::masses::{Masses, Room};
use super::pack::{
    self, Asked, MOST_DECODE_ROWS, Packed, Packing, asked_rows, decode_reach, is_plain_decode,
};
use super::shapes::{Reach, Shapes};
use super::warm_up;
use super::weights::{self, Weights};
use crate::executor::{Capabilities, ExecutorError, LoadError};
use crate::step::Step;

/// What lies on the device.
#[derive(Debug)]
pub(super) struct Loaded {
    // Dropped before the memory they name.
    pub(super) graphs: Graphs,
    pub(super) weights: Weights,
    pub(super) kv: Vec<DeviceKv>,
    pub(super) forward: Forward,
    pub(super) answers: Answers,
    pub(super) room: Room,
    pub(super) shapes: Shapes,
    pub(super) words: DeviceVec<u32>,
    pub(super) device: Device,
}

/// A step on its way.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) step: Step,
    pub(super) masses: Masses,
    pub(super) coming: Coming,
    pub(super) begun: Mark,
    pub(super) ended: Mark,
}

/// Words that a step's description has room for at first; more where sequences are long and many.
const WORDS: usize = 1 << 20;
/// Share of the device's memory left to others.
const LEFT_SHARE: usize = 20;

impl Loaded {
    /// Streams the weights of `file` to `device` and makes the rest of what a model needs there.
    pub(super) fn new(
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
        let room = Room::new(&device)?;
        let words = DeviceVec::new(&device, WORDS)?;
        let graphs = Graphs::default();
        let kv = Vec::new();
        let mut loaded =
            Self { graphs, weights, kv, forward, answers, room, shapes, words, device };
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
    pub(super) fn queue(
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
            self.words.make_room(words.len())?;
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
        let Self { graphs, weights, kv, forward, answers, room, shapes, words, device } = self;
        answers.send(device, step, &asked, rows)?;
        if answers.moved() {
            *graphs = Graphs::default();
        }
        let words = Words { words: words.as_slice(), layout, plans, shapes, rows };
        graphs.run(device, reach, || {
            forward.run(weights, kv, words, answers.drawn(), room)?;
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
        let Self { weights, kv, forward, answers, room, shapes, words, device, .. } = self;
        let words = Words { words: words.as_slice(), layout, plans, shapes, rows };
        let copies = words.part(&layout.copies);
        if !copies.is_empty() {
            for kv in kv.iter() {
                kv.copy_blocks(device, copies)?;
            }
        }
        room.make_for(&layout.masses)?;
        forward.run(weights, kv, words, answers.drawn(), room)?;
        answers.collect(forward, weights, step, words, asked, room)
    }
}

/// What an executor over `loaded` can do.
pub(super) fn capabilities(config: &GpuConfig, loaded: &Loaded) -> Capabilities {
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
