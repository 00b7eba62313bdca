//! QMSum: meetings as JSON Lines, with queries and the turns that answer them.
//!
//! A meeting becomes one document without a title, a line `Speaker: what was said` a turn. Only queries with evidence
//! turns count; the evidence is what was said, without the speaker's name.

use std::collections::BTreeSet;
use std::path::Path;

use pith_context::{Document, Span};

use super::field::{Field, lines};
use super::{Dataset, Question};
use crate::commands::Failure;

pub(super) fn read(path: &Path, text: &str) -> Result<Dataset, Failure> {
    let mut dataset = Dataset::default();
    for (line, value) in lines(path, text)? {
        let meeting = Field::root(path, line, &value);
        let (mut text, mut turns) = (String::new(), Vec::new());
        for turn in meeting.get("meeting_transcripts")?.items()? {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&one_line(turn.get("speaker")?.text()?));
            text.push_str(": ");
            let start = text.len();
            text.push_str(&one_line(turn.get("content")?.text()?));
            turns.push(Span { document: 0, start, end: text.len() });
        }
        let haystack = dataset.haystacks.len();
        for query in meeting.get("specific_query_list")?.items()? {
            let spans = evidence(&query, &turns)?;
            if spans.is_empty() {
                continue;
            }
            let answer = query.find("answer").map(|answer| answer.text()).transpose()?;
            dataset.questions.push(Question {
                text: query.get("query")?.words()?.to_owned(),
                haystack,
                answers: answer.map(str::to_owned).into_iter().collect(),
                spans,
            });
        }
        dataset.haystacks.push(vec![Document {
            id: line.to_string(),
            text,
            ..Document::default()
        }]);
    }
    Ok(dataset)
}

/// What was said in the turns that a query names, first and last included.
fn evidence(query: &Field<'_>, turns: &[Span]) -> Result<Vec<Span>, Failure> {
    let mut named = BTreeSet::new();
    for range in query.get("relevant_text_span")?.items()? {
        let ends = range.items()?;
        let [first, last] = ends.as_slice() else {
            return Err(range.wrong("must be two turns: the first and the last"));
        };
        let (from, to) = (first.index()?, last.index()?);
        if to >= turns.len() {
            return Err(last.wrong(&format!("must be one of the {} turns", turns.len())));
        }
        if from > to {
            return Err(range.wrong("ends before it begins"));
        }
        named.extend(from..=to);
    }
    Ok(named.into_iter().map(|turn| turns[turn]).filter(|span| span.start < span.end).collect())
}

/// A turn is a line: line ends inside it become spaces.
fn one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " ")
}
