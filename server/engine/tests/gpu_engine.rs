//! Promise: an engine over a device keeps what an engine over the CPU keeps. Streams that run together, two steps in flight, get
//! what they get alone but for rounding; dropped ones leave no block behind; and a device that is lost while they
//! run ends them with an error, is brought back, and serves on.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod executor_harness;
mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use executor_harness::goldens;
use pith_engine::executor::gpu::{GpuConfig, GpuExecutor};
use pith_engine::request::{
    EngineError, Event, GenerateRequest, GeneratedToken, SamplingParams, StopConditions,
};
use pith_engine::{Engine, EngineConfig, TokenStream};
use pith_kernels::Pool;
use pith_kernels::device::Device;
use pith_kernels::device::host::HostDevice;
use pith_model::ModelFile;
use support::FakeVocabulary;

/// Largest difference of a token's ln-probability alone and in company: few rows and many are multiplied by different
/// kernels, whose sums round differently.
const TOLERANCE: f32 = 5e-2;

/// An engine on host devices, and the one in use.
fn start(blocks: usize) -> (Engine, Arc<Mutex<Arc<HostDevice>>>) {
    let golden = goldens().into_iter().find(|golden| golden.name == "llama3").unwrap();
    let file = Arc::new(ModelFile::open(&golden.model).unwrap());
    let in_use = Arc::new(Mutex::new(Arc::new(HostDevice::new(2, false))));
    let opened = Arc::clone(&in_use);
    let open = Box::new(move || {
        let device = Arc::new(HostDevice::new(2, false));
        *opened.lock().unwrap() = Arc::clone(&device);
        Ok(Device::new(device as _))
    });
    // A block of this model, of 16 tokens: two layers of 16 numbers for keys and as many for values.
    let layers = file.plan().layers.len();
    let config = GpuConfig {
        kv_bytes: Some(blocks * layers * 16 * 2 * 16 * 2),
        block_size: 16,
        max_rows: 64,
        ..GpuConfig::new()
    };
    let executor = GpuExecutor::load(file, config, Pool::new(1), open).unwrap();
    let config = EngineConfig { max_step_tokens: 0, ..EngineConfig::default() };
    let vocabulary = Arc::new(FakeVocabulary::default());
    (Engine::start(Box::new(executor), vocabulary, config).unwrap(), in_use)
}

fn request(id: usize, prompt: usize, max_tokens: u32) -> GenerateRequest {
    let prompt = (0..prompt).map(|at| (at * (id + 3) % 29 + 1) as u32).collect();
    GenerateRequest {
        id: id.to_string(),
        tenant: Arc::from("tenant"),
        prompt,
        sampling: SamplingParams { seed: Some(id as u64), ..SamplingParams::default() },
        stop: StopConditions::exactly(max_tokens),
        deadline: None,
        prefix_cache: true,
    }
}

async fn read(mut stream: TokenStream) -> Result<Vec<GeneratedToken>, EngineError> {
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        if let Event::Tokens { tokens: new, .. } = event? {
            tokens.extend(new);
        }
    }
    Ok(tokens)
}

async fn settled(engine: &Engine) {
    let until = Instant::now() + Duration::from_secs(60);
    while engine.live() > 0 || engine.load().blocks_used > 0 {
        assert!(Instant::now() < until, "{:?}", engine.load());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let load = engine.load();
    assert_eq!(load.blocks_free + load.blocks_cached, load.blocks_total);
    assert_eq!(engine.inconsistencies(), 0);
}

#[tokio::test]
async fn streams_together_get_what_they_get_alone() {
    let (engine, _) = start(64);
    let requests: Vec<GenerateRequest> = [3, 17, 40, 9, 26, 33]
        .into_iter()
        .enumerate()
        .map(|(id, len)| request(id, len, 12))
        .collect();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(read(engine.submit(request.clone()).unwrap()).await.unwrap());
    }
    settled(&engine).await;
    let streams: Vec<_> = requests
        .iter()
        .map(|request| tokio::spawn(read(engine.submit(request.clone()).unwrap())))
        .collect();
    for (stream, alone) in streams.into_iter().zip(alone) {
        let together = stream.await.unwrap().unwrap();
        assert_eq!((together.len(), alone.len()), (12, 12));
        // From the first token that rounding changes on, two answers have nothing to do with each other.
        let same = together.iter().zip(&alone).take_while(|(a, b)| a.id == b.id);
        for (a, b) in same {
            assert!((a.logprob - b.logprob).abs() < TOLERANCE, "{a:?}, alone {b:?}");
        }
        assert_eq!(together[0].id, alone[0].id);
    }
    settled(&engine).await;
}

#[tokio::test]
async fn a_pool_too_small_for_all_and_readers_that_leave_lose_no_block() {
    // Twelve blocks: three sequences of 50 tokens and more do not fit at once.
    let (engine, _) = start(12);
    for round in 0..3 {
        let mut reading = Vec::new();
        for id in 0..5 {
            let mut stream = engine.submit(request(id, 20 + 5 * id, 40)).unwrap();
            reading.push(tokio::spawn(async move {
                if (id + round) % 2 == 0 {
                    // Leaves after its first token.
                    stream.next().await.unwrap().unwrap();
                    return 40;
                }
                read(stream).await.unwrap().len()
            }));
        }
        for stream in reading {
            assert_eq!(stream.await.unwrap(), 40);
        }
        settled(&engine).await;
    }
}

#[tokio::test]
async fn a_device_lost_under_its_streams_is_brought_back() {
    let (engine, in_use) = start(64);
    let alone = read(engine.submit(request(1, 20, 8)).unwrap()).await.unwrap();
    let mut hurt = engine.submit(request(2, 20, 200)).unwrap();
    hurt.next().await.unwrap().unwrap();
    in_use.lock().unwrap().lose();
    match read(hurt).await {
        Err(EngineError::Failed(why)) => assert!(why.contains("lost"), "{why}"),
        other => panic!("{other:?}"),
    }
    let until = Instant::now() + Duration::from_secs(60);
    while !engine.healthy() {
        assert!(Instant::now() < until, "never brought back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(read(engine.submit(request(1, 20, 8)).unwrap()).await.unwrap()[0].id, alone[0].id);
    settled(&engine).await;
}
