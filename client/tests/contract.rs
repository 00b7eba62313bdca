//! What callers may rely on, against a server that does as the test says.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pith_client::{Client, Code, Error, Event, Retry, v1};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use v1::generate_response::Event as Wire;
use v1::inference_server::{Inference, InferenceServer};

/// Does what the prompt says, and counts.
#[derive(Debug, Default)]
struct Script {
    calls: AtomicU32,
    /// Streams that have been dropped.
    dropped: Arc<AtomicU32>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

fn tokens(text: &str) -> Result<v1::GenerateResponse, Status> {
    let chunk = v1::TokenChunk { text: text.to_owned(), tokens: vec![v1::Token::default()] };
    Ok(v1::GenerateResponse { event: Some(Wire::Tokens(chunk)) })
}

fn last() -> Result<v1::GenerateResponse, Status> {
    Ok(v1::GenerateResponse { event: Some(Wire::Final(v1::Final::default())) })
}

struct CountDrop(Arc<AtomicU32>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Script {
    fn refuse(&self, prompt: &str) -> Result<(), Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let later = |code| {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(20)));
            Err(Status::with_error_details(code, "later", details))
        };
        match prompt {
            "full twice" if call <= 2 => later(Code::ResourceExhausted),
            "always full" => later(Code::ResourceExhausted),
            "draining once" if call == 1 => later(Code::Unavailable),
            "lost" => Err(Status::unavailable("lost on the way")),
            "bad" => {
                let mut details = ErrorDetails::with_bad_request_violation("prompt", "is bad");
                details.set_error_info("BAD", "pith.v1", [("tokens".to_owned(), "7".to_owned())]);
                details.add_quota_failure_violation("server", "at most 1");
                Err(Status::with_error_details(Code::InvalidArgument, "bad prompt", details))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Inference for Script {
    type GenerateStream = Answers;
    type ChatStream = Answers;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Answers>, Status> {
        let authorization = request.metadata().get("authorization").cloned();
        let prompt = request.into_inner().prompt;
        self.refuse(&prompt)?;
        let mut events = vec![tokens("one "), tokens("two")];
        match &*prompt {
            "unfinished" => {}
            "breaks off" => events.push(Err(Status::deadline_exceeded("the deadline passed"))),
            "who" => events.push(tokens(authorization.unwrap().to_str().unwrap())),
            _ => events.push(last()),
        }
        let guard = CountDrop(Arc::clone(&self.dropped));
        let pause = if prompt == "slow" { Duration::from_secs(60) } else { Duration::ZERO };
        let (first, rest) = (events.remove(0), events);
        let rest = tokio_stream::iter(rest).then(move |event| async move {
            tokio::time::sleep(pause).await;
            event
        });
        let stream = tokio_stream::once(first).chain(rest).map(move |event| {
            let _ = &guard;
            event
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn generate_unary(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<v1::GenerateUnaryResponse>, Status> {
        self.refuse(&request.into_inner().prompt)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(Response::new(v1::GenerateUnaryResponse { text: "whole".into(), ..Default::default() }))
    }

    async fn chat(&self, _: Request<v1::ChatRequest>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn chat_unary(
        &self,
        _: Request<v1::ChatRequest>,
    ) -> Result<Response<v1::GenerateUnaryResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if request.get_ref().text == "lost once" && call == 1 {
            return Err(Status::unavailable("lost on the way"));
        }
        Ok(Response::new(v1::TokenizeResponse::default()))
    }

    async fn detokenize(
        &self,
        _: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn abort(
        &self,
        _: Request<v1::AbortRequest>,
    ) -> Result<Response<v1::AbortResponse>, Status> {
        Ok(Response::new(v1::AbortResponse { found: true }))
    }
}

async fn serve() -> (String, Arc<Script>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let script = Arc::new(Script::default());
    let service = InferenceServer::from_arc(Arc::clone(&script));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, script)
}

fn prompt(text: &str) -> v1::GenerateRequest {
    v1::GenerateRequest { prompt: text.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn streams_are_events_and_end_with_the_final_one() {
    let (endpoint, _) = serve().await;
    let client = Client::connect(endpoint).await.unwrap();
    let mut answer = client.generate(prompt("plain")).await.unwrap();
    let mut text = String::new();
    while let Some(event) = answer.next().await.unwrap() {
        match event {
            Event::Tokens(chunk) => text.push_str(&chunk.text),
            Event::Final(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(text, "one two");
    assert_eq!(answer.next().await.unwrap(), None);
    assert_eq!(
        client.generate(prompt("plain")).await.unwrap().collect().await.unwrap().text,
        "one two"
    );
}

#[tokio::test]
async fn a_stream_without_an_end_is_an_error() {
    let (endpoint, _) = serve().await;
    let client = Client::connect(endpoint).await.unwrap();
    let cut = client.generate(prompt("unfinished")).await.unwrap().collect().await;
    assert!(matches!(cut, Err(Error::Protocol(_))), "{cut:?}");
    let broken = client.generate(prompt("breaks off")).await.unwrap().collect().await;
    assert_eq!(broken.unwrap_err().code(), Some(Code::DeadlineExceeded));
}

#[tokio::test]
async fn refusals_are_waited_out_and_counted() {
    let (endpoint, script) = serve().await;
    let client = Client::connect(endpoint).await.unwrap();
    assert!(client.generate(prompt("full twice")).await.is_ok());
    assert_eq!(script.calls.swap(0, Ordering::SeqCst), 3);
    assert!(client.generate(prompt("draining once")).await.is_ok());
    assert_eq!(script.calls.swap(0, Ordering::SeqCst), 2);
    assert_eq!(
        client.generate(prompt("always full")).await.unwrap_err().code(),
        Some(Code::ResourceExhausted)
    );
    assert_eq!(script.calls.swap(0, Ordering::SeqCst), Retry::default().attempts);
    // It may have started: not repeated. A call that changes nothing is.
    assert_eq!(client.generate(prompt("lost")).await.unwrap_err().code(), Some(Code::Unavailable));
    assert_eq!(script.calls.swap(0, Ordering::SeqCst), 1);
    let request = v1::TokenizeRequest { text: "lost once".into(), ..Default::default() };
    assert!(client.tokenize(request).await.is_ok());
    assert_eq!(script.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn everything_the_server_says_arrives() {
    let (endpoint, _) = serve().await;
    let client = Client::connect(endpoint).await.unwrap();
    let error = client.generate_unary(prompt("bad")).await.unwrap_err();
    let said = error.rejection().unwrap();
    assert_eq!((said.code, &*said.message), (Code::InvalidArgument, "bad prompt"));
    assert_eq!((said.reason.as_deref(), &*said.metadata["tokens"]), (Some("BAD"), "7"));
    assert_eq!(
        (&*said.violations[0].field, &*said.violations[0].description),
        ("prompt", "is bad")
    );
    assert_eq!((&*said.quotas[0].subject, said.retry_after), ("server", None));
}

#[tokio::test]
async fn a_deadline_is_a_deadline() {
    let (endpoint, _) = serve().await;
    let client = Client::connect(endpoint).deadline(Duration::from_millis(50)).await.unwrap();
    let begun = Instant::now();
    let unary = client.generate_unary(prompt("takes 200 ms")).await.unwrap_err();
    assert_eq!(unary.code(), Some(Code::DeadlineExceeded), "{unary:?}");
    let stream = client.generate(prompt("slow")).await.unwrap().collect().await.unwrap_err();
    assert_eq!(stream.code(), Some(Code::DeadlineExceeded), "{stream:?}");
    // Waiting longer than there is time would only hide the reason.
    let full = client.with_deadline(Duration::from_millis(10));
    assert_eq!(
        full.generate(prompt("always full")).await.unwrap_err().code(),
        Some(Code::ResourceExhausted)
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn dropping_an_answer_cancels_it() {
    let (endpoint, script) = serve().await;
    let client = Client::connect(endpoint).await.unwrap();
    let mut answer = client.generate(prompt("slow")).await.unwrap();
    assert!(matches!(answer.next().await.unwrap(), Some(Event::Tokens(_))));
    assert_eq!(script.dropped.load(Ordering::SeqCst), 0);
    drop(answer);
    let noticed = async {
        while script.dropped.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), noticed).await.unwrap();
}

#[tokio::test]
async fn a_channel_outlives_thousands_of_cancelled_calls() {
    // More than HTTP/2's default of 1,024 local resets for the life of a connection.
    let (endpoint, _) = serve().await;
    let client = Client::connect(endpoint).await.unwrap();
    for _ in 0..2500 {
        drop(client.generate(prompt("slow")).await.unwrap());
    }
    assert!(client.generate(prompt("plain")).await.unwrap().collect().await.is_ok());
}

#[tokio::test]
async fn keys_travel_and_endpoints_are_checked() {
    let (endpoint, _) = serve().await;
    let client = Client::connect(endpoint).key("sesame").await.unwrap();
    let answer = client.generate(prompt("who")).await.unwrap();
    let mut text = String::new();
    let mut answer = answer;
    while let Ok(Some(event)) = answer.next().await {
        if let Event::Tokens(chunk) = event {
            text.push_str(&chunk.text);
        }
    }
    assert_eq!(text, "one twoBearer sesame");
    assert!(!format!("{client:?}").contains("sesame"));
    assert!(matches!(Client::connect("not a uri").await, Err(Error::Endpoint(_))));
    assert!(matches!(Client::connect("http://127.0.0.1:1").await, Err(Error::Connect { .. })));
    let new_line = Client::connect("127.0.0.1:1").key("a\nb").await;
    assert!(matches!(new_line, Err(Error::Endpoint(_))));
}
