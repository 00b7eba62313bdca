//! SQuAD 1.1 and XQuAD: articles of paragraphs with questions, answers as character offsets.
//!
//! An article becomes one document, its paragraphs parted by blank lines; all articles are one haystack.

use std::path::Path;

use pith_context::{Document, Span};

use super::field::{Field, whole};
use super::{Dataset, Question, byte_of};
use crate::commands::Failure;

pub(super) fn read(path: &Path, text: &str) -> Result<Dataset, Failure> {
    let value = whole(path, text)?;
    let mut dataset = Dataset::default();
    let mut documents = Vec::new();
    for article in Field::root(path, 0, &value).get("data")?.items()? {
        let title = article.find("title").map(|title| title.text()).transpose()?;
        let mut document = Document {
            id: title.map_or_else(|| documents.len().to_string(), str::to_owned),
            title: title.map(|title| title.replace('_', " ")),
            ..Document::default()
        };
        for paragraph in article.get("paragraphs")?.items()? {
            if !document.text.is_empty() {
                document.text.push_str("\n\n");
            }
            let (context, start) = (paragraph.get("context")?.words()?, document.text.len());
            document.text.push_str(context);
            for question in paragraph.get("qas")?.items()? {
                dataset.questions.push(read_question(&question, context, documents.len(), start)?);
            }
        }
        documents.push(document);
    }
    dataset.haystacks.push(documents);
    Ok(dataset)
}

/// The question of a paragraph that begins at byte `start` of `document`.
fn read_question(
    field: &Field<'_>,
    context: &str,
    document: usize,
    start: usize,
) -> Result<Question, Failure> {
    let text = field.get("question")?.words()?.to_owned();
    let (mut answers, mut spans) = (Vec::new(), Vec::new());
    for answer in field.get("answers")?.items()? {
        let (words, from) = (answer.get("text")?.words()?, answer.get("answer_start")?);
        let at = byte_of(context, from.index()?);
        let Some(at) = at.filter(|&at| context[at..].starts_with(words)) else {
            return Err(from.wrong("is not where the answer stands in the paragraph"));
        };
        spans.push(Span { document, start: start + at, end: start + at + words.len() });
        answers.push(words.to_owned());
    }
    if answers.is_empty() {
        return Err(field.wrong("has no answer"));
    }
    spans.sort_unstable();
    spans.dedup();
    Ok(Question { text, haystack: 0, answers, spans })
}
