//! The server ends a call at its deadline with DEADLINE_EXCEEDED: inside the stream, in the queue and before it.

use std::time::{Duration, Instant};

use pith_client::{Answer, Code, v1};

use crate::support::{
    Server, document, essay, framed, raw_call, request, retrieve, serve, serve_with,
};

const STREAM: &str = "/pith.v1.Inference/Generate";
const UNARY: &str = "/pith.v1.Inference/GenerateUnary";
/// Longer than any deadline here is kept late, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Answers that go on while a test looks at another: alone, even 2,000 tokens of the tiny model are soon over.
async fn neighbours(server: &Server) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..32 {
        answers.push(server.client().await.generate(request("What?", 2000)).await.unwrap());
    }
    answers
}

#[tokio::test]
async fn inside_the_stream_and_in_unary_calls() {
    let server = serve().await;
    let neighbours = neighbours(&server).await;
    for (method, timeout) in [(STREAM, "700m"), (STREAM, "50m"), (UNARY, "100000u"), (UNARY, "1n")]
    {
        let begun = Instant::now();
        let message = framed(&request("What?", 2000));
        let code = raw_call(&server, method, Some(timeout), message, true).await;
        assert_eq!(code, Code::DeadlineExceeded, "{method} {timeout}");
        assert!(begun.elapsed() < PATIENCE, "{method} {timeout}: {:?}", begun.elapsed());
    }
    drop(neighbours);
    server.idle().await;
}

#[tokio::test]
async fn the_servers_own_bound_counts_where_the_caller_has_none() {
    let server = serve_with(|config| config.limits.max_request_seconds = 1).await;
    // A request that is never sent to its end: it must not keep its place for good either.
    let mut message = framed(&request("What?", 4));
    message.pop();
    for method in [STREAM, UNARY] {
        let begun = Instant::now();
        let code = raw_call(&server, method, None, message.clone(), false).await;
        assert_eq!(code, Code::DeadlineExceeded, "{method}");
        assert!(begun.elapsed() >= Duration::from_millis(900), "{method}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < PATIENCE, "{method}: {:?}", begun.elapsed());
    }
    assert_eq!(server.client().await.load().await.unwrap().in_flight_requests, 0);
}

#[tokio::test]
async fn while_a_long_document_is_packed() {
    let server = serve().await;
    let long = v1::GenerateRequest {
        documents: vec![document("long", &essay(20_000))],
        policy: Some(retrieve(500)),
        ..request("How tall is lighthouse 77?", 4)
    };
    let begun = Instant::now();
    let code = raw_call(&server, STREAM, Some("60m"), framed(&long), true).await;
    assert_eq!(code, Code::DeadlineExceeded);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused() {
    let server = serve().await;
    for (timeout, code) in [
        ("soon", Code::InvalidArgument),
        ("1.5S", Code::InvalidArgument),
        ("0m", Code::DeadlineExceeded),
    ] {
        let message = framed(&request("What?", 2));
        assert_eq!(raw_call(&server, UNARY, Some(timeout), message, true).await, code, "{timeout}");
    }
}
