//! What holds for every context, whatever the documents, the budget and the model's way of counting.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pith_context::{
    Budget, Citer, Compressed, ContextError, Document, Format, Mode, Policy, compress,
};
use proptest::prelude::*;
use support::{Runs, document, retrieve};

/// Bits that documents are made of: ordinary sentences, the marks that mislead a cutter, and anything at all.
fn bit() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "(The|A|This|It|Dr\\.|J\\. K\\.) (quick|slow|old|köhler|harbour|2019|3\\.14|AB-12) (fox|bridge|engine|船) (ran|fell|was built)( in the U\\.S\\.| by No\\. 5)?[.!?] ?",
        2 => prop::sample::select(vec![
            "\n", "\r\n", "\n\n", "\r", " \t ", "# Heading\n", "## Sub heading ##\n", "Title\n===\n", "```\ncode; code\n```\n",
            "| a | b |\n| 1 | 2 |\n", "- item one\n- item two\n", "1. First. 2. Second.\n", "> quote\n", "。", "東京は大きい。", "…", "\u{2028}",
            "~~~\nopen", "e\u{301}", "👩‍👩‍👧", ".))))))", "          ", "...", "\u{feff}", "\u{a0}",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,40}",
        1 => "[a-z]{1,9}( [a-z]{1,9}){0,200}",
        1 => "[^ ]{700,1700}",
    ]
}

fn documents() -> impl Strategy<Value = Vec<Document>> {
    let one = (
        prop::collection::vec(bit(), 0..12),
        prop::option::of("\\PC{0,12}|Bridges and engines"),
        any::<bool>(),
        0..8_u8,
    );
    let one = one.prop_map(|(bits, title, markdown, pin)| Document {
        title,
        pinned: pin == 0,
        ..document(&bits.concat(), if markdown { Format::Markdown } else { Format::Text })
    });
    prop::collection::vec(one, 0..4)
}

fn policies() -> impl Strategy<Value = Policy> {
    let budget = prop_oneof![
        (1..400_u32).prop_map(Budget::Tokens),
        (0.01..1.0_f32).prop_map(Budget::KeepRatio)
    ];
    let query = prop_oneof![4 => "(Who|What) (built|was) the (bridge|engine|fox|船|köhler)\\?", 1 => "\\PC{1,30}"];
    let window = prop::option::of(0..5_u32);
    let top_k = prop::option::weighted(0.2, 1..5_u32);
    let min_score = prop::option::weighted(0.2, 0.0..1.0_f32);
    (budget, query, window, top_k, min_score).prop_map(
        |(budget, query, neighbor_window, top_k, min_score)| Policy {
            neighbor_window,
            top_k,
            min_score,
            ..retrieve(&query, budget)
        },
    )
}

/// Tiling, byte identity, order, exact counts, budget and limit.
fn check(documents: &[Document], result: &Compressed, limit: Option<u32>) {
    let Compressed { context, report } = result;
    let (base, prompt) = (prompt_tokens(""), prompt_tokens(&context.text));
    assert_eq!(report.prompt_tokens, prompt);
    assert_eq!(report.tokens_after, prompt.saturating_sub(base));
    assert!(
        report.tokens_after <= report.budget_tokens,
        "{} > {}",
        report.tokens_after,
        report.budget_tokens
    );
    assert!(limit.is_none_or(|limit| prompt <= limit));

    for piece in &context.pieces {
        let source = &documents[piece.source.document].text[piece.source.start..piece.source.end];
        assert_eq!(source, &context.text[piece.packed.clone()]);
    }
    for pair in context.pieces.windows(2) {
        assert!(
            pair[0].source < pair[1].source && pair[0].packed.end < pair[1].packed.start,
            "order"
        );
    }

    // Every byte is in one kept or dropped span.
    let mut spans: Vec<_> =
        report.kept.iter().map(|kept| kept.span).chain(report.dropped.iter().copied()).collect();
    assert!(report.kept.is_sorted_by_key(|kept| kept.span) && report.dropped.is_sorted());
    spans.sort();
    for (number, source) in documents.iter().enumerate() {
        let mut at = 0;
        for span in spans.iter().filter(|span| span.document == number) {
            assert_eq!(span.start, at, "document {number}");
            assert!(span.end > span.start);
            assert!(source.text.is_char_boundary(span.end));
            at = span.end;
        }
        assert_eq!(at, source.text.len(), "document {number}");
    }
    // What is kept is what is sent: the same bytes.
    let sent: usize = context.pieces.iter().map(|piece| piece.packed.len()).sum();
    assert_eq!(sent, report.kept.iter().map(|kept| kept.span.end - kept.span.start).sum::<usize>());
    for kept in &report.kept {
        let inside = |piece: &&pith_context::Piece| {
            piece.source.document == kept.span.document
                && piece.source.start <= kept.span.start
                && kept.span.end <= piece.source.end
        };
        assert!(context.pieces.iter().any(|piece| inside(&piece)));
        assert!((0.0..=1.0).contains(&kept.score) && kept.lexical >= 0.0);
    }
}

