//! Texts become vectors and documents an order, whatever else the server does; without an embedder words alone decide,
//! and the server serves.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Server, begin_with, canary, framed, raw_call, rejection, serve_with};
use pith_client::{Code, Retry, v1};
use pith_server::config::{Config, Secret, Tenant};

/// The tiny encoder of the engine's tests: random weights, 32 dimensions, 40 tokens, and a vocabulary of letters.
fn with_tiny(config: &mut Config) {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/encoder/tiny");
    config.context.embedder = folder.to_str().unwrap().to_owned();
}

async fn serve_tiny() -> Server {
    let server = serve_with(with_tiny).await;
    assert!(server.running.embedder().await.is_some());
    server
}

fn embed(texts: &[&str]) -> v1::EmbedRequest {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    v1::EmbedRequest { texts, ..Default::default() }
}

fn rerank(query: &str, documents: &[&str]) -> v1::RerankRequest {
    let documents = documents.iter().map(|text| (*text).to_owned()).collect();
    v1::RerankRequest { query: query.to_owned(), documents, ..Default::default() }
}

#[tokio::test]
async fn a_text_has_one_vector_in_any_company() {
    let server = serve_tiny().await;
    let client = server.client().await;
    let texts = ["the cat sat on the mat", "", "walk, walk!", &"cat ".repeat(90)];
    let told = client.embed(embed(&texts)).await.unwrap();
    assert_eq!((told.dimensions, &*told.model, told.embeddings.len()), (32, "tiny", 4));
    assert!(!told.request_id.is_empty());
    for (text, embedding) in texts.iter().zip(&told.embeddings) {
        let length: f32 = embedding.values.iter().map(|x| x * x).sum();
        assert!(embedding.values.len() == 32 && (length - 1.0).abs() < 1e-5, "{text:?}");
        let named =
            v1::EmbedRequest { model: "tiny".into(), request_id: "mine".into(), ..embed(&[text]) };
        let alone = client.embed(named).await.unwrap();
        assert_eq!((&*alone.request_id, &alone.embeddings[0]), ("mine", embedding), "{text:?}");
    }
    let figures: Vec<(u32, bool)> =
        told.embeddings.iter().map(|e| (e.tokens, e.truncated)).collect();
    assert_eq!((figures[0], figures[1], figures[3]), ((8, false), (2, false), (40, true)));
}

#[tokio::test]
async fn documents_are_ordered_by_both_halves_as_they_are_weighed() {
    let server = serve_tiny().await;
    let client = server.client().await;
    let documents =
        ["on the mat", "unable to walk", "the cat sat", "cats walk and cats walk", "the cat sat"];
    let both = client.rerank(rerank("Where did the cat walk?", &documents)).await.unwrap();
    assert!(!both.lexical_only && both.reason.is_empty() && both.model == "tiny");
    let mut indices: Vec<u32> = both.results.iter().map(|result| result.index).collect();
    assert!(both.results.windows(2).all(|pair| pair[0].score >= pair[1].score));
    // Equal documents: the earlier first.
    let place = |index| indices.iter().position(|other| *other == index).unwrap();
    assert!(place(2) < place(4));
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
    let part = |result: &v1::RankedDocument| (result.lexical, result.dense.unwrap());
    for result in &both.results {
        let vectors = client
            .embed(embed(&["Where did the cat walk?", documents[result.index as usize]]))
            .await
            .unwrap()
            .embeddings;
        let cosine: f32 =
            vectors[0].values.iter().zip(&vectors[1].values).map(|(a, b)| a * b).sum();
        assert!((part(result).1 - cosine).abs() < 1e-6);
    }
    let ordered_by = async |lexical: f32, dense: f32, of: fn(&v1::RankedDocument) -> f32| {
        let request = v1::RerankRequest {
            lexical_weight: Some(lexical),
            dense_weight: Some(dense),
            ..rerank("Where did the cat walk?", &documents)
        };
        let results = client.rerank(request).await.unwrap().results;
        assert!(results.windows(2).all(|pair| of(&pair[0]) >= of(&pair[1])), "{results:?}");
        results
    };
    let lexical = ordered_by(2.0, 0.0, |result| result.lexical).await;
    assert!(lexical.iter().all(|result| result.dense.is_none()));
    assert_eq!(lexical[0].index, 3);
    ordered_by(0.0, 0.5, |result| result.dense.unwrap()).await;
    let top = v1::RerankRequest { top_n: Some(2), ..rerank("Where did the cat walk?", &documents) };
    assert_eq!(client.rerank(top).await.unwrap().results, both.results[..2]);
}

