//! Natural Questions with their gold passage ("Lost in the Middle", Liu and others, 2023), as JSON Lines.
//!
//! The file has gold passages only. [`distract`] hides each among the passages of other questions that look most like
//! an answer and hold none.

use std::collections::HashSet;
use std::path::Path;

use pith_context::{Bm25, Document};

use super::field::{Field, lines};
use super::{Dataset, Question, shuffle};
use crate::commands::Failure;
use crate::commands::eval::context::normal::Normal;
use crate::commands::eval::context::vectors::Vectors;
use crate::commands::progress;
use crate::commands::random::Random;

/// Distractors with the most words of the question.
pub(in crate::commands::eval::context) const LEXICAL_DISTRACTORS: usize = 10;
/// Further distractors nearest in meaning to the question; without an embedder they are chosen by words as well.
pub(in crate::commands::eval::context) const DENSE_DISTRACTORS: usize = 9;

/// Each question over its gold passage alone.
pub(super) fn read(path: &Path, text: &str) -> Result<Dataset, Failure> {
    let mut dataset = Dataset::default();
    for (line, value) in lines(path, text)? {
        let field = Field::root(path, line, &value);
        let answers = field.get("answers")?;
        let texts = answers
            .items()?
            .iter()
            .map(|a| Ok(a.words()?.to_owned()))
            .collect::<Result<Vec<_>, Failure>>()?;
        if texts.is_empty() {
            return Err(answers.wrong("must not be empty"));
        }
        let contexts = field.get("ctxs")?;
        let passages = contexts.items()?;
        let gold = |passage: &&Field<'_>| passage.find("isgold").is_none_or(|gold| gold.is_true());
        let Some(passage) = passages.iter().find(gold) else {
            return Err(contexts.wrong("has no gold passage"));
        };
        dataset.questions.push(Question {
            text: field.get("question")?.words()?.to_owned(),
            haystack: dataset.haystacks.len(),
            answers: texts,
            // Where an answer stands is found by its words.
            spans: Vec::new(),
        });
        dataset.haystacks.push(vec![Document {
            id: line.to_string(),
            title: Some(passage.get("title")?.text()?.to_owned()),
            text: passage.get("text")?.words()?.to_owned(),
            ..Document::default()
        }]);
    }
    Ok(dataset)
}

/// Hides each of the `chosen` questions' gold passages among 19 others of `all`: those with the most words of the question,
/// then those nearest in meaning. Passages that hold an answer are none. Where the gold stands is up to
/// `seed`.
pub(in crate::commands::eval::context) fn distract(
    all: &Dataset,
    chosen: Vec<Question>,
    vectors: Option<&Vectors<'_>>,
    seed: u64,
) -> Result<Dataset, Failure> {
    let passages: Vec<&Document> = all.haystacks.iter().flatten().collect();
    let texts: Vec<String> = passages
        .iter()
        .map(|passage| format!("{}\n{}", passage.title.as_deref().unwrap_or(""), passage.text))
        .collect();
    let normals: Vec<Normal> = passages.iter().map(|passage| Normal::new(&passage.text)).collect();
    let bm25 = Bm25::new(texts.iter().map(String::as_str));
    let embedded = vectors.map(|vectors| vectors.matrix("passages", &texts)).transpose()?;
    let mut dataset = Dataset::default();
    let bar = progress::bar("distractors", chosen.len() as u64);
    for mut question in chosen {
        let gold = question.haystack;
        let answers: Vec<Normal> = question.answers.iter().map(|a| Normal::new(a)).collect();
        let mut taken: HashSet<&str> = HashSet::from([passages[gold].text.as_str()]);
        let mut documents = vec![passages[gold].clone()];
        let mut take = |scores: &[f32], most: usize| {
            let mut order: Vec<usize> = (0..passages.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            let mut found = 0;
            for at in order {
                if found == most {
                    break;
                }
                let text = passages[at].text.as_str();
                if answers.iter().any(|answer| normals[at].holds(answer)) || !taken.insert(text) {
                    continue;
                }
                documents.push(passages[at].clone());
                found += 1;
            }
        };
        let lexical = bm25.score(&question.text);
        take(&lexical, LEXICAL_DISTRACTORS);
        match (&embedded, vectors) {
            (Some(matrix), Some(vectors)) => {
                take(&matrix.cosines(&vectors.vector(&question.text)?), DENSE_DISTRACTORS);
            }
            _ => take(&lexical, DENSE_DISTRACTORS),
        }
        shuffle(&mut documents, &mut Random::new(seed, gold as u64));
        question.haystack = dataset.haystacks.len();
        dataset.questions.push(question);
        dataset.haystacks.push(documents);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(dataset)
}
