//! Stored documents: what is put can be had, found and asked about, by its tenant alone, until it is deleted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pith_client::{Client, Code, Error, v1};
use pith_server::config::{Config, Secret, Tenant};

use crate::support::{Server, channel, rejection, request, serve, serve_with};

fn header(id: &str) -> v1::PutDocumentHeader {
    v1::PutDocumentHeader { id: id.to_owned(), ..Default::default() }
}

async fn put(client: &Client, id: &str, text: &str) -> v1::PutDocumentResponse {
    client.put_document(header(id), text).await.unwrap()
}

async fn get(client: &Client, id: &str) -> Result<(v1::StoredDocument, String), Error> {
    client.get_document(v1::GetDocumentRequest { id: id.to_owned(), ..Default::default() }).await
}

async fn ids(client: &Client) -> Vec<String> {
    let page = client.list_documents(v1::ListDocumentsRequest::default()).await.unwrap();
    page.documents.into_iter().map(|document| document.id).collect()
}

/// A text with a sentence nothing else has, and characters of every width.
fn guide() -> String {
    let paragraph = |n: usize| {
        format!(
            "Step {n}: the naïve café owner 😀 counts {n} cups. {}\n\n",
            "More words. ".repeat(60)
        )
    };
    (1..=30).map(paragraph).collect()
}

fn tenants(config: &mut Config) {
    config.tenants = ["one", "two"]
        .map(|name| Tenant {
            name: name.to_owned(),
            key: Some(Secret::new(format!("the key of {name}"))),
            key_sha256: None,
            max_in_flight: None,
        })
        .to_vec();
}

async fn clients(server: &Server) -> [Client; 2] {
    [server.client_with_key("the key of one").await, server.client_with_key("the key of two").await]
}

#[tokio::test]
async fn a_document_is_put_listed_read_found_and_deleted() {
    let server = serve().await;
    let client = server.client().await;
    let text = guide();
    let head = v1::PutDocumentHeader {
        title: "The guide".into(),
        mime: "text/markdown".into(),
        metadata: [("team".to_owned(), "harbour".to_owned())].into(),
        ..header("guide")
    };
    let stored = client.put_document(head.clone(), text.as_str()).await.unwrap();
    let document = stored.document.clone().unwrap();
    assert!(stored.created && document.version == 1 && document.chunks >= 30, "{document:?}");
    assert_eq!(document.text_bytes, text.len() as u64);
    let again = client.put_document(head.clone(), text.as_str()).await.unwrap();
    assert_eq!((again.created, again.document.as_ref()), (false, Some(&document)));
    put(&client, "other", "Nothing of note.").await;

    assert_eq!(ids(&client).await, ["guide", "other"]);
    let list = v1::ListDocumentsRequest { page_size: 1, ..Default::default() };
    let first = client.list_documents(list.clone()).await.unwrap();
    assert_eq!(first.documents, std::slice::from_ref(&document));
    let page_token = first.next_page_token;
    let second =
        client.list_documents(v1::ListDocumentsRequest { page_token, ..list }).await.unwrap();
    assert_eq!((second.documents[0].id.as_str(), second.next_page_token.as_str()), ("other", ""));

    assert_eq!(get(&client, "guide").await.unwrap(), (document.clone(), text.clone()));
    // A part of it, in code points.
    let part = v1::GetDocumentRequest {
        id: "guide".into(),
        start: 8,
        end: Some(40),
        ..Default::default()
    };
    let (_, some) = client.get_document(part).await.unwrap();
    assert_eq!(some, text.chars().skip(8).take(32).collect::<String>());

    for unit in [v1::OffsetUnit::Utf8Byte, v1::OffsetUnit::CodePoint, v1::OffsetUnit::Utf16] {
        let search = v1::SearchRequest {
            query: "Who counts 17 cups?".into(),
            top_k: 3,
            offset_unit: unit.into(),
            ..Default::default()
        };
        let found = client.search(search).await.unwrap();
        assert_eq!(found.hits.len(), 3);
        let hit = &found.hits[0];
        assert!(hit.text.contains("counts 17 cups"), "{hit:?}");
        assert!(hit.score == 1.0 && hit.lexical > 0.0 && hit.dense.is_none(), "{hit:?}");
        let span = hit.span.as_ref().unwrap();
        assert_eq!((span.document_id.as_str(), hit.version), ("guide", 1));
        // What the span says is what was found.
        let part = v1::GetDocumentRequest {
            id: "guide".into(),
            start: span.start,
            end: Some(span.end),
            offset_unit: unit.into(),
            ..Default::default()
        };
        assert_eq!(client.get_document(part).await.unwrap().1, hit.text);
    }
    let elsewhere = v1::SearchRequest {
        query: "Who counts 17 cups?".into(),
        document_ids: vec!["other".into()],
        ..Default::default()
    };
    assert_eq!(client.search(elsewhere).await.unwrap().hits, []);

    client.delete_document("guide").await.unwrap();
    for gone in
        [rejection(get(&client, "guide").await), rejection(client.delete_document("guide").await)]
    {
        assert_eq!((gone.code, gone.reason.as_deref()), (Code::NotFound, Some("UNKNOWN_DOCUMENT")));
    }
    assert_eq!(ids(&client).await, ["other"]);
    let search = v1::SearchRequest { query: "Who counts 17 cups?".into(), ..Default::default() };
    assert_eq!(client.search(search).await.unwrap().hits, []);
}

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
async fn tenants_see_their_own_alone() {
    let server = serve_with(tenants).await;
    let [one, two] = clients(&server).await;
    put(&one, "guide", "The mole is seven metres long.").await;
    put(&two, "guide", "The lighthouse is red.").await;
    put(&one, "mine", "The quay is made of stone.").await;
    assert_eq!(get(&two, "guide").await.unwrap().1, "The lighthouse is red.");
    // Another's document is as unknown as one that nobody has.
    let another = [
        rejection(get(&two, "mine").await),
        rejection(two.delete_document("mine").await),
        rejection(
            two.generate_unary(v1::GenerateRequest {
                documents: vec![v1::Document { stored_id: "mine".into(), ..Default::default() }],
                ..request("What?", 2)
            })
            .await,
        ),
    ];
    let nobodys = [
        rejection(get(&two, "nope").await),
        rejection(two.delete_document("nope").await),
        rejection(
            two.generate_unary(v1::GenerateRequest {
                documents: vec![v1::Document { stored_id: "nope".into(), ..Default::default() }],
                ..request("What?", 2)
            })
            .await,
        ),
    ];
    for (another, nobodys) in another.iter().zip(&nobodys) {
        assert_eq!(another.code, Code::NotFound);
        let told = |rejection: &pith_client::Rejection| format!("{rejection:?}");
        assert_eq!(told(another).replace("mine", "nope"), told(nobodys));
    }
    let search = v1::SearchRequest { query: "stone quay".into(), ..Default::default() };
    assert_eq!(two.search(search.clone()).await.unwrap().hits, []);
    assert_eq!(one.search(search).await.unwrap().hits.len(), 1);
    two.delete_document("guide").await.unwrap();
    assert_eq!(ids(&one).await, ["guide", "mine"]);
}

