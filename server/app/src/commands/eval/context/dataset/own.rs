//! Sets of one's own: a question a line,
//!
//! ```json
//! {"documents": [{"id": "a", "title": "A", "text": "..."}], "question": "...", "answers": ["..."],
//!  "spans": [{"document": "a", "start": 0, "end": 5}]}
//! ```
//!
//! `documents` may be left out: then they are those of the line before. A document's `title` may be, and its `format` may
//! be `"markdown"`. `start` and `end` count characters (Unicode code points) of the text, `end` past the last. A question has
//! answers, spans that hold an answer or its evidence, or both.

use std::collections::HashMap;
use std::path::Path;

use pith_context::{Document, Format, Span};

use super::field::{Field, lines};
use super::{Dataset, Question, byte_of};
use crate::commands::Failure;

pub(super) fn read(path: &Path, text: &str) -> Result<Dataset, Failure> {
    let mut dataset = Dataset::default();
    let mut numbers = HashMap::new();
    for (line, value) in lines(path, text)? {
        let field = Field::root(path, line, &value);
        if let Some(list) = field.find("documents") {
            let (documents, names) = documents(&list)?;
            dataset.haystacks.push(documents);
            numbers = names;
        }
        let Some(haystack) = dataset.haystacks.len().checked_sub(1) else {
            return Err(field
                .get("documents")
                .err()
                .unwrap_or_else(|| field.wrong("has no documents")));
        };
        let question = field.get("question")?.words()?.to_owned();
        let mut answers = Vec::new();
        for answer in field.find("answers").map_or(Ok(Vec::new()), |answers| answers.items())? {
            answers.push(answer.words()?.to_owned());
        }
        let mut spans = Vec::new();
        for gold in field.find("spans").map_or(Ok(Vec::new()), |spans| spans.items())? {
            spans.push(span(&gold, &dataset.haystacks[haystack], &numbers)?);
        }
        if answers.is_empty() && spans.is_empty() {
            return Err(field.wrong("must have answers or spans"));
        }
        spans.sort_unstable();
        dataset.questions.push(Question { text: question, haystack, answers, spans });
    }
    Ok(dataset)
}

fn documents(list: &Field<'_>) -> Result<(Vec<Document>, HashMap<String, usize>), Failure> {
    let (mut documents, mut numbers) = (Vec::new(), HashMap::new());
    for field in list.items()? {
        let id = field.get("id")?;
        let name = id.words()?.to_owned();
        if numbers.insert(name.clone(), documents.len()).is_some() {
            return Err(id.wrong(&format!("{name:?} names two documents")));
        }
        let format = match field.find("format") {
            Some(format) => match format.text()? {
                "text" => Format::Text,
                "markdown" => Format::Markdown,
                _ => return Err(format.wrong("must be \"text\" or \"markdown\"")),
            },
            None => Format::Text,
        };
        documents.push(Document {
            id: name,
            title: field.find("title").map(|title| title.text()).transpose()?.map(str::to_owned),
            text: field.get("text")?.words()?.to_owned(),
            format,
            ..Document::default()
        });
    }
    if documents.is_empty() {
        return Err(list.wrong("must not be empty"));
    }
    Ok((documents, numbers))
}

fn span(
    field: &Field<'_>,
    documents: &[Document],
    numbers: &HashMap<String, usize>,
) -> Result<Span, Failure> {
    let (id, from, to) = (field.get("document")?, field.get("start")?, field.get("end")?);
    let Some(&document) = numbers.get(id.text()?) else {
        return Err(id.wrong("is no document of this question"));
    };
    let text = &documents[document].text;
    let end = byte_of(text, to.index()?).ok_or_else(|| to.wrong("lies outside the text"))?;
    let start = byte_of(text, from.index()?).filter(|&start| start < end);
    let start = start.ok_or_else(|| from.wrong("must be less than end"))?;
    Ok(Span { document, start, end })
}
