//! A real server on a free port, over a tiny model, and what tests ask of it.
use std::time::{Duration, Instant};

use pith_client::{Answer, Client, Code, Error, Event, Rejection, Retry, v1};
use pith_engine::Engine;
use pith_server::boot::{self, Running};
use pith_server::config::Config;

pub(crate) mod tiny;

/// A server under test. Its model file lives as long as it does.
pub(crate) struct Server {
    pub(crate) running: Running,
    _folder: tempfile::TempDir,
}

/// Serves the tiny model, ready to be called.
pub(crate) async fn serve() -> Server {
    serve_with(|_| {}).await
}

/// As [`serve`], with other settings.
pub(crate) async fn serve_with(edit: impl FnOnce(&mut Config)) -> Server {
    let server = begin_with(edit).await;
    server.running.ready().await.unwrap();
    server
}

/// As [`serve_with`], not waiting for the model.
pub(crate) async fn begin_with(edit: impl FnOnce(&mut Config)) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model()).unwrap();
    let mut config = Config::default();
    config.listen.grpc = "127.0.0.1:0".parse().unwrap();
    config.model.name = path.to_str().unwrap().to_owned();
    config.context.embedder.clear();
    config.cpu.threads = 1;
    config.cpu.kv_mib = 64;
    config.store.dir = folder.path().join("store").to_str().unwrap().to_owned();
    edit(&mut config);
    Server { running: boot::start(config).await.unwrap(), _folder: folder }
}

impl Server {
    /// A client that takes the first answer it gets.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.running.endpoint()).retry(Retry::never()).await.unwrap()
    }

    pub(crate) async fn client_with_key(&self, key: &str) -> Client {
        Client::connect(self.running.endpoint()).retry(Retry::never()).key(key).await.unwrap()
    }

    pub(crate) async fn engine(&self) -> Engine {
        self.running.ready().await.unwrap().engine.clone()
    }

    /// Waits until nothing runs, and checks that no block is lost.
    pub(crate) async fn idle(&self) {
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

/// A bare connection, for services that `pith-client` does not speak.
pub(crate) async fn channel(endpoint: String) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap()
}

/// Makes a call with nothing between the test and HTTP/2: a gRPC client would mind deadlines and sizes itself. `payload`
/// is the request's first frame, its length prefix included; with `finished`, all of it. Gives `grpc-status`.
pub(crate) async fn raw_call(
    server: &Server,
    method: &str,
    timeout: Option<&str>,
    payload: Vec<u8>,
    finished: bool,
) -> Code {
    let socket = tokio::net::TcpStream::connect(server.running.addr()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut head = http::Request::post(format!("{}{method}", server.running.endpoint()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        head = head.header("grpc-timeout", timeout);
    }
    let (response, mut body) = client.send_request(head.body(()).unwrap(), false).unwrap();
    body.send_data(payload.into(), finished).unwrap();
    let status = |headers: &http::HeaderMap| {
        let status = headers.get("grpc-status")?.to_str().unwrap();
        Some(Code::from(status.parse::<i32>().unwrap()))
    };
    let answered = async {
        let response = response.await.unwrap();
        if let Some(code) = status(response.headers()) {
            return code;
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let _ = body.flow_control().release_capacity(data.unwrap().len());
        }
        status(&body.trailers().await.unwrap().unwrap()).unwrap()
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.unwrap()
}

/// `message` as gRPC frames it: uncompressed, its length, itself.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

/// A request for exactly `max_tokens` tokens after `prompt`.
pub(crate) fn request(prompt: &str, max_tokens: u32) -> v1::GenerateRequest {
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

pub(crate) fn document(id: &str, text: &str) -> v1::Document {
    v1::Document { id: id.to_owned(), text: text.to_owned(), ..Default::default() }
}

/// A policy that keeps `tokens` tokens of context.
pub(crate) fn retrieve(tokens: u32) -> v1::CompressionPolicy {
    v1::CompressionPolicy {
        mode: v1::CompressionMode::Retrieve.into(),
        budget: Some(v1::compression_policy::Budget::MaxContextTokens(tokens)),
        ..Default::default()
    }
}

/// A text of `sections` paragraphs about different things, each with a sentence only it has.
pub(crate) fn essay(sections: usize) -> String {
    let section = |n: usize| {
        format!(
            "The harbour of town number {n} was built by masons. Its lighthouse is {n} metres tall. \
             Ships carry salt, wool and tin from there.\n\n"
        )
    };
    (1..=sections).map(section).collect()
}

/// Skips to the first tokens.
pub(crate) async fn first_tokens(answer: &mut Answer) -> v1::TokenChunk {
    loop {
        match answer.next().await.unwrap().unwrap() {
            Event::Tokens(chunk) if !chunk.tokens.is_empty() => return chunk,
            Event::Final(last) => panic!("no tokens before {last:?}"),
            _ => {}
        }
    }
}

/// What the server said no with.
pub(crate) fn rejection<T: std::fmt::Debug>(result: Result<T, Error>) -> Rejection {
    match result {
        Err(Error::Rejected(rejection)) => *rejection,
        other => panic!("not rejected: {other:?}"),
    }
}

/// As [`request`], with tokens drawn by a fixed seed: left to its likeliest token, the tiny model soon
/// goes in circles.
pub(crate) fn varied(prompt: &str, max_tokens: u32) -> v1::GenerateRequest {
    let sampling =
        v1::SamplingParams { temperature: Some(1.0), seed: Some(7), ..Default::default() };
    v1::GenerateRequest { sampling: Some(sampling), ..request(prompt, max_tokens) }
}

/// The answer to a plain question, to compare neighbours by.
pub(crate) async fn canary(client: &Client) -> String {
    client.generate_unary(varied("canary", 24)).await.unwrap().text
}