fn uploads(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("uploads")).unwrap().count()
}

#[tokio::test]
async fn uploads_are_bounded_and_those_that_break_off_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let server = serve_with(|config| {
        config.store.dir = path.to_str().unwrap().to_owned();
        config.store.max_document_mib = 2;
        config.store.max_documents = 2;
    })
    .await;
    let client = server.client().await;
    let refused = |result, code, reason: &str, field: &str| {
        let refused: pith_client::Rejection = rejection::<v1::PutDocumentResponse>(result);
        assert_eq!((refused.code, refused.reason.as_deref()), (code, Some(reason)), "{refused:?}");
        if !field.is_empty() {
            assert_eq!(refused.violations[0].field, field);
        }
    };
    let bad = Code::InvalidArgument;
    let large = "word ".repeat((2 << 20) / 5 + 1);
    let sent = client.put_document(header("large"), large.as_str()).await;
    refused(sent, bad, "DOCUMENT_TOO_LARGE", "data");
    refused(client.put_document(header("empty"), "").await, bad, "INVALID_FIELD", "data");
    refused(client.put_document(header("a@b"), "x").await, bad, "INVALID_FIELD", "header.id");
    refused(client.put_document(header(""), "x").await, bad, "INVALID_FIELD", "header.id");
    let pdf = v1::PutDocumentHeader { mime: "application/pdf".into(), ..header("pdf") };
    refused(client.put_document(pdf, "x").await, bad, "INVALID_FIELD", "header.mime");

    // What is not text, or comes in the wrong order.
    use v1::put_document_request::Part;
    let mut raw =
        v1::documents_client::DocumentsClient::new(channel(server.running.endpoint()).await);
    let message = |part| v1::PutDocumentRequest { part: Some(part) };
    let end = Part::End(v1::PutDocumentEnd {});
    let cases = [
        (vec![Part::Header(header("x")), Part::Data(b"ab\xff".to_vec()), end.clone()], "data"),
        (vec![Part::Header(header("x")), Part::Data(b"not whole".to_vec())], "end"),
        (vec![Part::Header(header("x")), end.clone()], "data"),
        (vec![Part::Data(b"first".to_vec())], "header"),
        (vec![Part::Header(header("x")), Part::Header(header("x"))], "header"),
        (vec![], "header"),
    ];
    for (parts, field) in cases {
        let messages: Vec<_> = parts.into_iter().map(message).collect();
        let status = raw.put_document(tokio_stream::iter(messages)).await.unwrap_err();
        let refused = pith_client::Rejection::from(&status);
        assert_eq!((refused.code, refused.violations[0].field.as_str()), (bad, field));
    }

    // A caller that vanishes in the middle: the upload was there, and goes.
    let (sender, parts) = tokio::sync::mpsc::channel(1);
    let call = tokio::spawn(async move {
        raw.put_document(tokio_stream::wrappers::ReceiverStream::new(parts)).await
    });
    sender.send(message(Part::Header(header("half")))).await.unwrap();
    sender.send(message(Part::Data(vec![b'x'; 1_500_000]))).await.unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while uploads(&path) == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    call.abort();
    while uploads(&path) > 0 {
        assert!(Instant::now() < until, "an upload is left over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ids(&client).await, [""; 0]);

    put(&client, "a", "x").await;
    put(&client, "b", "x").await;
    let sent = client.put_document(header("c"), "x").await;
    refused(sent, Code::ResourceExhausted, "STORE_QUOTA", "");
    assert_eq!(ids(&client).await, ["a", "b"]);
}

#[tokio::test]
async fn bad_fields_are_named() {
    let server = serve().await;
    let client = server.client().await;
    let field = |refused: pith_client::Rejection| {
        assert_eq!(refused.code, Code::InvalidArgument, "{refused:?}");
        refused.violations[0].field.clone()
    };
    put(&client, "guide", "a😀").await;
    let good = v1::GetDocumentRequest { id: "guide".into(), ..Default::default() };
    let gets = [
        ("id", v1::GetDocumentRequest { id: String::new(), ..good.clone() }),
        ("end", v1::GetDocumentRequest { start: 2, end: Some(1), ..good.clone() }),
        ("offset_unit", v1::GetDocumentRequest { offset_unit: 9, ..good.clone() }),
        (
            "start",
            v1::GetDocumentRequest {
                start: 2,
                offset_unit: v1::OffsetUnit::Utf16.into(),
                ..good.clone()
            },
        ),
    ];
    for (wrong, request) in gets {
        assert_eq!(field(rejection(client.get_document(request).await)), wrong);
    }
    let lists = [
        ("prefix", v1::ListDocumentsRequest { prefix: "x".repeat(129), ..Default::default() }),
        ("page_size", v1::ListDocumentsRequest { page_size: 1001, ..Default::default() }),
        (
            "page_token",
            v1::ListDocumentsRequest {
                prefix: "a".into(),
                page_token: "b".into(),
                ..Default::default()
            },
        ),
    ];
    for (wrong, request) in lists {
        assert_eq!(field(rejection(client.list_documents(request).await)), wrong);
    }
    let good = v1::SearchRequest { query: "x".into(), ..Default::default() };
    let searches = [
        ("query", v1::SearchRequest { query: " ".into(), ..good.clone() }),
        ("query", v1::SearchRequest { query: "x".repeat(65_537), ..good.clone() }),
        ("top_k", v1::SearchRequest { top_k: 1001, ..good.clone() }),
        (
            "document_ids[1]",
            v1::SearchRequest { document_ids: vec!["a".into(), String::new()], ..good.clone() },
        ),
        ("lexical_weight", v1::SearchRequest { lexical_weight: Some(f32::NAN), ..good.clone() }),
        ("dense_weight", v1::SearchRequest { dense_weight: Some(-1.0), ..good.clone() }),
        (
            "dense_weight",
            v1::SearchRequest {
                lexical_weight: Some(0.0),
                dense_weight: Some(0.0),
                ..good.clone()
            },
        ),
    ];
    for (wrong, request) in searches {
        assert_eq!(field(rejection(client.search(request).await)), wrong);
    }
}

async fn serve_on(store: PathBuf) -> Server {
    serve_with(|config| config.store.dir = store.to_str().unwrap().to_owned()).await
}

/// Ends `server` and begins another on the same folder.
async fn restart(server: Server, store: PathBuf) -> Server {
    server.running.drain(Duration::from_secs(1)).await;
    let until = Instant::now() + Duration::from_secs(10);
    // Connections close a moment after the drain.
    while let Err(error) = pith_context::store::Store::open(&store, Default::default()) {
        assert!(Instant::now() < until, "the folder is never free: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    serve_on(store).await
}

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
