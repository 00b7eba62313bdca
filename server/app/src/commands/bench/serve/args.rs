//! How `pith bench serve` is asked, and what follows from it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::load::{Load, Open, Rate};
use super::prompts::{Common, Set};
use super::slo::Slo;
use crate::commands::Failure;
use crate::config::{Config, DeviceChoice, KvType, Speculation};

/// Requests of a closed loop unless told otherwise: so many for each client, so that the steady window is most of it.
const REQUESTS_PER_CLIENT: u32 = 4;
/// And no fewer than these.
const FEWEST_REQUESTS: u32 = 16;
/// Requests of an open loop unless told otherwise.
const OPEN_REQUESTS: u32 = 64;
/// Most calls on one connection that a server's settings allow.
const MOST_STREAMS: u32 = 10_000;

/// Arguments of `pith bench serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A running server, http://HOST:PORT; its key is read from PITH_KEY (default: a server inside this process)
    #[arg(long, value_name = "URL", help_heading = "Server", conflicts_with_all = ["threads", "device", "isa", "kv_type", "speculation"])]
    pub(super) address: Option<String>,
    /// A name from `pith models`, a GGUF file or a folder of safetensors (default: smollm2); with --address, a model it serves
    #[arg(long, value_name = "NAME|PATH", help_heading = "Server")]
    pub(super) model: Option<String>,
    /// Threads that compute; 0 is one per core allowed
    #[arg(long, default_value_t = 0, help_heading = "Server", value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub(super) threads: u32,
    /// What computes: auto (a graphics card if there is one), cpu or cuda:N
    #[arg(long, value_name = "DEVICE", help_heading = "Server")]
    pub(super) device: Option<DeviceChoice>,
    /// Instruction set: scalar, avx2, avx512 or amx (default: the fastest this machine has)
    #[arg(long, help_heading = "Server")]
    pub(super) isa: Option<String>,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = KvType::F16, help_heading = "Server")]
    pub(super) kv_type: KvType,
    /// Whether tokens are drafted by prompt lookup
    #[arg(long, value_enum, default_value_t = Speculation::Off, help_heading = "Server")]
    pub(super) speculation: Speculation,
    /// Connections that the requests share
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Server", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) connections: u32,

    /// Closed loop: so many clients, each sends its next request when the last has ended; several values are run one
    /// after another
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) concurrency: Vec<u32>,
    /// Open loop: so many requests per second come whatever becomes of those before; inf is all at once; several
    /// values are run one after another
    #[arg(long, value_name = "R", value_delimiter = ',', conflicts_with = "concurrency", help_heading = "Load", value_parser = Rate::parse)]
    pub(super) rate: Vec<Rate>,
    /// Shape of the gamma distribution of the gaps between arrivals: 1 is a Poisson process, less comes in bursts, more
    /// is more even
    #[arg(long, value_name = "SHAPE", default_value_t = 1.0, requires = "rate", help_heading = "Load", value_parser = burstiness)]
    pub(super) burstiness: f64,
    /// Most requests of an open loop under way; later ones wait, and are timed from when they are sent
    #[arg(long, value_name = "N", requires = "rate", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) max_concurrency: Option<u32>,
    /// Requests of each run (default: 4 for each client and at least 16; of an open loop 64)
    #[arg(long, value_name = "N", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) requests: Option<u32>,
    /// Requests before each run that are not measured
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(super) warmup: u32,
    /// Prompts and arrivals are a function of it
    #[arg(long, default_value_t = 0, help_heading = "Load")]
    pub(super) seed: u64,

    /// What is asked
    #[arg(long, value_enum, default_value_t = Prompts::Random, help_heading = "Prompts")]
    pub(super) prompts: Prompts,
    /// Tokens of each prompt (after the prefix, if they share one)
    #[arg(long, value_name = "TOKENS", default_value_t = 128, help_heading = "Prompts", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) prompt_tokens: u32,
    /// Tokens of the shared prefix; each run has a prefix of its own
    #[arg(long, value_name = "TOKENS", default_value_t = 512, help_heading = "Prompts", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) prefix_tokens: u32,
    /// One prompt a line: JSON objects with `prompt` or `messages`, or plain text
    #[arg(long, value_name = "FILE", required_if_eq("prompts", "file"), help_heading = "Prompts")]
    pub(super) prompt_file: Option<PathBuf>,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 128, help_heading = "Prompts", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) output_tokens: u32,
    /// Let the model end its answers; --output-tokens is then the most
    #[arg(long, help_heading = "Prompts")]
    pub(super) natural_end: bool,
    /// Neither use nor fill the server's prefix cache
    #[arg(long, help_heading = "Prompts")]
    pub(super) no_prefix_cache: bool,

    /// Count the answers within these bounds, milliseconds: ttft:500,tpot:50,e2e:8000
    #[arg(long, value_name = "NAME:MS", help_heading = "Results")]
    pub(super) slo: Option<Slo>,
    /// Write a list of results here, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) json: Option<PathBuf>,
    /// Write a report with plots here: one page that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) html: Option<PathBuf>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Prompts {
    /// Text by chance, each prompt different
    Random,
    /// Prompts that begin alike and go on by chance
    SharedPrefix,
    /// Those of --prompt-file, through the model's chat template
    File,
}

