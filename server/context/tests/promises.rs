//! What holds for every context, whatever the documents, the budget and the model's way of counting.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/letters.rs"]
mod letters;
mod support;

use letters::Letters;
use pith_context::{
    Budget, Citer, Compressed, ContextError, Document, Embedder, Format, Fusion, Hint, HintKind,
    Mode, Order, Policy, PreparedCache, Tools, compress,
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
    let hint = (0.0..1.0_f64, 0.0..0.3_f64, 0..3_u8, 0.125..8.0_f32);
    let one = (
        prop::collection::vec(bit(), 0..12),
        prop::option::of("\\PC{0,12}|Bridges and engines"),
        any::<bool>(),
        0..8_u8,
        prop_oneof![3 => Just(1.0_f32), 1 => 0.125..8.0_f32],
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(hint, 0..4)],
    );
    let one = one.prop_map(|(bits, title, markdown, pin, weight, hints)| {
        let text = bits.concat();
        let mut at = 0;
        let mut spans = Vec::new();
        for (skip, length, kind, weight) in hints {
            let place = |share: f64| (share * text.len() as f64) as usize;
            let start = text.ceil_char_boundary((at + place(skip)).min(text.len()));
            let end = text.ceil_char_boundary((start + 1 + place(length)).min(text.len()));
            if start < end {
                let kind = match kind {
                    0 => HintKind::Protect,
                    1 => HintKind::Exclude,
                    _ => HintKind::Emphasize(weight),
                };
                spans.push(Hint { span: start..end, kind });
            }
            at = end;
        }
        let format = if markdown { Format::Markdown } else { Format::Text };
        Document { title, pinned: pin == 0, weight, hints: spans, ..document(&text, format) }
    });
    prop::collection::vec(one, 0..4)
}

/// Documents of which nothing is to be left out.
fn unhinted() -> impl Strategy<Value = Vec<Document>> {
    documents().prop_map(|mut documents| {
        documents.iter_mut().for_each(|document| document.hints.clear());
        documents
    })
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
    let weight = || prop::option::weighted(0.3, prop_oneof![Just(0.0_f32), 0.1..9.0_f32]);
    let order = prop::sample::select(vec![Order::Original, Order::Relevance, Order::Edges]);
    let fusion = prop::sample::select(vec![Fusion::Scores, Fusion::Ranks]);
    (budget, query, window, top_k, min_score, (weight(), weight(), order, fusion)).prop_map(
        |(budget, query, neighbor_window, top_k, min_score, (lexical, dense, order, fusion))| {
            Policy {
                neighbor_window,
                top_k,
                min_score,
                lexical_weight: lexical,
                // Not both may be 0.
                dense_weight: dense.filter(|dense| *dense > 0.0 || lexical != Some(0.0)),
                order,
                fusion,
                ..retrieve(&query, budget)
            }
        },
    )
}

