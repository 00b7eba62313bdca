//! Token counts for selection: those of the served model's prompt, remembered.

use std::cell::RefCell;
use std::collections::HashMap;

use pith_context::{ContextError, LanguageModel};
use pith_model::ModelFile;
use pith_model::template::Message;

use crate::commands::Failure;
use crate::prompt::{Frame, Input, Placed};

/// Longest text whose count is remembered, in bytes: a sentence or a header.
const SHORT: usize = 1024;

/// Counts as the server does, in the prompt of a question about documents. What the question says has no bearing on the
/// tokens of the context before it, so one prompt serves all questions.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    frame: Frame<'a>,
    base: u32,
    short: RefCell<HashMap<String, u32>>,
    /// The longest text counted lately: everything, which each compression begins with.
    long: RefCell<(String, u32)>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(file: &'a ModelFile) -> Result<Self, Failure> {
        let frame = frame(file, "What does the text say?")?;
        let base = tokens(frame.count(&standing("")));
        Ok(Self { frame, base, short: RefCell::default(), long: RefCell::default() })
    }

    /// Tokens by which `context` lengthens the prompt.
    pub(super) fn context_tokens(&self, context: &str) -> u32 {
        if context.is_empty() {
            return 0;
        }
        let long = self.long.borrow();
        let tokens =
            if long.0 == context { long.1 } else { tokens(self.frame.count(&standing(context))) };
        tokens.saturating_sub(self.base)
    }

    /// As [`context_tokens`](Self::context_tokens), of a text that will be asked about again and again.
    pub(super) fn remember(&self, context: &str) -> u32 {
        let counted = tokens(self.frame.count(&standing(context)));
        *self.long.borrow_mut() = (context.to_owned(), counted);
        counted.saturating_sub(self.base)
    }
}

impl LanguageModel for Meter<'_> {
    fn count(&self, text: &str) -> u32 {
        if let Some(&count) = self.short.borrow().get(text) {
            return count;
        }
        let count = tokens(self.frame.count_alone(text));
        if text.len() <= SHORT {
            self.short.borrow_mut().insert(text.to_owned(), count);
        }
        count
    }

    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError> {
        Ok(self.base + self.context_tokens(context))
    }
}

/// `context` before the one message of [`frame`]'s prompts.
pub(super) fn standing(context: &str) -> [Placed<'_>; 1] {
    [Placed { message: 0, text: context }]
}

/// The prompt of a user's question.
pub(super) fn frame<'a>(file: &'a ModelFile, question: &str) -> Result<Frame<'a>, Failure> {
    let message = Message { role: "user".to_owned(), content: question.to_owned() };
    Frame::new(file, &Input::Chat(vec![message]))
        .map_err(|error| Failure::new(format!("cannot make a prompt: {error}")))
}

fn tokens(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
