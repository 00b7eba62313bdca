//! Promise: speculation changes how fast an answer comes, never the answer. With drafts and without, every token,
//! its likelihood, the text, the reason it ended and the counts are the same, and no block is lost.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod executor_harness;
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use executor_harness::{goldens, isas, load};
use pith_engine::executor::cpu::CpuExecutor;
use pith_engine::executor::{Capabilities, Executor, ExecutorError, Ticket};
use pith_engine::request::{
    Event, Finish, FinishReason, GenerateRequest, GeneratedToken, SamplingParams, StopConditions,
};
use pith_engine::step::{Outcome, Step};
use pith_engine::{Engine, EngineConfig, Speculate, TokenStream};
use support::{FakeExecutor, FakeVocabulary, Probe, echoes};

/// An executor whose steps all seem to take the same time, so that drafts pay whenever they are likely at all.
struct Flat(CpuExecutor);

impl Executor for Flat {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn submit(&mut self, step: Step) -> Result<Ticket, ExecutorError> {
        self.0.submit(step)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Outcome, ExecutorError> {
        Ok(Outcome { seconds: 1e-3, ..self.0.wait(ticket)? })
    }
}

fn config(speculation: Speculate) -> EngineConfig {
    EngineConfig { speculation, ..EngineConfig::default() }
}

fn start(executor: impl Executor + 'static, speculation: Speculate) -> Engine {
    let vocabulary = Arc::new(FakeVocabulary::default());
    Engine::start(Box::new(executor), vocabulary, config(speculation)).unwrap()
}

/// An engine over the fake model that repeats itself.
fn fake(blocks: usize, depth: usize, speculation: Speculate) -> (Engine, Arc<Probe>) {
    let (executor, probe) = FakeExecutor::new(blocks, 4, depth);
    probe.echoes.store(true, Ordering::Relaxed);
    (start(executor, speculation), probe)
}

fn request(id: usize, prompt: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        id: id.to_string(),
        tenant: Arc::from("tenant"),
        prompt,
        sampling: SamplingParams::default(),
        stop: StopConditions::exactly(max_tokens),
        deadline: None,
        prefix_cache: true,
    }
}

/// All that a caller sees of an answer but the time it took.
#[derive(Debug, PartialEq)]
struct Answer {
    text: String,
    tokens: Vec<GeneratedToken>,
    reason: FinishReason,
    prompt_tokens: u32,
    completion_tokens: u32,
}

async fn read(mut stream: TokenStream) -> (Answer, Finish) {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        match stream.next().await.unwrap().unwrap() {
            Event::Tokens { text: more, tokens: new } => {
                text.push_str(&more);
                tokens.extend(new);
            }
            Event::Finished(finish) => {
                assert!(stream.next().await.is_none());
                let answer = Answer {
                    text,
                    tokens,
                    reason: finish.reason.clone(),
                    prompt_tokens: finish.prompt_tokens,
                    completion_tokens: finish.completion_tokens,
                };
                return (answer, finish);
            }
        }
    }
}

/// Submits all at once and reads all at once.
async fn answers(engine: &Engine, requests: &[GenerateRequest]) -> Vec<(Answer, Finish)> {
    let submit = |request: &GenerateRequest| engine.submit(request.clone()).unwrap();
    let streams: Vec<TokenStream> = requests.iter().map(submit).collect();
    let reading: Vec<_> = streams.into_iter().map(|stream| tokio::spawn(read(stream))).collect();
    let mut answers = Vec::new();
    for answer in reading {
        answers.push(answer.await.unwrap());
    }
    settled(engine).await;
    answers
}

/// Waits until nothing is live; every block is then free or cached, and the books balance.
async fn settled(engine: &Engine) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let load = engine.load();
        if engine.live() == 0 && load.blocks_used == 0 && load.running == 0 {
            assert_eq!(load.blocks_free + load.blocks_cached, load.blocks_total);
            assert_eq!(engine.inconsistencies(), 0);
            return;
        }
        assert!(Instant::now() < until, "not settled: {} live, {load:?}", engine.live());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Requests that differ in all that bears on the choice of a token and on the end of an answer.
