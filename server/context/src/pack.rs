//! What is kept becomes the text that stands in the prompt.

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::{Document, Span};

/// Stands where text between two kept passages of a document is left out.
pub(crate) const GAP: &str = "\n...\n";
/// Stands between documents.
const BETWEEN: &str = "\n\n";
/// Longest title shown in a header, in characters.
const MAX_TITLE: usize = 200;

/// The text handed to the prompt, and where each part of it comes from.
///
/// Documents stand in the order the policy asks for, those without a kept passage are left out. When a request has
/// several documents, or its only one has a title, each begins with a header line, `[2] Its title`, the number
/// being its place in the request counted from 1. A line of three dots marks what is left out between two
/// passages of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// Put this into the prompt unchanged. Empty if there is no context.
    pub text: String,
    /// The verbatim passages in it, in the order in which they stand; what lies between them is header lines and gap marks.
    pub pieces: Vec<Piece>,
}

/// A passage of a document standing verbatim in the packed text:
/// `documents[source.document].text[source.start..source.end] == packed.text[packed]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it comes from.
    pub source: Span,
    /// Bytes of [`Packed::text`] it occupies.
    pub packed: Range<usize>,
}

/// Joins passages, which do not touch, into the text for the prompt, in the order given. This is how
/// [`compress`](crate::compress()) packs what it keeps; other choices of passages are comparable when packed alike.
///
/// # Panics
/// If a passage lies outside its document or cuts a character.
pub fn pack(documents: &[Document], passages: impl IntoIterator<Item = Span>) -> Packed {
    let mut packed = Packed::default();
    for source in passages {
        match packed.pieces.last() {
            Some(before) if before.source.document == source.document => packed.text.push_str(GAP),
            before => {
                if before.is_some() {
                    packed.text.push_str(BETWEEN);
                }
                packed.text.push_str(&header(documents, source.document));
            }
        }
        let start = packed.text.len();
        packed.text.push_str(&documents[source.document].text[source.start..source.end]);
        packed.pieces.push(Piece { source, packed: start..packed.text.len() });
    }
    packed
}

/// The whole of every document that is not empty and that `wanted` names.
pub(crate) fn wholes(documents: &[Document], wanted: impl Fn(&Document) -> bool) -> Vec<Span> {
    let whole = |(document, d): (usize, &Document)| Span { document, start: 0, end: d.text.len() };
    documents
        .iter()
        .enumerate()
        .filter(|(_, d)| !d.text.is_empty() && wanted(d))
        .map(whole)
        .collect()
}

/// The line that introduces a document, its end included; empty for a lone document without a title.
pub(crate) fn header(documents: &[Document], document: usize) -> String {
    let title = documents[document].title.as_deref().unwrap_or("");
    let words: Vec<&str> = title.split_whitespace().collect();
    let title = words.join(" ");
    if documents.len() < 2 && title.is_empty() {
        return String::new();
    }
    let cut = title.char_indices().nth(MAX_TITLE).map_or(title.len(), |(at, _)| at);
    let space = if title.is_empty() { "" } else { " " };
    format!("[{}]{space}{}\n", document + 1, &title[..cut])
}