type Edit<T> = fn(&mut T);

const BAD_TEXTS: &[(&str, Edit<v1::EmbedRequest>)] = &[
    ("texts", |r| r.texts.clear()),
    ("texts", |r| r.texts = vec!["x".into(); 1025]),
    ("texts[1]", |r| r.texts = vec!["fine".into(), "x".repeat(65_537)]),
    ("request_id", |r| r.request_id = "a b".into()),
];

const BAD_RANKINGS: &[(&str, Edit<v1::RerankRequest>)] = &[
    ("query", |r| r.query = " \n".into()),
    ("query", |r| r.query = "x".repeat(65_537)),
    ("documents", |r| r.documents.clear()),
    ("documents", |r| r.documents = vec!["x".into(); 1025]),
    ("documents[2]", |r| r.documents = vec![String::new(), "x".into(), "x".repeat(65_537)]),
    ("top_n", |r| r.top_n = Some(0)),
    ("lexical_weight", |r| r.lexical_weight = Some(-0.5)),
    ("lexical_weight", |r| r.lexical_weight = Some(f32::NAN)),
    ("dense_weight", |r| r.dense_weight = Some(f32::INFINITY)),
    ("dense_weight", |r| r.dense_weight = Some(100.5)),
    ("dense_weight", |r| (r.lexical_weight, r.dense_weight) = (Some(0.0), Some(-0.0))),
    ("request_id", |r| r.request_id = "x".repeat(129)),
];

#[tokio::test]
async fn every_bad_field_is_named_and_nobody_else_notices() {
    let server = serve_tiny().await;
    let client = server.client().await;
    let before = canary(&client).await;
    let named = |case: usize, field: &str, refused: pith_client::Rejection| {
        assert_eq!(refused.code, Code::InvalidArgument, "case {case}, {field}: {refused:?}");
        assert_eq!(refused.violations[0].field, field, "case {case}");
    };
    for (case, (field, edit)) in BAD_TEXTS.iter().enumerate() {
        let mut bad = embed(&["fine"]);
        edit(&mut bad);
        named(case, field, rejection(client.embed(bad).await));
    }
    for (case, (field, edit)) in BAD_RANKINGS.iter().enumerate() {
        let mut bad = rerank("What?", &["fine"]);
        edit(&mut bad);
        named(case, field, rejection(client.rerank(bad).await));
    }
    let unknown = v1::EmbedRequest { model: "bge".into(), ..embed(&["fine"]) };
    let refused = rejection(client.embed(unknown).await);
    assert_eq!((refused.code, refused.reason.as_deref()), (Code::NotFound, Some("UNKNOWN_MODEL")));
    // As much as may be asked for is answered.
    let most = client.embed(embed(&vec!["a"; 1024])).await.unwrap();
    assert!(
        most.embeddings.len() == 1024 && most.embeddings.iter().all(|e| *e == most.embeddings[0])
    );
    assert!(client.embed(embed(&[&"x ".repeat(32_768)])).await.unwrap().embeddings[0].truncated);
    assert_eq!(canary(&client).await, before);
    server.idle().await;
}

