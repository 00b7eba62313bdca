//! `pith bench serve`: a load generator over gRPC.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use pith_client::{Client, Retry, v1};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::drive::{Driven, drive};
use self::figures::Figures;
use self::load::{Load, Open, Rate};
use self::prompts::{Common, Set, asks};
use self::slo::Slo;
use super::offline::KvType;
use super::process::peak_rss_mib;
use super::random::Random;
use super::{progress, report};
use crate::commands::{Failure, local};
use crate::config::Config;
use crate::{drain, hub};

mod drive;
mod figures;
mod load;
mod page;
mod prompts;
mod record;
mod slo;
mod table;

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
    #[arg(long, value_name = "URL", help_heading = "Server", conflicts_with_all = ["threads", "isa", "kv_type"])]
    address: Option<String>,
    /// A name from `pith models` or a GGUF file (default: smollm2); with --address, a model it serves
    #[arg(long, value_name = "NAME|FILE", help_heading = "Server")]
    model: Option<String>,
    /// Threads that compute; 0 is one per core allowed
    #[arg(long, default_value_t = 0, help_heading = "Server", value_parser = clap::value_parser!(u32).range(0..=1024))]
    threads: u32,
    /// Instruction set, scalar or avx2 (default: the fastest this machine has)
    #[arg(long, help_heading = "Server")]
    isa: Option<String>,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = KvType::F16, help_heading = "Server")]
    kv_type: KvType,
    /// Connections that the requests share
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Server", value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,

    /// Closed loop: so many clients, each sends its next request when the last has ended; several values are run one
    /// after another
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: Vec<u32>,
    /// Open loop: so many requests per second come whatever becomes of those before; inf is all at once; several
    /// values are run one after another
    #[arg(long, value_name = "R", value_delimiter = ',', conflicts_with = "concurrency", help_heading = "Load", value_parser = Rate::parse)]
    rate: Vec<Rate>,
    /// Shape of the gamma distribution of the gaps between arrivals: 1 is a Poisson process, less comes in bursts, more
    /// is more even
    #[arg(long, value_name = "SHAPE", default_value_t = 1.0, requires = "rate", help_heading = "Load", value_parser = burstiness)]
    burstiness: f64,
    /// Most requests of an open loop under way; later ones wait, and are timed from when they are sent
    #[arg(long, value_name = "N", requires = "rate", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_concurrency: Option<u32>,
    /// Requests of each run (default: 4 for each client and at least 16; of an open loop 64)
    #[arg(long, value_name = "N", help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: Option<u32>,
    /// Requests before each run that are not measured
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    warmup: u32,
    /// Prompts and arrivals are a function of it
    #[arg(long, default_value_t = 0, help_heading = "Load")]
    seed: u64,

    /// What is asked
    #[arg(long, value_enum, default_value_t = Prompts::Random, help_heading = "Prompts")]
    prompts: Prompts,
    /// Tokens of each prompt (after the prefix, if they share one)
    #[arg(long, value_name = "TOKENS", default_value_t = 128, help_heading = "Prompts", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: u32,
    /// Tokens of the shared prefix; each run has a prefix of its own
    #[arg(long, value_name = "TOKENS", default_value_t = 512, help_heading = "Prompts", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prefix_tokens: u32,
    /// One prompt a line: JSON objects with `prompt` or `messages`, or plain text
    #[arg(long, value_name = "FILE", required_if_eq("prompts", "file"), help_heading = "Prompts")]
    prompt_file: Option<PathBuf>,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 128, help_heading = "Prompts", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    output_tokens: u32,
    /// Let the model end its answers; --output-tokens is then the most
    #[arg(long, help_heading = "Prompts")]
    natural_end: bool,
    /// Neither use nor fill the server's prefix cache
    #[arg(long, help_heading = "Prompts")]
    no_prefix_cache: bool,

    /// Count the answers within these bounds, milliseconds: ttft:500,tpot:50,e2e:8000
    #[arg(long, value_name = "NAME:MS", help_heading = "Results")]
    slo: Option<Slo>,
    /// Write a list of results here, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    json: Option<PathBuf>,
    /// Write a report with plots here: one page that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    html: Option<PathBuf>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Prompts {
    /// Text by chance, each prompt different
    Random,
    /// Prompts that begin alike and go on by chance
    SharedPrefix,
    /// Those of --prompt-file, through the model's chat template
    File,
}

/// What is measured, and on whose cores.
#[derive(Debug)]
struct Target {
    clients: Vec<Client>,
    model: v1::Model,
    /// A server inside this process: its memory is ours.
    own: bool,
}

