//! What the caller wants done to the context.

use crate::ContextError;

/// The largest [`Policy::neighbor_window`] taken.
pub const MAX_NEIGHBOR_WINDOW: u32 = 64;

/// How the context is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Not at all: every document stands verbatim in the prompt, or the request fails.
    #[default]
    None,
    /// Sentences are chosen for the question, verbatim, until the budget is spent.
    Retrieve,
}

/// How much context may be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// So many context tokens (see [`LanguageModel::prompt_tokens`](crate::LanguageModel::prompt_tokens)); at least 1.
    Tokens(u32),
    /// This share of the tokens that keeping everything would take, rounded down; above 0, at most 1.
    KeepRatio(f32),
}

/// What the caller wants done to the context.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How.
    pub mode: Mode,
    /// How much may be kept. Not looked at under [`Mode::None`].
    pub budget: Budget,
    /// What sentences are chosen for; must not be blank under [`Mode::Retrieve`].
    pub query: String,
    /// Sentences on either side whose words count, for less, in a sentence's score. `None`: 2; `Some(0)`: the
    /// sentence stands for itself. At most [`MAX_NEIGHBOR_WINDOW`].
    pub neighbor_window: Option<u32>,
    /// At most so many sentences are chosen by score (pinned documents and sentences added so that a
    /// pronoun keeps its antecedent come on top). At least 1. `None`: as many as the budget holds.
    pub top_k: Option<u32>,
    /// Sentences scoring less than this are not chosen; see [`KeptSpan::score`](crate::KeptSpan::score) for the
    /// scale, 0 to 1. `None`: the budget is filled.
    pub min_score: Option<f32>,
}

impl Policy {
    /// Checks every field the mode looks at.
    pub(crate) fn check(&self) -> Result<(), ContextError> {
        if self.mode == Mode::None {
            return Ok(());
        }
        let wrong =
            |field, message: &str| Err(ContextError::Policy { field, message: message.to_owned() });
        if self.query.trim().is_empty() {
            return wrong("query", "must not be blank: retrieval selects for a question");
        }
        match self.budget {
            Budget::Tokens(0) => return wrong("budget", "must be at least 1 token"),
            Budget::KeepRatio(ratio) if !(ratio > 0.0 && ratio <= 1.0) => {
                return wrong("budget", "the ratio to keep must be above 0 and at most 1");
            }
            Budget::Tokens(_) | Budget::KeepRatio(_) => {}
        }
        if self.neighbor_window.is_some_and(|window| window > MAX_NEIGHBOR_WINDOW) {
            return wrong("neighbor_window", "must be at most 64 sentences");
        }
        if self.top_k == Some(0) {
            return wrong("top_k", "must be at least 1");
        }
        if self.min_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
            return wrong("min_score", "must be between 0 and 1");
        }
        Ok(())
    }
}
