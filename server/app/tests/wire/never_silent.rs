//! Nothing is shortened without leave; with leave, the report is exact and the budget is kept.

use crate::support::{document, essay, rejection, request, retrieve, serve};
use pith_client::{Code, Event, v1};
use v1::OffsetUnit;

const CONTEXT: u32 = 2048;

#[tokio::test]
async fn without_a_policy_too_long_is_an_error_with_both_counts() {
    let server = serve().await;
    let client = server.client().await;
    let documents = vec![document("essay", &essay(60))];
    let long = v1::GenerateRequest { documents, ..request("How tall is lighthouse 7?", 32) };
    let none =
        v1::CompressionPolicy { mode: v1::CompressionMode::None.into(), ..Default::default() };
    for policy in [None, Some(none)] {
        let refused =
            rejection(client.generate_unary(v1::GenerateRequest { policy, ..long.clone() }).await);
        assert_eq!(
            (refused.code, refused.reason.as_deref()),
            (Code::InvalidArgument, Some("PROMPT_TOO_LONG"))
        );
        let [tokens, limit] =
            ["prompt_tokens", "limit_tokens"].map(|key| refused.metadata[key].clone());
        assert_eq!(limit, (CONTEXT - 32).to_string());
        assert!(tokens.parse::<u32>().unwrap() > CONTEXT);
        assert!(
            refused.message.contains(&tokens) && refused.message.contains(&limit),
            "{refused:?}"
        );
        assert_eq!(refused.violations.len(), 1);
    }
    // So is a prompt without documents.
    let refused = rejection(client.generate_unary(request(&essay(60), 32)).await);
    assert_eq!(refused.reason.as_deref(), Some("PROMPT_TOO_LONG"));
    assert!(
        refused.metadata.contains_key("prompt_tokens")
            && refused.metadata.contains_key("limit_tokens")
    );
    let raw = v1::GenerateRequest { raw: true, ..request(&essay(60), 32) };
    assert_eq!(
        rejection(client.generate_unary(raw).await).reason.as_deref(),
        Some("PROMPT_TOO_LONG")
    );
}

#[tokio::test]
async fn what_fits_is_whole() {
    let server = serve().await;
    let text = essay(3);
    let whole =
        v1::GenerateRequest { documents: vec![document("a", &text)], ..request("How tall?", 8) };
    let answer = server.client().await.generate_unary(whole).await.unwrap();
    let report = answer.report.unwrap();
    assert_eq!(report.mode_used(), v1::CompressionMode::None);
    assert_eq!((report.tokens_before, report.dropped.len()), (report.tokens_after, 0));
    let span = report.kept[0].span.clone().unwrap();
    assert_eq!((span.start, span.end), (0, text.len() as u64));
    assert_eq!(answer.r#final.unwrap().usage.unwrap().prompt_tokens, report.prompt_tokens);
}

#[tokio::test]
async fn with_a_policy_every_byte_is_accounted_for() {
    let server = serve().await;
    let client = server.client().await;
    // Every offset unit counts this differently.
    let text = essay(40).replace("salt", "Sälz 🧂");
    for (unit, length) in [
        (OffsetUnit::Utf8Byte, text.len()),
        (OffsetUnit::CodePoint, text.chars().count()),
        (OffsetUnit::Unspecified, text.chars().count()),
        (OffsetUnit::Utf16, text.encode_utf16().count()),
    ] {
        let policed = v1::GenerateRequest {
            documents: vec![document("essay", &text)],
            policy: Some(retrieve(300)),
            output: Some(v1::OutputOptions { offset_unit: unit.into(), ..Default::default() }),
            ..request("How tall is the lighthouse of town number 17?", 8)
        };
        let mut answer = client.generate(policed).await.unwrap();
        let Some(Event::Report(report)) = answer.next().await.unwrap() else {
            panic!("no report first")
        };
        assert_eq!(report.mode_used(), v1::CompressionMode::Retrieve);
        assert!(report.tokens_after <= 300 && report.tokens_after > 0, "{report:?}");
        assert!(report.tokens_before > 2000 && report.budget_tokens == 300, "{report:?}");
        assert!(
            !report.stages.is_empty() && report.stages.iter().all(|stage| stage.seconds >= 0.0)
        );
        let mut spans: Vec<v1::Span> =
            report.kept.iter().filter_map(|kept| kept.span.clone()).collect();
        spans.extend(report.dropped.clone());
        spans.sort_by_key(|span| span.start);
        let mut at = 0;
        for span in spans {
            assert_eq!((span.document_id.as_str(), span.start), ("essay", at));
            at = span.end;
        }
        assert_eq!(at, length as u64, "{unit:?}");
        let last = loop {
            if let Event::Final(last) = answer.next().await.unwrap().unwrap() {
                break last;
            }
        };
        assert_eq!(last.usage.unwrap().prompt_tokens, report.prompt_tokens);
    }
}

#[tokio::test]
async fn kept_spans_say_where_they_stand_in_the_prompt() {
    let server = serve().await;
    let client = server.client().await;
    let text = essay(40);
    let policed = v1::GenerateRequest {
        documents: vec![document("essay", &text)],
        policy: Some(retrieve(200)),
        output: Some(v1::OutputOptions {
            offset_unit: OffsetUnit::Utf8Byte.into(),
            ..Default::default()
        }),
        ..request("How tall is the lighthouse of town number 17?", 4)
    };
    let report = client.generate_unary(policed).await.unwrap().report.unwrap();
    let mut before = 0;
    for kept in &report.kept {
        let (span, prompt) = (kept.span.clone().unwrap(), kept.prompt.unwrap());
        assert!(prompt.start >= before && prompt.end <= report.prompt_tokens, "{kept:?}");
        before = prompt.start;
        // The span by itself has about as many tokens as it has in the prompt: only its edges may merge.
        let alone = &text[span.start as usize..span.end as usize];
        let tokenized = client
            .tokenize(v1::TokenizeRequest { text: alone.to_owned(), ..Default::default() })
            .await;
        let tokens = tokenized.unwrap().token_ids.len() as u32;
        assert!((prompt.end - prompt.start).abs_diff(tokens) <= 2, "{kept:?} {tokens}");
    }
}

#[tokio::test]
async fn citations_quote_their_source() {
    let server = serve().await;
    let text = essay(10);
    let cited = v1::GenerateRequest {
        documents: vec![document("essay", &text)],
        output: Some(v1::OutputOptions {
            cite: true,
            offset_unit: OffsetUnit::Utf8Byte.into(),
            ..Default::default()
        }),
        ..request("How tall is the lighthouse of town number 7?", 40)
    };
    // The tiny model talks nonsense; whatever it cites must be there.
    let answer = server.client().await.generate_unary(cited).await.unwrap();
    for citation in &answer.citations {
        assert!(citation.answer_end <= answer.text.len() as u64 && !citation.sources.is_empty());
        for source in &citation.sources {
            let span = source.span.clone().unwrap();
            assert_eq!(&text[span.start as usize..span.end as usize], source.cited_text);
        }
    }
}
