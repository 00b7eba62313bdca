//! A real server on a free port, over a tiny model, and what tests ask of it.
use std::time::{Duration, Instant};

use pith_client::{Answer, Client, Error, Event, Rejection, Retry, v1};
use pith_engine::Engine;
use pith_server::boot::{self, Running};
use pith_server::config::Config;

pub mod tiny;

/// A server under test. Its model file lives as long as it does.
pub struct Server {
    pub running: Running,
    _folder: tempfile::TempDir,
}

/// Serves the tiny model, ready to be called.
pub async fn serve() -> Server {
    serve_with(|_| {}).await
}

/// As [`serve`], with other settings.
pub async fn serve_with(edit: impl FnOnce(&mut Config)) -> Server {
    let server = begin_with(edit).await;
    server.running.ready().await.unwrap();
    server
}

/// As [`serve_with`], not waiting for the model.
pub async fn begin_with(edit: impl FnOnce(&mut Config)) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model()).unwrap();
    let mut config = Config::default();
    config.listen.grpc = "127.0.0.1:0".parse().unwrap();
    config.model.name = path.to_str().unwrap().to_owned();
    config.cpu.threads = 1;
    config.cpu.kv_mib = 64;
    edit(&mut config);
    Server { running: boot::start(config).await.unwrap(), _folder: folder }
}

impl Server {
    /// A client that takes the first answer it gets.
    pub async fn client(&self) -> Client {
        Client::connect(self.running.endpoint()).retry(Retry::never()).await.unwrap()
    }

    pub async fn client_with_key(&self, key: &str) -> Client {
        Client::connect(self.running.endpoint()).retry(Retry::never()).key(key).await.unwrap()
    }

    pub async fn engine(&self) -> Engine {
        self.running.ready().await.unwrap().engine.clone()
    }

    /// Waits until nothing runs, and checks that no block is lost.
    pub async fn idle(&self) {
        let engine = self.engine().await;
        let begun = Instant::now();
        loop {
            let load = engine.load();
            if load.running == 0 && load.waiting == 0 && load.blocks_used == 0 {
                assert_eq!(load.blocks_free + load.blocks_cached, load.blocks_total, "{load:?}");
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "never idle: {load:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A request for exactly `max_tokens` tokens after `prompt`.
pub fn request(prompt: &str, max_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest {
        prompt: prompt.to_owned(),
        stop: Some(v1::StopConditions {
            max_tokens: Some(max_tokens),
            ignore_end: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn document(id: &str, text: &str) -> v1::Document {
    v1::Document { id: id.to_owned(), text: text.to_owned(), ..Default::default() }
}

/// A policy that keeps `tokens` tokens of context.
pub fn retrieve(tokens: u32) -> v1::CompressionPolicy {
    v1::CompressionPolicy {
        mode: v1::CompressionMode::Retrieve.into(),
        budget: Some(v1::compression_policy::Budget::MaxContextTokens(tokens)),
        ..Default::default()
    }
}

/// A text of `sections` paragraphs about different things, each with a sentence only it has.
pub fn essay(sections: usize) -> String {
    let section = |n: usize| {
        format!(
            "The harbour of town number {n} was built by masons. Its lighthouse is {n} metres tall. \
             Ships carry salt, wool and tin from there.\n\n"
        )
    };
    (1..=sections).map(section).collect()
}

/// Skips to the first tokens.
pub async fn first_tokens(answer: &mut Answer) -> v1::TokenChunk {
    loop {
        match answer.next().await.unwrap().unwrap() {
            Event::Tokens(chunk) if !chunk.tokens.is_empty() => return chunk,
            Event::Final(last) => panic!("no tokens before {last:?}"),
            _ => {}
        }
    }
}

/// What the server said no with.
pub fn rejection<T: std::fmt::Debug>(result: Result<T, Error>) -> Rejection {
    match result {
        Err(Error::Rejected(rejection)) => *rejection,
        other => panic!("not rejected: {other:?}"),
    }
}

/// The answer to a plain question, to compare neighbours by.
pub async fn canary(client: &Client) -> String {
    client.generate_unary(request("canary", 12)).await.unwrap().text
}
