//! Whether a device computes what the CPU does: a text's tokens are given to both executors, and the logits of every token compared.
//!
//! ```sh
//! cargo run --release -p pith-engine --example agree -- MODEL --text FILE --device cuda:0 --tokens 512 --most 1.5
//! ```
//!
//! Leaves with 1 where a bound given is not kept, with 2 where nothing could be compared. `--device host` takes the host in a
//! device's place: slow, for models of a few million weights.
#![expect(clippy::print_stderr, reason = "errors of an example")]
#![expect(clippy::unwrap_used, reason = "options are read with what to say about them")]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use pith_engine::executor::Executor;
use pith_engine::executor::cpu::{CpuConfig, CpuExecutor};
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::step::{Step, StepId, StepSequence, TokenSource, Want, Wanted};
use pith_kernels::device::kv::DeviceKvKind;
use pith_kernels::device::{Device, DeviceError, cuda, host};
use pith_kernels::{Isa, Pool};
use pith_model::ModelFile;
use pith_model::tokenizer::Special;

const USAGE: &str =
    "usage: agree MODEL --text FILE [--device cuda:N|host] [--tokens N] [--chunk N] [--kv bf16|fp8]
       [--most DIFFERENCE] [--mean DIFFERENCE] [--argmax PERCENT] [--perplexity PERCENT]";

/// Tokens of a block of either cache.
const BLOCK: usize = 32;

type Failure = Box<dyn std::error::Error>;

/// What was asked for.
struct Options {
    model: PathBuf,
    text: PathBuf,
    device: String,
    /// Tokens compared, at most.
    tokens: usize,
    /// Rows of a step; 1 goes by the kernels of decode steps.
    chunk: usize,
    kv: DeviceKvKind,
    bounds: Bounds,
}

/// What is borne.
#[derive(Default)]
struct Bounds {
    /// Largest difference of a logit.
    most: Option<f64>,
    /// Mean difference of logits.
    mean: Option<f64>,
    /// Least share of tokens whose likeliest successor is the same, percent.
    argmax: Option<f64>,
    /// Largest difference of perplexities, percent of the CPU's.
    perplexity: Option<f64>,
}

fn options() -> Result<Options, Failure> {
    let mut options = Options {
        model: PathBuf::new(),
        text: PathBuf::new(),
        device: "cuda:0".to_owned(),
        tokens: 512,
        chunk: 64,
        kv: DeviceKvKind::Bf16,
        bounds: Bounds::default(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if !argument.starts_with("--") {
            options.model = argument.into();
            continue;
        }
        let value = arguments.next().ok_or(format!("{argument} takes a value"))?;
        match argument.as_str() {
            "--text" => options.text = value.into(),
            "--device" => options.device = value,
            "--tokens" => options.tokens = value.parse()?,
            "--chunk" => options.chunk = value.parse::<usize>()?.max(1),
            "--kv" if value == "bf16" => options.kv = DeviceKvKind::Bf16,
            "--kv" if value == "fp8" => options.kv = DeviceKvKind::F8,
            "--most" => options.bounds.most = Some(value.parse()?),
            "--mean" => options.bounds.mean = Some(value.parse()?),
            "--argmax" => options.bounds.argmax = Some(value.parse()?),
            "--perplexity" => options.bounds.perplexity = Some(value.parse()?),
            _ => return Err(format!("{argument} {value} is not understood").into()),
        }
    }
    match options.model.as_os_str().is_empty() || options.text.as_os_str().is_empty() {
        true => Err(USAGE.into()),
        false => Ok(options),
    }
}

fn open(name: &str) -> Result<Device, DeviceError> {
    match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
        Some(ordinal) => cuda::device(ordinal),
        None if name == "host" => Ok(host::device(2)),
        None => Err(DeviceError::Missing(format!("{name} is neither cuda:N nor host"))),
    }
}

/// The next rows of the one sequence: `ids` from position `from` on, all of which want their logits.
fn step(id: u64, ids: &[u32], from: usize, blocks: &Arc<[u32]>) -> Step {
    let positions = from..from + ids.len();
    let rows = ids.len() as u32;
    Step {
        id: StepId(id),
        tokens: ids.iter().map(|&id| TokenSource::Literal(id)).collect(),
        positions: positions.clone().map(|position| position as u32).collect(),
        slots: positions
            .map(|position| blocks[position / BLOCK] * BLOCK as u32 + (position % BLOCK) as u32)
            .collect(),
        sequences: vec![StepSequence {
            first_row: 0,
            rows,
            context: from as u32 + rows,
            blocks: Arc::clone(blocks),
            adapter: None,
            bias: Arc::new([]),
        }],
        copies: Vec::new(),
        wants: (0..rows).map(|row| (row, Want::Logits)).collect(),
    }
}

fn logits(executor: &mut dyn Executor, step: Step) -> Result<Vec<Vec<f32>>, Failure> {
    let ticket = executor.submit(step)?;
    let wanted = executor.wait(ticket)?.wanted;
    let rows = wanted.into_iter().map(|wanted| match wanted {
        Wanted::Logits(logits) => Ok(logits),
        other => Err(format!("{}: {other:?}", executor.capabilities().name).into()),
    });
    rows.collect()
}

/// The most likely token, and -ln p of `next`.
fn read(logits: &[f32], next: Option<u32>) -> (usize, f64) {
    let (best, most) = logits
        .iter()
        .enumerate()
        .fold((0, f32::MIN), |best, (at, &logit)| if logit > best.1 { (at, logit) } else { best });
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    let next = next.map_or(most, |next| logits[next as usize]);
    (best, sum.ln() - f64::from(next - most))
}

