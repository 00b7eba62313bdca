//! What a request brings along to be read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::Hint;

/// How a document's text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Plain text: blank lines part paragraphs, a short line of its own is taken for a heading.
    #[default]
    Text,
    /// CommonMark: headings make sections, code fences and tables stay together.
    Markdown,
    /// Source code in any language: units end at line ends, definitions head what they enclose.
    Code,
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
    /// What `text` is made of, where that is known ([`extract()`](crate::extract()) knows it): in order, not overlapping,
    /// leaving out nothing but white space. `format` is not looked at then. `None`: it is read off the text.
    pub elements: Option<Arc<[Element]>>,
    /// It was stored: its sentences got their vectors then, and all of them count, however many they are (see
    /// [`Tools::embed_bytes`](crate::Tools::embed_bytes)).
    pub stored: bool,
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
            elements: None,
            stored: false,
            metadata: BTreeMap::new(),
            pinned: false,
            weight: 1.0,
            hints: Vec::new(),
        }
    }
}

/// A part of a text that no sentence reaches out of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What it is.
    pub kind: ElementKind,
    /// Bytes of the text.
    pub span: Range<usize>,
}

/// What an [`Element`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    /// Running text.
    Paragraph,
    /// A heading and its level, from 1; it heads what follows, up to the next of its level or a lower one.
    Heading(u8),
    /// A table or a listing: lines rather than sentences.
    Lines,
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
