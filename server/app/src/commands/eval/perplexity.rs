//! `pith eval perplexity`
//!
//! The method of llama.cpp's `llama-perplexity`, so that figures compare: the whole text is tokenised
//! once and cut into full windows of `context` tokens. Where prompts begin with BOS, it replaces the
//! first token of each window. The second half of a window is scored, so that every token scored has at
//! least half a window before it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use pith_engine::request::ScoreRequest;
use pith_engine::{Engine, EngineConfig};
use pith_model::ModelFile;
use pith_model::tokenizer::Special;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::commands::{Failure, local};
use crate::config::{DeviceChoice, KvType};
use crate::hub;

/// Arguments of `pith eval perplexity`.
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// A UTF-8 text
    file: PathBuf,
    /// A name from `pith models`, a GGUF file or a folder of safetensors
    #[arg(long, value_name = "NAME|PATH", default_value = hub::DEFAULT_MODEL)]
    model: String,
    /// Tokens of a window; the second half is scored
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    context: u32,
    /// Most tokens computed in a step; 1 goes row by row, as decoding does
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    chunk: u32,
    /// Windows computed at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// Most windows to score; 0 is all
    #[arg(long, value_name = "N", default_value_t = 0)]
    windows: usize,
    /// What computes: auto (a graphics card if there is one), cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Instruction set: scalar, avx2, avx512 or amx (default: the fastest this machine has)
    #[arg(long)]
    isa: Option<String>,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = KvType::F16)]
    kv_type: KvType,
    /// Threads that compute; 0 is one per core allowed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    threads: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    file: PathBuf,
    perplexity: f64,
    /// Standard error of `perplexity`.
    stderr: f64,
    /// Mean of -ln p.
    nll: f64,
    /// Tokens of the text.
    text_tokens: usize,
    /// Tokens scored.
    tokens: usize,
    /// Windows scored.
    chunks: usize,
    context: usize,
    chunk: u32,
    executor: String,
    seconds: f64,
    /// Tokens computed per second.
    tokens_per_second: f64,
}

