//! What the context stage needs of a language model.

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
}
