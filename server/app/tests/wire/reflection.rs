//! Any gRPC tool can ask the server what it speaks, comments and all.

use crate::support::{channel, serve};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn ask(endpoint: String, message: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(channel(endpoint).await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test]
async fn services_and_symbols_are_told() {
    let server = serve().await;
    let listed = ask(server.running.endpoint(), MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(services) = listed else { panic!("{listed:?}") };
    let names: Vec<&str> = services.service.iter().map(|service| &*service.name).collect();
    for name in [
        "pith.v1.Inference",
        "pith.v1.Compression",
        "pith.v1.Embeddings",
        "pith.v1.Models",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("pith.v1.Inference.Generate".to_owned());
    let told = ask(server.running.endpoint(), symbol).await;
    assert!(
        matches!(&told, MessageResponse::FileDescriptorResponse(files) if !files.file_descriptor_proto.is_empty())
    );
}

/// Python's client and older tools ask by the older name only.
#[tokio::test]
async fn the_older_protocol_is_spoken_too() {
    use tonic_reflection::pb::v1alpha as older;
    let server = serve().await;
    let mut client = older::server_reflection_client::ServerReflectionClient::new(
        channel(server.running.endpoint()).await,
    );
    let message = older::server_reflection_request::MessageRequest::ListServices(String::new());
    let request =
        older::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let older::server_reflection_response::MessageResponse::ListServicesResponse(services) = answer
    else {
        panic!("{answer:?}")
    };
    assert!(services.service.iter().any(|service| service.name == "pith.v1.Inference"));
}