pub(super) fn run(args: PerplexityArgs) -> Result<ExitCode, Failure> {
    let text = std::fs::read_to_string(&args.file).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", args.file.display()))
            .hint("the file must be UTF-8 text")
    })?;
    let model = hub::resolve(&args.model)?;
    let config = EngineConfig {
        max_step_tokens: args.chunk as usize,
        max_running: args.parallel as usize,
        // Nobody waits: a step takes as long as its tokens do.
        max_step_seconds: 3600.0,
        prefix_cache: false,
        ..EngineConfig::default()
    };
    let settings = local::EngineSettings {
        device: args.device,
        isa: args.isa.clone(),
        threads: args.threads as usize,
        kv_type: args.kv_type,
        kv_tokens: (args.parallel as usize + 1) * (args.context as usize + 64),
        config,
    };
    let (engine, file) = local::engine(local::open(&model)?, &settings)?;
    let windows = windows(&file, &text, args.context as usize, args.windows)?;
    let text_tokens = windows.text_tokens;
    let context = args.context as usize;
    let chunks = windows.tokens.len();
    let started = Instant::now();
    let scores =
        local::block_on(score(&engine, windows.tokens, context / 2 + 1, args.parallel as usize))?;
    let seconds = started.elapsed().as_secs_f64();
    let (perplexity, stderr, nll) = perplexity(&scores);
    let measured = Measured {
        model: model.name,
        file: args.file,
        perplexity,
        stderr,
        nll,
        text_tokens,
        tokens: scores.len(),
        chunks,
        context,
        chunk: args.chunk,
        executor: engine.capabilities().name.clone(),
        seconds,
        tokens_per_second: (chunks * context) as f64 / seconds,
    };
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &measured)?;
        writeln!(stdout)?;
    } else {
        let Measured { tokens_per_second, executor, .. } = &measured;
        writeln!(
            stdout,
            "perplexity {perplexity:.4} +- {stderr:.4} over {} tokens in {chunks} windows of {context}",
            measured.tokens
        )?;
        writeln!(stdout, "{seconds:.1} s, {tokens_per_second:.0} tok/s, {executor}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A text cut into windows.
struct Windows {
    /// Tokens of the whole text.
    text_tokens: usize,
    tokens: Vec<Vec<u32>>,
}

fn windows(file: &ModelFile, text: &str, context: usize, most: usize) -> Result<Windows, Failure> {
    let tokenizer = file.tokenizer();
    let bos = tokenizer.prompt_bos();
    let mut tokens = tokenizer.encode(text, Special::Plain);
    if let Some(bos) = bos {
        tokens.insert(0, bos);
    }
    let windows = cut(&tokens, context, bos, most);
    if windows.is_empty() {
        let message =
            format!("the text has {} tokens, less than a window of {context}", tokens.len());
        return Err(Failure::new(message).hint("give a longer text or a smaller --context"));
    }
    Ok(Windows { text_tokens: tokens.len(), tokens: windows })
}

/// Full windows only; `most` = 0 is all.
fn cut(tokens: &[u32], context: usize, bos: Option<u32>, most: usize) -> Vec<Vec<u32>> {
    let most = if most == 0 { usize::MAX } else { most };
    let window = |window: &[u32]| {
        let mut window = window.to_vec();
        if let Some(bos) = bos {
            window[0] = bos;
        }
        window
    };
    tokens.chunks_exact(context).take(most).map(window).collect()
}

/// ln-probabilities of `window[from..]` of each window, `parallel` at once.
async fn score(
    engine: &Engine,
    windows: Vec<Vec<u32>>,
    from: usize,
    parallel: usize,
) -> Result<Vec<f32>, Failure> {
    let total = windows.len();
    let mut scored = vec![Vec::new(); total];
    let mut waiting = windows.into_iter().enumerate();
    let mut running = JoinSet::new();
    loop {
        while running.len() < parallel
            && let Some((index, tokens)) = waiting.next()
        {
            let engine = engine.clone();
            let request = ScoreRequest {
                tenant: "eval".into(),
                tokens,
                from,
                deadline: None,
                prefix_cache: false,
            };
            running.spawn(async move { (index, engine.score(request).await) });
        }
        let Some(done) = running.join_next().await else { break };
        let (index, result) =
            done.map_err(|error| Failure::new(format!("scoring failed: {error}")))?;
        scored[index] = result.map_err(Failure::new)?;
        tracing::info!(window = index + 1, total, "scored");
    }
    Ok(scored.concat())
}

/// exp of the mean of -ln p, its standard error, and that mean.
fn perplexity(logprobs: &[f32]) -> (f64, f64, f64) {
    let count = logprobs.len() as f64;
    let (sum, squares) = logprobs.iter().fold((0.0, 0.0), |(sum, squares), &logprob| {
        let nll = -f64::from(logprob);
        (sum + nll, squares + nll * nll)
    });
    let mean = sum / count;
    let variance = (squares / count - mean * mean).max(0.0);
    let perplexity = mean.exp();
    // The error of exp(x) is exp(x) times the error of x.
    (perplexity, (variance / (count - 1.0).max(1.0)).sqrt() * perplexity, mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_model_has_the_perplexity_of_its_vocabulary() {
        let (perplexity, stderr, nll) = perplexity(&vec![-(49_152f32.ln()); 255]);
        assert!((perplexity - 49_152.0).abs() < 1.0, "{perplexity}");
        assert!(stderr < 1.0 && (nll - 10.8).abs() < 0.1, "{stderr} {nll}");
    }

    #[test]
    fn the_error_is_that_of_a_mean() {
        // Half 1, half 3: mean 2, variance 1, so the error of the mean is 1 / sqrt(n - 1).
        let logprobs: Vec<f32> = [-1.0, -3.0].repeat(50);
        let (perplexity, stderr, _) = perplexity(&logprobs);
        assert!((perplexity - 2f64.exp()).abs() < 1e-9);
        assert!((stderr / perplexity - 1.0 / 99f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn windows_are_full_and_begin_with_bos() {
        let tokens: Vec<u32> = (10..21).collect();
        assert_eq!(cut(&tokens, 4, None, 0), [[10, 11, 12, 13], [14, 15, 16, 17]]);
        assert_eq!(cut(&tokens, 4, Some(1), 1), [[1, 11, 12, 13]]);
    }
}
