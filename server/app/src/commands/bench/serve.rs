//! `pith bench serve`: a load generator over gRPC.

use std::io::{self, Write as _};
use std::process::ExitCode;

use pith_client::{Client, Retry, v1};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::args::Prompts;
pub(super) use self::args::ServeArgs;
use self::drive::{Driven, drive};
use self::figures::Figures;
use self::load::{Load, Rate};
use self::prompts::{Set, asks};
use self::slo::Slo;
use super::process::peak_rss_mib;
use crate::commands::random::Random;
use crate::commands::{Failure, local, progress, report};
use crate::config::KvType;
use crate::{drain, hub};

mod args;
mod drive;
mod figures;
mod load;
mod page;
mod prompts;
mod record;
mod slo;
mod table;

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
            if let Some(name) = &args.isa {
                local::named_isa(name)?;
            }
            let model = args.model.as_deref().unwrap_or(hub::DEFAULT_MODEL);
            // Fetched before the server starts, so that a failure reads as what it is.
            hub::resolve(model)?;
            let config = args.settings(local::settings(model)?);
            local::with_server_of(config, async |running| {
                measure(args, &set, &args.target(&running.endpoint(), true).await?).await
            })
        }
    }?;
    if runs.is_empty() {
        return Err(Failure::new("told to end before anything was measured"));
    }
    table::print_summary(&runs)?;
    let page = || page::report(&runs);
    report::write(&runs, args.json.as_deref(), args.html.as_deref(), page)?;
    // A few refusals are a result; nothing but refusals is a failure.
    let records = || runs.iter().flat_map(|run| &run.driven.records);
    let refused = records().find_map(|record| record.outcome.as_ref().err());
    match refused {
        Some(why) if records().all(|record| record.outcome.is_err()) => {
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
