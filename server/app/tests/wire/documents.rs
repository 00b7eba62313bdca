//! Stored documents: what is put can be had, found and asked about, by its tenant alone, until it is deleted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pith_client::{Client, Code, Error, v1};
use pith_context::store::{Limits, Store};
use pith_server::config::{Config, Secret, Tenant};

use crate::support::{Server, rejection, request, serve, serve_with};

mod originals;
mod requests;
mod restarts;
mod uploads;

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

async fn serve_on(store: PathBuf) -> Server {
    serve_with(|config| config.store.dir = store.to_str().unwrap().to_owned()).await
}

/// The store in `folder` once nobody has it open.
async fn free(folder: &Path) -> Store {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(folder, Limits::default()) {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < until, "the folder is never free: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends `server` and begins another on the same folder.
async fn restart(server: Server, store: PathBuf) -> Server {
    server.running.drain(Duration::from_secs(1)).await;
    // Connections close a moment after the drain.
    drop(free(&store).await);
    serve_on(store).await
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
