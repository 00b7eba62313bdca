//! The engine's handle: what the rest of the server holds.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::detokenize::Vocabulary;
use crate::executor::{Capabilities, Executor};
use crate::load::LoadCells;
use crate::request::{
    EngineError, GenerateRequest, Load, SamplingParams, ScoreRequest, StopConditions, SubmitError,
};
use crate::scheduler::SchedulerConfig;
use crate::sequence::{Goal, SequenceId};
use crate::step_loop::{Job, Message, Output, StepLoop};
use crate::stream::{Registry, ScoreWriter, StreamWriter, TokenStream};

/// Most stop strings, bytes of one, stop tokens and logit biases of a request.
pub const MAX_STOP_STRINGS: usize = 16;
/// See [`MAX_STOP_STRINGS`].
pub const MAX_STOP_BYTES: usize = 256;
/// See [`MAX_STOP_STRINGS`].
pub const MAX_STOP_TOKENS: usize = 64;
/// See [`MAX_STOP_STRINGS`].
pub const MAX_LOGIT_BIASES: usize = 1024;

/// Bounds and policies of one engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Most requests waiting.
    pub max_waiting: usize,
    /// Most sequences running at once.
    pub max_running: usize,
    /// Most tokens in a step; 0 = as many rows as the executor takes.
    pub max_step_tokens: usize,
    /// Most seconds of prefill in a step: what a request that just came may have to wait for.
    pub max_step_seconds: f64,
    /// A step that carries decode rows may take this many times their own time; more where more
    /// requests wait for their first token than there are decode rows.
    pub step_stretch: f64,
    /// Answer tokens reserved for a request at admission, at most; what it needs beyond them it takes as it goes.
    pub reserve_tokens: usize,
    /// Whether prefixes are cached at all.
    pub prefix_cache: bool,
    /// Whether tokens are drafted.
    pub speculation: Speculate,
    /// Most tokens drafted for a request in one step.
    pub max_draft_tokens: usize,
}

/// When tokens are drafted by prompt lookup. Which tokens come out does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculate {
    /// Where measured acceptance and step costs say that it pays.
    Auto,
    /// Never.
    Off,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_waiting: 1024,
            max_running: 256,
            max_step_tokens: 512,
            max_step_seconds: 0.5,
            step_stretch: 1.7,
            reserve_tokens: 512,
            prefix_cache: true,
            speculation: Speculate::Auto,
            max_draft_tokens: 8,
        }
    }
}

/// What handle and engine thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// New requests are taken.
    pub(crate) accepting: AtomicBool,
    /// Everything live is to be ended now.
    pub(crate) stop: AtomicBool,
    /// The executor works.
    pub(crate) healthy: AtomicBool,
    /// Requests taken and not ended.
    pub(crate) live: AtomicUsize,
    /// Of those, requests no step has computed for.
    pub(crate) queued: AtomicUsize,
    /// Times the books did not balance when the engine fell idle. Anything but 0 is a bug.
    pub(crate) inconsistencies: AtomicU64,
    pub(crate) load: LoadCells,
}

