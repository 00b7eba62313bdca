//! Promise: a request ends when it should (length, stop, abort, deadline, a reader that leaves, a failure),
//! and leaves nothing behind: no block, no thread, no neighbour hurt.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pith_engine::request::{
    EngineError, Event, Finish, FinishReason, GenerateRequest, SamplingParams, ScoreRequest,
    StopConditions, SubmitError,
};
use pith_engine::{Engine, EngineConfig, ScoreError, TokenStream};
use support::{FakeExecutor, FakeVocabulary, Probe, alone, likelihood};

fn start(blocks: usize, config: EngineConfig) -> (Engine, Arc<Probe>) {
    let (executor, probe) = FakeExecutor::new(blocks, 4, 1);
    (Engine::start(Box::new(executor), Arc::new(FakeVocabulary::default()), config).unwrap(), probe)
}

fn request(id: &str, prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        id: id.to_owned(),
        tenant: Arc::from("tenant"),
        prompt,
        sampling: SamplingParams::default(),
        stop: StopConditions {
            max_tokens,
            min_tokens: 0,
            strings: Vec::new(),
            tokens: Vec::new(),
            ignore_end: false,
        },
        deadline: None,
        prefix_cache: true,
    }
}

/// A prompt whose answer runs for at least `tokens` tokens.
fn long_prompt(length: u32, tokens: usize) -> Vec<u32> {
    (0..)
        .map(|salt| (0..length).map(|i| (i * 7 + salt) % 900 + 50).collect::<Vec<_>>())
        .find(|p| alone(p, tokens, &[7]).len() == tokens && !alone(p, tokens, &[7]).contains(&7))
        .unwrap()
}

struct Answer {
    text: String,
    tokens: Vec<u32>,
    end: Result<Finish, EngineError>,
}

async fn read(mut stream: TokenStream) -> Answer {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        match stream.next().await.unwrap() {
            Ok(Event::Tokens { text: more, tokens: new }) => {
                text.push_str(&more);
                tokens.extend(new.iter().map(|t| t.id));
            }
            Ok(Event::Finished(finish)) => {
                assert!(stream.next().await.is_none());
                return Answer { text, tokens, end: Ok(finish) };
            }
            Err(error) => return Answer { text, tokens, end: Err(error) },
        }
    }
}

/// Waits until nothing is live; every block is then free or cached, and the books balance.
async fn settled(engine: &Engine) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let load = engine.load();
        if engine.live() == 0 && load.blocks_used == 0 && load.running == 0 {
            assert_eq!(load.blocks_free + load.blocks_cached, load.blocks_total);
            assert_eq!((load.waiting, engine.inconsistencies()), (0, 0));
            return;
        }
        assert!(Instant::now() < until, "not settled: {} live, {load:?}", engine.live());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn shown(tokens: &[u32]) -> String {
    tokens.iter().map(|t| format!("<{t}>")).collect()
}

#[tokio::test]
async fn an_answer_of_full_length_is_what_the_model_says() {
    let (engine, _) = start(64, EngineConfig::default());
    let prompt = long_prompt(10, 20);
    let want = alone(&prompt, 20, &[7]);
    let answer = read(engine.submit(request("a", prompt, 20)).unwrap()).await;
    assert_eq!((answer.tokens.as_slice(), answer.text), (want.as_slice(), shown(&want)));
    let finish = answer.end.unwrap();
    assert_eq!(
        (finish.reason, finish.prompt_tokens, finish.completion_tokens),
        (FinishReason::Length, 10, 20)
    );
    settled(&engine).await;
}

#[tokio::test]
async fn stop_strings_stop_tokens_and_end_tokens_end_the_text_before_themselves() {
    let (engine, _) = start(64, EngineConfig::default());
    let prompt = long_prompt(10, 20);
    let want = alone(&prompt, 20, &[7]);

    let mut by_string = request("s", prompt.clone(), 20);
    by_string.stop.strings = vec![format!("{}><{}", want[4], want[5])];
    let answer = read(engine.submit(by_string.clone()).unwrap()).await;
    assert_eq!(answer.text, format!("{}<", shown(&want[..4])));
    assert_eq!(
        answer.end.unwrap().reason,
        FinishReason::StopString(by_string.stop.strings[0].clone())
    );

    let mut by_token = request("t", prompt.clone(), 20);
    by_token.stop.tokens = vec![want[6]];
    let answer = read(engine.submit(by_token).unwrap()).await;
    assert_eq!((answer.text, answer.tokens.len()), (shown(&want[..6]), 7));
    assert_eq!(answer.end.unwrap().reason, FinishReason::StopToken(want[6]));

    // Held back, the stop token cannot be chosen before min_tokens.
    let mut held_back = request("m", prompt, 20);
    held_back.stop.tokens = vec![want[6]];
    held_back.stop.min_tokens = 10;
    let answer = read(engine.submit(held_back).unwrap()).await;
    assert_eq!(answer.tokens[..6], want[..6]);
    assert_ne!(answer.tokens[6], want[6]);
    assert!(answer.tokens.len() >= 10);
    settled(&engine).await;
}