#[tokio::test]
async fn without_an_embedder_words_alone_decide() {
    for name in ["", "/nowhere/encoder", "no-such-embedder"] {
        let server = serve_with(|config| config.context.embedder = name.to_owned()).await;
        assert!(server.running.embedder().await.is_none(), "{name}");
        let client = server.client().await;
        let refused = rejection(client.embed(embed(&["text"])).await);
        assert_eq!(refused.code, Code::FailedPrecondition, "{refused:?}");
        assert_eq!((refused.reason.as_deref(), refused.retry_after), (Some("NO_EMBEDDER"), None));
        let documents = ["The mill is old.", "The weir is new.", ""];
        let ranked = client.rerank(rerank("Which weir?", &documents)).await.unwrap();
        assert!(ranked.lexical_only && ranked.reason.contains("embedder"), "{}", ranked.reason);
        assert!(ranked.model.is_empty() && ranked.results.iter().all(|r| r.dense.is_none()));
        assert_eq!(ranked.results[0].index, 1);
        // Asked for words alone, it has nothing to explain.
        let words =
            v1::RerankRequest { dense_weight: Some(0.0), ..rerank("Which weir?", &documents) };
        assert!(!client.rerank(words).await.unwrap().lexical_only);
        // Asked for meaning alone, it has nothing to give.
        let meaning =
            v1::RerankRequest { lexical_weight: Some(0.0), ..rerank("Which weir?", &documents) };
        assert_eq!(rejection(client.rerank(meaning).await).code, Code::FailedPrecondition);
        assert!(!canary(&client).await.is_empty());
    }
}

#[tokio::test]
async fn a_card_that_is_not_there_leaves_the_embedder_to_the_cpu() {
    let on = |device: &'static str| {
        serve_with(move |config| {
            with_tiny(config);
            config.context.embedder_device = device.to_owned().try_into().unwrap();
        })
    };
    // As many cards as a number may have, and more than a machine has.
    let servers = [on("cpu").await, on("cuda:63").await];
    let mut vectors = Vec::new();
    for server in &servers {
        let embedding = server.running.embedder().await.unwrap();
        assert!(embedding.place().starts_with("cpu"), "{}", embedding.place());
        vectors
            .push(server.client().await.embed(embed(&["the cat sat"])).await.unwrap().embeddings);
    }
    assert_eq!(vectors[0], vectors[1]);
}

#[tokio::test]
async fn a_key_is_needed_where_there_are_tenants() {
    let server = serve_with(|config| {
        with_tiny(config);
        let key = Some(Secret::new("open sesame"));
        config.tenants =
            vec![Tenant { name: "one".into(), key, key_sha256: None, max_in_flight: None }];
    })
    .await;
    server.running.embedder().await.unwrap();
    let nobody = server.client().await;
    assert_eq!(rejection(nobody.embed(embed(&["text"])).await).code, Code::Unauthenticated);
    assert_eq!(
        rejection(nobody.rerank(rerank("text", &["text"])).await).code,
        Code::Unauthenticated
    );
    let one = server.client_with_key("open sesame").await;
    assert!(one.embed(embed(&["text"])).await.is_ok());
}

#[tokio::test]
async fn a_deadline_ends_a_long_call_between_batches() {
    let server = serve_tiny().await;
    let long = "the cat sat on the mat and was unable to walk on ".repeat(4);
    let texts = embed(&vec![&*long; 1024]);
    let begun = Instant::now();
    let whole = server.client().await.embed(texts.clone()).await.unwrap();
    assert_eq!(whole.embeddings.len(), 1024);
    let whole = begun.elapsed();
    let begun = Instant::now();
    for method in ["Embed", "Rerank"].repeat(6) {
        let method = format!("/pith.v1.Embeddings/{method}");
        let request = v1::RerankRequest {
            query: "cat".into(),
            documents: texts.texts.clone(),
            ..Default::default()
        };
        let message = if method.ends_with("Embed") { framed(&texts) } else { framed(&request) };
        assert_eq!(
            raw_call(&server, &method, Some("1m"), message, true).await,
            Code::DeadlineExceeded
        );
    }
    // The work stops too: the next call does not wait until all twelve would have been done.
    server.client().await.embed(embed(&["a"])).await.unwrap();
    let took = begun.elapsed();
    assert!(took < 3 * whole + Duration::from_secs(1), "{took:?} after {whole:?}");
    assert_eq!(server.client().await.load().await.unwrap().in_flight_requests, 0);
}

#[tokio::test]
async fn an_embedder_that_loads_is_worth_coming_back_for() {
    // Begun, not awaited: whichever comes first, a client that tries again gets its vector.
    let server = begin_with(with_tiny).await;
    let client = pith_client::Client::connect(server.running.endpoint())
        .retry(Retry { attempts: 20, ..Retry::default() })
        .await
        .unwrap();
    assert_eq!(client.embed(embed(&["text"])).await.unwrap().dimensions, 32);
}
