//! A drain tells probes first, lets nobody in, and lets streams finish within its grace.

use std::time::Duration;

use crate::support::{channel, first_tokens, rejection, request, serve};
use pith_client::{Code, Event};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn streams_finish_and_newcomers_do_not_start() {
    let server = serve().await;
    let (client, endpoint) = (server.client().await, server.running.endpoint());
    let mut watch = HealthClient::new(channel(endpoint.clone()).await)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    let mut answer = client.generate(request("What?", 1000)).await.unwrap();
    first_tokens(&mut answer).await;

    let drain = tokio::spawn(server.running.drain(Duration::from_secs(60)));
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let refused = rejection(client.generate(request("late", 2)).await);
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    let last = loop {
        if let Event::Final(last) = answer.next().await.unwrap().unwrap() {
            break last;
        }
    };
    assert_eq!(last.usage.unwrap().completion_tokens, 1000);
    // The watch has no end of its own; the drain ends all the same.
    let drained = tokio::time::timeout(Duration::from_secs(20), drain).await.unwrap().unwrap();
    assert_eq!(drained.cut_off, 0);
    assert!(pith_client::Client::connect(endpoint).await.is_err());
}

#[tokio::test]
async fn grace_has_an_end() {
    let server = serve().await;
    let client = server.client().await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(client.generate(request("What?", 2000)).await.unwrap());
    }
    first_tokens(&mut answers[7]).await;
    let engine = server.engine().await;
    let drained = server.running.drain(Duration::ZERO).await;
    assert_eq!(drained.cut_off, 8);
    for mut answer in answers {
        let error = loop {
            match answer.next().await {
                Ok(Some(Event::Final(last))) => panic!("finished: {last:?}"),
                Ok(event) => assert!(event.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Some(Code::Unavailable), "{error:?}");
    }
    assert_eq!(engine.live(), 0);
}
