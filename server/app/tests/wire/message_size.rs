//! A message over the bound is refused by the length it claims, before any of it is taken.

use crate::support::{canary, document, raw_call, rejection, request, serve, serve_with};
use pith_client::{Code, v1};
use prost::Message as _;

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
    // Uncompressed, 100 MiB long; and then nothing.
    let claim = [&[0_u8][..], &(100_u32 << 20).to_be_bytes()].concat();
    let code = raw_call(&server, "/pith.v1.Inference/GenerateUnary", None, claim, false).await;
    assert_eq!(code, Code::OutOfRange);
}
