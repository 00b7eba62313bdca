//! What commands run inside their own process: a server on a free port, or an engine alone.

use std::sync::Arc;
use std::time::Duration;

use pith_client::Client;
use pith_engine::executor::LoadError;
use pith_engine::executor::cpu::CpuConfig;
use pith_engine::executor::gpu::GpuConfig;
use pith_engine::{Engine, EngineConfig};
use pith_kernels::{Isa, Pool};
use pith_model::ModelFile;
use toml::{Table, Value};

use super::Failure;
use crate::boot::{self, NotServed, Running};
use crate::config::{Config, DeviceChoice, KvType, Log, LogFormat};
use crate::embedding::Embedding;
use crate::hub::{self, Hub, Resolved};
use crate::{executor, telemetry};

/// How long calls may go on once a command has its answer: there are none.
const GRACE: Duration = Duration::from_secs(1);
/// What commands other than `serve` log unless told otherwise.
const LOG: &str = "warn";

/// Begins to log to standard error.
pub(super) fn start_log(filter: Option<&str>) -> Result<(), Failure> {
    let log = Log { format: LogFormat::Text, filter: filter.unwrap_or(LOG).to_owned() };
    telemetry::init(&log).map_err(|error| Failure::usage(format!("--log: {error:#}")))
}

/// Runs `work` to its end on threads of its own.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// Serves `model` on a free port of this machine, over real gRPC, while `work` uses it, computed on `device` if there is a
/// wish. The settings are those of `pith serve` without a file: PITH_* variables count.
pub(super) fn with_server<T>(
    model: &str,
    device: Option<DeviceChoice>,
    work: impl AsyncFnOnce(Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut config = settings(model)?;
    config.engine.device = device.unwrap_or(config.engine.device);
    with_server_of(config, async |running| work(Client::connect(running.endpoint()).await?).await)
}

/// As [`with_server`], with settings of the caller's.
pub(super) fn with_server_of<T>(
    config: Config,
    work: impl AsyncFnOnce(&Running) -> Result<T, Failure>,
) -> Result<T, Failure> {
    block_on(async {
        let running =
            boot::start(config).await.map_err(|error| Failure::new(format!("{error:#}")))?;
        running.ready().await?;
        running.embedder().await;
        let result = work(&running).await;
        running.drain(GRACE).await;
        result
    })
}

/// The settings of [`with_server`]: with an embedder only if it is on disk, for one question is no reason to fetch it.
pub(super) fn settings(model: &str) -> Result<Config, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut config = Config::load(None, environment, flags(model)).map_err(Failure::usage)?;
    if !Hub::from_env()?.has_embedder(&config.context.embedder) {
        config.context.embedder.clear();
    }
    Ok(config)
}

fn flags(model: &str) -> Table {
    let section = |key: &str, value: &str| {
        Value::Table(Table::from_iter([(key.to_owned(), Value::String(value.to_owned()))]))
    };
    Table::from_iter([
        ("listen".to_owned(), section("grpc", "127.0.0.1:0")),
        ("model".to_owned(), section("name", model)),
        // Nothing is kept, and a server of the same user keeps its own.
        ("store".to_owned(), section("dir", "off")),
    ])
}

impl From<NotServed> for Failure {
    fn from(why: NotServed) -> Self {
        let failure = Self::new(&why);
        match why.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// How to run an engine without a server.
#[derive(Debug)]
pub(super) struct EngineSettings {
    /// What computes.
    pub(super) device: DeviceChoice,
    /// Instruction set; the fastest if unset.
    pub(super) isa: Option<String>,
    /// 0 = one per core.
    pub(super) threads: usize,
    /// How keys and values are kept.
    pub(super) kv_type: KvType,
    /// Tokens the KV cache must hold.
    pub(super) kv_tokens: usize,
    pub(super) config: EngineConfig,
}

/// Opens `model`.
pub(super) fn open(model: &Resolved) -> Result<ModelFile, Failure> {
    ModelFile::open(&model.path)
        .map_err(|error| Failure::new(format!("cannot load {}: {error}", model.path.display())))
}

/// Loads `file` and starts an engine over it.
pub(super) fn engine(
    file: ModelFile,
    settings: &EngineSettings,
) -> Result<(Engine, Arc<ModelFile>), Failure> {
    let isa = match &settings.isa {
        Some(name) => named_isa(name)?,
        None => isa().map_err(Failure::usage)?,
    };
    let file = Arc::new(file);
    let cannot = |error: &LoadError| Failure::new(format!("cannot load {}: {error}", file.name()));
    let asked = &settings.config;
    let rows = |usual: usize| match asked.max_step_tokens {
        0 => usual.max(asked.max_running),
        tokens => tokens.max(asked.max_running),
    };
    let cpu = CpuConfig::new(isa, kv_bytes(&file, settings.kv_tokens));
    let cpu = CpuConfig { max_rows: rows(cpu.max_rows), kv_type: settings.kv_type.into(), ..cpu };
    let gpu = GpuConfig::new();
    let gpu = GpuConfig { max_rows: rows(gpu.max_rows), kv_kind: settings.kv_type.into(), ..gpu };
    let executor = executor::Settings {
        cpu,
        gpu,
        pool: Pool::new(settings.threads),
        // An embedder beside it, if any, is not waited for.
        let_go: Box::new(|| ()),
    };
    let executor = executor::load(settings.device, &file, executor).map_err(|error| {
        match executor::hint(&error) {
            Some(hint) => cannot(&error).hint(hint),
            None => cannot(&error),
        }
    })?;
    let engine = Engine::start(executor, Arc::clone(&file) as _, settings.config.clone())
        .map_err(|error| Failure::new(format!("cannot start the engine: {error}")))?;
    Ok((engine, file))
}

/// Loads the embedder called `name` on `device`, fetching it on first use.
pub(super) fn embedder(
    name: &str,
    device: DeviceChoice,
    isa: Option<&str>,
    threads: usize,
) -> Result<Embedding, Failure> {
    let isa = match isa {
        Some(name) => named_isa(name)?,
        None => self::isa().map_err(Failure::usage)?,
    };
    let found = hub::resolve_embedder(name)?;
    Embedding::load(found.name, &found.path, device, isa, Pool::new(threads))
        .map_err(|error| Failure::new(format!("cannot load {}: {error}", found.path.display())))
}

/// The instruction set this process computes with unless told otherwise.
pub(super) fn isa() -> Result<Isa, String> {
    Isa::select()
}

/// The instruction set of `--isa`.
pub(super) fn named_isa(name: &str) -> Result<Isa, Failure> {
    Isa::from_name(name).map_err(|why| {
        Failure::usage(format!("--isa {why}")).hint("leave --isa out to use the fastest set")
    })
}

/// Bytes that surely hold the KV of `tokens` tokens, whatever its type: 4 bytes a number.
fn kv_bytes(file: &ModelFile, tokens: usize) -> usize {
    let per_token: usize =
        file.plan().layers.iter().map(|layer| 2 * layer.kv_heads * layer.head_dim * 4).sum();
    per_token * tokens
}
