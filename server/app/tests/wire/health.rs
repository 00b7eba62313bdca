//! Probes hear NOT_SERVING until the model is warm, then SERVING; a model that cannot be loaded never serves.

use std::time::Duration;

use crate::support::{begin_with, channel, rejection, request};
use pith_client::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICES: [&str; 6] = [
    "",
    "pith.v1.Inference",
    "pith.v1.Compression",
    "pith.v1.Documents",
    "pith.v1.Embeddings",
    "pith.v1.Models",
];

async fn statuses(endpoint: String) -> Vec<ServingStatus> {
    let mut client = HealthClient::new(channel(endpoint).await);
    let mut statuses = Vec::new();
    for service in SERVICES {
        let request = HealthCheckRequest { service: service.to_owned() };
        statuses.push(client.check(request).await.unwrap().into_inner().status());
    }
    statuses
}

#[tokio::test]
async fn a_warm_model_serves() {
    let server = begin_with(|_| {}).await;
    let mut client = HealthClient::new(channel(server.running.endpoint()).await);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let served = server.running.ready().await.unwrap();
    assert!(served.engine.load().generated_tokens > 0, "ready without a warm-up");
    let turned = async {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    };
    tokio::time::timeout(Duration::from_secs(5), turned).await.unwrap();
    assert_eq!(statuses(server.running.endpoint()).await, [ServingStatus::Serving; SERVICES.len()]);
}

#[tokio::test]
async fn until_then_it_does_not() {
    let server = begin_with(|config| config.model.name = "/nowhere/model.gguf".to_owned()).await;
    assert_eq!(
        statuses(server.running.endpoint()).await,
        [ServingStatus::NotServing; SERVICES.len()]
    );
    let why = server.running.ready().await.unwrap_err();
    assert!(why.message.contains("/nowhere/model.gguf"), "{why:?}");
    assert_eq!(
        statuses(server.running.endpoint()).await,
        [ServingStatus::NotServing; SERVICES.len()]
    );
    let refused = rejection(server.client().await.generate(request("What?", 2)).await);
    assert_eq!(refused.code, Code::Unavailable);
}
