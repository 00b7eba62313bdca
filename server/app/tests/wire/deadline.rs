//! The server ends a call at its deadline, in the queue, inside the stream and before it, with DEADLINE_EXCEEDED.

use std::time::{Duration, Instant};

use crate::support::{request, serve, serve_with};
use pith_client::{Code, v1};
use tonic::Request;
use v1::inference_client::InferenceClient;

/// Deliberately not `pith-client`, which has a clock of its own.
async fn raw(endpoint: String) -> InferenceClient<tonic::transport::Channel> {
    InferenceClient::connect(endpoint).await.unwrap()
}

fn endless() -> v1::GenerateRequest {
    request("What?", 2000)
}

#[tokio::test]
async fn inside_the_stream() {
    let server = serve().await;
    let mut client = raw(server.running.endpoint()).await;
    // Slow enough on any machine? The answer's length makes it so: several answers run at once.
    let mut neighbours = Vec::new();
    for _ in 0..32 {
        neighbours.push(server.client().await.generate(endless()).await.unwrap());
    }
    let mut timed = Request::new(endless());
    timed.set_timeout(Duration::from_millis(150));
    let begun = Instant::now();
    let mut stream = client.generate(timed).await.unwrap().into_inner();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("2,000 tokens in {:?}", begun.elapsed()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(begun.elapsed() >= Duration::from_millis(140), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(neighbours);
    server.idle().await;
}

#[tokio::test]
async fn the_servers_own_bound_counts_where_the_caller_has_none() {
    let server = serve_with(|config| config.limits.max_request_seconds = 1).await;
    let mut neighbours = Vec::new();
    for _ in 0..64 {
        neighbours.push(server.client().await.generate(endless()).await.unwrap());
    }
    let begun = Instant::now();
    let refused = crate::support::rejection(server.client().await.generate_unary(endless()).await);
    assert_eq!(refused.code, Code::DeadlineExceeded, "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(neighbours);
    server.idle().await;
}

#[tokio::test]
async fn unary_calls_and_preparation() {
    let server = serve().await;
    let mut client = raw(server.running.endpoint()).await;
    let mut unary = Request::new(endless());
    unary.set_timeout(Duration::from_millis(1));
    assert_eq!(client.generate_unary(unary).await.unwrap_err().code(), Code::DeadlineExceeded);

    // So much to pack that the deadline passes on the way to the engine.
    let documents = vec![crate::support::document("long", &crate::support::essay(20_000))];
    let long = v1::GenerateRequest {
        documents,
        policy: Some(crate::support::retrieve(500)),
        ..request("tall 77", 4)
    };
    let mut packed = Request::new(long);
    packed.set_timeout(Duration::from_millis(60));
    let begun = Instant::now();
    assert_eq!(client.generate(packed).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.idle().await;
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused() {
    let server = serve().await;
    let mut client = raw(server.running.endpoint()).await;
    for (value, code) in [
        ("soon", Code::InvalidArgument),
        ("1.5S", Code::InvalidArgument),
        ("0m", Code::DeadlineExceeded),
    ] {
        let mut request = Request::new(request("What?", 2));
        request.metadata_mut().insert("grpc-timeout", value.parse().unwrap());
        let status = client.generate_unary(request).await.unwrap_err();
        assert!(
            status.code() == code || status.code() == Code::Cancelled && value == "0m",
            "{value}: {status:?}"
        );
    }
}
