//! Citations are true whatever the answer says, wherever it is cut, and whichever turn sent what it quotes.

mod support;

use pith_context::{Budget, Citation, Citer, Document, Format, Packed, Tools, compress};
use proptest::prelude::*;
use support::{Runs, document, retrieve};

fn sentence() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "(The|A|Its|Dr\\. A\\.) (quick|slow|old|köhler|3\\.14) (fox|bridge|engine|船) (ran|fell|was built) (near|over) the (red|grey|long) (river|road|wall)( in [0-9]{4})?[.!?] ",
        1 => prop::sample::select(vec![
            "\n\n", "# Heading\n", "- item one\n", "1. First. ", "東京は大きい。", "…", "e\u{301} 👩‍👩‍👧 ", "\u{a0}", "| a | b |\n",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,40}",
    ]
}

fn documents() -> impl Strategy<Value = Vec<Document>> {
    let one = (prop::collection::vec(sentence(), 1..14), any::<bool>());
    let one = one.prop_map(|(bits, markdown)| {
        document(&bits.concat(), if markdown { Format::Markdown } else { Format::Text })
    });
    prop::collection::vec(one, 1..4)
}

/// A part of an answer.
#[derive(Debug, Clone)]
enum Said {
    /// Copied from a document, from one place to another (in thousandths of its text).
    Quoted {
        document: usize,
        from: usize,
        to: usize,
    },
    Own(String),
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => (0..4_usize, 0..1000_usize, 0..1000_usize)
            .prop_map(|(document, from, to)| Said::Quoted { document, from, to }),
        2 => sentence().prop_map(Said::Own),
        1 => prop::sample::select(vec![
            "The answer is ", "According to the text, ", "- ", "\n", "In short, ", "answer: ", ", ", " ",
        ]).prop_map(|text| Said::Own(text.to_owned())),
    ]
}

fn answer(said: &[Said], documents: &[Document]) -> String {
    let mut answer = String::new();
    for said in said {
        match said {
            Said::Own(text) => answer.push_str(text),
            Said::Quoted { document, from, to } => {
                let text = &documents[document % documents.len()].text;
                let at =
                    |thousandths: &usize| text.floor_char_boundary(text.len() * thousandths / 1000);
                answer.push_str(&text[at(from.min(to))..at(from.max(to))]);
            }
        }
    }
    answer
}

/// Citations of `answer` when it comes in parts of these many bytes, over and over.
fn cite(mut citer: Citer, answer: &str, parts: &[usize]) -> Vec<Citation> {
    let (mut citations, mut at) = (Vec::new(), 0);
    for part in parts.iter().cycle() {
        if at >= answer.len() {
            break;
        }
        let end = answer.ceil_char_boundary((at + part).min(answer.len()));
        citations.extend(citer.push(&answer[at..end]));
        at = end;
    }
    citations.extend(citer.finish());
    assert!(citer.finish().is_empty());
    citations
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_citation_quotes_what_was_sent(
        documents in documents(),
        said in prop::collection::vec(said(), 1..8),
        parts in prop::collection::vec(1..30_usize, 1..12),
        budgets in (20..400_u32, 20..400_u32),
    ) {
        let chosen = |query: &str, tokens| {
            compress(&documents, &retrieve(query, Budget::Tokens(tokens)), None, &Runs { honesty: 10 }, Tools::default())
        };
        // Two turns, as they come; what both keep is there twice.
        let (Ok(first), Ok(second)) = (chosen("Who built the bridge?", budgets.0), chosen("What fell?", budgets.1)) else {
            return Ok(());
        };
        let contexts: [&Packed; 2] = [&first.context, &second.context];
        let mut kept = [&first.report.kept[..], &second.report.kept[..]].concat();
        kept.sort_by_key(|kept| kept.span);
        let answer = answer(&said, &documents);
        let citations = cite(Citer::over(&documents, contexts, &kept), &answer, &[usize::MAX / 2]);
        prop_assert_eq!(&cite(Citer::over(&documents, contexts, &kept), &answer, &parts), &citations);

        let mut last = 0;
        for Citation { answer: cited, sources } in &citations {
            prop_assert!(cited.start >= last && cited.start < cited.end);
            last = cited.end;
            prop_assert_eq!(answer[cited.clone()].trim(), &answer[cited.clone()]);
            prop_assert!((1..=3).contains(&sources.len()));
            for source in sources {
                let span = source.span;
                prop_assert_eq!(&documents[span.document].text[span.start..span.end], &source.cited_text);
                prop_assert!(source.score > 0.0 && source.score <= 1.0);
                let sent = contexts.iter().flat_map(|context| &context.pieces).any(|piece| {
                    piece.source.document == span.document
                        && piece.source.start <= span.start
                        && span.end <= piece.source.end
                });
                prop_assert!(sent, "cites what was never sent: {:?}", source);
            }
        }
    }
}

#[test]
fn any_turns_passages_may_be_cited() {
    let text = "The mill at Brigg grinds oats. Nobody lives there now. The tower of Corran was built in 1871.";
    let documents = [document(text, Format::Text)];
    let chosen = |query: &str| {
        let policy =
            pith_context::Policy { top_k: Some(1), ..retrieve(query, Budget::Tokens(200)) };
        compress(&documents, &policy, None, &Runs { honesty: 10 }, Tools::default())
            .unwrap()
            .context
    };
    let turns = [chosen("When was the tower built?"), chosen("What does the mill grind?")];
    let citer = Citer::over(&documents, &turns, &[]);
    let citations = cite(
        citer,
        "The old tower of Corran was built in 1871. The mill at Brigg grinds only oats.",
        &[7],
    );
    let quoted: Vec<&str> =
        citations.iter().map(|citation| citation.sources[0].cited_text.as_str()).collect();
    assert_eq!(
        quoted,
        ["The tower of Corran was built in 1871.", "The mill at Brigg grinds oats."]
    );
}
