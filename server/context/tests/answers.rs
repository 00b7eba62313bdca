//! A small set of texts and questions of our own: the sentence that answers is kept, at every budget.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pith_context::{Budget, Citer, Document, Format, compress};
use support::{Runs, document, retrieve};

const QUESTIONS: &[(&str, &str)] = &[
    ("When was the viaduct over the Sela finished?", "autumn of 1884"),
    ("Who drew the plans of the viaduct?", "Irma Valdek"),
    ("How long is the longest span of the viaduct?", "62 metres"),
    ("What stone was the viaduct built of?", "pale limestone"),
    ("Which error code does the pump report when the filter is blocked?", "E-417"),
    ("How often must the pump's seals be replaced?", "every 900 hours"),
    ("What voltage does the pump controller need?", "24 volts"),
    ("Which port does the status page listen on?", "8417"),
    ("Why did the orchard give up plums?", "a fungus that no spray would hold"),
    ("How many trees does the orchard have?", "1,240 trees"),
    ("Who inherited the orchard from Tomas Orlan?", "his niece Beate"),
    ("What do the owls of the orchard eat?", "voles"),
];

fn library() -> Vec<Document> {
    let title = |title: &str, document| Document { title: Some(title.to_owned()), ..document };
    vec![
        title("The Sela viaduct", document(include_str!("fixtures/viaduct.txt"), Format::Text)),
        title("Pump P2 handbook", document(include_str!("fixtures/pump.md"), Format::Markdown)),
        title("Orlan's orchard", document(include_str!("fixtures/orchard.txt"), Format::Text)),
    ]
}

/// Questions whose answer is kept within `budget` tokens.
fn kept(budget: u32) -> usize {
    let documents = library();
    let answered = |(question, answer): &&(&str, &str)| {
        let policy = retrieve(question, Budget::Tokens(budget));
        let result = compress(&documents, &policy, None, &Runs { honesty: 10 }).unwrap();
        assert!(result.report.tokens_after <= budget && result.report.tokens_before > 2 * budget);
        // White space may be a line end of the source.
        result.context.text.split_whitespace().collect::<Vec<_>>().join(" ").contains(answer)
    };
    QUESTIONS.iter().filter(answered).count()
}

#[test]
fn answers_are_kept() {
    let all = QUESTIONS.len();
    assert!(kept(200) >= all - 2, "{} of {all} at 200", kept(200));
    assert_eq!(kept(400), all);
}

#[test]
fn answers_are_cited_where_they_stand() {
    let documents = library();
    for (question, answer) in QUESTIONS {
        let policy = retrieve(question, Budget::Tokens(400));
        let result = compress(&documents, &policy, None, &Runs { honesty: 10 }).unwrap();
        let mut citer = Citer::ranked(&documents, &result);
        let mut citations = citer.push(answer);
        citations.extend(citer.finish());
        let cited = citations
            .iter()
            .flat_map(|citation| &citation.sources)
            .map(|source| &source.cited_text);
        let holds =
            |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ").contains(answer);
        assert!(cited.clone().any(holds), "{question}: {citations:?}");
    }
}

#[test]
fn limits_and_thresholds_are_honoured() {
    let documents = library();
    let model = Runs { honesty: 10 };
    let policy = retrieve("Who drew the plans of the viaduct?", Budget::Tokens(100_000));
    let whole = compress(&documents, &policy, None, &model).unwrap();
    assert!(whole.report.dropped.is_empty() && whole.report.reason.starts_with("everything fits"));

    let limited = compress(&documents, &policy, Some(200), &model).unwrap();
    assert!(limited.report.prompt_tokens <= 200 && limited.report.budget_tokens < 200);
    assert_eq!(limited.report.warnings.len(), 1, "{:?}", limited.report.warnings);

    let best = pith_context::Policy { top_k: Some(1), ..policy.clone() };
    let best = compress(&documents, &best, None, &model).unwrap();
    assert!(best.context.text.contains("Irma Valdek"));
    assert_eq!(best.report.kept.iter().filter(|kept| !kept.expanded).count(), 1);

    let strict = pith_context::Policy { min_score: Some(1.0), ..policy };
    let strict = compress(&documents, &strict, None, &model).unwrap();
    assert!(
        strict.context.text.is_empty()
            && strict.report.kept.is_empty()
            && !strict.report.warnings.is_empty()
    );
}

#[test]
fn a_sentence_brings_its_antecedent() {
    let filler = "Nothing of the kind is told of any other village in those hills. ".repeat(30);
    let text = format!(
        "{filler}\n\nOld Marta kept the mill by the weir. She repaired the copper kettle every spring.\n\n{filler}"
    );
    let documents = [document(&text, Format::Text)];
    let policy = pith_context::Policy {
        top_k: Some(1),
        neighbor_window: Some(0),
        ..retrieve("Who repaired the copper kettle?", Budget::Tokens(400))
    };
    let result = compress(&documents, &policy, None, &Runs { honesty: 10 }).unwrap();
    assert_eq!(
        result.context.text,
        "Old Marta kept the mill by the weir. She repaired the copper kettle every spring."
    );
    assert_eq!(
        result.report.kept.iter().map(|kept| kept.expanded).collect::<Vec<_>>(),
        [true, false]
    );
}
