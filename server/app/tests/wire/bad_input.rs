//! Every bad field is refused by name, and nobody else notices.

use crate::support::{canary, document, rejection, request, retrieve, serve};
use pith_client::{Code, v1};

type Edit = fn(&mut v1::GenerateRequest);

fn sampling(request: &mut v1::GenerateRequest) -> &mut v1::SamplingParams {
    request.sampling.get_or_insert_default()
}

fn stop(request: &mut v1::GenerateRequest) -> &mut v1::StopConditions {
    request.stop.get_or_insert_default()
}

fn policy(request: &mut v1::GenerateRequest) -> &mut v1::CompressionPolicy {
    request.documents = vec![document("a", "The lighthouse is tall. The harbour is old.")];
    request.policy.get_or_insert_with(|| retrieve(1000))
}

/// The field at fault, and what is done to a good request.
const CASES: &[(&str, Edit)] = &[
    ("prompt", |r| r.prompt.clear()),
    ("prompt", |r| r.prompt = " \n\t".into()),
    ("request_id", |r| r.request_id = "a b".into()),
    ("request_id", |r| r.request_id = "x".repeat(129)),
    ("parse_control_tokens", |r| r.parse_control_tokens = true),
    ("documents", |r| {
        r.raw = true;
        r.documents = vec![document("a", "text")];
    }),
    ("stop.max_tokens", |r| stop(r).max_tokens = Some(0)),
    ("stop.max_tokens", |r| stop(r).max_tokens = Some(u32::MAX)),
    ("stop.max_tokens", |r| stop(r).max_tokens = Some(2048)),
    ("stop.min_tokens", |r| stop(r).min_tokens = Some(5)),
    ("stop.strings[1]", |r| stop(r).strings = vec!["fine".into(), String::new()]),
    ("stop.strings[0]", |r| stop(r).strings = vec!["x".repeat(257)]),
    ("stop.strings", |r| stop(r).strings = vec!["x".into(); 17]),
    ("stop.token_ids", |r| stop(r).token_ids = vec![1; 65]),
    ("sampling.temperature", |r| sampling(r).temperature = Some(-0.1)),
    ("sampling.temperature", |r| sampling(r).temperature = Some(f32::NAN)),
    ("sampling.temperature", |r| sampling(r).temperature = Some(f32::INFINITY)),
    ("sampling.top_p", |r| sampling(r).top_p = Some(0.0)),
    ("sampling.top_p", |r| sampling(r).top_p = Some(f32::NAN)),
    ("sampling.min_p", |r| sampling(r).min_p = Some(1.5)),
    ("sampling.min_p", |r| sampling(r).min_p = Some(f32::NAN)),
    ("sampling.repetition_penalty", |r| sampling(r).repetition_penalty = Some(0.0)),
    ("sampling.repetition_penalty", |r| sampling(r).repetition_penalty = Some(f32::NAN)),
    ("sampling.frequency_penalty", |r| sampling(r).frequency_penalty = Some(f32::NAN)),
    ("sampling.presence_penalty", |r| sampling(r).presence_penalty = Some(-2.1)),
    ("sampling.logit_bias", |r| sampling(r).logit_bias = [(1, f32::NAN)].into()),
    ("sampling.logit_bias", |r| sampling(r).logit_bias = (0..1025).map(|id| (id, 0.0)).collect()),
    ("sampling.logit_bias", |r| sampling(r).logit_bias = [(1_000_000, 1.0)].into()),
    ("output.offset_unit", |r| r.output.get_or_insert_default().offset_unit = 99),
    ("documents", |r| r.documents = vec![document("", "text"); 257]),
    ("documents[1].id", |r| r.documents = vec![document("a", "x"), document("a", "y")]),
    ("documents[0].id", |r| r.documents = vec![document(&"x".repeat(129), "text")]),
    ("documents[0].text", |r| r.documents = vec![document("a", "")]),
    ("documents[0].title", |r| {
        r.documents = vec![v1::Document { title: "two\nlines".into(), ..document("a", "text") }];
    }),
    ("documents[0].mime", |r| {
        r.documents =
            vec![v1::Document { mime: "application/pdf".into(), ..document("a", "text") }];
    }),
    ("documents[0].metadata", |r| {
        let metadata = [("k".repeat(65), String::new())].into();
        r.documents = vec![v1::Document { metadata, ..document("a", "text") }];
    }),
    ("policy.mode", |r| policy(r).mode = 99),
    ("policy.max_context_tokens", |r| *policy(r) = retrieve(0)),
    ("policy.keep_ratio", |r| {
        policy(r).budget = Some(v1::compression_policy::Budget::KeepRatio(f32::NAN));
    }),
    ("policy.keep_ratio", |r| {
        policy(r).budget = Some(v1::compression_policy::Budget::KeepRatio(0.0));
    }),
    ("policy.min_score", |r| policy(r).min_score = Some(f32::NAN)),
    ("policy.top_k", |r| policy(r).top_k = Some(0)),
    ("policy.neighbor_window", |r| policy(r).neighbor_window = Some(65)),
    ("policy.query", |r| policy(r).query = "x".repeat(65_537)),
    ("policy.on_overflow", |r| policy(r).on_overflow = 99),
    // Smaller than any sentence.
    ("policy.budget", |r| *policy(r) = retrieve(1)),
];

