//! `pith serve`: the gRPC server, until it is told to end.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use toml::{Table, Value};

use super::Failure;
use crate::boot::{self, NotServed, Running, Served};
use crate::config::{Config, ConfigError, DeviceChoice, KvType, LogFormat, Speculation};
use crate::{drain, telemetry};

/// Signals closer together than this are one.
const SAME_SIGNAL: std::time::Duration = std::time::Duration::from_secs(1);

/// Serve a model over gRPC.
///
/// Settings come from the defaults, then --config, then PITH_* variables, then these flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeArgs {
    /// Settings file (TOML); `--print-config` shows every setting.
    #[arg(long, value_name = "FILE", env = "PITH_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub grpc_listen: Option<SocketAddr>,
    /// A name from `pith models`, or the path of a GGUF file or of a folder of safetensors.
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// What computes: auto (a graphics card if there is one), cpu or cuda:N.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Threads that compute; 0 = one per core.
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Most memory of the KV cache, MiB; 0 = a quarter of the memory, at most 4096.
    #[arg(long, value_name = "MIB")]
    pub kv_mib: Option<u32>,
    /// How keys and values are kept.
    #[arg(long, value_name = "TYPE")]
    pub kv_type: Option<KvType>,
    /// Longest prompt plus answer, tokens; 0 = what the model was trained for.
    #[arg(long, value_name = "TOKENS")]
    pub max_context: Option<u32>,
    /// Draft tokens from what was said before: where it pays, or never. Answers are the same.
    #[arg(long, value_name = "WHEN")]
    pub speculation: Option<Speculation>,
    /// How long calls in progress may go on after SIGTERM, seconds.
    #[arg(long, value_name = "SECONDS")]
    pub grace_seconds: Option<u32>,
    /// Logs as text or JSON.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Print the settings in effect, secrets redacted, and exit.
    #[arg(long)]
    pub print_config: bool,
}

impl ServeArgs {
    /// The settings that these flags, `--log` and the environment make.
    ///
    /// # Errors
    /// A layer or a setting is at fault; the message names it.
    pub fn settings(&self, log: Option<String>) -> Result<Config, ConfigError> {
        let environment = |name: &str| std::env::var(name).ok();
        Config::load(self.config.as_deref(), environment, self.flags(log))
    }

    fn flags(&self, log: Option<String>) -> Table {
        let number = |value: u32| Value::Integer(value.into());
        let format = self.log_format.map(|format| match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        });
        let settings = [
            ("listen", "grpc", self.grpc_listen.map(|addr| Value::String(addr.to_string()))),
            ("model", "name", self.model.clone().map(Value::String)),
            ("engine", "device", self.device.map(|device| Value::String(device.to_string()))),
            (
                "engine",
                "speculation",
                self.speculation.map(|when| Value::String(when.name().to_owned())),
            ),
            ("cpu", "threads", self.threads.map(number)),
            ("cpu", "kv_mib", self.kv_mib.map(number)),
            ("cpu", "kv_type", self.kv_type.map(|kind| Value::String(kind.name().to_owned()))),
            ("cpu", "max_context", self.max_context.map(number)),
            ("drain", "grace_seconds", self.grace_seconds.map(number)),
            ("log", "format", format.map(|format| Value::String(format.to_owned()))),
            ("log", "filter", log.map(Value::String)),
        ];
        let mut flags = Table::new();
        for (section, key, value) in settings {
            let Some(value) = value else { continue };
            let section = flags.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(key.to_owned(), value);
            }
        }
        flags
    }
}

/// Serves until SIGTERM or SIGINT; returns when everything has drained. `log`: the global `--log`.
///
/// # Errors
/// Wrong settings, a port that is taken, a model that cannot be loaded.
pub fn run(args: ServeArgs, log: Option<String>) -> Result<ExitCode, Failure> {
    let config = args.settings(log).map_err(Failure::usage)?;
    if args.print_config {
        std::io::stdout().write_all(config.redacted().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init(&config.log).map_err(|error| Failure::usage(format!("{error:#}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let served = runtime.block_on(serve(config));
    // Work on blocking threads that nobody waits for any more is not waited for here either.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS).map_err(|error| {
        let failure = Failure::new(format!("{error:#}"));
        let hint = error.downcast_ref::<NotServed>().and_then(|why| why.hint.as_deref());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

async fn serve(config: Config) -> anyhow::Result<()> {
    tracing::info!(config = config.redacted(), "settings in effect");
    let (grace, keyed) = (config.grace(), !config.tenants.is_empty());
    let running = boot::start(config).await?;
    tracing::info!(addr = %running.addr(), "listening; the model is being loaded");
    let signal = tokio::select! {
        served = running.ready() => {
            std::io::stderr().write_all(banner(&running, &*served?, keyed).as_bytes())?;
            drain::signal().await?
        }
        signal = drain::signal() => signal?,
    };
    tracing::info!(signal, "told to end");
    let drained = tokio::select! {
        drained = running.drain(grace) => drained,
        // Told twice: now.
        () = impatience() => return Ok(()),
    };
    if drained.cut_off > 0 {
        tracing::warn!(calls = drained.cut_off, "the grace was over before these were done");
    }
    tracing::info!(seconds = drained.seconds, "drained");
    Ok(())
}

/// Returns when the process is told again, a while after the first time: some supervisors (`timeout` of coreutils) send
/// one signal to the process and the same to its group.
async fn impatience() {
    tokio::time::sleep(SAME_SIGNAL).await;
    if drain::signal().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What an operator wants to know, and a line to try.
fn banner(running: &Running, served: &Served, keyed: bool) -> String {
    let mut text = String::new();
    let addr = running.addr();
    let key = if keyed { "-H 'authorization: Bearer KEY' " } else { "" };
    let model = &served.name;
    let context = served.engine.max_context();
    let kv_type = served.engine.capabilities().kv_type;
    let (executor, kv) = (&served.engine.capabilities().name, served.kv_tokens());
    let _ = writeln!(
        text,
        "pith {} serves {model} on {addr} (gRPC, plaintext)",
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(
        text,
        "  context {context} tokens, KV cache {kv} tokens ({kv_type}), computed on {executor}"
    );
    let _ = writeln!(text, "  loaded in {:.1} s; try:", served.load_seconds);
    let _ = writeln!(
        text,
        "  grpcurl -plaintext {key}-d '{{\"prompt\": \"What is the capital of France?\"}}' {addr} \
         pith.v1.Inference/Generate"
    );
    text
}