#[tokio::test]
async fn a_dropped_stream_frees_its_blocks_in_queue_prefill_and_decode() {
    let config = EngineConfig { max_running: 1, ..EngineConfig::default() };
    let (engine, probe) = start(600, config);
    probe.sleep_us.store(2000, Ordering::Relaxed);
    let mut decoding = engine.submit(request("decode", long_prompt(20, 1500), 1500)).unwrap();
    decoding.next().await.unwrap().unwrap();
    let queued = engine.submit(request("queue", vec![1; 30], 5)).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(engine.load().waiting, 1);
    drop(queued);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(engine.load().waiting, 0);

    let steps = engine.load().steps;
    drop(decoding);
    settled(&engine).await;
    let more = engine.load().steps - steps;
    assert!(more <= 2, "{more} steps after the drop");

    let prefilling =
        engine.submit(request("prefill", (0..2000).map(|i| i % 900).collect(), 5)).unwrap();
    tokio::time::sleep(Duration::from_millis(15)).await;
    let computed = probe.rows.load(Ordering::Relaxed);
    drop(prefilling);
    settled(&engine).await;
    assert!(
        probe.rows.load(Ordering::Relaxed) - computed < 1000,
        "the prefill went on without a reader"
    );
}

#[tokio::test]
async fn a_thousand_cancels_at_random_moments_leave_nothing() {
    let (engine, _) = start(200, EngineConfig::default());
    let mut seed = 12345u64;
    let mut random = move |n: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    let mut open: Vec<TokenStream> = Vec::new();
    for n in 0..1000 {
        let prompt: Vec<u32> = (0..1 + random(100)).map(|_| random(900) as u32 + 50).collect();
        open.push(engine.submit(request(&n.to_string(), prompt, 1 + random(200) as u32)).unwrap());
        if random(3) == 0 {
            let at = random(open.len() as u64) as usize;
            for _ in 0..random(4) {
                drop(tokio::time::timeout(Duration::from_micros(300), open[at].next()).await);
            }
        }
        while open.len() > random(12) as usize {
            let at = random(open.len() as u64) as usize;
            drop(open.swap_remove(at));
        }
    }
    drop(open);
    settled(&engine).await;
}

#[tokio::test]
async fn deadlines_hold_in_queue_and_while_decoding() {
    let (engine, probe) = start(600, EngineConfig { max_running: 1, ..EngineConfig::default() });
    probe.sleep_us.store(1000, Ordering::Relaxed);
    let mut first = request("decode", long_prompt(20, 1500), 1500);
    first.deadline = Some(Instant::now() + Duration::from_millis(60));
    let mut second = request("queue", vec![1; 30], 5);
    second.deadline = Some(Instant::now() + Duration::from_millis(20));
    let first = engine.submit(first).unwrap();
    let second = engine.submit(second).unwrap();
    let began = Instant::now();
    let (first, second) = tokio::join!(read(first), read(second));
    assert_eq!(first.end, Err(EngineError::DeadlineExceeded));
    assert!(!first.tokens.is_empty());
    assert_eq!((second.end, second.tokens.len()), (Err(EngineError::DeadlineExceeded), 0));
    assert!(began.elapsed() < Duration::from_secs(2));
    settled(&engine).await;
}