fn varied(prompts: &[Vec<u32>], max_tokens: u32) -> Vec<GenerateRequest> {
    let mut requests = Vec::new();
    for prompt in prompts {
        for style in 0..6 {
            let mut request = request(requests.len(), prompt.clone(), max_tokens);
            let sampling = &mut request.sampling;
            if style % 2 == 1 {
                // Few tokens are likely, so that what was said often comes again, and often goes on otherwise.
                sampling.logit_bias = prompt.iter().take(4).map(|&token| (token, 7.0)).collect();
            }
            match style {
                0 => {}
                1 => {
                    (sampling.temperature, sampling.seed) = (5.0, Some(11));
                    sampling.top_k = 3;
                }
                2 => {
                    sampling.temperature = 3.0;
                    (sampling.top_p, sampling.top_k, sampling.seed) = (0.9, 5, Some(12));
                }
                3 => (sampling.repetition_penalty, sampling.frequency_penalty) = (1.1, 0.1),
                4 => {
                    (sampling.temperature, sampling.seed) = (2.0, Some(13));
                    sampling.presence_penalty = 0.3;
                }
                _ => {
                    (sampling.temperature, sampling.seed) = (1.0, Some(14));
                    request.stop.ignore_end = false;
                    request.stop.min_tokens = max_tokens / 2;
                    request.stop.tokens = prompt.iter().copied().take(3).collect();
                    request.prefix_cache = false;
                }
            }
            requests.push(request);
        }
    }
    requests
}