fn prompt_tokens(context: &str) -> u32 {
    use pith_context::LanguageModel;
    Runs { honesty: 10 }.prompt_tokens(context).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn retrieval_keeps_its_promises(
        documents in documents(),
        policy in policies(),
        limit in prop::option::of(0..600_u32),
        honesty in prop::sample::select(vec![0, 3, 10, 10, 10, 40]),
    ) {
        let model = Runs { honesty };
        match compress(&documents, &policy, limit, &model) {
            Ok(result) => {
                check(&documents, &result, limit);
                let again = compress(&documents, &policy, limit, &model).unwrap();
                prop_assert_eq!(&again.context, &result.context);
                prop_assert_eq!(&again.report.kept, &result.report.kept);
                if let Some(k) = policy.top_k {
                    let chosen = result.report.kept.iter().filter(|kept| !documents[kept.span.document].pinned && !kept.expanded);
                    prop_assert!(chosen.count() <= k as usize);
                }
                for (number, _) in documents.iter().enumerate().filter(|(_, d)| d.pinned) {
                    prop_assert!(result.report.dropped.iter().all(|span| span.document != number));
                }
            }
            Err(ContextError::Overflow { prompt_tokens: tokens, limit: most }) => {
                prop_assert_eq!(tokens, prompt_tokens(""));
                prop_assert!(limit == Some(most) && tokens > most);
            }
            Err(ContextError::BudgetTooSmall { needed, budget } | ContextError::PinnedTooLarge { needed, budget }) => {
                prop_assert!(needed > budget);
            }
            Err(ContextError::Policy { field, .. }) => prop_assert!(field == "query" && policy.query.trim().is_empty()),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn none_keeps_everything_or_fails(documents in documents(), limit in prop::option::of(0..600_u32)) {
        let policy = Policy { mode: Mode::None, ..retrieve("", Budget::Tokens(1)) };
        match compress(&documents, &policy, limit, &Runs { honesty: 10 }) {
            Ok(result) => {
                check(&documents, &result, limit);
                prop_assert!(result.report.dropped.is_empty());
                prop_assert_eq!(result.report.tokens_before, result.report.tokens_after);
            }
            Err(ContextError::Overflow { prompt_tokens, limit: most }) => {
                prop_assert!(limit == Some(most) && prompt_tokens > most);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    /// However an answer is cut into parts, its citations are the same, and true.
    #[test]
    fn citations_are_true_and_do_not_depend_on_the_parts(
        documents in documents(),
        extra in prop::collection::vec(bit(), 0..6),
        cuts in prop::collection::vec(1..40_usize, 1..20),
    ) {
        let policy = Policy { mode: Mode::None, ..retrieve("", Budget::Tokens(1)) };
        let result = compress(&documents, &policy, None, &Runs { honesty: 10 }).unwrap();
        let answer = format!("{}{}", documents.first().map_or("", |d| &d.text), extra.concat());
        let mut whole = Citer::new(&documents, &result.context);
        let mut expected = whole.push(&answer);
        expected.extend(whole.finish());

        let mut parts = Citer::new(&documents, &result.context);
        let mut got = Vec::new();
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < answer.len() {
            let end = answer.ceil_char_boundary((at + cuts.next().unwrap()).min(answer.len()));
            got.extend(parts.push(&answer[at..end]));
            at = end;
        }
        got.extend(parts.finish());
        prop_assert_eq!(&got, &expected);
        prop_assert!(parts.finish().is_empty());

        let mut last = 0;
        for citation in &expected {
            prop_assert!(citation.answer.start >= last && citation.answer.start < citation.answer.end);
            last = citation.answer.end;
            let cited = &answer[citation.answer.clone()];
            prop_assert_eq!(cited.trim(), cited);
            prop_assert!((1..=3).contains(&citation.sources.len()));
            for source in &citation.sources {
                let span = source.span;
                prop_assert_eq!(&documents[span.document].text[span.start..span.end], &source.cited_text);
                prop_assert!(result.context.pieces.iter().any(|piece| piece.source.document == span.document
                    && piece.source.start <= span.start && span.end <= piece.source.end));
                prop_assert!(source.score > 0.0 && source.score <= 1.0);
            }
        }
    }
}

/// Linear in the text, whatever it holds: a look-ahead to the next letter, say, would make some of these quadratic.
#[test]
fn hostile_text_costs_no_more_than_its_length() {
    let patterns = [
        ".)", ".", "x", " ", "(", "?(", "Dr. ", "a.", "- ", "|", "# ", "```\n", "\n\n", "1. ",
        "。", "e\u{301}", "\r", "A. ", "I am. ",
    ];
    for pattern in patterns {
        let text = format!(
            "Start. {} {}end. Another sentence.",
            ".)".repeat(8),
            pattern.repeat(60_000 / pattern.len())
        );
        for format in [Format::Text, Format::Markdown] {
            let documents = [document(&text, format)];
            let start = std::time::Instant::now();
            match compress(
                &documents,
                &retrieve("which sentence?", Budget::Tokens(200)),
                None,
                &Runs { honesty: 10 },
            ) {
                Ok(result) => check(&documents, &result, None),
                Err(error) => assert!(
                    matches!(error, ContextError::BudgetTooSmall { .. }),
                    "{pattern:?}: {error}"
                ),
            }
            assert!(start.elapsed().as_secs() < 20, "{pattern:?} took {:?}", start.elapsed());
        }
    }
}

#[test]
fn wrong_policies_name_their_field() {
    let good = retrieve("who?", Budget::Tokens(10));
    let cases = [
        ("query", Policy { query: " \n".to_owned(), ..good.clone() }),
        ("budget", Policy { budget: Budget::Tokens(0), ..good.clone() }),
        ("budget", Policy { budget: Budget::KeepRatio(0.0), ..good.clone() }),
        ("budget", Policy { budget: Budget::KeepRatio(1.01), ..good.clone() }),
        ("budget", Policy { budget: Budget::KeepRatio(f32::NAN), ..good.clone() }),
        ("budget", Policy { budget: Budget::KeepRatio(f32::INFINITY), ..good.clone() }),
        ("neighbor_window", Policy { neighbor_window: Some(65), ..good.clone() }),
        ("top_k", Policy { top_k: Some(0), ..good.clone() }),
        ("min_score", Policy { min_score: Some(f32::NAN), ..good.clone() }),
        ("min_score", Policy { min_score: Some(-0.1), ..good }),
    ];
    for (expected, policy) in cases {
        match compress(&[], &policy, None, &Runs { honesty: 10 }) {
            Err(ContextError::Policy { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn errors_name_both_counts() {
    let model = Runs { honesty: 10 };
    let mut text = document(
        "The bridge at Tolmin was opened in May. It carries two lanes of traffic.",
        Format::Text,
    );
    let documents = [text.clone()];
    let none = Policy { mode: Mode::None, ..retrieve("", Budget::Tokens(1)) };
    let full = prompt_tokens(&text.text);
    let error = compress(&documents, &none, Some(full - 1), &model).unwrap_err();
    assert_eq!(error, ContextError::Overflow { prompt_tokens: full, limit: full - 1 });
    assert_eq!(
        error.to_string(),
        format!("the prompt has {full} tokens, the model takes at most {}", full - 1)
    );

    let policy = retrieve("When was the bridge opened?", Budget::Tokens(5));
    let first = prompt_tokens("It carries two lanes of traffic.") - prompt_tokens("");
    let error = compress(&documents, &policy, None, &model).unwrap_err();
    assert_eq!(error, ContextError::BudgetTooSmall { needed: first, budget: 5 });

    text.pinned = true;
    let needed = full - prompt_tokens("");
    let error = compress(&[text], &policy, None, &model).unwrap_err();
    assert_eq!(error, ContextError::PinnedTooLarge { needed, budget: 5 });
}