/// A run and what it came to.
#[derive(Debug, Serialize)]
struct Run {
    model: String,
    executor: String,
    /// Null for a server elsewhere, which does not say.
    kv_type: Option<KvType>,
    /// Null for a server inside this process.
    address: Option<String>,
    connections: u32,
    /// Null for open loops.
    concurrency: Option<u32>,
    /// Null for closed loops; "inf" for all at once.
    request_rate_per_s: Option<Rate>,
    burstiness: Option<f64>,
    max_concurrency: Option<u32>,
    requests: u32,
    warmup: u32,
    seed: u64,
    prompts: Prompts,
    /// As asked for; null for a file's.
    prompt_tokens: Option<u32>,
    prefix_tokens: Option<u32>,
    output_tokens: u32,
    ignore_end: bool,
    prefix_cache: bool,
    slo: Option<Slo>,
    #[serde(flatten)]
    figures: Figures,
    /// Most memory this process ever held, server and load generator together; null for a server elsewhere.
    peak_rss_mib: Option<f64>,
    #[serde(skip)]
    load: Load,
    #[serde(skip)]
    driven: Driven,
}

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let set = args.set()?;
    let runs = match &args.address {
        Some(address) => local::block_on(async {
            measure(args, &set, &args.target(address, false).await?).await
        }),
        None => {
            let model = args.model.as_deref().unwrap_or(hub::DEFAULT_MODEL);
            // Fetched before the server starts, so that a failure reads as what it is.
            hub::resolve(model)?;
            if let Some(name) = &args.isa {
                local::named_isa(name)?;
            }
            let config = args.settings(local::settings(model)?);
            local::with_server_of(config, async |running| {
                measure(args, &set, &args.target(&running.endpoint(), true).await?).await
            })
        }
    }?;
    table::print_summary(&runs)?;
    let page = || page::report(&runs);
    report::write(&runs, args.json.as_deref(), args.html.as_deref(), page)?;
    // A run without a single answer is a failed one; a few refusals are a result.
    let failed = runs.iter().filter(|run| run.figures.completed == 0);
    match failed
        .flat_map(|run| &run.driven.records)
        .find_map(|record| record.outcome.as_ref().err())
    {
        Some(why) if runs.iter().all(|run| run.figures.completed == 0) => {
            Err(Failure::new(format!("no request was answered: {} ({})", why.message, why.status)))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Runs every load in turn, until the process is told to end.
async fn measure(args: &ServeArgs, set: &Set, target: &Target) -> Result<Vec<Run>, Failure> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        if drain::signal().await.is_ok() {
            told.cancel();
        }
    });
    print_head(args, target)?;
    let mut runs = Vec::new();
    for (index, load) in args.loads().into_iter().enumerate() {
        let one = one(args, set, target, load, index, &stop);
        // Told before this run had begun: those before it stand.
        let Some(run) = one.await? else { break };
        table::print(&run)?;
        runs.push(run);
    }
    Ok(runs)
}

/// One run; `None` if it was told to stop before it began.
async fn one(
    args: &ServeArgs,
    set: &Set,
    target: &Target,
    load: Load,
    index: usize,
    stop: &CancellationToken,
) -> Result<Option<Run>, Failure> {
    let Some(client) = target.clients.first() else { return Ok(None) };
    let requests = args.requests(load);
    let mut random = Random::new(args.seed, index as u64);
    let common = args.common(&target.model.name);
    let count = (requests + args.warmup) as usize;
    let vocab = target.model.vocab_size;
    let writing = asks(client, vocab, set, &common, count, &mut random);
    let Some(asked) = stop.run_until_cancelled(writing).await else { return Ok(None) };
    let mut asked = asked?;
    let warmup = asked.split_off(requests as usize);
    let warm = Load::Closed { concurrency: load.most_in_flight(args.warmup) };
    drive(&target.clients, warmup, warm, &mut random, stop, || {}).await;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let bar = progress::bar(&load.to_string(), requests.into());
    let driven = drive(&target.clients, asked, load, &mut random, stop, || bar.inc(1)).await;
    bar.finish_and_clear();
    let figures = Figures::new(&driven, load, args.slo);
    tracing::info!(%load, seconds = figures.seconds, completed = figures.completed, "run");
    Ok(Some(args.result(target, load, figures, driven)))
}

impl ServeArgs {
    fn loads(&self) -> Vec<Load> {
        if self.rate.is_empty() {
            let closed = |&concurrency: &u32| Load::Closed { concurrency };
            return self.concurrency.iter().map(closed).collect();
        }
        let (burstiness, max_concurrency) = (self.burstiness, self.max_concurrency);
        let open = |&rate: &Rate| Load::Open(Open { rate, burstiness, max_concurrency });
        self.rate.iter().map(open).collect()
    }

    fn requests(&self, load: Load) -> u32 {
        self.requests.unwrap_or(match load {
            Load::Closed { concurrency } => {
                (concurrency * REQUESTS_PER_CLIENT).max(FEWEST_REQUESTS)
            }
            Load::Open(_) => OPEN_REQUESTS,
        })
    }

