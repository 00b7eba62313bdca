use super::*;
use crate::Document;
use crate::pack::{pack, wholes};

const TEXT: &str = "The first Nobel Prize in Physics was awarded in 1901 to Wilhelm Conrad Röntgen, of Germany. \
    He had found the X-rays in 1895. Marie Curie received two prizes, one for physics and one for chemistry. \
    Women have won rarely. The prize money has varied over the years, mostly upwards.";

fn documents() -> Vec<Document> {
    let document =
        Document { id: "nobel".to_owned(), text: TEXT.to_owned(), ..Document::default() };
    vec![document]
}

fn cite(answer: &str) -> Vec<(String, Vec<String>)> {
    let documents = documents();
    let mut citer = Citer::new(&documents, &pack(&documents, wholes(&documents, |_| true)));
    let mut citations = citer.push(answer);
    citations.extend(citer.finish());
    let sources = |citation: &Citation| {
        citation.sources.iter().map(|source| source.cited_text.clone()).collect()
    };
    citations.iter().map(|c| (answer[c.answer.clone()].to_owned(), sources(c))).collect()
}

#[test]
fn a_fragment_cites_the_sentence_around_it() {
    let citations = cite(" Wilhelm Conrad Röntgen");
    assert_eq!(citations.len(), 1);
    assert_eq!(citations[0].0, "Wilhelm Conrad Röntgen");
    assert!(citations[0].1.len() == 1 && citations[0].1[0].starts_with("The first Nobel Prize"));
    assert_eq!(cite("1895.")[0].1[0], "He had found the X-rays in 1895.");
    // The words are there, but not in one run.
    assert!(cite("Conrad Wilhelm").is_empty());
}

#[test]
fn a_sentence_cites_what_supports_it() {
    let citations = cite(
        "The Nobel Prize in Physics was first given to Wilhelm Röntgen in 1901. I hope this helps you!",
    );
    assert_eq!(citations.len(), 1);
    assert_eq!(
        citations[0].0,
        "The Nobel Prize in Physics was first given to Wilhelm Röntgen in 1901."
    );
    assert!(citations[0].1[0].starts_with("The first Nobel Prize"));
}

#[test]
fn an_opening_that_only_announces_is_no_claim() {
    for opening in [
        "The answer is ",
        "Answer: ",
        "According to the text, ",
        "Based on the passage, the answer to the question is ",
        "- The correct answer is: ",
    ] {
        let citations = cite(&format!("{opening}Wilhelm Conrad Röntgen."));
        assert_eq!(citations.len(), 1, "{opening}");
        assert!(citations[0].0.starts_with(opening.trim_start()), "the whole sentence is cited");
    }
    for claim in [
        "In Germany, 1901",
        "The answer of Marie Curie",
        "answer",
        "According to Marie Curie, money is",
    ] {
        let marked = format!("{claim}.");
        assert_eq!(answer::claim(&marked), marked);
    }
}

#[test]
fn a_sentence_of_two_facts_cites_both() {
    let answer = "Wilhelm Conrad Röntgen of Germany was awarded in 1901, and Marie Curie received two prizes for physics and chemistry.";
    let sources = &cite(answer)[0].1;
    assert_eq!(sources.len(), 2, "{sources:?}");
}

#[test]
fn weak_or_false_support_is_not_cited() {
    for answer in [
        "Albert Einstein explained the photoelectric effect in Bern.",
        "The first Nobel Prize in Physics was awarded in 1902 to Wilhelm Conrad Röntgen.",
        "Yes.",
        "",
        "...",
        "The years of women over money.",
    ] {
        assert!(cite(answer).is_empty(), "{answer}");
    }
}

#[test]
fn citations_come_when_the_next_sentence_begins() {
    let documents = documents();
    let mut citer = Citer::new(&documents, &pack(&documents, wholes(&documents, |_| true)));
    assert!(citer.push("1. Marie Curie received two prizes").is_empty());
    assert!(citer.push(". ").is_empty());
    assert!(citer.push("O").is_empty());
    assert!(citer.push("ne").is_empty(), "the next word may still grow");
    let first = citer.push(" for physics");
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].answer, 0..35);
    let line = citer.push(" and one for chemistry\n");
    assert_eq!(line.len(), 1, "a new line ends a sentence");
    assert!(citer.finish().is_empty());
}

#[test]
fn marks_before_the_first_letter_do_not_settle_a_sentence() {
    let mut answer = answer::Answer::default();
    // Two vowel signs, through which the rules look for a small letter.
    answer.push("It fell in 1895. \"\u{dd6}\u{11930}");
    assert_eq!(answer.next_complete(), None);
    answer.push("a");
    assert_eq!(answer.next_complete(), None, "a small letter goes on with the sentence");
    let mut answer = answer::Answer::default();
    answer.push("It fell in 1895. 東京");
    assert_eq!(answer.next_complete().map(|(range, _)| range), Some(0..16));
}

#[test]
fn equal_support_goes_to_the_better_ranked_sentence() {
    use crate::{Compressed, KeptSpan, Mode, Report, StageTimes};
    let mut documents = documents();
    documents[0].text = "Paris is large. Nothing else. Paris is old.".to_owned();
    let context = pack(&documents, wholes(&documents, |_| true));
    let span = |start, end, score| KeptSpan {
        span: Span { document: 0, start, end },
        tokens: 4,
        score,
        lexical: score,
        dense: 0.0,
        rank: 0,
        expanded: false,
    };
    let report = Report {
        mode: Mode::Retrieve,
        reason: String::new(),
        tokens_before: 12,
        tokens_after: 12,
        prompt_tokens: 12,
        budget_tokens: 12,
        kept: vec![span(0, 16, 0.2), span(16, 30, 0.0), span(30, 43, 0.7)],
        dropped: Vec::new(),
        times: StageTimes::default(),
        warnings: Vec::new(),
    };
    let citer = |compressed: &Compressed| Citer::ranked(&documents, compressed);
    let mut citer = citer(&Compressed { context, report });
    citer.push("Paris");
    assert_eq!(citer.finish()[0].sources[0].cited_text, "Paris is old.");
}
