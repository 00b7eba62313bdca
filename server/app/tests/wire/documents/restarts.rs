//! What is stored outlives the server.

use std::path::Path;

use super::*;

#[tokio::test]
async fn documents_outlive_the_server_and_a_folder_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_on(path.clone()).await;
    put(&server.client().await, "guide", "The mole is seven metres long.").await;

    let mut second = Config::default();
    second.listen.grpc = "127.0.0.1:0".parse().unwrap();
    second.store.dir = path.to_str().unwrap().to_owned();
    let error = pith_server::boot::start(second.clone()).await.unwrap_err();
    assert!(format!("{error:#}").contains("in use"), "{error:#}");

    let server = restart(server, path).await;
    let (document, text) = get(&server.client().await, "guide").await.unwrap();
    assert_eq!((document.version, text.as_str()), (1, "The mole is seven metres long."));
}

/// The turn of a sticky chat about the stored guide that asks `question` after one that was answered.
fn second_turn(question: &str) -> v1::ChatRequest {
    let said = |role: v1::Role, content: &str| v1::ChatMessage {
        role: role.into(),
        content: content.to_owned(),
    };
    let mut messages = vec![said(v1::Role::User, "How many cups at step 7?")];
    if !question.is_empty() {
        messages.push(said(v1::Role::Assistant, "Seven."));
        messages.push(said(v1::Role::User, question));
    }
    v1::ChatRequest {
        messages,
        documents: vec![v1::Document { stored_id: "guide".into(), ..Default::default() }],
        policy: Some(v1::CompressionPolicy {
            mode: v1::CompressionMode::Retrieve.into(),
            budget: Some(v1::compression_policy::Budget::MaxContextTokens(600)),
            sticky: true,
            ..Default::default()
        }),
        stop: Some(v1::StopConditions { max_tokens: Some(2), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn turns_of_chats_about_stored_documents_outlive_the_server_and_go_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_on(path.clone()).await;
    let client = server.client().await;
    put(&client, "guide", &guide()).await;
    client.chat_unary(second_turn("")).await.unwrap();
    drop(client);

    let kept = async |client: &Client| {
        let answer = client.chat_unary(second_turn("And at step 19?")).await.unwrap();
        answer.report.unwrap().sticky.unwrap().turns_kept
    };
    let server = restart(server, path).await;
    let client = server.client().await;
    assert_eq!(kept(&client).await, 1, "the first turn stays where it was sent");
    client.delete_document("guide").await.unwrap();
    put(&client, "guide", &guide()).await;
    assert_eq!(kept(&client).await, 0, "nothing is left of what was deleted");
}

/// A text long enough for its counts to be kept, no two sentences alike.
fn tale() -> String {
    let sentence = |n: usize| {
        format!("At step {n} the keeper of pier {} counts {} cups of tea. ", n * 7, n * 13)
    };
    (1..=1000).map(sentence).collect()
}

/// What a store holds, once the server on it has gone.
async fn census(server: Server, store: &Path) -> pith_context::store::Census {
    drop(server);
    free(store).await.check().unwrap()
}

#[tokio::test]
async fn tokens_of_long_documents_are_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_on(path.clone()).await;
    let client = server.client().await;
    let asked = |id: &str| v1::CompressRequest {
        query: "How many cups at step 7?".into(),
        documents: vec![v1::Document { stored_id: id.into(), ..Default::default() }],
        policy: Some(crate::support::retrieve(200)),
        ..Default::default()
    };
    put(&client, "short", "The mole is seven metres long.").await;
    put(&client, "guide", &tale()).await;
    let before = client.compress(asked("guide")).await.unwrap();
    assert_eq!(census(server, &path).await.counts, 1);

    let server = serve_on(path.clone()).await;
    let client = server.client().await;
    let after = client.compress(asked("guide")).await.unwrap();
    let tokens = |packed: &v1::CompressResponse| {
        let report = packed.report.as_ref().unwrap();
        (report.tokens_before, report.tokens_after, report.kept.clone())
    };
    assert_eq!((tokens(&after), &after.text), (tokens(&before), &before.text));
    // The same words sent along have as many.
    let inline = v1::Document { id: "guide".into(), text: tale(), ..Default::default() };
    let sent = v1::CompressRequest { documents: vec![inline], ..asked("guide") };
    assert_eq!(tokens(&client.compress(sent).await.unwrap()), tokens(&before));
    client.delete_document("guide").await.unwrap();
    assert_eq!(census(server, &path).await.counts, 0);
}

#[tokio::test]
async fn documents_of_a_server_before_are_counted_when_they_are_asked_about() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_on(path.clone()).await;
    put(&server.client().await, "guide", &tale()).await;
    drop(server);
    let store = free(&path).await;
    let content = store.describe("default", "guide", None).unwrap().unwrap().content;
    for model in 1..=4 {
        assert!(store.put_counts("default", &content, &[model; 32], b"others").unwrap());
    }
    // The fourth took the place of them all, the tiny model's too.
    assert_eq!(store.check().unwrap().counts, 1);
    drop(store);
    let server = serve_on(path.clone()).await;
    let mut asked = request("How many cups at step 7?", 2);
    asked.documents = vec![v1::Document { stored_id: "guide".into(), ..Default::default() }];
    asked.policy = Some(crate::support::retrieve(200));
    server.client().await.generate_unary(asked).await.unwrap();
    assert_eq!(census(server, &path).await.counts, 2);
}
