//! What the context stage needs of a language model.

use std::cell::Cell;
use std::time::Instant;

use crate::ContextError;

/// What the context stage needs of a language model: its token counts.
///
/// *Context tokens* are defined by it: `prompt_tokens(context) - prompt_tokens("")`, the tokens by which the
/// context lengthens the final prompt. Token counts need not add up (tokens merge across the joints of texts);
/// [`count`](Self::count) only guides the search, [`prompt_tokens`](Self::prompt_tokens) decides.
pub trait LanguageModel {
    /// Tokens of `text` alone: an estimate of what it adds to a prompt. Called at most once for a sentence,
    /// and only for sentences that come near the budget.
    fn count(&self, text: &str) -> u32;

    /// Exact tokens of the final prompt (template, instructions, question) when `context` stands in it; the empty
    /// string means the prompt without context. Must answer for a context of any length, also one far
    /// beyond the model's window: called once with everything, and a handful of times near the budget.
    ///
    /// # Errors
    /// [`ContextError::Model`] if the prompt cannot be rendered or encoded; it ends the compression.
    fn prompt_tokens(&self, context: &str) -> Result<u32, ContextError>;

    /// Whether anybody still waits for the result; asked between stages and now and then within long ones.
    ///
    /// # Errors
    /// [`ContextError::Model`] if not; it ends the compression.
    fn proceed(&self) -> Result<(), ContextError> {
        Ok(())
    }
}

/// A model whose prompt is a chat: a context may stand before any of the user's messages.
pub trait ChatModel: LanguageModel {
    /// As [`prompt_tokens`](LanguageModel::prompt_tokens), which is this with one context, before the last message.
    /// `contexts`: indices of messages and what stands before each; where that is empty, the words that would
    /// introduce it are counted all the same. Other messages stand by themselves.
    ///
    /// # Errors
    /// [`ContextError::Model`] if the prompt cannot be rendered or encoded.
    fn chat_tokens(&self, contexts: &[(usize, &str)]) -> Result<u32, ContextError>;
}

/// A model whose empty prompt is counted, and a watch on the time spent counting.
pub(crate) struct Counter<'a> {
    model: &'a dyn LanguageModel,
    /// Tokens of the prompt without context.
    pub(crate) base: u32,
    seconds: Cell<f64>,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(model: &'a dyn LanguageModel) -> Result<Self, ContextError> {
        let start = Instant::now();
        let base = model.prompt_tokens("")?;
        Ok(Self { model, base, seconds: Cell::new(start.elapsed().as_secs_f64()) })
    }

    /// See [`LanguageModel::proceed`].
    pub(crate) fn proceed(&self) -> Result<(), ContextError> {
        self.model.proceed()
    }

    /// Tokens of a text by itself.
    pub(crate) fn count(&self, text: &str) -> u32 {
        let start = Instant::now();
        let count = self.model.count(text);
        self.seconds.set(self.seconds.get() + start.elapsed().as_secs_f64());
        count
    }

    /// Exact tokens of the prompt with `context` in it.
    pub(crate) fn prompt(&self, context: &str) -> Result<u32, ContextError> {
        if context.is_empty() {
            return Ok(self.base);
        }
        let start = Instant::now();
        let tokens = self.model.prompt_tokens(context)?;
        self.seconds.set(self.seconds.get() + start.elapsed().as_secs_f64());
        Ok(tokens)
    }

    /// Seconds spent in the model so far.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.get()
    }
}
