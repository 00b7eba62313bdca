//! Which prompt tokens stand for which bytes of which document.
//!
//! The only place where the two are converted.

use std::ops::Range;

use pith_context::{Packed, Span};

use super::{ContextToken, Encoded};

/// Ties document bytes to prompt tokens, through the packed contexts that both know.
#[derive(Debug)]
pub struct SpanMap<'a> {
    /// Every passage of the contexts, in the order of documents and offsets.
    passages: Vec<Passage>,
    tokens: &'a [ContextToken],
}

/// A passage of a document in a context.
#[derive(Debug)]
struct Passage {
    source: Span,
    /// The message before which the context stands.
    message: usize,
    /// Its bytes in the context.
    packed: Range<usize>,
}

/// Where a span stands in the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The message before which it stands.
    pub message: usize,
    /// Its tokens, the shared ones at its edges included.
    pub tokens: Range<usize>,
}

impl<'a> SpanMap<'a> {
    /// The map of a prompt in which each of `contexts` stands before its message.
    #[must_use]
    pub fn new(contexts: &[(usize, Packed)], prompt: &'a Encoded) -> Self {
        let passages = |(message, packed): &(usize, Packed)| {
            let message = *message;
            let passage = move |piece: &pith_context::Piece| Passage {
                source: piece.source,
                message,
                packed: piece.packed.clone(),
            };
            packed.pieces.iter().map(passage).collect::<Vec<_>>()
        };
        let mut passages: Vec<Passage> = contexts.iter().flat_map(passages).collect();
        passages.sort_unstable_by_key(|passage| passage.source);
        Self { passages, tokens: &prompt.context }
    }

    /// Where `span` stands. `None` if no passage holds all of it.
    #[must_use]
    pub fn find(&self, span: Span) -> Option<Standing> {
        let after = self.passages.partition_point(|passage| {
            (passage.source.document, passage.source.start) <= (span.document, span.start)
        });
        let Passage { source, message, packed } = &self.passages[after.checked_sub(1)?];
        if source.document != span.document || span.end > source.end || span.start >= span.end {
            return None;
        }
        let start = packed.start + (span.start - source.start);
        let end = start + (span.end - span.start);
        let first =
            self.tokens.partition_point(|token| (token.message, token.end) <= (*message, start));
        let last =
            self.tokens.partition_point(|token| (token.message, token.start) < (*message, end));
        let tokens = self.tokens.get(first..last).filter(|tokens| !tokens.is_empty())?;
        let tokens = tokens[0].index..tokens[tokens.len() - 1].index + 1;
        Some(Standing { message: *message, tokens })
    }
}