    fn set(&self) -> Result<Set, Failure> {
        match (self.prompts, &self.prompt_file) {
            (Prompts::Random, None) => Ok(Set::Random),
            (Prompts::SharedPrefix, None) => Ok(Set::SharedPrefix { tokens: self.prefix_tokens }),
            (Prompts::File, Some(path)) => Set::of_file(path),
            (Prompts::File, None) => Err(Failure::usage("--prompts file needs --prompt-file")),
            (_, Some(_)) => Err(Failure::usage("--prompt-file goes with --prompts file")),
        }
    }

    fn common(&self, model: &str) -> Common {
        Common {
            model: model.to_owned(),
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            ignore_end: !self.natural_end,
            prefix_cache: !self.no_prefix_cache,
        }
    }

    /// `config` for a server inside this process: it computes as told, and none of its bounds is in the way of the load.
    fn settings(&self, mut config: Config) -> Config {
        let loads = self.loads();
        let most = loads.iter().map(|load| load.most_in_flight(self.requests(*load))).max();
        let most = most.unwrap_or(1);
        if self.threads > 0 {
            config.cpu.threads = self.threads as usize;
        }
        if let Some(isa) = &self.isa {
            config.cpu.isa.clone_from(isa);
        }
        config.limits.max_streams = config.limits.max_streams.max(most).min(MOST_STREAMS);
        // One more for the calls of the tool itself.
        config.limits.max_in_flight = config.limits.max_in_flight.max(most as usize + 1);
        config.engine.max_waiting = config.engine.max_waiting.max(most as usize);
        config
    }

    /// Connects to `endpoint` and looks what it serves. Refusals are results, so nothing is tried again.
    async fn target(&self, endpoint: &str, own: bool) -> Result<Target, Failure> {
        let key = std::env::var("PITH_KEY").ok().filter(|key| !own && !key.is_empty());
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            let mut connect = Client::connect(endpoint).retry(Retry::never());
            if let Some(key) = &key {
                connect = connect.key(key);
            }
            clients.push(connect.await?);
        }
        let models = match clients.first() {
            Some(client) => client.models().await?,
            None => Vec::new(),
        };
        // A server inside this process was told its model; the name it serves under may be another (a file's).
        let wanted = self.model.as_ref().filter(|_| !own);
        let asked = |model: &v1::Model| wanted.is_none_or(|name| *name == model.name);
        let Some(model) = models.into_iter().find(asked) else {
            let name = wanted.map_or("any model", String::as_str);
            return Err(Failure::new(format!("the server does not serve {name}"))
                .hint("leave --model out to use the one that is served"));
        };
        Ok(Target { clients, model, own })
    }

    fn result(&self, target: &Target, load: Load, figures: Figures, driven: Driven) -> Run {
        let (concurrency, open) = match load {
            Load::Closed { concurrency } => (Some(concurrency), None),
            Load::Open(open) => (None, Some(open)),
        };
        let made = self.prompts != Prompts::File;
        Run {
            model: target.model.name.clone(),
            executor: target.model.executor.clone(),
            kv_type: target.own.then_some(self.kv_type),
            address: self.address.clone(),
            connections: self.connections,
            concurrency,
            request_rate_per_s: open.map(|open| open.rate),
            burstiness: open.map(|open| open.burstiness),
            max_concurrency: open.and_then(|open| open.max_concurrency),
            requests: self.requests(load),
            warmup: self.warmup,
            seed: self.seed,
            prompts: self.prompts,
            prompt_tokens: made.then_some(self.prompt_tokens),
            prefix_tokens: (self.prompts == Prompts::SharedPrefix).then_some(self.prefix_tokens),
            output_tokens: self.output_tokens,
            ignore_end: !self.natural_end,
            prefix_cache: !self.no_prefix_cache,
            slo: self.slo,
            figures,
            peak_rss_mib: peak_rss_mib().filter(|_| target.own),
            load,
            driven,
        }
    }
}

impl Run {
    /// What was asked, for people.
    fn asked(&self) -> String {
        let prompts = match (self.prompts, self.prompt_tokens, self.prefix_tokens) {
            (Prompts::SharedPrefix, Some(own), Some(shared)) => {
                format!("{shared} shared + {own} own prompt tokens")
            }
            (_, Some(tokens), _) => format!("{tokens} prompt tokens"),
            (_, None, _) => "prompts of a file".to_owned(),
        };
        let most = if self.ignore_end { "" } else { "at most " };
        let cache = if self.prefix_cache { "on" } else { "off" };
        format!("{prompts}, {most}{} output tokens, prefix cache {cache}", self.output_tokens)
    }
}

fn print_head(args: &ServeArgs, target: &Target) -> Result<(), Failure> {
    let v1::Model { name, executor, .. } = &target.model;
    let place = match &args.address {
        Some(address) => format!("at {address}"),
        None => format!("KV {}, served by this process", args.kv_type.name()),
    };
    writeln!(io::stdout().lock(), "{name}, {executor}, {place}")?;
    Ok(())
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
