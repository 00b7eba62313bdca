//! The CPU executor: a plan interpreted over the kernels' worker pool.
//!
//! One step at a time, computed when it is waited for, on the waiting thread and the pool's
//! workers. A deeper queue therefore gains no overlap here, but lets a scheduler that plans ahead
//! run unchanged.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use pith_kernels::{Isa, KvLayer, KvType, Pool, PoolError};
use pith_model::ModelFile;
use pith_model::plan::{Layer, Plan};

pub use super::LoadError;
use super::tickets::Tickets;
use super::{Capabilities, Executor, ExecutorError, Ticket};
use crate::step::{Outcome, Step, TokenSource, Want, Wanted};

mod answers;
mod batch;
mod forward;
mod weights;

use answers::Answers;
use batch::Batch;
use forward::Forward;
use weights::Weights;

/// How much of the machine an executor takes. See [`CpuConfig::new`] for the usual values.
#[derive(Debug, Clone)]
pub struct CpuConfig {
    /// Instruction set to compute with; the machine must have it.
    pub isa: Isa,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Most bytes of KV cache. Pages are mapped when first written, not at load.
    pub kv_bytes: usize,
    /// Tokens per KV block.
    pub block_size: usize,
    /// Most rows in a step. Work space grows with the largest step seen, so to this at most.
    pub max_rows: usize,
    /// Most tokens of a sequence, if fewer than the model was trained for.
    pub max_context: Option<usize>,
    /// Steps that may be submitted before the oldest is waited for, at least 1.
    pub depth: usize,
}

impl CpuConfig {
    /// KV in f16, blocks of 16 tokens, steps of up to 512 rows, the model's whole context, depth 1.
    pub fn new(isa: Isa, kv_bytes: usize) -> Self {
        Self {
            isa,
            kv_type: KvType::F16,
            kv_bytes,
            block_size: 16,
            max_rows: 512,
            max_context: None,
            depth: 1,
        }
    }
}

/// Where the arithmetic happens.
#[derive(Debug)]
struct Machine {
    isa: Isa,
    pool: Pool,
    block_size: usize,
}

/// A model in memory with its KV cache.
#[derive(Debug)]
pub struct CpuExecutor {
    capabilities: Capabilities,
    machine: Machine,
    weights: Weights,
    /// Query heads of each layer.
    heads: Vec<usize>,
    kv: Vec<KvLayer>,
    forward: Forward,
    answers: Answers,
    tickets: Tickets<Step>,
    /// `(row, token)` sampled by the step computed last, by row; no token where the row failed.
    drawn: Vec<(u32, Option<u32>)>,
}

impl CpuExecutor {
    /// Reads the weights of `file` and reserves its KV cache.
    pub fn load(file: &ModelFile, config: CpuConfig, pool: Pool) -> Result<Self, LoadError> {
        let setting = |valid: bool, field, rule| {
            if valid { Ok(()) } else { Err(LoadError::Config { field, rule }) }
        };
        setting((1..=1024).contains(&config.block_size), "block_size", "between 1 and 1024")?;
        setting(config.max_rows > 0, "max_rows", "at least 1")?;
        setting(config.depth > 0, "depth", "at least 1")?;
        setting(config.max_context != Some(0), "max_context", "at least 1")?;

        let block_bytes = block_bytes(&config, file.plan());
        let blocks = blocks_within(&config, block_bytes)?;
        let weights = weights::read(file, &pool)?;
        let plan = &weights.plan;
        let slots = blocks * config.block_size;
        let kv_type = config.kv_type;
        let layer = |l: &Layer| KvLayer::new(kv_type, l.kv_heads, l.head_dim, slots);
        let kv = plan.layers.iter().map(layer).collect();
        let capabilities = Capabilities {
            block_size: config.block_size,
            blocks,
            depth: config.depth,
            max_rows: config.max_rows,
            max_wants: config.max_rows,
            vocab: plan.vocab,
            max_context: plan.context.min(config.max_context.unwrap_or(usize::MAX)).min(slots),
            kv_bytes: blocks * block_bytes,
            kv_type: kv_type.name(),
            name: format!("cpu {}, {} threads", config.isa.name(), pool.threads()),
        };
        Ok(Self {
            heads: plan.layers.iter().map(|layer| layer.heads).collect(),
            forward: Forward::new(plan),
            answers: Answers::default(),
            machine: Machine { isa: config.isa, pool, block_size: config.block_size },
            capabilities,
            weights,
            kv,
            tickets: Tickets::new(),
            drawn: Vec::new(),
        })
    }

