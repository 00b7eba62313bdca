//! The door to arithmetic.

use pith_kernels::PoolError;
use pith_kernels::device::DeviceError;
use pith_model::ModelError;

use crate::step::{Outcome, Step, StepId};

pub mod check;
pub mod cpu;
pub mod gpu;
mod tickets;
mod weights;

/// What an executor can do and how much room it has.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Tokens per KV block.
    pub block_size: usize,
    /// KV blocks it holds.
    pub blocks: usize,
    /// Steps that may be submitted before the oldest is waited for (1: plan, run, plan; 2: plan
    /// N + 1 while N runs).
    pub depth: usize,
    /// Most rows in one step.
    pub max_rows: usize,
    /// Most rows of one step that may want something.
    pub max_wants: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Longest context a sequence may reach, tokens.
    pub max_context: usize,
    /// Bytes the KV pool may grow to.
    pub kv_bytes: usize,
    /// How keys and values are kept: `f16`, `int8`.
    pub kv_type: &'static str,
    /// Human name: `cpu avx2, 2 threads`.
    pub name: String,
}

/// A submitted step.
#[derive(Debug)]
#[must_use = "a ticket is waited for, in order"]
pub struct Ticket(pub StepId);

/// Why a step failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecutorError {
    /// The step asks for something this executor lacks.
    #[error("this executor does not support {0}")]
    Unsupported(&'static str),
    /// The step contradicts itself or the pool: a bug of the scheduler.
    #[error("malformed step: {0}")]
    Malformed(String),
    /// Arithmetic failed (a worker panicked, a kernel could not be launched). KV contents are void.
    #[error("execution failed: {0}")]
    Failed(String),
    /// The device is gone, and with it everything on it, until [`Executor::revive`] brings it back.
    #[error("the device was lost: {0}")]
    Lost(String),
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor is not what the plan needs, or cannot be repacked.
    #[error("tensor {tensor} {why}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What is wrong, to be read after the name.
        why: String,
    },
    /// The KV pool would hold not even one block.
    #[error("kv_bytes is {kv_bytes}, but one KV block of this model takes {block_bytes} bytes")]
    NoRoom {
        /// Configured.
        kv_bytes: usize,
        /// Needed.
        block_bytes: usize,
    },
    /// A setting is out of range.
    #[error("{field} must be {rule}")]
    Config {
        /// Its name.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The device cannot be had, or lacks the memory.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The largest step could not be computed.
    #[error("the first steps failed: {0}")]
    WarmUp(ExecutorError),
    /// A worker panicked while loading.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl LoadError {
    pub(crate) fn unread(what: &str) -> Self {
        Self::Shape { tensor: what.to_owned(), why: "was not read".to_owned() }
    }
}

/// The only door to arithmetic: submit steps, wait for them in order.
pub trait Executor: Send {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;
    /// Hands over a step. It may start at once or when waited for.
    fn submit(&mut self, step: Step) -> Result<Ticket, ExecutorError>;
    /// Blocks until the step is done.
    fn wait(&mut self, ticket: Ticket) -> Result<Outcome, ExecutorError>;
    /// Starts afresh after [`ExecutorError::Lost`]: the same capabilities, an empty KV cache, no step in flight. Takes as long as
    /// loading.
    fn revive(&mut self) -> Result<(), ExecutorError> {
        Err(ExecutorError::Unsupported("a new start"))
    }
}