/// Tiling, byte identity, order, exact counts, budget and limit.
fn check(documents: &[Document], order: Order, result: &Compressed, limit: Option<u32>) {
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
        assert!(pair[0].packed.end < pair[1].packed.start);
        assert!(order != Order::Original || pair[0].source < pair[1].source, "order");
        let (before, after) = (pair[0].source, pair[1].source);
        let moved = documents.len() > 1 && before.document == after.document && before > after;
        assert!(!moved, "a document of several keeps its order");
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
        dense in any::<bool>(),
        embed_bytes in prop::option::of(0..3000_usize),
    ) {
        let model = Runs { honesty };
        let cache = PreparedCache::new(1 << 20);
        let embedder = dense.then_some(&Letters as &dyn Embedder);
        let tools = Tools { embedder, cache: Some(&cache), embed_bytes, tenant: "one" };
        match compress(&documents, &policy, limit, &model, tools) {
            Ok(result) => {
                check(&documents, policy.order, &result, limit);
                let again = compress(&documents, &policy, limit, &model, tools).unwrap();
                prop_assert_eq!(&again.context, &result.context);
                prop_assert_eq!(&again.report.kept, &result.report.kept);
                // Whatever was embedded before for other questions and settings.
                let warm = PreparedCache::new(1 << 20);
                for bytes in [embed_bytes.map(|bytes| bytes / 2), None] {
                    let other = Policy { query: "What was slow?".to_owned(), ..policy.clone() };
                    let tools = Tools { cache: Some(&warm), embed_bytes: bytes, ..tools };
                    let _ = compress(&documents, &other, limit, &model, tools);
                    let tools = Tools { embed_bytes, ..tools };
                    let again = compress(&documents, &policy, limit, &model, tools).unwrap();
                    prop_assert_eq!(&again.context, &result.context);
                    prop_assert_eq!(&again.report.kept, &result.report.kept);
                }
                if let Some(k) = policy.top_k {
                    let chosen = result.report.kept.iter().filter(|kept| kept.rank > 0 && !kept.expanded);
                    prop_assert!(chosen.count() <= k as usize);
                }
                for (number, document) in documents.iter().enumerate() {
                    let touches = |kind: fn(&HintKind) -> bool, start: usize, end: usize| document.hints.iter()
                        .any(|hint| kind(&hint.kind) && hint.span.start < end && start < hint.span.end);
                    let excluded = |start, end| touches(|kind| *kind == HintKind::Exclude, start, end);
                    for kept in result.report.kept.iter().map(|kept| kept.span).filter(|span| span.document == number) {
                        for hint in document.hints.iter().filter(|hint| hint.kind == HintKind::Exclude) {
                            let (from, to) = (hint.span.start.max(kept.start), hint.span.end.min(kept.end));
                            // White space around a sentence is kept with it.
                            let said = document.text.get(from..to).is_none_or(|said| said.trim().is_empty());
                            prop_assert!(said, "left out, and kept");
                        }
                    }
                    for dropped in result.report.dropped.iter().filter(|span| span.document == number) {
                        let said_of = |from: usize, to: usize| document.text[from.max(dropped.start)..to.min(dropped.end)].trim();
                        // A sentence that is protected and excluded is left out.
                        if excluded(dropped.start, dropped.end) {
                            continue;
                        }
                        prop_assert!(!document.pinned || said_of(dropped.start, dropped.end).is_empty(), "pinned, and dropped");
                        for hint in document.hints.iter().filter(|hint| hint.kind == HintKind::Protect) {
                            let apart = hint.span.end <= dropped.start || dropped.end <= hint.span.start;
                            prop_assert!(apart || said_of(hint.span.start, hint.span.end).is_empty(), "protected, and dropped");
                        }
                    }
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
    fn none_keeps_everything_or_fails(documents in unhinted(), limit in prop::option::of(0..600_u32)) {
        let policy = Policy { mode: Mode::None, ..retrieve("", Budget::Tokens(1)) };
        match compress(&documents, &policy, limit, &Runs { honesty: 10 }, Tools::default()) {
            Ok(result) => {
                check(&documents, Order::Original, &result, limit);
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
        documents in unhinted(),
        extra in prop::collection::vec(bit(), 0..6),
        cuts in prop::collection::vec(1..40_usize, 1..20),
    ) {
        let policy = Policy { mode: Mode::None, ..retrieve("", Budget::Tokens(1)) };
        let result = compress(&documents, &policy, None, &Runs { honesty: 10 }, Tools::default()).unwrap();
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
                Tools::default(),
            ) {
                Ok(result) => check(&documents, Order::Original, &result, None),
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
        ("min_score", Policy { min_score: Some(-0.1), ..good.clone() }),
        ("lexical_weight", Policy { lexical_weight: Some(f32::NAN), ..good.clone() }),
        ("dense_weight", Policy { dense_weight: Some(-1.0), ..good.clone() }),
        (
            "dense_weight",
            Policy { lexical_weight: Some(0.0), dense_weight: Some(0.0), ..good.clone() },
        ),
    ];
    for (expected, policy) in cases {
        match compress(&[], &policy, None, &Runs { honesty: 10 }, Tools::default()) {
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
    let error = compress(&documents, &none, Some(full - 1), &model, Tools::default()).unwrap_err();
    assert_eq!(error, ContextError::Overflow { prompt_tokens: full, limit: full - 1 });
    assert_eq!(
        error.to_string(),
        format!("the prompt has {full} tokens, the model takes at most {}", full - 1)
    );

    let policy = retrieve("When was the bridge opened?", Budget::Tokens(5));
    let first = prompt_tokens("It carries two lanes of traffic.") - prompt_tokens("");
    let error = compress(&documents, &policy, None, &model, Tools::default()).unwrap_err();
    assert_eq!(error, ContextError::BudgetTooSmall { needed: first, budget: 5 });

    text.pinned = true;
    let needed = full - prompt_tokens("");
    let error = compress(&[text], &policy, None, &model, Tools::default()).unwrap_err();
    assert_eq!(error, ContextError::PinnedTooLarge { needed, budget: 5 });
}

#[test]
fn wrong_hints_name_their_document() {
    let text = "The bridge at Tölmin was opened in May. It carries two lanes of traffic.";
    let hinted = |spans: &[(usize, usize)], kind: HintKind| Document {
        id: "d".to_owned(),
        hints: spans.iter().map(|&(start, end)| Hint { span: start..end, kind }).collect(),
        ..document(text, Format::Text)
    };
    let weighted = |weight| Document { id: "d".to_owned(), weight, ..document(text, Format::Text) };
    let umlaut = text.find('ö').unwrap() + 1;
    let cases = [
        ("hints", hinted(&[(0, text.len() + 1)], HintKind::Protect)),
        ("hints", hinted(&[(5, 5)], HintKind::Protect)),
        ("hints", hinted(&[(umlaut, umlaut + 4)], HintKind::Exclude)),
        ("hints", hinted(&[(8, 20), (0, 9)], HintKind::Exclude)),
        ("hints", hinted(&[(0, 9)], HintKind::Emphasize(f32::NAN))),
        ("hints", hinted(&[(0, 9)], HintKind::Emphasize(0.0))),
        ("weight", weighted(f32::INFINITY)),
        ("weight", weighted(-1.0)),
    ];
    let policy = retrieve("When was the bridge opened?", Budget::Tokens(15));
    for (expected, document) in cases {
        match compress(&[document], &policy, None, &Runs { honesty: 10 }, Tools::default()) {
            Err(ContextError::Hint { document, field, .. }) => {
                assert_eq!((&*document, field), ("d", expected));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Leaving something out is a change, which only a policy may allow.
    let none = Policy { mode: Mode::None, ..policy };
    let excluded = hinted(&[(0, 9)], HintKind::Exclude);
    let error = compress(&[excluded], &none, None, &Runs { honesty: 10 }, Tools::default());
    assert!(matches!(error, Err(ContextError::Hint { field: "hints", .. })));
}
