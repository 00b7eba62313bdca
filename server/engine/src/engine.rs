//! The engine: one thread that owns all mutable state, and the handle others hold.

use std::sync::Arc;
use std::time::Duration;

use pith_model::ModelFile;

use crate::executor::Executor;
use crate::request::{EngineError, Event, GenerateRequest, Load, ScoreRequest, SubmitError};

/// Bounds and policies of one engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Most requests waiting.
    pub max_waiting: usize,
    /// Most sequences running at once.
    pub max_running: usize,
    /// Most prefill tokens in a step while nothing decodes.
    pub max_step_tokens: usize,
    /// A step that carries decode rows may take this many times their own time.
    pub step_stretch: f64,
    /// Whether prefixes are cached at all.
    pub prefix_cache: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { max_waiting: 1024, max_running: 256, max_step_tokens: 512, step_stretch: 2.5, prefix_cache: true }
    }
}

/// A handle on a running engine. Cheap to clone; the thread ends when [`Engine::shutdown`] is called or the last handle goes.
#[derive(Debug, Clone)]
pub struct Engine {}

impl Engine {
    /// Starts the engine thread over `executor`. `file` supplies the vocabulary.
    pub fn start(executor: Box<dyn Executor>, file: Arc<ModelFile>, config: EngineConfig) -> std::io::Result<Self> { unimplemented!() }
    /// Queues a request. Checked here, on the caller's thread; never blocks.
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream, SubmitError> { unimplemented!() }
    /// ln-probabilities of `tokens[from..]`.
    pub async fn score(&self, request: ScoreRequest) -> Result<Vec<f32>, ScoreError> { unimplemented!() }
    /// Ends a live request with [`crate::request::FinishReason::Aborted`]; false if there is none of that id and tenant.
    pub fn abort(&self, tenant: &str, id: &str) -> bool { unimplemented!() }
    /// The load, as of the last step. Never waits for one.
    pub fn load(&self) -> Load { unimplemented!() }
    /// Longest prompt plus answer, tokens: the model's context or the KV pool, whichever is smaller.
    pub fn max_context(&self) -> usize { unimplemented!() }
    /// Tokens per KV block, blocks, executor name and the like.
    pub fn capabilities(&self) -> &crate::executor::Capabilities { unimplemented!() }
    /// False once the executor has failed and until it has been replaced.
    pub fn healthy(&self) -> bool { unimplemented!() }
    /// Takes no more requests; waits up to `grace` for live ones, then ends them with [`EngineError::ShutDown`]. Blocks.
    pub fn shutdown(&self, grace: Duration) { unimplemented!() }
}

/// Why a score was not computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// Not taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Taken, not finished.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The events of one request. Dropping it cancels the request: its blocks are free within one step.
#[derive(Debug)]
pub struct TokenStream {}

impl TokenStream {
    /// The next event; `None` after [`Event::Finished`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> { unimplemented!() }
}
