//! Ordinary text of a prompt, with the places where a context may stand.

use std::cell::RefCell;
use std::ops::Range;

use super::Placed;

/// Before the documents: short, because small models follow short instructions best and every
/// token of it is paid by every request.
const GROUNDING: &str = "Answer the question from the text below.\n\n";
/// Between the documents and the question.
const QUESTION: &str = "\n\nQuestion: ";

/// Text between two control tokens.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    pieces: Vec<Piece>,
    /// The text counted last and its tokens: while one context is fitted, the other stretches stay as they are.
    counted: RefCell<Option<(String, usize)>>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// Before the content of this message.
    Place(usize),
}

impl Stretch {
    pub(super) fn of(text: &str) -> Self {
        let mut stretch = Self::default();
        stretch.push(text);
        stretch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            Some(Piece::Place(_)) | None => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Leaves a place for a context before the content of `message`.
    pub(super) fn push_place(&mut self, message: usize) {
        self.pieces.push(Piece::Place(message));
    }

    /// The text with those of `contexts` in it whose place is here, and where it holds each: message and bytes.
    pub(super) fn render(&self, contexts: &[Placed<'_>]) -> (String, Vec<(usize, Range<usize>)>) {
        let (mut text, mut places) = (String::new(), Vec::new());
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Place(message) => {
                    if let Some(context) = contexts.iter().find(|c| c.message == *message) {
                        text.push_str(GROUNDING);
                        let start = text.len();
                        text.push_str(context.text);
                        places.push((*message, start..text.len()));
                        text.push_str(QUESTION);
                    }
                }
            }
        }
        (text, places)
    }

    /// Tokens of the rendered text, counted by `count` unless it is the one counted last.
    pub(super) fn count(
        &self,
        contexts: &[Placed<'_>],
        count: impl FnOnce(&str) -> usize,
    ) -> usize {
        let (text, _) = self.render(contexts);
        let mut counted = self.counted.borrow_mut();
        if let Some((before, tokens)) = &*counted
            && *before == text
        {
            return *tokens;
        }
        let tokens = count(&text);
        *counted = Some((text, tokens));
        tokens
    }
}
