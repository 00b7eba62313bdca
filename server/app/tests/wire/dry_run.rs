//! A dry run and Compress say what a call would do, and the model is not called.

use crate::support::{document, essay, request, retrieve, serve};
use pith_client::{Event, v1};

#[tokio::test]
async fn a_dry_run_reports_what_the_call_would() {
    let server = serve().await;
    let client = server.client().await;
    let wet = v1::GenerateRequest {
        documents: vec![document("essay", &essay(40))],
        policy: Some(retrieve(250)),
        ..request("How tall is the lighthouse of town number 23?", 4)
    };
    let dry = v1::GenerateRequest { dry_run: true, ..wet.clone() };
    server.idle().await;
    let computed = async || {
        let load = server.engine().await.load();
        (load.prefill_tokens, load.generated_tokens)
    };
    let before = computed().await;
    let mut answer = client.generate(dry.clone()).await.unwrap();
    let Some(Event::Report(told)) = answer.next().await.unwrap() else { panic!("no report") };
    assert_eq!(answer.next().await.unwrap(), None);
    let unary = client.generate_unary(dry).await.unwrap();
    assert!(unary.r#final.is_none() && unary.text.is_empty());
    let compressed = client
        .compress(v1::CompressRequest {
            query: wet.prompt.clone(),
            documents: wet.documents.clone(),
            policy: wet.policy.clone(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(computed().await, before, "the model was called");

    let untimed =
        |report: v1::CompressionReport| v1::CompressionReport { stages: Vec::new(), ..report };
    let real = untimed(client.generate_unary(wet).await.unwrap().report.unwrap());
    assert_eq!(untimed(told), real);
    assert_eq!(untimed(unary.report.unwrap()), real);
    // Compress makes no prompt, so it cannot say where spans stand in it.
    let mut placeless = real;
    placeless.kept.iter_mut().for_each(|kept| (kept.prompt, kept.message) = (None, None));
    assert_eq!(untimed(compressed.report.unwrap()), placeless);
    assert!(compressed.text.contains("Its lighthouse is 23 metres tall."), "{}", compressed.text);
}

#[tokio::test]
async fn a_dry_run_of_a_plain_prompt_counts_it() {
    let server = serve().await;
    let dry = v1::GenerateRequest { dry_run: true, ..request("Hello there", 4) };
    let report = server.client().await.generate_unary(dry).await.unwrap().report.unwrap();
    let wet = server.client().await.generate_unary(request("Hello there", 4)).await.unwrap();
    assert!(wet.report.is_none());
    assert_eq!(report.prompt_tokens, wet.r#final.unwrap().usage.unwrap().prompt_tokens);
}