/// What the comparison came to.
#[derive(Default)]
struct Compared {
    rows: usize,
    logits: usize,
    most: f64,
    sum: f64,
    same: usize,
    /// Tokens whose successor is known, and -ln p of those by either.
    scored: usize,
    nll: [f64; 2],
}

impl Compared {
    fn add(&mut self, device: &[f32], cpu: &[f32], next: Option<u32>) {
        for (a, b) in device.iter().zip(cpu) {
            let difference = f64::from(a - b).abs();
            // Nothing is as far as what is no number.
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            self.most = self.most.max(difference);
            self.sum += difference;
        }
        self.rows += 1;
        self.logits += cpu.len();
        let [device, cpu] = [read(device, next), read(cpu, next)];
        self.same += usize::from(device.0 == cpu.0);
        if next.is_some() {
            self.scored += 1;
            self.nll[0] += device.1;
            self.nll[1] += cpu.1;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.logits.max(1) as f64
    }

    fn argmax(&self) -> f64 {
        100.0 * self.same as f64 / self.rows.max(1) as f64
    }

    fn perplexities(&self) -> [f64; 2] {
        self.nll.map(|nll| (nll / self.scored.max(1) as f64).exp())
    }

    /// Percent of the CPU's.
    fn apart(&self) -> f64 {
        let [device, cpu] = self.perplexities();
        100.0 * (device / cpu - 1.0).abs()
    }

    /// The bounds that are not kept.
    fn broken(&self, bounds: &Bounds) -> Vec<String> {
        // `!(a <= b)`: what is no number keeps no bound.
        let above = |name: &str, value: f64, bound: Option<f64>| {
            let bound = bound?;
            (value.is_nan() || value > bound).then(|| format!("{name} {value:.4} is above {bound}"))
        };
        let argmax = bounds.argmax.filter(|&bound| self.argmax() < bound);
        [
            above("the largest difference", self.most, bounds.most),
            above("the mean difference", self.mean(), bounds.mean),
            above("the difference of perplexities, percent,", self.apart(), bounds.perplexity),
            argmax.map(|bound| {
                format!("{:.2} % of argmaxes are the same, not {bound}", self.argmax())
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn compare(options: &Options) -> Result<(Compared, String), Failure> {
    let file = Arc::new(ModelFile::open(&options.model)?);
    let text = std::fs::read_to_string(&options.text)?;
    let tokenizer = file.tokenizer();
    let mut ids: Vec<u32> = tokenizer.prompt_bos().into_iter().collect();
    ids.extend(tokenizer.encode(&text, Special::Plain));
    ids.truncate(options.tokens.min(file.plan().context));
    if ids.is_empty() {
        return Err("there is no token to compare".into());
    }
    let pool = Pool::new(0);
    let blocks = ids.len().div_ceil(BLOCK) + 1;
    let per_block: usize =
        file.plan().layers.iter().map(|l| 2 * l.kv_heads * l.head_dim * 4 * BLOCK).sum();
    let kv_bytes = blocks * per_block;
    let cpu = CpuConfig::new(Isa::select()?, kv_bytes);
    let cpu = CpuConfig { block_size: BLOCK, max_rows: options.chunk, ..cpu };
    let gpu = GpuConfig {
        kv_kind: options.kv,
        kv_bytes: Some(kv_bytes),
        block_size: BLOCK,
        max_rows: options.chunk.max(64),
        ..GpuConfig::new()
    };
    let name = options.device.clone();
    let mut device =
        GpuExecutor::load(Arc::clone(&file), gpu, pool.clone(), Box::new(move || open(&name)))?;
    let mut cpu = CpuExecutor::load(&file, cpu, pool)?;
    let names = format!("{} beside {}", device.capabilities().name, cpu.capabilities().name);
    // From the last block on, so that places are not those of positions.
    let table: Arc<[u32]> = (0..blocks as u32).rev().collect();
    let mut compared = Compared::default();
    for (index, chunk) in ids.chunks(options.chunk).enumerate() {
        let from = index * options.chunk;
        let next = || step(index as u64, chunk, from, &table);
        let (a, b) = (logits(&mut device, next())?, logits(&mut cpu, next())?);
        for (row, (a, b)) in a.iter().zip(&b).enumerate() {
            compared.add(a, b, ids.get(from + row + 1).copied());
        }
    }
    Ok((compared, names))
}

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let done = options().and_then(|options| {
        let (compared, names) = compare(&options)?;
        Ok((options, compared, names))
    });
    let (options, compared, names) = match done {
        Ok(done) => done,
        Err(error) => {
            eprintln!("agree: {error}");
            return ExitCode::from(2);
        }
    };
    let [device, cpu] = compared.perplexities();
    let (rows, most, mean, argmax) =
        (compared.rows, compared.most, compared.mean(), compared.argmax());
    writeln!(out, "{names}, {rows} tokens").unwrap();
    writeln!(out, "logits differ by {most:.4} at most, {mean:.5} on average; argmax the same for {argmax:.2} %").unwrap();
    writeln!(out, "perplexity {device:.4} beside {cpu:.4}, {:.3} % apart", compared.apart())
        .unwrap();
    let broken = compared.broken(&options.bounds);
    for bound in &broken {
        writeln!(out, "beyond its bound: {bound}").unwrap();
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
