//! Which prompt tokens stand for which bytes of which document.
//!
//! The only place where the two are converted.

use std::ops::Range;

use pith_context::{Packed, Piece, Span};

use super::{ContextToken, Encoded};

/// Ties document bytes to prompt tokens, through the packed context that both know.
#[derive(Debug)]
pub struct SpanMap<'a> {
    pieces: &'a [Piece],
    tokens: &'a [ContextToken],
}

impl<'a> SpanMap<'a> {
    /// The map of a prompt whose context is `packed`.
    #[must_use]
    pub fn new(packed: &'a Packed, prompt: &'a Encoded) -> Self {
        Self { pieces: &packed.pieces, tokens: &prompt.context }
    }

    /// Prompt tokens that stand for bytes of `span`, the shared ones at its edges included. `None` if no
    /// piece of the context holds all of it.
    #[must_use]
    pub fn tokens(&self, span: Span) -> Option<Range<usize>> {
        // Pieces stand in the order of documents and offsets.
        let after = self.pieces.partition_point(|piece| {
            (piece.source.document, piece.source.start) <= (span.document, span.start)
        });
        let piece = &self.pieces[after.checked_sub(1)?];
        if piece.source.document != span.document
            || span.end > piece.source.end
            || span.start >= span.end
        {
            return None;
        }
        let start = piece.packed.start + (span.start - piece.source.start);
        let end = start + (span.end - span.start);
        let first = self.tokens.partition_point(|token| token.end <= start);
        let last = self.tokens.partition_point(|token| token.start < end);
        let tokens = self.tokens.get(first..last).filter(|tokens| !tokens.is_empty())?;
        Some(tokens[0].index..tokens[tokens.len() - 1].index + 1)
    }
}
