//! What a request brings along to be read.

use std::collections::BTreeMap;

use crate::Hint;

/// How a document's text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Plain text: blank lines part paragraphs, a short line of its own is taken for a heading.
    #[default]
    Text,
    /// CommonMark: headings make sections, code fences and tables stay together.
    Markdown,
}

/// One document of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The caller's name for it. Not interpreted here: results refer to documents by their place in the request.
    pub id: String,
    /// Title, if any: indexed with every sentence and shown in the document's header line (white space
    /// collapsed, at most 200 characters).
    pub title: Option<String>,
    /// The text all offsets refer to.
    pub text: String,
    /// How `text` is to be read.
    pub format: Format,
    /// The caller's notes. Neither indexed nor shown to the model.
    pub metadata: BTreeMap<String, String>,
    /// Kept whole whatever the question is; an error if the budget is too small for it.
    pub pinned: bool,
    /// How much its sentences count, from 1 / [`MAX_WEIGHT`](crate::MAX_WEIGHT) to it; 1 is as any other.
    pub weight: f32,
    /// What is said about parts of it. Spans must lie within the text and not overlap.
    pub hints: Vec<Hint>,
}

impl Default for Document {
    /// Empty, of the usual weight.
    fn default() -> Self {
        Self {
            id: String::new(),
            title: None,
            text: String::new(),
            format: Format::default(),
            metadata: BTreeMap::new(),
            pinned: false,
            weight: 1.0,
            hints: Vec::new(),
        }
    }
}

/// Bytes `start..end` of a document's text, always on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Place of the document in the request, from 0.
    pub document: usize,
    /// First byte.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
}
