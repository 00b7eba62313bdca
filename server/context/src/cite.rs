//! Citations: sentences of the answer tied to the sentences of the context that support them.

use std::ops::Range;

use crate::{Compressed, Document, Packed, Span};

/// Sources of one sentence of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Citation {
    /// Bytes of the whole answer (everything pushed so far), without surrounding white space.
    pub answer: Range<usize>,
    /// Best first; never empty, at most three.
    pub sources: Vec<Source>,
}

/// A sentence of a document that supports the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Where it stands; always inside a kept piece.
    pub span: Span,
    /// The text there: `documents[span.document].text[span.start..span.end] == cited_text`, always.
    pub cited_text: String,
    /// Share of the answer sentence's weight (rare words weigh more) found in the source, 0 to 1.
    pub score: f32,
}

/// Finds citations while an answer streams. Owns what it needs; cost grows with the kept text, not the documents.
#[derive(Debug)]
pub struct Citer {}

impl Citer {
    /// Prepares to cite what `packed` keeps of `documents`, the same that were compressed.
    pub fn new(documents: &[Document], packed: &Packed) -> Self {
        let _ = (documents, packed);
        unimplemented!()
    }

    /// As [`new`](Self::new), and where several sentences support an answer equally, prefers the one that
    /// scored best for the question.
    pub fn ranked(documents: &[Document], compressed: &Compressed) -> Self {
        let _ = compressed;
        Self::new(documents, &compressed.context)
    }

    /// Takes the next part of the answer, cut anywhere, and gives the citations of the sentences it completes.
    /// A sentence is complete when the next one or a new line has begun. How the answer is cut into
    /// parts changes nothing but when citations come out.
    pub fn push(&mut self, text: &str) -> Vec<Citation> {
        let _ = text;
        unimplemented!()
    }

    /// The answer is over: citations of what is still pending. Later calls give nothing.
    pub fn finish(&mut self) -> Vec<Citation> {
        unimplemented!()
    }
}
