//! `pith bench offline`

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use pith_engine::{Engine, EngineConfig};
use pith_model::ModelFile;
use pith_model::random::Shape;
use serde::Serialize;

use super::process::peak_rss_mib;
use super::run::{self, Run};
use crate::commands::quantile::median;
use crate::commands::{Failure, local, progress, report};
use crate::config::{DeviceChoice, KvType, Speculation};
use crate::hub::{self, Resolved};

mod page;

/// Arguments of `pith bench offline`.
#[derive(Debug, Args)]
pub struct OfflineArgs {
    /// A name from `pith models`, a GGUF file or a folder of safetensors
    #[arg(long, value_name = "NAME|PATH", default_value = hub::DEFAULT_MODEL, group = "weights")]
    model: String,
    /// Instead of a model: random weights of a known shape, made in memory
    #[arg(long, value_name = "SHAPE", group = "weights", value_parser = shape)]
    random_weights: Option<Shape>,
    /// Tokens of each prompt; several values are run one after another
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "128", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: Vec<u32>,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "128", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    output_tokens: Vec<u32>,
    /// Requests that begin together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=4096))]
    streams: Vec<u32>,
    /// Runs of each combination; the median is printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Threads that compute; 0 is one per core allowed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    threads: u32,
    /// What computes: auto (a graphics card if there is one), cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Instruction set: scalar, avx2, avx512 or amx (default: the fastest this machine has)
    #[arg(long)]
    isa: Option<String>,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = KvType::F16)]
    kv_type: KvType,
    /// Draft tokens from what was said before: where it pays (auto), or never
    #[arg(long, value_enum, default_value_t = Speculation::Off)]
    speculation: Speculation,
    /// Write a list of results here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots here: one page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What a combination came to: medians over its runs.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    /// The model is a shape; what it says means nothing.
    random_weights: bool,
    executor: String,
    kv_type: KvType,
    speculation: Speculation,
    prompt_tokens: u32,
    output_tokens: u32,
    streams: u32,
    repeat: u32,
    /// Seconds from opening the file to the engine's first token, with the file in the system's cache or not; of random
    /// weights, from beginning to make them.
    load_s: f64,
    seconds: f64,
    prefill_tokens_per_s: f64,
    /// While all streams decode; null if they never all do.
    decode_tokens_per_s: Option<f64>,
    output_tokens_per_s: f64,
    ttft_ms_p50: f64,
    ttft_ms_p99: f64,
    itl_ms_p50: Option<f64>,
    itl_ms_p99: Option<f64>,
    /// Share of the run's time in which the executor computed; the rest went by between its steps.
    busy_share: f64,
    /// Most memory the process ever held, this combination included.
    peak_rss_mib: Option<f64>,
    /// Tokens drafted over all runs, and those of them that were right.
    draft_tokens: u64,
    accepted_draft_tokens: u64,
}

