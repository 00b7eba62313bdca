//! A name becomes a model in memory with an engine over it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use pith_engine::executor::cpu::CpuConfig;
use pith_engine::executor::gpu::GpuConfig;
use pith_engine::request::{Event, GenerateRequest, SamplingParams, StopConditions};
use pith_engine::{Engine, EngineConfig};
use pith_kernels::device::matrix::MatmulPath;
use pith_model::ModelFile;
use pith_model::tokenizer::Special;

use super::embedder::Embedders;
use super::machine::Machine;
use super::memory::kv_bytes;
use crate::config::Config;
use crate::{executor, hub};

/// Tokens of the warm-up: a prefill and a few decode steps touch every weight and every path once.
const WARM_UP_TOKENS: u32 = 4;

/// A model in memory.
#[derive(Debug)]
pub struct Served {
    /// Name for requests.
    pub name: String,
    /// Its file: plan, tokenizer, template.
    pub file: Arc<ModelFile>,
    /// What generates with it.
    pub engine: Engine,
    /// Seconds from opening the file to a running engine.
    pub load_seconds: f64,
}

/// Finds (fetching on first use), opens and loads the configured model, `beside` which an embedder may use the same card. Blocks.
pub(super) fn load(
    config: &Config,
    Machine { isa, pool }: Machine,
    beside: Embedders,
) -> anyhow::Result<Served> {
    let resolved = hub::resolve(&config.model.name)?;
    let begun = Instant::now();
    let file = Arc::new(ModelFile::open(&resolved.path)?);
    let rows = |usual: usize| match config.engine.max_step_tokens {
        0 => usual.max(config.engine.max_running),
        tokens => tokens.max(config.engine.max_running),
    };
    // 0 stands for what is usual.
    let given = |number: usize| (number > 0).then_some(number);
    let cpu = CpuConfig::new(isa, kv_bytes(config.cpu.kv_mib));
    let cpu = CpuConfig {
        kv_type: config.cpu.kv_type.into(),
        block_size: config.cpu.block_size,
        max_rows: rows(cpu.max_rows),
        max_context: given(config.cpu.max_context),
        ..cpu
    };
    let gpu = GpuConfig::new();
    let gpu = GpuConfig {
        kv_kind: config.gpu.kv_type.into(),
        kv_bytes: given(config.gpu.kv_mib).map(|mib| mib << 20),
        block_size: config.gpu.block_size,
        max_rows: rows(gpu.max_rows),
        max_context: given(config.gpu.max_context),
        matmul: if config.gpu.batch_invariant { MatmulPath::Gemm } else { gpu.matmul },
        ..gpu
    };
    let let_go = Box::new(move || beside.let_go_of_lost());
    let settings = executor::Settings { cpu, gpu, pool, let_go };
    let executor = executor::load(config.engine.device, &file, settings)
        .with_context(|| format!("cannot load {}", resolved.path.display()))?;
    let engine = EngineConfig {
        max_waiting: config.engine.max_waiting,
        max_running: config.engine.max_running,
        max_step_tokens: config.engine.max_step_tokens,
        step_stretch: config.engine.step_stretch,
        prefix_cache: config.engine.prefix_cache,
        speculation: config.engine.speculation.into(),
        max_draft_tokens: config.engine.max_draft_tokens,
        ..EngineConfig::default()
    };
    let engine = Engine::start(executor, Arc::clone(&file) as _, engine)?;
    let load_seconds = begun.elapsed().as_secs_f64();
    Ok(Served { name: resolved.name, file, engine, load_seconds })
}

impl Served {
    /// Tokens the KV cache holds over all requests.
    #[must_use]
    pub fn kv_tokens(&self) -> usize {
        let capabilities = self.engine.capabilities();
        capabilities.blocks * capabilities.block_size
    }

    /// Generates a few tokens, so that the first caller does not pay for first touches.
    pub(super) async fn warm_up(&self) -> anyhow::Result<()> {
        let tokenizer = self.file.tokenizer();
        let mut prompt: Vec<u32> = tokenizer.prompt_bos().into_iter().collect();
        prompt.extend(tokenizer.encode("The quick brown fox", Special::Plain));
        let mut answer = self.engine.submit(GenerateRequest {
            id: "warm-up".to_owned(),
            tenant: "pith/warm-up".into(),
            prompt,
            sampling: SamplingParams::default(),
            stop: StopConditions::exactly(WARM_UP_TOKENS),
            deadline: None,
            prefix_cache: false,
        })?;
        while let Some(event) = answer.next().await {
            if let Event::Finished(_) = event? {
                break;
            }
        }
        Ok(())
    }
}
