//! Of documents too long to be embedded while a caller waits, the likeliest sentences are; the choice is the same whatever the
//! server has met before.

use std::path::Path;

use crate::support::{Server, document, essay, retrieve, serve_with};
use pith_client::v1;

/// Over the tiny encoder of the engine's tests, of whose text a KiB is embedded.
async fn serve_little() -> Server {
    let server = serve_with(|config| {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/encoder/tiny");
        config.context.embedder = folder.to_str().unwrap().to_owned();
        config.context.embed_kib = 1;
    })
    .await;
    assert!(server.running.embedder().await.is_some());
    server
}

/// The packed text, and the report without what depends on the clock.
async fn ask(
    server: &Server,
    question: &str,
    document: v1::Document,
) -> (String, v1::CompressionReport) {
    let request = v1::CompressRequest {
        query: question.to_owned(),
        documents: vec![document],
        policy: Some(retrieve(300)),
        ..Default::default()
    };
    let packed = server.client().await.compress(request).await.unwrap();
    let report = packed.report.unwrap();
    (packed.text, v1::CompressionReport { stages: Vec::new(), ..report })
}

fn limited(report: &v1::CompressionReport) -> bool {
    report.warnings.iter().any(|warning| warning.contains("were compared"))
}

#[tokio::test]
async fn what_was_met_before_changes_no_choice() {
    let (question, text) = ("How tall is the lighthouse of town number 42?", essay(60));
    let inline = || document("towns", &text);
    let cold = ask(&serve_little().await, question, inline()).await;
    assert!(limited(&cold.1) && cold.0.contains("town number 42 "), "{cold:?}");
    assert!(cold.1.kept.iter().any(|kept| kept.dense != 0.0));

    let server = serve_little().await;
    ask(&server, "Which ships carry tin?", inline()).await;
    assert_eq!(ask(&server, question, inline()).await, cold);
    assert_eq!(ask(&server, question, inline()).await, cold);

    // Stored, all of it is embedded, and what is sent along is chosen from as before.
    let header = v1::PutDocumentHeader { id: "towns".into(), ..Default::default() };
    server.client().await.put_document(header, text.as_str()).await.unwrap();
    let named =
        v1::Document { id: "towns".into(), stored_id: "towns".into(), ..Default::default() };
    assert!(!limited(&ask(&server, question, named).await.1));
    assert_eq!(ask(&server, question, inline()).await, cold);
}