impl ServeArgs {
    pub(super) fn loads(&self) -> Vec<Load> {
        if self.rate.is_empty() {
            let closed = |&concurrency: &u32| Load::Closed { concurrency };
            return self.concurrency.iter().map(closed).collect();
        }
        let (burstiness, max_concurrency) = (self.burstiness, self.max_concurrency);
        let open = |&rate: &Rate| Load::Open(Open { rate, burstiness, max_concurrency });
        self.rate.iter().map(open).collect()
    }

    pub(super) fn requests(&self, load: Load) -> u32 {
        self.requests.unwrap_or(match load {
            Load::Closed { concurrency } => {
                (concurrency * REQUESTS_PER_CLIENT).max(FEWEST_REQUESTS)
            }
            Load::Open(_) => OPEN_REQUESTS,
        })
    }

    pub(super) fn set(&self) -> Result<Set, Failure> {
        match (self.prompts, &self.prompt_file) {
            (Prompts::Random, None) => Ok(Set::Random),
            (Prompts::SharedPrefix, None) => Ok(Set::SharedPrefix { tokens: self.prefix_tokens }),
            (Prompts::File, Some(path)) => Set::of_file(path),
            (Prompts::File, None) => Err(Failure::usage("--prompts file needs --prompt-file")),
            (_, Some(_)) => Err(Failure::usage("--prompt-file goes with --prompts file")),
        }
    }

    pub(super) fn common(&self, model: &str) -> Common {
        Common {
            model: model.to_owned(),
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            ignore_end: !self.natural_end,
            prefix_cache: !self.no_prefix_cache,
        }
    }

    /// `config` for a server inside this process: it computes as told, and none of its bounds is in the way of the load.
    pub(super) fn settings(&self, mut config: Config) -> Config {
        let loads = self.loads();
        let most = loads.iter().map(|load| load.most_in_flight(self.requests(*load))).max();
        let most = most.unwrap_or(1);
        if self.threads > 0 {
            config.cpu.threads = self.threads as usize;
        }
        if let Some(device) = self.device {
            config.engine.device = device;
        }
        if let Some(isa) = &self.isa {
            config.cpu.isa.clone_from(isa);
        }
        // Nothing measured here embeds, and loading it would take time from what is.
        config.context.embedder.clear();
        config.cpu.kv_type = self.kv_type;
        config.engine.speculation = self.speculation;
        config.limits.max_streams = config.limits.max_streams.max(most).min(MOST_STREAMS);
        // One more for the calls of the tool itself.
        config.limits.max_in_flight = config.limits.max_in_flight.max(most as usize + 1);
        config.engine.max_waiting = config.engine.max_waiting.max(most as usize);
        config
    }
}

fn burstiness(text: &str) -> Result<f64, String> {
    let shape: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    // Smaller shapes make gaps too small for a float, larger ones an even beat.
    if (0.01..=10_000.0).contains(&shape) {
        Ok(shape)
    } else {
        Err("must be 0.01 to 10000".to_owned())
    }
}