#[tokio::test]
async fn abort_ends_a_stream_of_that_tenant_only() {
    let (engine, probe) = start(600, EngineConfig::default());
    probe.sleep_us.store(500, Ordering::Relaxed);
    let stream = engine.submit(request("a", long_prompt(20, 1500), 1500)).unwrap();
    assert!(matches!(engine.submit(request("a", vec![1], 1)), Err(SubmitError::DuplicateId(_))));
    assert!(!engine.abort("other", "a"));
    assert!(engine.abort("tenant", "a"));
    assert_eq!(read(stream).await.end.unwrap().reason, FinishReason::Aborted);
    assert!(!engine.abort("tenant", "a"));
    read(engine.submit(request("a", vec![1], 1)).unwrap()).await.end.unwrap();
    settled(&engine).await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_stalls_nobody_else() {
    let (engine, _) = start(1000, EngineConfig::default());
    let slow = engine.submit(request("slow", long_prompt(10, 1000), 1000)).unwrap();
    let prompt = long_prompt(11, 600);
    let quick = read(engine.submit(request("quick", prompt.clone(), 600)).unwrap()).await;
    assert_eq!(quick.tokens, alone(&prompt, 600, &[7]));
    tokio::time::sleep(Duration::from_millis(30)).await;
    // The slow one's sequence paused; it was not generated into the void.
    let generated = engine.load().generated_tokens;
    assert!(generated < 600 + 400, "{generated} tokens generated");
    // Once read, it goes on to its end, nothing lost.
    assert_eq!(read(slow).await.tokens.len(), 1000);
    settled(&engine).await;
}

#[tokio::test]
async fn a_failed_step_ends_its_streams_and_the_engine_carries_on() {
    let (engine, probe) = start(200, EngineConfig::default());
    probe.sleep_us.store(500, Ordering::Relaxed);
    for plant in [&probe.fail_steps, &probe.panic_steps] {
        let mut stream = engine.submit(request("hurt", long_prompt(20, 500), 500)).unwrap();
        stream.next().await.unwrap().unwrap();
        plant.store(1, Ordering::Relaxed);
        assert!(matches!(read(stream).await.end, Err(EngineError::Failed(_))));
        let prompt = long_prompt(20, 30);
        let answer = read(engine.submit(request("next", prompt.clone(), 30)).unwrap()).await;
        assert_eq!(answer.tokens, alone(&prompt, 30, &[7]), "stale KV after a failure");
        assert!(engine.healthy());
        settled(&engine).await;
    }
}

#[tokio::test]
async fn an_executor_that_keeps_failing_is_reported_unhealthy() {
    let (engine, probe) = start(200, EngineConfig::default());
    probe.fail_steps.store(3, Ordering::Relaxed);
    for n in 0..3 {
        let answer = read(engine.submit(request(&n.to_string(), vec![1, 2, 3], 5)).unwrap()).await;
        assert!(matches!(answer.end, Err(EngineError::Failed(_))));
    }
    assert!(!engine.healthy());
    assert!(matches!(engine.submit(request("late", vec![1], 1)), Err(SubmitError::Unavailable)));
}

#[tokio::test]
async fn a_lost_device_ends_every_stream_and_is_brought_back() {
    let (engine, probe) = start(200, EngineConfig::default());
    probe.sleep_us.store(500, Ordering::Relaxed);
    let mut stream = engine.submit(request("hurt", long_prompt(20, 500), 500)).unwrap();
    stream.next().await.unwrap().unwrap();
    let waiting = engine.submit(request("waiting", long_prompt(21, 500), 500)).unwrap();
    probe.vain_revivals.store(1, Ordering::Relaxed);
    probe.lost.store(true, Ordering::Relaxed);
    for stream in [stream, waiting] {
        match read(stream).await.end {
            Err(EngineError::Failed(why)) => assert!(why.contains("lost"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    // The first look is in vain: until the next nobody is let in, and health says so.
    assert!(!engine.healthy());
    assert!(matches!(engine.submit(request("late", vec![1], 1)), Err(SubmitError::Unavailable)));
    let begun = std::time::Instant::now();
    while !engine.healthy() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never brought back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let prompt = long_prompt(20, 30);
    let answer = read(engine.submit(request("next", prompt.clone(), 30)).unwrap()).await;
    assert_eq!(answer.tokens, alone(&prompt, 30, &[7]), "stale KV after a loss");
    settled(&engine).await;
}

#[tokio::test]
async fn the_queue_is_bounded_and_bad_requests_never_reach_it() {
    let config = EngineConfig { max_waiting: 2, max_running: 1, ..EngineConfig::default() };
    let (engine, probe) = start(600, config);
    probe.sleep_us.store(2000, Ordering::Relaxed);
    let mut running = engine.submit(request("running", long_prompt(20, 1500), 1500)).unwrap();
    running.next().await.unwrap().unwrap();
    let _a = engine.submit(request("a", vec![1], 5)).unwrap();
    let _b = engine.submit(request("b", vec![1], 5)).unwrap();
    let full = engine.submit(request("c", vec![1], 5)).map(drop).unwrap_err();
    assert_eq!(full, SubmitError::QueueFull { queued: 2, limit: 2 });

    let bad = |change: fn(&mut GenerateRequest)| {
        let mut r = request("bad", vec![1, 2], 5);
        change(&mut r);
        engine.submit(r).map(drop).unwrap_err()
    };
    let field = |error: SubmitError| match error {
        SubmitError::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(bad(|r| r.prompt.clear())), "prompt");
    assert_eq!(field(bad(|r| r.prompt[0] = 1000)), "prompt");
    assert_eq!(field(bad(|r| r.stop.max_tokens = 0)), "stop.max_tokens");
    assert_eq!(field(bad(|r| r.stop.strings = vec![String::new()])), "stop.strings");
    assert_eq!(field(bad(|r| r.sampling.temperature = -0.1)), "sampling.temperature");
    assert_eq!(field(bad(|r| r.sampling.temperature = f32::NAN)), "sampling.temperature");
    assert_eq!(field(bad(|r| r.sampling.top_p = f32::NAN)), "sampling.top_p");
    assert_eq!(field(bad(|r| r.sampling.min_p = f32::NAN)), "sampling.min_p");
    assert_eq!(
        field(bad(|r| r.sampling.repetition_penalty = f32::NAN)),
        "sampling.repetition_penalty"
    );
    assert_eq!(
        field(bad(|r| r.sampling.logit_bias = vec![(1, f32::INFINITY)])),
        "sampling.logit_bias"
    );
    let limit = engine.max_context();
    let long = bad(|r| r.stop.max_tokens = u32::MAX);
    assert_eq!(long, SubmitError::TooLong { prompt_tokens: 2, max_tokens: u32::MAX, limit });
}

#[tokio::test]
async fn scores_are_those_of_each_token_given_all_before() {
    let (engine, _) = start(200, EngineConfig::default());
    let tokens: Vec<u32> = (0..150).map(|i| i * 3 % 900).collect();
    let want: Vec<f32> = (40..150).map(|i| likelihood(&tokens[..i], tokens[i])).collect();
    let request = |from| ScoreRequest {
        tenant: Arc::from("tenant"),
        tokens: tokens.clone(),
        from,
        deadline: None,
        prefix_cache: true,
    };
    // Twice: the second time what lies before the scored part comes from the cache.
    assert_eq!(engine.score(request(40)).await.unwrap(), want);
    assert_eq!(engine.score(request(40)).await.unwrap(), want);
    assert!(engine.load().prefix_hits > 0);
    for from in [0, 150] {
        assert!(matches!(
            engine.score(request(from)).await,
            Err(ScoreError::Submit(SubmitError::Invalid { .. }))
        ));
    }
    settled(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_streams_finish_within_its_grace_and_ends_the_rest() {
    for (grace_ms, finishes) in [(10_000, true), (0, false)] {
        let (engine, probe) = start(200, EngineConfig::default());
        probe.sleep_us.store(1000, Ordering::Relaxed);
        let mut stream = engine.submit(request("a", long_prompt(20, 300), 300)).unwrap();
        stream.next().await.unwrap().unwrap();
        let handle = engine.clone();
        let shutdown =
            tokio::task::spawn_blocking(move || handle.shutdown(Duration::from_millis(grace_ms)));
        let answer = read(stream).await;
        assert_eq!(answer.end.is_ok(), finishes, "{:?}", answer.end);
        shutdown.await.unwrap();
        assert!(matches!(
            engine.submit(request("late", vec![1], 1)),
            Err(SubmitError::Unavailable)
        ));
    }
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_thread() {
    let (engine, probe) = start(200, EngineConfig::default());
    let alive = Arc::downgrade(&probe);
    drop(probe);
    drop(engine);
    let until = Instant::now() + Duration::from_secs(5);
    while alive.upgrade().is_some() {
        assert!(Instant::now() < until, "the engine thread still holds its executor");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
