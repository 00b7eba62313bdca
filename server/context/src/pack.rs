//! What is kept becomes the text that stands in the prompt.

use std::ops::Range;

use crate::Span;

/// The text handed to the prompt, and where each part of it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// Put this into the prompt unchanged. Empty if there is no context.
    pub text: String,
    /// The verbatim passages in it, in order; what lies between them is header lines and gap marks.
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
