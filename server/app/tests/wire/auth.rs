//! A table of keys lets in who is on it, keeps tenants apart, and leaves health and reflection open.

use crate::support::{Server, channel, first_tokens, rejection, request, serve_with};
use pith_client::{Code, Event};
use pith_server::config::{Secret, Tenant};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn serve_two() -> Server {
    let tenant = |name: &str, max_in_flight| Tenant {
        name: name.to_owned(),
        key: Some(Secret::new(format!("the key of {name}"))),
        key_sha256: None,
        max_in_flight,
    };
    serve_with(|config| config.tenants = vec![tenant("one", Some(1)), tenant("two", None)]).await
}

#[tokio::test]
async fn only_keys_on_the_table_open() {
    let server = serve_two().await;
    assert!(
        server
            .client_with_key("the key of one")
            .await
            .generate_unary(request("Hi", 2))
            .await
            .is_ok()
    );
    for client in [server.client().await, server.client_with_key("the key of three").await] {
        let codes = [
            client.generate(request("Hi", 2)).await.err().and_then(|error| error.code()),
            client.generate_unary(request("Hi", 2)).await.err().and_then(|error| error.code()),
            client.models().await.err().and_then(|error| error.code()),
            client.load().await.err().and_then(|error| error.code()),
            client.abort("x").await.err().and_then(|error| error.code()),
            client.tokenize(Default::default()).await.err().and_then(|error| error.code()),
            client.compress(Default::default()).await.err().and_then(|error| error.code()),
        ];
        assert_eq!(codes, [Some(Code::Unauthenticated); 7]);
    }
}

#[tokio::test]
async fn health_needs_no_key() {
    let server = serve_two().await;
    let mut health = HealthClient::new(channel(server.running.endpoint()).await);
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
}

#[tokio::test]
async fn a_tenant_can_neither_abort_nor_crowd_out_another() {
    let server = serve_two().await;
    let (one, two) = (
        server.client_with_key("the key of one").await,
        server.client_with_key("the key of two").await,
    );
    let mut named = request("Hi", 1500);
    named.request_id = "mine".into();
    let mut answer = one.generate(named.clone()).await.unwrap();
    first_tokens(&mut answer).await;

    // One call is all that tenant one may have.
    let refused = rejection(one.generate(request("Hi", 2)).await);
    assert_eq!(
        (refused.code, refused.reason.as_deref()),
        (Code::ResourceExhausted, Some("IN_FLIGHT_LIMIT"))
    );
    assert_eq!(refused.quotas[0].subject, "tenant:one");
    assert!(refused.retry_after.is_some());
    // It answers control calls nevertheless, and tenant two does not notice.
    assert!(one.load().await.is_ok());
    assert!(two.generate_unary(request("Hi", 2)).await.is_ok());

    assert!(!two.abort("mine").await.unwrap());
    assert!(one.abort("mine").await.unwrap());
    let last = loop {
        if let Event::Final(last) = answer.next().await.unwrap().unwrap() {
            break last;
        }
    };
    assert_eq!(last.finish_reason(), pith_client::v1::FinishReason::Aborted);
    server.idle().await;
}
