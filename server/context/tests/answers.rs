//! A small set of texts and questions of our own: the sentence that answers is kept, at every budget.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/letters.rs"]
mod letters;
mod support;

use letters::Letters;
use pith_context::{
    Budget, Citer, ContextError, Document, Embedder, Format, Fusion, Hint, HintKind, Tools,
    compress,
};
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
        let result =
            compress(&documents, &policy, None, &Runs { honesty: 10 }, Tools::default()).unwrap();
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
        let result =
            compress(&documents, &policy, None, &Runs { honesty: 10 }, Tools::default()).unwrap();
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
    let whole = compress(&documents, &policy, None, &model, Tools::default()).unwrap();
    assert!(whole.report.dropped.is_empty() && whole.report.reason.starts_with("everything fits"));

    let limited = compress(&documents, &policy, Some(200), &model, Tools::default()).unwrap();
    assert!(limited.report.prompt_tokens <= 200 && limited.report.budget_tokens < 200);
    let warnings = &limited.report.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("limit leaves")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("words alone")), "{warnings:?}");

    let best = pith_context::Policy { top_k: Some(1), ..policy.clone() };
    let best = compress(&documents, &best, None, &model, Tools::default()).unwrap();
    assert!(best.context.text.contains("Irma Valdek"));
    assert_eq!(best.report.kept.iter().filter(|kept| !kept.expanded).count(), 1);

    let strict = pith_context::Policy { min_score: Some(1.0), ..policy };
    let strict = compress(&documents, &strict, None, &model, Tools::default()).unwrap();
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
    let result =
        compress(&documents, &policy, None, &Runs { honesty: 10 }, Tools::default()).unwrap();
    assert_eq!(
        result.context.text,
        "Old Marta kept the mill by the weir. She repaired the copper kettle every spring."
    );
    assert_eq!(
        result.report.kept.iter().map(|kept| kept.expanded).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn vectors_find_what_words_do_not() {
    let filler = "Nothing of the kind is told of any other village in those hills. ".repeat(30);
    let text = format!("{filler}\n\nMasonry crowned it.\n\n{filler}");
    let documents = [document(&text, Format::Text)];
    let policy =
        pith_context::Policy { top_k: Some(1), ..retrieve("Masons crowning", Budget::Tokens(60)) };
    let model = Runs { honesty: 10 };
    let words = compress(&documents, &policy, None, &model, Tools::default()).unwrap();
    assert_ne!(words.context.text, "Masonry crowned it.", "no word is the same");
    let tools = Tools { embedder: Some(&Letters), ..Tools::default() };
    for fusion in [Fusion::Scores, Fusion::Ranks] {
        let policy = pith_context::Policy { fusion, ..policy.clone() };
        let vectors = compress(&documents, &policy, None, &model, tools).unwrap();
        assert_eq!(vectors.context.text, "Masonry crowned it.", "{fusion:?}");
        assert!(vectors.report.kept[0].dense > 0.8 && vectors.report.reason.contains("meaning"));
    }
    // A weight of 0 leaves vectors out, and nobody is warned of what was asked for.
    let off = pith_context::Policy { dense_weight: Some(0.0), ..policy.clone() };
    let off = compress(&documents, &off, None, &model, tools).unwrap();
    assert_eq!(off.context, words.context);
    assert!(off.report.warnings.iter().all(|warning| !warning.contains("embedder")));
}

/// An embedder that never answers.
struct Broken;

impl Embedder for Broken {
    fn identity(&self) -> &str {
        "broken"
    }

    fn dimensions(&self) -> usize {
        8
    }

    fn embed(&self, _: &[&str], _: &mut Vec<f32>) -> Result<(), ContextError> {
        Err(ContextError::Embedder { message: "out of order".to_owned() })
    }
}

#[test]
fn without_vectors_words_carry_on_and_the_report_says_so() {
    let documents = library();
    let policy = retrieve("Who drew the plans of the viaduct?", Budget::Tokens(60));
    let model = Runs { honesty: 10 };
    let words = compress(&documents, &policy, None, &model, Tools::default()).unwrap();
    let tools = Tools { embedder: Some(&Broken), ..Tools::default() };
    let broken = compress(&documents, &policy, None, &model, tools).unwrap();
    assert_eq!(broken.context, words.context);
    assert!(broken.report.warnings.iter().any(|warning| warning.contains("out of order")));
}

#[test]
fn emphasis_moves_sentences_up_and_a_weight_of_one_does_nothing() {
    let text = "Rivers carry sand. Rivers carry mud. Rivers carry silt. Rivers carry ice.";
    let emphasized = |weight: f32| {
        let silt = text.find("silt").unwrap();
        let hint = Hint { span: silt..silt + 4, kind: HintKind::Emphasize(weight) };
        [Document { hints: vec![hint], ..document(text, Format::Text) }]
    };
    let policy = pith_context::Policy {
        top_k: Some(1),
        ..retrieve("What do rivers carry?", Budget::Tokens(60))
    };
    let kept = |documents: &[Document]| {
        compress(documents, &policy, None, &Runs { honesty: 10 }, Tools::default()).unwrap()
    };
    let plain = kept(&[document(text, Format::Text)]);
    let same = kept(&emphasized(1.0));
    assert_eq!((&plain.context, &plain.report.kept), (&same.context, &same.report.kept));
    assert_ne!(plain.context.text, "Rivers carry silt.");
    assert_eq!(kept(&emphasized(8.0)).context.text, "Rivers carry silt.");
}
