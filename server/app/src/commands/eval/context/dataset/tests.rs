use pith_context::Span;

use super::*;

const FILE: &str = "set.json";

fn path() -> &'static Path {
    Path::new(FILE)
}

/// What a reader says about `text`.
fn complaint(read: fn(&Path, &str) -> Result<Dataset, Failure>, text: &str) -> String {
    format!("{:?}", read(path(), text).unwrap_err())
}

/// Each gold span's text.
fn quoted(dataset: &Dataset) -> Vec<&str> {
    let of = |question: &Question| -> Vec<(usize, Span)> {
        question.spans.iter().map(|span| (question.haystack, *span)).collect()
    };
    let spans = dataset.questions.iter().flat_map(of);
    spans.map(|(h, span)| &dataset.haystacks[h][span.document].text[span.start..span.end]).collect()
}

const XQUAD: &str = r#"{"data": [
    {"title": "Old_Town", "paragraphs": [
        {"context": "Éva came first.", "qas": [{"question": "Who?", "answers": [{"text": "Éva", "answer_start": 0}]}]},
        {"context": "«Ü» then 12 ships.", "qas": [{"question": "How many?", "answers": [{"text": "12", "answer_start": 9}]}]}]},
    {"title": "B", "paragraphs": [{"context": "x y", "qas": []}]}]}"#;

#[test]
fn articles_become_documents_and_characters_bytes() {
    let dataset = xquad::read(path(), XQUAD).unwrap();
    assert_eq!(dataset.haystacks.len(), 1);
    let documents = &dataset.haystacks[0];
    assert_eq!(documents[0].title.as_deref(), Some("Old Town"));
    assert_eq!(documents[0].text, "Éva came first.\n\n«Ü» then 12 ships.");
    assert_eq!(documents[1].text, "x y");
    assert_eq!(quoted(&dataset), ["Éva", "12"]);
    assert_eq!(dataset.questions[1].answers, ["12"]);
}

#[test]
fn what_is_wrong_with_an_article_is_named() {
    let moved = XQUAD.replace("\"answer_start\": 9", "\"answer_start\": 8");
    let place = "data[0].paragraphs[1].qas[0].answers[0].answer_start is not where";
    assert!(complaint(xquad::read, &moved).contains(place));
    let beyond = XQUAD.replace("\"answer_start\": 9", "\"answer_start\": 900");
    assert!(complaint(xquad::read, &beyond).contains(place));
    let text = XQUAD.replace("\"context\": \"x y\", ", "");
    assert!(complaint(xquad::read, &text).contains("data[1].paragraphs[0].context is missing"));
    let number = XQUAD.replace("\"question\": \"Who?\"", "\"question\": 7");
    assert!(complaint(xquad::read, &number).contains("qas[0].question must be a text"));
    assert!(complaint(xquad::read, "{\"data\": 3}").contains("data must be a list"));
    assert!(complaint(xquad::read, "{").contains("set.json: not JSON"));
}

const QMSUM: &str = r#"{"meeting_transcripts": [{"speaker": "A", "content": "Hello\nall ."}, {"speaker": "B", "content": "Hi ."}, {"speaker": "A", "content": "Bye ."}], "specific_query_list": [{"query": "What?", "answer": "Greetings.", "relevant_text_span": [["0", "1"], ["1", "1"]]}, {"query": "Nothing?", "relevant_text_span": []}]}"#;

#[test]
fn turns_become_lines_and_evidence_what_was_said() {
    let dataset = qmsum::read(path(), QMSUM).unwrap();
    assert_eq!(dataset.haystacks[0][0].text, "A: Hello all .\nB: Hi .\nA: Bye .");
    assert_eq!(quoted(&dataset), ["Hello all .", "Hi ."]);
    // A query without evidence cannot be measured.
    assert_eq!(dataset.questions.len(), 1);
}

#[test]
fn what_is_wrong_with_a_meeting_is_named() {
    let place = "set.json line 2: specific_query_list[0].relevant_text_span[0]";
    let with = |turns: &str| {
        complaint(qmsum::read, &format!("\n{}", QMSUM.replace("[\"0\", \"1\"]", turns)))
    };
    assert!(with("[0, 3]").contains(&format!("{place}[1] must be one of the 3 turns")));
    assert!(with("[2, 1]").contains(&format!("{place} ends before it begins")));
    assert!(with("[1]").contains(&format!("{place} must be two turns")));
    assert!(with("[-1, 1]").contains(&format!("{place}[0] must be a whole number")));
    assert!(with("[\"x\", 1]").contains(&format!("{place}[0] must be a whole number")));
    assert!(complaint(qmsum::read, "{}").contains("meeting_transcripts is missing"));
    assert!(complaint(qmsum::read, "\n\nnot json").contains("set.json line 3: not JSON"));
}

/// A line of the format of NQ with its gold passage.
fn passage(question: &str, answer: &str, title: &str, text: &str) -> String {
    serde_json::json!({
        "question": question, "answers": [answer], "ctxs": [{"title": title, "text": text, "isgold": true}],
    })
    .to_string()
}

/// Words cannot tell the passages apart, letters can: the later, the fewer of one that no question has.
fn passages() -> Dataset {
    let lines: Vec<String> = (0..40)
        .map(|n| {
            passage(
                &format!("where is harbour {n}"),
                &format!("coast {n}x"),
                &format!("H {n}"),
                &format!("The harbour {n} lies at coast {n}x, {}.", "z".repeat(40 - n)),
            )
        })
        .chain([passage("where is it", "coast 3x", "Copy", "Here too coast 3x is named.")])
        .collect();
    nq::read(path(), &lines.join("\n")).unwrap()
}

