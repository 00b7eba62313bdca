//! Load time, prefill and decode rates and time to first token of the engine on one model file.
//!
//! `cargo run --release -p pith-engine --example throughput -- MODEL.gguf [threads]`

#![expect(clippy::print_stdout, reason = "its output is a table")]

use std::sync::Arc;
use std::time::Instant;

use pith_engine::executor::cpu::{CpuConfig, CpuExecutor};
use pith_engine::request::{Event, GenerateRequest, SamplingParams, StopConditions};
use pith_engine::{Engine, EngineConfig, TokenStream};
use pith_kernels::{Isa, Pool};
use pith_model::ModelFile;

const KV_BYTES: usize = 2 << 30;

fn request(id: String, prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        id,
        tenant: Arc::from("bench"),
        prompt,
        sampling: SamplingParams::default(),
        stop: StopConditions {
            max_tokens,
            min_tokens: 0,
            strings: Vec::new(),
            tokens: Vec::new(),
            ignore_end: true,
        },
        deadline: None,
        prefix_cache: false,
    }
}

/// Reads a stream to its end; seconds until its first token.
fn drain(mut stream: TokenStream, since: Instant) -> Result<f64, Box<dyn std::error::Error>> {
    let mut first = None;
    while let Some(event) = stream.next_blocking() {
        if let Event::Tokens { .. } = event? {
            first.get_or_insert_with(|| since.elapsed().as_secs_f64());
        }
    }
    Ok(first.unwrap_or_default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: throughput MODEL.gguf [threads]")?;
    let threads = args.next().map_or(Ok(0), |t| t.parse())?;

    let began = Instant::now();
    let file = Arc::new(ModelFile::open(path.as_ref())?);
    let opened = began.elapsed().as_secs_f64();
    let pool = Pool::new(threads);
    let executor = CpuExecutor::load(&file, CpuConfig::new(Isa::select()?, KV_BYTES), pool)?;
    println!("{}: {}", file.name(), pith_engine::executor::Executor::capabilities(&executor).name);
    println!("weights            {:8.1} MiB", executor.weight_bytes() as f64 / f64::from(1 << 20));
    let engine = Engine::start(Box::new(executor), file.clone(), EngineConfig::default())?;
    drain(engine.submit(request("first".to_owned(), vec![1, 2, 3, 4], 1))?, began)?;
    println!(
        "open               {opened:8.3} s\nload to 1st token  {:8.3} s",
        began.elapsed().as_secs_f64()
    );

    let vocab = file.plan().vocab as u32;
    let prompt = |salt: u32, length: u32| -> Vec<u32> {
        (0..length).map(|i| (i * 7919 + salt * 104_729) % vocab).collect()
    };
    for length in [512, 2048, 7000] {
        let began = Instant::now();
        let seconds =
            drain(engine.submit(request(format!("p{length}"), prompt(length, length), 1))?, began)?;
        println!("prefill {length:5}      {:8.1} tok/s", f64::from(length) / seconds);
    }
    for streams in [1u32, 8, 32, 64] {
        let began = Instant::now();
        let open: Result<Vec<_>, _> = (0..streams)
            .map(|s| engine.submit(request(format!("d{streams}-{s}"), prompt(s, 128), 128)))
            .collect();
        let readers: Vec<_> = open?
            .into_iter()
            .map(|s| std::thread::spawn(move || drain(s, began).map_err(|e| e.to_string())))
            .collect();
        let mut first: Vec<f64> = Vec::new();
        for reader in readers {
            first.push(reader.join().map_err(|_| "a reader panicked")??);
        }
        let total = began.elapsed().as_secs_f64();
        let last_first = first.iter().copied().fold(0.0, f64::max);
        let tokens = f64::from(streams * 128);
        println!(
            "{streams:2} x 128 in + 128 out: {:7.1} output tok/s whole run, {:7.1} after the last first token, TTFT max {:.3} s",
            tokens / total,
            f64::from(streams * 127) / (total - last_first),
            last_first
        );
    }
    Ok(())
}