#[tokio::test]
async fn every_bad_field_is_named_and_nobody_else_notices() {
    let server = serve().await;
    let client = server.client().await;
    let before = canary(&client).await;
    for (case, (field, edit)) in CASES.iter().enumerate() {
        let mut bad = request("What?", 4);
        edit(&mut bad);
        let streamed = rejection(client.generate(bad.clone()).await);
        let unary = rejection(client.generate_unary(bad).await);
        assert_eq!(streamed, unary, "case {case}");
        assert_eq!(streamed.code, Code::InvalidArgument, "case {case}, {field}: {streamed:?}");
        let named: Vec<&str> =
            streamed.violations.iter().map(|violation| &*violation.field).collect();
        assert_eq!(named, [*field], "case {case}: {streamed:?}");
        assert!(streamed.reason.is_some(), "case {case}");
    }
    assert_eq!(canary(&client).await, before);
    server.idle().await;
}

#[tokio::test]
async fn chats_are_checked_too() {
    use v1::Role::{Assistant, System, Unspecified, User};
    let server = serve().await;
    let client = server.client().await;
    let cases: [(&str, &[(v1::Role, &str)]); 7] = [
        ("messages", &[]),
        ("messages[0].content", &[(User, " ")]),
        ("messages[0].role", &[(Unspecified, "hello")]),
        ("messages[0].role", &[(System, "alone")]),
        ("messages[1].role", &[(User, "hello"), (System, "late"), (User, "hello")]),
        ("messages[1].role", &[(User, "hello"), (Assistant, "hello")]),
        ("messages[1].content", &[(User, "hello"), (User, "")]),
    ];
    for (field, messages) in cases {
        let message = |&(role, content): &(v1::Role, &str)| v1::ChatMessage {
            role: role.into(),
            content: content.to_owned(),
        };
        let chat = v1::ChatRequest {
            messages: messages.iter().map(message).collect(),
            ..Default::default()
        };
        let refused = rejection(client.chat_unary(chat).await);
        assert_eq!(refused.code, Code::InvalidArgument, "{field}: {refused:?}");
        assert_eq!(refused.violations[0].field, field);
    }
    let too_many = vec![v1::ChatMessage { role: User.into(), content: "x".into() }; 1025];
    let chat = v1::ChatRequest { messages: too_many, ..Default::default() };
    assert_eq!(rejection(client.chat_unary(chat).await).violations[0].field, "messages");
}

#[tokio::test]
async fn names_that_are_not_known_and_names_that_are_taken() {
    let server = serve().await;
    let client = server.client().await;
    let unknown = v1::GenerateRequest { model: "gpt-7".into(), ..request("What?", 4) };
    let refused = rejection(client.generate_unary(unknown).await);
    assert_eq!((refused.code, refused.reason.as_deref()), (Code::NotFound, Some("UNKNOWN_MODEL")));
    assert_eq!(refused.metadata["model"], "gpt-7");
    assert!(refused.message.contains("tiny"), "{refused:?}");

    let named =
        |tokens| v1::GenerateRequest { request_id: "mine".into(), ..request("What?", tokens) };
    let mut first = client.generate(named(1500)).await.unwrap();
    crate::support::first_tokens(&mut first).await;
    let taken = rejection(client.generate(named(4)).await);
    assert_eq!(
        (taken.code, taken.reason.as_deref()),
        (Code::AlreadyExists, Some("DUPLICATE_REQUEST_ID"))
    );
    drop(first);
    server.idle().await;

    let bad = v1::DetokenizeRequest { token_ids: vec![1, 1_000_000], ..Default::default() };
    assert_eq!(rejection(client.detokenize(bad).await).violations[0].field, "token_ids[1]");
    assert_eq!(rejection(client.abort("").await).violations[0].field, "request_id");
    assert!(!client.abort("nobody").await.unwrap());
}