#[derive(Debug)]
struct Inner {
    inbox: SyncSender<Message>,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    capabilities: Capabilities,
    config: EngineConfig,
    max_context: usize,
    end_tokens: Vec<u32>,
    next_id: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A busy thread sees the flag, an idle one the inbox closing.
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// A handle on a running engine. Cheap to clone; the thread ends when [`Engine::shutdown`] is called or the
/// last handle goes.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

impl Engine {
    /// Starts the engine thread over `executor`; `vocabulary` is the model's.
    pub fn start(
        executor: Box<dyn Executor>,
        vocabulary: Arc<dyn Vocabulary>,
        config: EngineConfig,
    ) -> std::io::Result<Self> {
        let capabilities = executor.capabilities().clone();
        let max_context =
            capabilities.max_context.min(capabilities.blocks * capabilities.block_size);
        let end_tokens = vocabulary.end_tokens().to_vec();
        // Room for every request that may wait, and a little for wake-ups.
        let (inbox, messages) = sync_channel(config.max_waiting + 8);
        let shared = Arc::new(Shared {
            accepting: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
            live: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            inconsistencies: AtomicU64::new(0),
            load: LoadCells::default(),
        });
        let scheduler = SchedulerConfig {
            max_running: config.max_running,
            max_step_tokens: match config.max_step_tokens {
                0 => capabilities.max_rows,
                tokens => tokens,
            },
            max_step_seconds: config.max_step_seconds,
            step_stretch: config.step_stretch,
            reserve_tokens: config.reserve_tokens,
            max_draft_tokens: match config.speculation {
                Speculate::Auto => config.max_draft_tokens,
                Speculate::Off => 0,
            },
        };
        let step_loop =
            StepLoop::new(executor, vocabulary, scheduler, messages, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("pith-engine".to_owned())
            .spawn(move || step_loop.run())?;
        Ok(Self(Arc::new(Inner {
            inbox,
            shared,
            registry: Arc::default(),
            capabilities,
            config,
            max_context,
            end_tokens,
            next_id: AtomicU64::new(1),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Queues a request. Checked here, on the caller's thread; never blocks.
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream, SubmitError> {
        check_sampling(&request.sampling, self.0.capabilities.vocab)?;
        check_stop(&request.stop)?;
        self.check_tokens("prompt", &request.prompt)?;
        let limit = self.max_context();
        let (prompt_tokens, max_tokens) = (request.prompt.len(), request.stop.max_tokens);
        if prompt_tokens.saturating_add(max_tokens as usize) > limit {
            return Err(SubmitError::TooLong { prompt_tokens, max_tokens, limit });
        }
        let id = self.next_id();
        let Some((entry, aborted)) = self.0.registry.enter(&request.tenant, &request.id) else {
            return Err(SubmitError::DuplicateId(request.id));
        };
        let mut held_back: Vec<u32> =
            self.0.end_tokens.iter().chain(&request.stop.tokens).copied().collect();
        held_back.sort_unstable();
        held_back.dedup();
        let mut sampling = request.sampling;
        // Requests without a seed differ from one another, and the same process replays the same way.
        sampling.seed.get_or_insert(id.0);
        sampling.logit_bias.sort_unstable_by_key(|&(token, _)| token);
        let goal = Goal::Generate {
            max_tokens: max_tokens as usize,
            min_tokens: request.stop.min_tokens as usize,
            held_back: held_back.into(),
            sampling,
        };
        let (stream, events) = TokenStream::new(entry);
        let writer = Box::new(StreamWriter::new(events, request.stop.strings));
        self.enqueue(Job {
            id,
            goal,
            tenant: self.cache_seed(request.prefix_cache, &request.tenant),
            tokens: request.prompt,
            deadline: request.deadline,
            aborted: Some(aborted),
            output: Output::Stream {
                writer,
                stop_tokens: request.stop.tokens,
                ignore_end: request.stop.ignore_end,
            },
            submitted: Instant::now(),
        })?;
        Ok(stream)
    }

    /// ln-probabilities of `tokens[from..]`, each given all tokens before it.
    pub async fn score(&self, request: ScoreRequest) -> Result<Vec<f32>, ScoreError> {
        self.check_tokens("tokens", &request.tokens)?;
        if request.from == 0 || request.from >= request.tokens.len() {
            let reason = format!("must lie between 1 and {}", request.tokens.len() - 1);
            return Err(SubmitError::Invalid { field: "from", reason }.into());
        }
        if request.tokens.len() > self.max_context() {
            let (prompt_tokens, limit) = (request.tokens.len(), self.max_context());
            return Err(SubmitError::TooLong { prompt_tokens, max_tokens: 0, limit }.into());
        }
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job {
            id: self.next_id(),
            goal: Goal::Score { from: request.from },
            tenant: self.cache_seed(request.prefix_cache, &request.tenant),
            tokens: request.tokens,
            deadline: request.deadline,
            aborted: None,
            output: Output::Score(ScoreWriter { reply, logprobs: Vec::new(), from: request.from }),
            submitted: Instant::now(),
        })?;
        Ok(answer.await.unwrap_or(Err(EngineError::ShutDown))?)
    }

    /// Ends a live request with [`crate::request::FinishReason::Aborted`]; false if there is none of that id and tenant.
    pub fn abort(&self, tenant: &str, id: &str) -> bool {
        let flag = self.0.registry.flag(tenant, id);
        flag.inspect(|f| f.store(true, Ordering::Release)).is_some()
    }

    /// Drops every cached prefix of `tenant`: no request submitted after this finds one from before, and none that
    /// is live now leaves any. All of them go, for blocks do not know which text their tokens came from. Blocks
    /// while the inbox is full.
    pub fn forget(&self, tenant: &str) {
        // An engine that has ended holds nothing.
        drop(self.0.inbox.send(Message::Forget(tenant.into())));
    }

    /// The load, as of the last step. Never waits for one.
    pub fn load(&self) -> Load {
        Load { waiting: self.0.shared.queued.load(Ordering::Acquire), ..self.0.shared.load.read() }
    }

    /// Requests taken and not ended.
    pub fn live(&self) -> usize {
        self.0.shared.live.load(Ordering::Acquire)
    }

    /// Times the block books did not balance when the engine fell idle. Anything but 0 is a bug.
    pub fn inconsistencies(&self) -> u64 {
        self.0.shared.inconsistencies.load(Ordering::Acquire)
    }

    /// Longest prompt plus answer, tokens: the model's context or the KV pool, whichever is smaller.
    pub fn max_context(&self) -> usize {
        self.0.max_context
    }

    /// Tokens per KV block, blocks, executor name and the like.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// False once the executor has failed for good.
    pub fn healthy(&self) -> bool {
        self.0.shared.healthy.load(Ordering::Acquire)
    }

    /// Takes no more requests; waits up to `grace` for live ones, then ends them with
    /// [`EngineError::ShutDown`]. Blocks.
    pub fn shutdown(&self, grace: Duration) {
        self.0.shared.accepting.store(false, Ordering::Release);
        let until = Instant::now() + grace;
        while self.live() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.shared.stop.store(true, Ordering::Release);
        // An idle thread waits for a message; a full inbox means that it is not idle.
        drop(self.0.inbox.try_send(Message::Wake));
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has been caught and logged inside it.
            drop(thread.join());
        }
    }

    fn next_id(&self) -> SequenceId {
        SequenceId(self.0.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn cache_seed(&self, wanted: bool, tenant: &Arc<str>) -> Option<Arc<str>> {
        (wanted && self.0.config.prefix_cache).then(|| Arc::clone(tenant))
    }

    fn check_tokens(&self, field: &'static str, tokens: &[u32]) -> Result<(), SubmitError> {
        if tokens.is_empty() {
            return Err(SubmitError::Invalid { field, reason: "must not be empty".to_owned() });
        }
        let vocab = self.0.capabilities.vocab;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            Some(token) => {
                let reason = format!("token {token} is outside the vocabulary of {vocab}");
                Err(SubmitError::Invalid { field, reason })
            }
            None => Ok(()),
        }
    }

    fn enqueue(&self, job: Job) -> Result<(), SubmitError> {
        let shared = &self.0.shared;
        if !shared.accepting.load(Ordering::Acquire) || !shared.healthy.load(Ordering::Acquire) {
            return Err(SubmitError::Unavailable);
        }
        let limit = self.0.config.max_waiting;
        let queued = shared.queued.fetch_add(1, Ordering::AcqRel);
        if queued >= limit {
            shared.queued.fetch_sub(1, Ordering::AcqRel);
            return Err(SubmitError::QueueFull { queued, limit });
        }
        shared.live.fetch_add(1, Ordering::AcqRel);
        self.0.inbox.try_send(Message::Job(Box::new(job))).map_err(|error| {
            shared.queued.fetch_sub(1, Ordering::AcqRel);
            shared.live.fetch_sub(1, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => SubmitError::QueueFull { queued, limit },
                TrySendError::Disconnected(_) => SubmitError::Unavailable,
            }
        })
    }
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

fn invalid(field: &'static str, reason: &str) -> Result<(), SubmitError> {
    Err(SubmitError::Invalid { field, reason: reason.to_owned() })
}

fn check_sampling(p: &SamplingParams, vocab: usize) -> Result<(), SubmitError> {
    // Written so that NaN fails every one of them.
    if !(0.0..=100.0).contains(&p.temperature) {
        return invalid("sampling.temperature", "must lie in [0, 100]");
    }
    if !(p.top_p > 0.0 && p.top_p <= 1.0) {
        return invalid("sampling.top_p", "must lie in (0, 1]");
    }
    if !(0.0..=1.0).contains(&p.min_p) {
        return invalid("sampling.min_p", "must lie in [0, 1]");
    }
    if !(p.repetition_penalty > 0.0 && p.repetition_penalty <= 10.0) {
        return invalid("sampling.repetition_penalty", "must lie in (0, 10]");
    }
    if !(-2.0..=2.0).contains(&p.frequency_penalty) {
        return invalid("sampling.frequency_penalty", "must lie in [-2, 2]");
    }
    if !(-2.0..=2.0).contains(&p.presence_penalty) {
        return invalid("sampling.presence_penalty", "must lie in [-2, 2]");
    }
    if p.logit_bias.len() > MAX_LOGIT_BIASES {
        return invalid("sampling.logit_bias", "has more than 1,024 entries");
    }
    if p.logit_bias.iter().any(|&(token, bias)| token as usize >= vocab || !bias.is_finite()) {
        return invalid(
            "sampling.logit_bias",
            "names a token outside the vocabulary or is not finite",
        );
    }
    Ok(())
}

fn check_stop(stop: &StopConditions) -> Result<(), SubmitError> {
    if stop.max_tokens == 0 {
        return invalid("stop.max_tokens", "must be at least 1");
    }
    if stop.min_tokens > stop.max_tokens {
        return invalid("stop.min_tokens", "must not exceed max_tokens");
    }
    if stop.strings.len() > MAX_STOP_STRINGS {
        return invalid("stop.strings", "has more than 16 entries");
    }
    if stop.strings.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        return invalid("stop.strings", "each must have 1 to 256 bytes");
    }
    if stop.tokens.len() > MAX_STOP_TOKENS {
        return invalid("stop.tokens", "has more than 64 entries");
    }
    Ok(())
}
