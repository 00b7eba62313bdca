//! What a chat was sent from its documents stays where it was sent, and is not computed again.

use std::collections::BTreeMap;

use crate::support::{Server, document, rejection, retrieve, serve, serve_with};
use pith_client::{Client, Code, v1};
use pith_server::config::{Secret, Tenant};

/// What the prefix cache must hold of a turn's prompt when the next one comes.
const CACHED: f64 = 0.95;

fn say(role: v1::Role, content: &str) -> v1::ChatMessage {
    v1::ChatMessage { role: role.into(), content: content.to_owned() }
}

/// A sticky chat with one document, and room for short answers.
fn chat(text: &str, budget: u32) -> v1::ChatRequest {
    v1::ChatRequest {
        documents: vec![document("handbook", text)],
        policy: Some(v1::CompressionPolicy { sticky: true, ..retrieve(budget) }),
        stop: Some(v1::StopConditions { max_tokens: Some(12), ..Default::default() }),
        output: Some(v1::OutputOptions {
            offset_unit: v1::OffsetUnit::Utf8Byte.into(),
            cite: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Asks `question` next, and takes the answer into the chat.
async fn ask(client: &Client, chat: &mut v1::ChatRequest, question: &str) -> Turn {
    chat.messages.push(say(v1::Role::User, question));
    let answer = client.chat_unary(chat.clone()).await.unwrap();
    let said = if answer.text.trim().is_empty() { "Yes." } else { answer.text.as_str() };
    chat.messages.push(say(v1::Role::Assistant, said));
    let report = answer.report.unwrap();
    check(&report, &chat.documents[0].text);
    let usage = answer.r#final.unwrap().usage.unwrap();
    assert_eq!(usage.prompt_tokens, report.prompt_tokens);
    for source in answer.citations.iter().flat_map(|citation| &citation.sources) {
        let span = source.span.as_ref().unwrap();
        let cited = &chat.documents[0].text[span.start as usize..span.end as usize];
        assert_eq!(cited, source.cited_text);
    }
    Turn { report, usage }
}

struct Turn {
    report: v1::CompressionReport,
    usage: v1::Usage,
}

impl Turn {
    fn sticky(&self) -> &v1::Sticky {
        self.report.sticky.as_ref().unwrap()
    }

    /// The spans that stand before each message, and where in the prompt.
    fn standing(&self) -> BTreeMap<u32, Vec<(u64, u64, u32, u32)>> {
        let mut standing = BTreeMap::<u32, Vec<_>>::new();
        for kept in &self.report.kept {
            let (span, prompt) = (kept.span.as_ref().unwrap(), kept.prompt.unwrap());
            let place = (span.start, span.end, prompt.start, prompt.end);
            standing.entry(kept.message.unwrap()).or_default().push(place);
        }
        standing
    }
}

/// Budget and tiling.
fn check(report: &v1::CompressionReport, text: &str) {
    assert!(report.tokens_after <= report.budget_tokens, "{report:?}");
    let sticky = report.sticky.as_ref().unwrap();
    assert_eq!(sticky.tokens_kept + sticky.tokens_added, report.tokens_after);
    let kept = report.kept.iter().filter_map(|kept| kept.span.clone());
    let mut spans: Vec<v1::Span> = kept.chain(report.dropped.clone()).collect();
    spans.sort_by_key(|span| span.start);
    let mut at = 0;
    for span in spans {
        assert_eq!(span.start, at);
        at = span.end;
    }
    assert_eq!(at, text.len() as u64);
}

/// Paragraphs about one thing each.
fn handbook(paragraphs: usize) -> String {
    let things = ["lighthouse", "windmill", "sawmill", "granary", "chapel", "viaduct"];
    let places = ["Aldmoor", "Brigg", "Corran", "Dunholt", "Eskdale", "Farnley", "Garth"];
    let paragraph = |n: usize| {
        let (thing, place) = (things[n % 6], places[n % 7]);
        format!(
            "The {thing} number {n} stands in {place}. Its keeper paints the {thing} in May. \
             Visitors of {place} pay {n}0 crowns for it.\n\n"
        )
    };
    (1..=paragraphs).map(paragraph).collect()
}

const QUESTIONS: [&str; 5] = [
    "What do visitors of the windmill in Brigg pay?",
    "And where does the granary number 4 stand?",
    "Who paints the chapel in Eskdale?",
    "Thank you! Which viaduct is in Farnley?",
    "What do visitors of the sawmill number 3 pay?",
];

/// Five turns over one document: nothing moves, and next to nothing is computed again.
async fn five_turns(server: &Server, text: &str, budget: u32) {
    let client = server.client().await;
    let mut chat = chat(text, budget);
    let mut before: Option<Turn> = None;
    let mut added = 0;
    for (number, question) in QUESTIONS.into_iter().enumerate() {
        let turn = ask(&client, &mut chat, question).await;
        let sticky = turn.sticky();
        added += u32::from(sticky.tokens_added > 0);
        assert!(!sticky.fresh, "{sticky:?}");
        if let Some(before) = before {
            let cached = f64::from(turn.usage.cached_tokens);
            let prompt = f64::from(before.usage.prompt_tokens);
            assert!(cached >= CACHED * prompt, "turn {}: {cached} of {prompt}", number + 1);
            let now = turn.standing();
            for (message, spans) in before.standing() {
                assert_eq!(now[&message], spans, "what stands before message {message} moved");
            }
        }
        before = Some(turn);
    }
    assert!(added >= 3, "the questions ask for different passages");
    server.idle().await;
}

#[tokio::test]
async fn in_five_turns_nothing_moves() {
    five_turns(&serve().await, &handbook(60), 800).await;
}

#[tokio::test]
async fn in_five_turns_with_a_real_model_nothing_moves() {
    let server = serve_with(|config| {
        config.model.name = "smollm2".to_owned();
        config.cpu.threads = 0;
        config.cpu.kv_mib = 256;
    })
    .await;
    five_turns(&server, &handbook(400), 512).await;
}

#[tokio::test]
async fn a_chat_may_branch() {
    let server = serve().await;
    let client = server.client().await;
    let mut trunk = chat(&handbook(60), 800);
    let first = ask(&client, &mut trunk, QUESTIONS[0]).await;
    let mut branch = trunk.clone();
    let second = ask(&client, &mut trunk, QUESTIONS[1]).await;
    let other = ask(&client, &mut branch, QUESTIONS[2]).await;
    for turn in [&second, &other] {
        assert_eq!(turn.standing()[&0], first.standing()[&0]);
        assert_eq!((turn.sticky().turns_kept, turn.sticky().fresh), (1, false));
    }
    assert_ne!(second.standing().get(&2), other.standing().get(&2));
    let third = ask(&client, &mut trunk, QUESTIONS[3]).await;
    assert_eq!(third.standing().get(&2), second.standing().get(&2));
}

#[tokio::test]
async fn another_document_policy_or_tenant_shares_nothing() {
    let tenant = |name: &str| Tenant {
        name: name.to_owned(),
        key: Some(Secret::new(name)),
        key_sha256: None,
        max_in_flight: None,
    };
    let server = serve_with(|config| config.tenants = vec![tenant("us"), tenant("them")]).await;
    let (us, them) = (server.client_with_key("us").await, server.client_with_key("them").await);
    let mut chat = chat(&handbook(60), 800);
    ask(&us, &mut chat, QUESTIONS[0]).await;
    let same = ask(&us, &mut chat.clone(), QUESTIONS[1]).await;
    assert_eq!(same.sticky().turns_kept, 1);
    let alien = ask(&them, &mut chat.clone(), QUESTIONS[1]).await;
    assert_eq!((alien.sticky().turns_kept, alien.usage.cached_tokens), (0, 0));
    let mut changed = chat.clone();
    changed.documents[0].text.push_str("The end.");
    assert_eq!(ask(&us, &mut changed, QUESTIONS[1]).await.sticky().turns_kept, 0);
    let mut stricter = chat.clone();
    stricter.policy.as_mut().unwrap().top_k = Some(5);
    assert_eq!(ask(&us, &mut stricter, QUESTIONS[1]).await.sticky().turns_kept, 0);
    // A dry run looks and leaves no trace.
    chat.messages.push(say(v1::Role::User, QUESTIONS[1]));
    let dry = v1::ChatRequest { dry_run: true, ..chat.clone() };
    let told = us.chat_unary(dry).await.unwrap().report.unwrap();
    assert_eq!(told.sticky, same.report.sticky);
}

#[tokio::test]
async fn a_spent_budget_leads_to_a_stated_fresh_choice() {
    let server = serve().await;
    let client = server.client().await;
    let mut chat = chat(&handbook(60), 450);
    let mut fresh = 0;
    let further = [
        "Which lighthouse is in Aldmoor?",
        "What do visitors of the windmill in Garth pay?",
        "Where does the chapel number 41 stand?",
    ];
    for (before, question) in QUESTIONS.into_iter().chain(further).enumerate() {
        let turn = ask(&client, &mut chat, question).await;
        let sticky = turn.sticky();
        if sticky.fresh {
            fresh += 1;
            assert!(before > 0 && sticky.turns_kept == 0 && sticky.reason.contains("anew"));
            let last = chat.messages.len() as u32 - 2;
            assert_eq!(turn.standing().into_keys().collect::<Vec<_>>(), [last]);
        }
    }
    assert!(fresh >= 1, "the budget lasts for eight turns");
}

#[tokio::test]
async fn only_a_chat_is_sticky() {
    let server = serve().await;
    let client = server.client().await;
    let policy = Some(v1::CompressionPolicy { sticky: true, ..retrieve(100) });
    let documents = vec![document("a", "The lighthouse is tall.")];
    let generate = v1::GenerateRequest {
        prompt: "How tall?".to_owned(),
        documents: documents.clone(),
        policy: policy.clone(),
        ..Default::default()
    };
    let compress = v1::CompressRequest {
        query: "How tall?".to_owned(),
        documents,
        policy,
        ..Default::default()
    };
    for refused in [
        rejection(client.generate_unary(generate).await),
        rejection(client.compress(compress).await),
    ] {
        assert_eq!(refused.code, Code::InvalidArgument);
        assert_eq!(refused.violations[0].field, "policy.sticky");
    }
}
