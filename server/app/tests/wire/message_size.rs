//! A message over the bound is refused by the length it claims, before any of it is taken.

use std::time::Duration;

use crate::support::{canary, document, rejection, request, serve, serve_with};
use bytes::Bytes;
use pith_client::{Code, v1};
use prost::Message as _;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_hundred_megabytes() {
    let server = serve().await;
    let client = server.client().await;
    let before = canary(&client).await;
    let huge = v1::GenerateRequest {
        documents: vec![document("a", &"x".repeat(100 << 20))],
        ..request("What?", 2)
    };
    let refused = rejection(client.generate_unary(huge).await);
    assert!(matches!(refused.code, Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    assert_eq!(canary(&client).await, before);
}

#[tokio::test]
async fn the_bound_is_exact() {
    let server = serve_with(|config| config.limits.max_message_mib = 1).await;
    let client = server.client().await;
    let sized = |bytes: usize| {
        let with =
            |text: usize| v1::TokenizeRequest { text: "x".repeat(text), ..Default::default() };
        // The field's tag and length take a few bytes of their own.
        let message = with(bytes - 4);
        assert_eq!(message.encoded_len(), bytes);
        message
    };
    assert!(client.tokenize(sized(1 << 20)).await.is_ok());
    assert_eq!(rejection(client.tokenize(sized((1 << 20) + 1)).await).code, Code::OutOfRange);
}

#[tokio::test]
async fn the_claim_is_enough() {
    let server = serve().await;
    let socket = TcpStream::connect(server.running.addr()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let head = http::Request::post(format!(
        "{}/pith.v1.Inference/GenerateUnary",
        server.running.endpoint()
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(())
    .unwrap();
    let (response, mut body) = client.send_request(head, false).unwrap();
    // Uncompressed, 100 MiB long; and then nothing.
    let claim = [&[0_u8][..], &(100_u32 << 20).to_be_bytes()].concat();
    body.send_data(Bytes::from(claim), false).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(5), response).await.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], (Code::OutOfRange as i32).to_string());
}