pub(super) fn run(args: &OfflineArgs) -> Result<ExitCode, Failure> {
    let weights = match args.random_weights {
        Some(shape) => Weights::Random(shape),
        None => Weights::Stored(hub::resolve(&args.model)?),
    };
    let most = |values: &[u32]| values.iter().copied().max().unwrap_or(1) as usize;
    let streams = most(&args.streams);
    let tokens = most(&args.prompt_tokens) + most(&args.output_tokens);
    let config = EngineConfig {
        max_running: streams.max(1),
        max_step_tokens: 0,
        speculation: args.speculation.into(),
        ..EngineConfig::default()
    };
    let settings = local::EngineSettings {
        device: args.device,
        isa: args.isa.clone(),
        threads: args.threads as usize,
        kv_type: args.kv_type,
        kv_tokens: streams * tokens.next_multiple_of(64) + 1024,
        config,
    };
    let began = Instant::now();
    let file = weights.open()?;
    let name = weights.name(&file);
    let (engine, _file) = local::engine(file, &settings)?;
    local::block_on(async {
        let first = run::Shape { prompt_tokens: 4, output_tokens: 1, streams: 1 };
        Run::measure(&engine, first, 0).await?;
        let load_s = began.elapsed().as_secs_f64();
        print_head(&name, &engine, args, load_s)?;
        let mut results = Vec::new();
        for &prompt_tokens in &args.prompt_tokens {
            for &output_tokens in &args.output_tokens {
                for &streams in &args.streams {
                    let shape = run::Shape { prompt_tokens, output_tokens, streams };
                    let runs = runs(&engine, shape, args.repeat).await?;
                    let measured = measured(&name, &engine, args, shape, load_s, &runs);
                    print_row(&measured)?;
                    results.push(measured);
                }
            }
        }
        let page = || page::report(&results);
        report::write(&results, args.json.as_deref(), args.html.as_deref(), page)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What is measured.
enum Weights {
    Stored(Resolved),
    Random(Shape),
}

impl Weights {
    fn open(&self) -> Result<ModelFile, Failure> {
        match self {
            Self::Stored(model) => local::open(model),
            Self::Random(shape) => ModelFile::random(*shape).map_err(Failure::new),
        }
    }

    fn name(&self, file: &ModelFile) -> String {
        match self {
            Self::Stored(model) => model.name.clone(),
            Self::Random(_) => file.name().to_owned(),
        }
    }
}

/// The shape of `--random-weights`.
pub(super) fn shape(name: &str) -> Result<Shape, String> {
    Shape::named(name).ok_or_else(|| {
        format!("no shape of that name; there are {}", Shape::ALL.map(Shape::name).join(", "))
    })
}

async fn runs(engine: &Engine, shape: run::Shape, repeat: u32) -> Result<Vec<Run>, Failure> {
    let run::Shape { prompt_tokens, output_tokens, streams } = shape;
    let label = format!("{streams} x ({prompt_tokens} + {output_tokens})");
    let bar = progress::bar(&label, repeat.into());
    let mut runs = Vec::new();
    for n in 0..repeat {
        let run = Run::measure(engine, shape, u64::from(n) + 1).await?;
        tracing::info!(?shape, n, seconds = run.seconds(), "run");
        runs.push(run);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(runs)
}

fn measured(
    model: &str,
    engine: &Engine,
    args: &OfflineArgs,
    shape: run::Shape,
    load_s: f64,
    runs: &[Run],
) -> Measured {
    let over = |figure: &dyn Fn(&Run) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    let some = |value: f64| value.is_finite().then_some(value);
    Measured {
        model: model.to_owned(),
        random_weights: args.random_weights.is_some(),
        executor: engine.capabilities().name.clone(),
        kv_type: args.kv_type,
        speculation: args.speculation,
        prompt_tokens: shape.prompt_tokens,
        output_tokens: shape.output_tokens,
        streams: shape.streams,
        repeat: args.repeat,
        load_s,
        seconds: over(&Run::seconds),
        prefill_tokens_per_s: over(&Run::prefill_tokens_per_s),
        decode_tokens_per_s: some(over(&Run::decode_tokens_per_s)),
        output_tokens_per_s: over(&Run::output_tokens_per_s),
        ttft_ms_p50: over(&|run| run.ttft_ms(0.5)),
        ttft_ms_p99: over(&|run| run.ttft_ms(0.99)),
        itl_ms_p50: some(over(&|run| run.itl_ms(0.5))),
        itl_ms_p99: some(over(&|run| run.itl_ms(0.99))),
        busy_share: over(&Run::busy_share),
        peak_rss_mib: peak_rss_mib(),
        draft_tokens: runs.iter().map(|run| run.draft_tokens).sum(),
        accepted_draft_tokens: runs.iter().map(|run| run.accepted_draft_tokens).sum(),
    }
}

fn print_head(
    model: &str,
    engine: &Engine,
    args: &OfflineArgs,
    load_s: f64,
) -> Result<(), Failure> {
    let executor = &engine.capabilities().name;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{model}, {executor}, KV {}, speculation {}, loaded in {load_s:.2} s; medians of {}",
        args.kv_type.name(),
        args.speculation.name(),
        args.repeat
    )?;
    writeln!(
        out,
        "{:>7} {:>7} {:>7} {:>10} {:>10} {:>10} {:>9} {:>9} {:>8} {:>8} {:>6} {:>8} {:>8}",
        "prompt",
        "output",
        "streams",
        "prefill/s",
        "decode/s",
        "output/s",
        "TTFT p50",
        "TTFT p99",
        "ITL p50",
        "ITL p99",
        "busy",
        "RSS MiB",
        "accepted"
    )?;
    Ok(())
}

fn print_row(measured: &Measured) -> Result<(), Failure> {
    let ms = |value: f64| format!("{value:.0} ms");
    writeln!(
        io::stdout().lock(),
        "{:>7} {:>7} {:>7} {:>10} {:>10} {:>10} {:>9} {:>9} {:>8} {:>8} {:>6} {:>8} {:>8}",
        measured.prompt_tokens,
        measured.output_tokens,
        measured.streams,
        figure(Some(measured.prefill_tokens_per_s)),
        figure(measured.decode_tokens_per_s),
        figure(Some(measured.output_tokens_per_s)),
        ms(measured.ttft_ms_p50),
        ms(measured.ttft_ms_p99),
        figure(measured.itl_ms_p50),
        figure(measured.itl_ms_p99),
        format!("{:.0} %", 100.0 * measured.busy_share),
        measured.peak_rss_mib.map_or("-".to_owned(), |mib| format!("{mib:.0}")),
        accepted(measured),
    )?;
    Ok(())
}

/// How much of what was drafted was accepted.
fn accepted(measured: &Measured) -> String {
    match measured.draft_tokens {
        0 => "-".to_owned(),
        drafted => {
            format!("{:.0} %", 100.0 * measured.accepted_draft_tokens as f64 / drafted as f64)
        }
    }
}

/// One digit after the point, or a dash for what there is none of.
fn figure(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1}"))
}
