//! Why a context could not be made.

/// Why a context could not be made. The server's table maps each to a status; nothing is ever shortened instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The prompt is longer than the model takes, and the policy forbids (or cannot help) shortening it. Under
    /// [`Mode::Retrieve`](crate::Mode::Retrieve) this means that the prompt without any context leaves no room.
    #[error("the prompt has {prompt_tokens} tokens, the model takes at most {limit}")]
    Overflow {
        /// Exact tokens of the prompt.
        prompt_tokens: u32,
        /// Most prompt tokens the model takes.
        limit: u32,
    },
    /// The budget cannot hold even the smallest piece that could be chosen.
    #[error("the budget is {budget} context tokens, the smallest piece takes {needed}")]
    BudgetTooSmall {
        /// Context tokens of the smallest piece.
        needed: u32,
        /// Context tokens that may be spent.
        budget: u32,
    },
    /// What must be kept takes more than the budget by itself.
    #[error(
        "the budget is {budget} context tokens, pinned documents and protected spans take {needed}"
    )]
    PinnedTooLarge {
        /// Context tokens of the pinned documents and protected spans.
        needed: u32,
        /// Context tokens that may be spent.
        budget: u32,
    },
    /// A field of the policy is out of range.
    #[error("{field} {message}")]
    Policy {
        /// Name of the field in [`Policy`](crate::Policy).
        field: &'static str,
        /// What is wrong with it, to be read after the field's name.
        message: String,
    },
    /// A weight or a hint of a document is out of range.
    #[error("document {document:?}: {field}: {message}")]
    Hint {
        /// [`Document::id`](crate::Document::id).
        document: String,
        /// Name of the field in [`Document`](crate::Document).
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The language model could not count a prompt.
    #[error("counting tokens: {message}")]
    Model {
        /// What the model said.
        message: String,
    },
    /// The embedding model failed.
    #[error("embedding: {message}")]
    Embedder {
        /// What the model said.
        message: String,
    },
}