#[test]
fn gold_is_hidden_among_passages_that_do_not_answer() {
    let all = passages();
    let dataset = distract(&all, all.questions.clone(), None, 1).unwrap();
    let mut places = std::collections::HashSet::new();
    for (number, question) in dataset.questions.iter().enumerate() {
        let documents = &dataset.haystacks[question.haystack];
        assert_eq!(documents.len(), 20);
        let holds = |document: &Document| document.text.contains(&question.answers[0]);
        let gold = documents.iter().position(holds).unwrap();
        assert_eq!(documents[gold].text, all.haystacks[number][0].text);
        assert_eq!(documents.iter().filter(|document| holds(document)).count(), 1, "{question:?}");
        places.insert(gold);
    }
    assert!(places.len() > 10, "gold stands in {places:?} only");
    // A seed repeats, another one puts the gold elsewhere.
    assert_eq!(distract(&all, all.questions.clone(), None, 1).unwrap(), dataset);
    assert_ne!(distract(&all, all.questions.clone(), None, 2).unwrap(), dataset);
}

#[test]
fn distractors_are_near_in_words_and_in_meaning() {
    use crate::commands::eval::context::vectors::tests::Letters;
    let all = passages();
    let letters = Letters::default();
    let vectors = super::super::vectors::Vectors::new(&letters);
    let of = |vectors| distract(&all, all.questions[..1].to_vec(), vectors, 1).unwrap();
    let ids = |dataset: &Dataset| {
        let ids = dataset.haystacks[0].iter().map(|document| document.id.clone());
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let (lexical, both) = (of(None), of(Some(&vectors)));
    assert_eq!((ids(&lexical).len(), ids(&both).len()), (20, 20));
    assert_ne!(ids(&lexical), ids(&both));
}

#[test]
fn what_is_wrong_with_a_passage_is_named() {
    let good = passage("q", "a", "t", "a text");
    let with =
        |from: &str, to: &str| complaint(nq::read, &format!("{good}\n{}", good.replace(from, to)));
    assert!(with("[\"a\"]", "[]").contains("set.json line 2: answers must not be empty"));
    assert!(with("[\"a\"]", "[7]").contains("set.json line 2: answers[0] must be a text"));
    assert!(with("true", "false").contains("set.json line 2: ctxs has no gold passage"));
    assert!(with("a text", " ").contains("set.json line 2: ctxs[0].text must not be blank"));
}

const OWN: &str = r#"{"documents": [{"id": "a", "text": "Ä boat sank."}, {"id": "b", "title": "B", "text": "x", "format": "markdown"}], "question": "What sank?", "answers": ["a boat"], "spans": [{"document": "a", "start": 2, "end": 6}]}
{"question": "What is x?", "answers": ["x"]}"#;

#[test]
fn documents_are_those_of_the_line_before() {
    let dataset = own::read(path(), OWN).unwrap();
    assert_eq!((dataset.haystacks.len(), dataset.questions.len()), (1, 2));
    assert_eq!(quoted(&dataset), ["boat"]);
    assert_eq!(dataset.haystacks[0][1].format, pith_context::Format::Markdown);
}

#[test]
fn what_is_wrong_with_a_line_of_ones_own_is_named() {
    let with = |from: &str, to: &str| complaint(own::read, &OWN.replacen(from, to, 1));
    for (from, to, complaint) in [
        ("\"id\": \"b\"", "\"id\": \"a\"", "line 1: documents[1].id \\\"a\\\" names two documents"),
        ("\"document\": \"a\"", "\"document\": \"c\"", "line 1: spans[0].document is no document"),
        ("\"end\": 6", "\"end\": 99", "line 1: spans[0].end lies outside the text"),
        ("\"end\": 6", "\"end\": 2", "line 1: spans[0].start must be less than end"),
        ("\"end\": 6", "\"end\": null", "line 1: spans[0].end is missing"),
        ("markdown", "pdf", "line 1: documents[1].format must be"),
        (", \"answers\": [\"x\"]", "", "line 2: the value must have answers or spans"),
        ("What sank?", "", "line 1: question must not be blank"),
    ] {
        let said = with(from, to);
        assert!(said.contains(complaint), "{said} for {to}");
    }
    let alone = OWN.lines().nth(1).unwrap();
    assert!(complaint(own::read, alone).contains("line 1: documents is missing"));
}

#[test]
fn drawing_repeats_and_keeps_the_order() {
    let all = passages();
    let sample = |seed| {
        let mut dataset = all.clone();
        dataset.sample(7, seed);
        dataset.questions
    };
    assert_eq!(sample(1).len(), 7);
    assert_eq!(sample(1), sample(1));
    assert_ne!(sample(1), sample(2));
    assert!(sample(1).is_sorted_by_key(|question| question.haystack));
    assert_eq!(drawn(3, 9, 1), [0, 1, 2]);
}

#[test]
fn a_data_set_is_named_or_a_file() {
    let of = |name, path: Option<&str>| {
        Kind::of(name, path.map(Path::new)).map(|(kind, path)| (kind, path.display().to_string()))
    };
    assert_eq!(of("nq", Some("p")).unwrap(), (Kind::Nq, "p".to_owned()));
    assert_eq!(of("mine.jsonl", None).unwrap(), (Kind::Own, "mine.jsonl".to_owned()));
    assert_eq!(of("file", Some("p")).unwrap(), (Kind::Own, "p".to_owned()));
    assert!(of("nq", None).is_err());
    assert!(of("xqad", Some("p")).is_err());
}
