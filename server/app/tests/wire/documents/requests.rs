//! Stored documents stand in requests by their names.

use super::*;

#[tokio::test]
async fn a_stored_document_stands_in_a_request() {
    let server = serve().await;
    let client = server.client().await;
    let text = "The mole is seven metres long. The lighthouse is red.";
    let head = v1::PutDocumentHeader { title: "Harbour".into(), ..header("guide") };
    client.put_document(head, text).await.unwrap();
    let compress = |documents| v1::CompressRequest {
        query: "What is it?".into(),
        documents,
        ..Default::default()
    };
    let stored =
        |stored_id: &str| v1::Document { stored_id: stored_id.to_owned(), ..Default::default() };
    let inline = v1::Document {
        id: "guide".into(),
        title: "Harbour".into(),
        text: text.to_owned(),
        ..Default::default()
    };
    let whole = client.compress(compress(vec![inline])).await.unwrap();
    for stored_id in ["guide", "guide@1"] {
        let packed = client.compress(compress(vec![stored(stored_id)])).await.unwrap();
        assert_eq!(packed.text, whole.text);
        let span = |response: &v1::CompressResponse| {
            response.report.as_ref().unwrap().kept[0].span.clone().unwrap()
        };
        assert_eq!(span(&packed), span(&whole));
    }
    put(&client, "guide", "The mole is gone.").await;
    let old = client.compress(compress(vec![stored("guide@1")])).await.unwrap();
    assert_eq!(old.text, whole.text);
    let mut asked = request("How long is it?", 4);
    asked.documents = vec![stored("guide")];
    let answer = client.generate_unary(asked.clone()).await.unwrap();
    assert_eq!(answer.report.unwrap().kept[0].span.as_ref().unwrap().end, 17);

    for unknown in ["nothing", "guide@3"] {
        asked.documents = vec![stored("guide"), stored(unknown)];
        asked.documents[1].id = "second".into();
        let refused = rejection(client.generate_unary(asked.clone()).await);
        assert_eq!(refused.code, Code::NotFound, "{refused:?}");
        assert_eq!(refused.violations[0].field, "documents[1].stored_id");
    }
    let both = v1::Document { text: "and a text".into(), ..stored("guide") };
    for (document, field) in [
        (both, "documents[0].stored_id"),
        (stored("guide@0"), "documents[0].stored_id"),
        (stored(""), "documents[0].text"),
    ] {
        let refused = rejection(client.compress(compress(vec![document])).await);
        assert_eq!(refused.code, Code::InvalidArgument);
        assert_eq!(refused.violations[0].field, field);
    }
}

#[tokio::test]
async fn a_server_without_a_store_says_so() {
    let server = serve_with(|config| config.store.dir = "off".to_owned()).await;
    let client = server.client().await;
    let mut asked = request("What?", 2);
    asked.documents = vec![v1::Document { stored_id: "guide".into(), ..Default::default() }];
    for refused in [
        rejection(client.put_document(header("guide"), "x").await),
        rejection(get(&client, "guide").await),
        rejection(client.generate_unary(asked).await),
    ] {
        let said = (refused.code, refused.reason.as_deref());
        assert_eq!(said, (Code::FailedPrecondition, Some("NO_STORE")));
    }
    assert!(client.generate_unary(request("Hi", 2)).await.is_ok());
}

#[tokio::test]
async fn a_deleted_document_leaves_no_cached_prompt() {
    let server = serve_with(tenants).await;
    let [one, two] = clients(&server).await;
    let text = "The mole is seven metres long and made of stone. ".repeat(8);
    for client in [&one, &two] {
        put(client, "guide", &text).await;
        put(client, "other", "The lighthouse is red.").await;
    }
    let stored = v1::GenerateRequest {
        documents: vec![v1::Document { stored_id: "guide".into(), ..Default::default() }],
        ..request("How long is it?", 2)
    };
    // The same prompt, brought along.
    let inline = v1::GenerateRequest {
        documents: vec![v1::Document {
            id: "guide".into(),
            text: text.clone(),
            ..Default::default()
        }],
        ..request("How long is it?", 2)
    };
    let cached = async |client: &Client, asked: &v1::GenerateRequest| {
        let answer = client.generate_unary(asked.clone()).await.unwrap();
        let usage = answer.r#final.unwrap().usage.unwrap();
        (usage.cached_tokens, usage.prompt_tokens)
    };
    for client in [&one, &two] {
        assert_eq!(cached(client, &stored).await.0, 0);
        let (found, of) = cached(client, &inline).await;
        assert!(found * 10 > of * 9, "{found} of {of}");
    }
    one.delete_document("guide").await.unwrap();
    assert_eq!(cached(&one, &inline).await.0, 0);
    // Nobody else's are touched.
    assert!(cached(&two, &inline).await.0 > 0);
    server.idle().await;
    assert_eq!(server.engine().await.inconsistencies(), 0);
}