/// With stops in the middle of the answers that these requests have without.
fn stopped(requests: &[GenerateRequest], plain: &[(Answer, Finish)]) -> Vec<GenerateRequest> {
    let mut stopped = Vec::new();
    for (nth, (request, (answer, _))) in requests.iter().zip(plain).enumerate() {
        let at = 7 + nth * 5 % (answer.tokens.len().max(9) - 8);
        let Some(pair) = answer.tokens.get(at..at + 2) else { continue };
        let mut request = request.clone();
        match nth % 3 {
            0 => request.stop.strings = vec![format!("{}><{}", pair[0].id, pair[1].id)],
            1 => request.stop.tokens = vec![pair[1].id],
            _ => request.stop.max_tokens = at as u32,
        }
        request.stop.min_tokens = request.stop.min_tokens.min(request.stop.max_tokens);
        stopped.push(request);
    }
    stopped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cpu_executor_says_the_same_with_drafts_and_without() {
    for isa in isas() {
        for golden in goldens().iter().filter(|g| g.name == "llama" || g.name == "gemma3") {
            let engine = |speculation| {
                let executor = load(&golden.model, isa, |config| config.max_rows = 64);
                start(Flat(executor), speculation)
            };
            let (on, off) = (engine(Speculate::Auto), engine(Speculate::Off));
            let quote: Vec<u32> = golden.ids.iter().cycle().take(40).copied().collect();
            let requests = varied(&[golden.ids.clone(), quote], 48);
            // One after the other first, where drafts are longest; then all together.
            for together in [false, true] {
                let groups = requests.chunks(if together { requests.len() } else { 1 });
                for group in groups {
                    let (with, without) = (answers(&on, group).await, answers(&off, group).await);
                    for ((with, _), (without, _)) in with.iter().zip(&without) {
                        assert_eq!(with, without, "{} on {}", golden.name, isa.name());
                    }
                    let group = stopped(group, &without);
                    let (with, without) = (answers(&on, &group).await, answers(&off, &group).await);
                    for ((with, _), (without, _)) in with.iter().zip(&without) {
                        assert_eq!(with, without, "{} on {}", golden.name, isa.name());
                    }
                }
            }
            let (with, without) = (on.load(), off.load());
            let rejected = with.draft_tokens - with.accepted_draft_tokens;
            assert!(rejected > 40, "hardly any was rejected: {with:?}");
            assert!(with.accepted_draft_tokens > 40, "hardly any was accepted: {with:?}");
            assert_eq!((without.draft_tokens, without.accepted_draft_tokens), (0, 0));
            assert_eq!(with.generated_tokens, without.generated_tokens);
            assert!(with.steps < without.steps);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_every_kind_say_the_same() {
    let prompts: Vec<Vec<u32>> =
        (0..6).map(|n| (0..20).map(|i| 30 + n * 40 + i % (8 + n)).collect()).collect();
    let requests = varied(&prompts, 60);
    for depth in 1..=2 {
        let (on, _) = fake(300, depth, Speculate::Auto);
        let (off, _) = fake(300, depth, Speculate::Off);
        let without = answers(&off, &requests).await;
        let with = answers(&on, &requests).await;
        assert_eq!(
            with.iter().map(|(a, _)| a).collect::<Vec<_>>(),
            without.iter().map(|(a, _)| a).collect::<Vec<_>>()
        );
        let cut = stopped(&requests, &without);
        assert!(cut.len() > requests.len() / 2);
        let (with, without) = (answers(&on, &cut).await, answers(&off, &cut).await);
        for ((with, _), (without, _)) in with.iter().zip(&without) {
            assert_eq!(with, without);
        }
        assert!(on.load().accepted_draft_tokens > 200, "{:?}", on.load());
        assert_eq!(on.load().generated_tokens, off.load().generated_tokens);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_ends_inside_an_accepted_run() {
    let (engine, probe) = fake(100, 1, Speculate::Auto);
    let prompt: Vec<u32> = (100..112).collect();
    let said = echoes(&prompt, 100, &SamplingParams::default(), &[], 0);
    for most in 1..60u32 {
        let rows = probe.rows.load(Ordering::Relaxed);
        let mut request = request(0, prompt.clone(), most);
        request.prefix_cache = false;
        let (answer, finish) = answers(&engine, &[request]).await.remove(0);
        let ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        assert_eq!((ids.as_slice(), answer.reason), (&said[..most as usize], FinishReason::Length));
        assert_eq!(answer.completion_tokens, most);
        // Every row is the prompt's, a token's that was said (but the last), or a rejected draft's.
        let rejected = finish.draft_tokens - finish.accepted_draft_tokens;
        let rows = probe.rows.load(Ordering::Relaxed) - rows;
        assert_eq!(rows, u64::from(12 + most - 1 + rejected), "{finish:?}");
    }
    assert!(engine.load().accepted_draft_tokens > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tokens_come_in_one_event_and_are_counted_once() {
    let (engine, _) = fake(100, 1, Speculate::Auto);
    let prompt: Vec<u32> = (0..12).map(|i| 103 + i % 4).collect();
    let mut stream = engine.submit(request(0, prompt, 200)).unwrap();
    let (mut events, mut widest, mut tokens) = (0, 0, 0);
    let finish = loop {
        match stream.next().await.unwrap().unwrap() {
            Event::Tokens { tokens: new, .. } => {
                events += 1;
                widest = widest.max(new.len());
                tokens += new.len();
            }
            Event::Finished(finish) => break finish,
        }
    };
    assert_eq!((tokens, finish.completion_tokens), (200, 200));
    assert!(widest > 1 && events < 200, "{events} events, the widest of {widest} tokens");
    settled(&engine).await;
    let load = engine.load();
    let counted = (load.draft_tokens, load.accepted_draft_tokens);
    assert_eq!(counted, (finish.draft_tokens.into(), finish.accepted_draft_tokens.into()));
    assert!(load.accepted_draft_tokens > 50 && load.accepted_draft_tokens < load.draft_tokens);
    assert_eq!(load.generated_tokens, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancels_amid_drafts_leave_nothing() {
    for depth in 1..=2 {
        let (engine, _) = fake(120, depth, Speculate::Auto);
        let mut seed = 4321u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let mut open: Vec<TokenStream> = Vec::new();
        for n in 0..300 {
            let first = random(900) as u32;
            let prompt: Vec<u32> =
                (0..10 + random(30) as u32).map(|i| 1 + first + i % (3 + n as u32 % 7)).collect();
            open.push(engine.submit(request(n, prompt, 20 + random(150) as u32)).unwrap());
            let at = random(open.len() as u64) as usize;
            for _ in 0..random(8) {
                drop(tokio::time::timeout(Duration::from_micros(500), open[at].next()).await);
            }
            while open.len() > random(10) as usize {
                let at = random(open.len() as u64) as usize;
                drop(open.swap_remove(at));
            }
        }
        drop(open);
        settled(&engine).await;
        assert!(engine.load().draft_tokens > 50, "{:?}", engine.load());
    }
}