    /// Heap bytes of the weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Fills the KV cache with NaN, so that a slot read before it was written shows (tests).
    pub fn poison_kv(&mut self) {
        self.kv.iter_mut().for_each(KvLayer::poison);
    }

    fn compute(&mut self, step: &Step) -> Result<Vec<Wanted>, ExecutorError> {
        let mut tokens = Vec::with_capacity(step.tokens.len());
        for token in &step.tokens {
            tokens.push(match *token {
                TokenSource::Literal(id) => id,
                TokenSource::InFlight { row } => self.drawn_by(row)?,
            });
        }
        let block_size = self.machine.block_size as u32;
        for copy in &step.copies {
            for layer in &mut self.kv {
                layer.copy(copy.from * block_size, copy.to * block_size, block_size);
            }
        }
        let bias = batch::bias_spans(step);
        let mut batch = Batch::new(step, tokens, &bias);
        let hidden = self.forward.run(&self.machine, &self.weights, &mut self.kv, &mut batch)?;
        self.answers.collect(&self.machine, &self.weights, step, batch, hidden)
    }

    fn drawn_by(&self, row: u32) -> Result<u32, ExecutorError> {
        match self.drawn.binary_search_by_key(&row, |drawn| drawn.0) {
            // A failed row's sequence ends; until then any token will do, for nobody reads what follows.
            Ok(index) => Ok(self.drawn[index].1.unwrap_or(0)),
            Err(_) => Err(ExecutorError::Failed(format!("row {row} was never sampled"))),
        }
    }
}

impl Executor for CpuExecutor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, step: Step) -> Result<Ticket, ExecutorError> {
        let admitted = self.tickets.admit(&step, &self.capabilities, &self.heads)?;
        Ok(self.tickets.push(admitted, step))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Outcome, ExecutorError> {
        let step = self.tickets.take(ticket)?;
        let start = Instant::now();
        // The pool catches what its workers throw; this catches the kernels' own assertions.
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute(&step)))
            .unwrap_or_else(|panic| Err(ExecutorError::Failed(panic_text(&*panic))));
        match computed {
            Ok(wanted) => {
                self.drawn.clear();
                for ((row, want), answer) in step.wants.iter().zip(&wanted) {
                    match (want, answer) {
                        (Want::Sample(_), &Wanted::Token { id, .. }) => {
                            self.drawn.push((*row, Some(id)));
                        }
                        (Want::Sample(_), _) => self.drawn.push((*row, None)),
                        _ => {}
                    }
                }
                let seconds = start.elapsed().as_secs_f64();
                Ok(Outcome { id: step.id, wanted, seconds })
            }
            Err(error) => {
                self.drawn.clear();
                Err(self.tickets.fail(error))
            }
        }
    }
}

impl From<PoolError> for ExecutorError {
    fn from(error: PoolError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the engine's thread panicked: {}", text.unwrap_or("no message"))
}

fn block_bytes(config: &CpuConfig, plan: &Plan) -> usize {
    let per_token = |l: &Layer| KvLayer::bytes_per_token(config.kv_type, l.kv_heads, l.head_dim);
    config.block_size.saturating_mul(plan.layers.iter().map(per_token).sum()).max(1)
}

/// Blocks that fit into the cache, as long as their slots are numbered by a `u32`.
fn blocks_within(config: &CpuConfig, block_bytes: usize) -> Result<usize, LoadError> {
    let kv_bytes = config.kv_bytes;
    let blocks = (kv_bytes / block_bytes).min(u32::MAX as usize / config.block_size);
    if blocks == 0 { Err(LoadError::NoRoom { kv_bytes, block_bytes }) } else { Ok(blocks) }
}
